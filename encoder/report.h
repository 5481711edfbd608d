/*
 * Reports of a profile as Julia's Profile.print lays them out: a tree, or a flat list of lines.
 *
 * Model:   samples -> lines (function, file, line) -> for each group of threads a tree of lines
 *          with counts. Counts are samples; bytes where the profile measures bytes.
 * Writers: report.c, once for each group.  [normal]
 * Readers: report_tree.c, report_flat.c.
 * Memory:  the job's arena.
 * When full: false; the writer's error is -ENOMEM.
 *
 * Source: the manual of Julia's Profile library, `Profile.print`.
 */
#ifndef PEP_ENCODER_REPORT_H
#define PEP_ENCODER_REPORT_H

#include "encoder/encoders.h"
#include "encoder/intern.h"
#include "encoder/places.h"

/* What a report is made of: exactly one function, file and line, or one address. */
struct pep_report_line {
    const char *function; /* "" unknown; UTF-8, no controls, interned: equal texts are one */
    const char *file;     /* the source, or else the path of the mapping; "" unknown */
    uint32_t line;        /* 0 unknown */
    uintptr_t pc;         /* of its first sample */
    bool is_library;      /* not the program's own code */
    bool is_note;         /* says what is missing, is no code */
    int64_t count;        /* of samples that have it anywhere */
    int64_t overhead;     /* of samples that have it innermost */
    uint32_t mark;        /* the last sample that counted it */
};

struct pep_report_node {
    struct pep_report_line *line;  /* NULL: the root */
    struct pep_report_node *first; /* child, the youngest first */
    struct pep_report_node *next;  /* sibling */
    struct pep_report_node *parent;
    int64_t count, overhead, flat_count;
    uint32_t mark;
    uint32_t child_count;
};

struct pep_report {
    const struct pep_encode_job *job;
    struct pep_report_options options;
    struct pep_places places;
    struct pep_intern texts;
    struct pep_index lines_index;
    struct pep_report_line **lines;
    size_t line_count, line_capacity;
    struct pep_report_node *root;
    uint32_t value;     /* which type is counted */
    int64_t total;      /* snapshots: samples of the group */
    int64_t sleeping;   /* of these, of threads that waited */
    int64_t bytes;      /* where the profile measures bytes */
    int64_t weight;     /* in the profile's default unit */
    bool is_bytes;      /* counts are bytes */
    uint32_t samples;   /* laid down so far: the mark of the last one */
    struct step *steps; /* scratch: one stack, root first */
    size_t step_capacity;
};

/* The digits of a number >= 0, and the characters of a text: a column each. */
int pep_report_digits(int64_t value);
size_t pep_report_width(const char *text);
/* The last (from_end) or first characters of a text that is longer than width, with "..." for the
 * rest. NULL when memory was refused. */
const char *pep_report_cut(struct pep_arena *arena, const char *text, size_t width, bool from_end);
/* Spaces, none for less than 1. */
void pep_report_pad(struct pep_writer *writer, long spaces);
/* By file, function, line; notes last. */
int pep_report_compare_lines(const struct pep_report_line *a, const struct pep_report_line *b);

/* The rows; false when memory was refused. */
bool pep_report_write_tree(struct pep_report *report);
bool pep_report_write_flat(struct pep_report *report);
void pep_report_write_tree_head(struct pep_writer *writer);

#endif
