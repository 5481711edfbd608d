/*
 * The little mathematics of a Poisson process, without libm.
 *
 * Model:   pure functions; relative error below 1e-7 everywhere.
 * Writers: -
 * Readers: the slow way of the malloc hooks.  [hook]
 * Memory:  none.
 * When full: -
 */
#ifndef PEP_SAMPLER_HEAP_MATH_H
#define PEP_SAMPLER_HEAP_MATH_H

#include <stdint.h>

#include "sampler/rt/attrs.h"

/* The natural logarithm of a positive, normal number. */
PEP_HOOK_SAFE double pep_heap_log(double x);
/* 1 - exp(-x) for x >= 0. */
PEP_HOOK_SAFE double pep_heap_likelihood(double x);
/* The next number in (0, 1] of a generator whose state is not 0. */
PEP_HOOK_SAFE double pep_heap_uniform(uint64_t *state);

#endif
