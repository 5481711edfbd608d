/*
 * The formats: (profile, symbolizer, writer) -> bytes.
 *
 * Model:   pure functions, one file a format. No HTTP, no threads, no signals, no global state.
 * Writers: the writer that is passed in; look at its error afterwards.  [normal]
 * Readers: -
 * Memory:  the arena passed in, for the caller to drop.
 * When full: the writer's error is -ENOMEM.
 */
#ifndef PEP_ENCODER_ENCODERS_H
#define PEP_ENCODER_ENCODERS_H

#include "encoder/symbolize.h"
#include "encoder/writer.h"
#include "sampler/profile.h"

enum pep_report_sort {
    PEP_REPORT_BY_LINE = 0, /* file, function, line */
    PEP_REPORT_BY_COUNT,
    PEP_REPORT_BY_OVERHEAD,
    PEP_REPORT_BY_FLAT_COUNT /* tree only */
};
enum pep_report_recursion {
    PEP_REPORT_RECUR_OFF = 0,
    PEP_REPORT_RECUR_FLAT, /* an address that is on the stack already goes back there */
    PEP_REPORT_RECUR_FLATC /* frames of libraries too */
};

/* How the reports tree and flat are printed; zeros are the defaults. */
struct pep_report_options {
    bool is_by_address; /* addresses of one line stay apart (combine=false) */
    bool has_libraries; /* frames of libraries are shown too (C=true) */
    bool is_by_thread;  /* a report for each thread (groupby=thread) */
    uint32_t max_depth; /* 0: no limit; levels of a tree */
    uint32_t columns;   /* of the terminal; 0: 80 */
    int64_t min_count;
    double noise_floor; /* hides what has less than that many times the root of its parent */
    enum pep_report_sort sort;
    enum pep_report_recursion recursion;
    const int *tids; /* only these threads; NULL: all */
    uint32_t tid_count;
};

struct pep_encode_job {
    const struct pep_profile *profile;
    struct pep_symbolizer *symbolizer;
    struct pep_writer *writer;
    struct pep_arena *arena;
    const char *title; /* what a page shows on top, e.g. "redis-server 4711: CPU, 5 s at 100 Hz" */
    const struct pep_report_options *report; /* of tree and flat; NULL: the defaults */
};

/* profile.proto, NOT yet compressed (put a gzip writer in front). At most 16,000 samples and 4 MiB:
 * the lightest stacks beyond that are one sample "[other]", told in a comment. */
void pep_encode_pprof(const struct pep_encode_job *job);
/* "thread (tid);root;...;leaf weight" lines; names' ';' and newlines replaced. The weight is the
 * default value, in its unit. */
void pep_encode_collapsed(const struct pep_encode_job *job);
/* A table like `top`: flat, flat%, sum%, cum, cum%, function; header with totals and comments. */
void pep_encode_text(const struct pep_encode_job *job);
/* A heap profile with values as sampled (types inuse_objects, inuse_space, alloc_objects,
 * alloc_space, any of them) as `go tool pprof`, the perl pprof and people read it; comments and
 * mappings at the end. */
void pep_encode_legacy(const struct pep_encode_job *job);
/* Waiting (types contentions and delay; kind "mutex", else block) as the same readers know it. */
void pep_encode_contention(const struct pep_encode_job *job);
/* A profile that counts (one type; kind "goroutine" or "threadcreate") as Go prints it. */
void pep_encode_count(const struct pep_encode_job *job);
/* Julia's reports: who called whom, indented; and a list of lines. */
void pep_encode_tree(const struct pep_encode_job *job);
void pep_encode_flat(const struct pep_encode_job *job);
/* JSON lines: a header, then one object a sample, addresses with mapping, offset and names. */
void pep_encode_samples(const struct pep_encode_job *job);
/* The interactive page, one self-contained HTML document. */
void pep_encode_flame_html(const struct pep_encode_job *job);
/* A static SVG of the same graph. */
void pep_encode_flame_svg(const struct pep_encode_job *job);

#endif
