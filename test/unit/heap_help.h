/*
 * What the tests of the heap sampler share: allocations of blocks that do not exist, seen as the
 * hooks see real ones, and the sums of a profile.
 *
 * Model:   plain helpers; an address is only a number here.
 * Writers: the tests.
 * Readers: -
 * Memory:  static.
 * When full: -
 */
#ifndef PEP_TEST_HEAP_HELP_H
#define PEP_TEST_HEAP_HELP_H

#include <stddef.h>
#include <stdint.h>

#include "sampler/heap.h"

/* The hooks' way through malloc and free. */
void help_allocate(uintptr_t block, size_t size_bytes);
void help_free(uintptr_t block);

struct help_sums {
    int64_t values[4];
    uint32_t samples;
};
/* All samples of a profile since the start, added up. */
struct help_sums help_sum(enum pep_heap_view view, int is_raw);

/* 64 bytes to 64 MiB, every power of two as likely. */
size_t help_mixed_size(uint64_t *state);
uint64_t help_random(uint64_t *state);

#endif
