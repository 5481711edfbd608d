/*
 * Who called a function: Julia's Profile.callers.
 *
 * Model:   each sample that has the function counts its caller once for every place where it
 *          stands; inlined functions are called like others. Callers are lines of code.
 * Writers: pep_callers_find.  [normal]
 * Readers: whoever prints them.
 * Memory:  the job's arena.
 * When full: false.
 */
#ifndef PEP_ENCODER_CALLERS_H
#define PEP_ENCODER_CALLERS_H

#include "encoder/encoders.h"

struct pep_callers_query {
    const char *function;           /* the whole name, or what follows its last "::" */
    const char *file;               /* of the function: the path or the end of it; NULL: any */
    uint32_t first_line, last_line; /* of the function; 0, 0: any */
};

struct pep_caller {
    const char *function, *file; /* "" unknown */
    uint32_t line;               /* 0 unknown */
    int64_t count;
};

struct pep_callers {
    struct pep_caller **items; /* the most frequent first */
    size_t count, capacity;
    int64_t total;    /* samples that have the function */
    int64_t rootless; /* places where nothing called it */
};

/* job's writer is not used. False: memory was refused. */
bool pep_callers_find(struct pep_callers *callers, const struct pep_encode_job *job,
                      const struct pep_callers_query *query);
/* Text, a line a caller, or a JSON array of objects. */
void pep_callers_write_text(struct pep_writer *writer, const struct pep_callers *callers);
void pep_callers_write_json(struct pep_writer *writer, const struct pep_callers *callers);

#endif
