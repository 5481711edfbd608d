/*
 * Puts pointers in order.
 *
 * Model:   a stable merge sort: equal ones keep their order, so output is the same every time.
 *          libc's qsort asks the host's malloc for memory and is no choice here.
 * Writers: one encoder.  [normal]
 * Readers: the same.
 * Memory:  as many pointers again from the arena.
 * When full: false; the order is as it was.
 */
#ifndef PEP_ENCODER_SORT_H
#define PEP_ENCODER_SORT_H

#include <stdbool.h>
#include <stddef.h>

#include "sampler/rt/arena.h"

/* compare is negative when a comes first. */
bool pep_sort(struct pep_arena *arena, const void **items, size_t count,
              int (*compare)(const void *a, const void *b));

#endif
