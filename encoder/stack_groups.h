/*
 * Samples that have the same stack and the same state, together.
 *
 * Model:   a group is an array of samples in the profile's order; groups are in order of weight,
 *          the heaviest first, equal ones by their addresses, so output is the same every time.
 *          Samples whose value is not above 0 are in none.
 * Writers: pep_stack_groups_make.  [normal]
 * Readers: the texts and the page of threads.
 * Memory:  the caller's arena.
 * When full: false.
 */
#ifndef PEP_ENCODER_STACK_GROUPS_H
#define PEP_ENCODER_STACK_GROUPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/profile.h"
#include "sampler/rt/arena.h"

struct pep_stack_group {
    uint32_t *members; /* indices of samples */
    size_t count, capacity;
    int64_t total; /* of the profile's default value */
    const struct pep_sample *first;
};

struct pep_stack_groups {
    struct pep_stack_group **items;
    size_t count, capacity;
    int64_t total;
};

bool pep_stack_groups_make(struct pep_stack_groups *groups, struct pep_arena *arena,
                           const struct pep_profile *profile);

#endif
