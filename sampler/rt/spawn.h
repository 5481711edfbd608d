/*
 * A thread of profep's own.
 *
 * Model:   pthread_create(3) with what all of ours have in common: every signal blocked, a small
 *          stack of one size, so that libc gives each the stack of one that ended.
 * Writers: -
 * Readers: -
 * Memory:  256 KiB of stack, more where the program's thread-local storage needs it.
 * When full: -EAGAIN.
 */
#ifndef PEP_SAMPLER_RT_SPAWN_H
#define PEP_SAMPLER_RT_SPAWN_H

#include <pthread.h>

/* Detached unless joinable is given. 0 or -errno. */
int pep_spawn(void *(*function)(void *), void *argument, pthread_t *joinable);

#endif
