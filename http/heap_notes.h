/*
 * What a reader of a heap profile should know about this answer.
 *
 * Model:   sentences behind those that the sampler put into the profile's comments (rate, reach,
 *          coverage, losses): what was asked first, how to read a difference, and for the text the
 *          process's memory as the kernel tells it.
 * Writers: the connection's thread.  [normal]
 * Readers: the encoders.
 * Memory:  the request's arena.
 * When full: a sentence is missing.
 */
#ifndef PEP_HTTP_HEAP_NOTES_H
#define PEP_HTTP_HEAP_NOTES_H

#include <stdbool.h>

#include "sampler/heap.h"

struct pep_heap_notes {
    struct pep_arena *arena;
    struct pep_profile *profile; /* gets the comments */
    bool has_trimmed;            /* malloc_trim was called first */
    bool is_trim_refused;        /* another call of it has not come back */
    bool has_memory;             /* add the process's memory as "Name = bytes" */
    double probability;          /* with which the window recorded each allocation; 0: did not */
};

void pep_heap_notes_add(const struct pep_heap_notes *notes);

#endif
