/*
 * Barriers, spinlocks, and waiting for the end of a thread.
 *
 * Model:   at a barrier who comes last lets the others go. A thread's end is waited for, and
 *          nobody lets it go.
 * Writers: any thread.  [hook]
 * Readers: -
 * Memory:  none.
 * When full: sampler/lock.h.
 */
#include <errno.h>

#include "preload/hook_lock.h"

#define real pep_real_lock
#define JOINED(thread, call) PEP_HOOK_LOCK_WATCHED(PEP_LOCK_JOIN, (const void *)(thread), call)

PEP_EXPORT PEP_HOOK_SAFE int pthread_barrier_wait(pthread_barrier_t *barrier) {
    return PEP_HOOK_LOCK_WATCHED(PEP_LOCK_BARRIER, barrier, real.pthread_barrier_wait(barrier));
}

/* -- spinlocks ------------------------------------------------------------------------------ */

PEP_HOOK_SAFE PEP_NOINLINE static int spin_slow(pthread_spinlock_t *lock) {
    return PEP_HOOK_LOCK_WATCHED(PEP_LOCK_SPIN, (const void *)lock, real.pthread_spin_lock(lock));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_spin_lock(pthread_spinlock_t *lock) {
    int result = real.pthread_spin_trylock(lock);
    return result != EBUSY ? result : spin_slow(lock);
}

PEP_HOOK_SAFE PEP_NOINLINE static int spin_unlock_slow(pthread_spinlock_t *lock) {
    return PEP_HOOK_LOCK_RELEASED(PEP_LOCK_SPIN, (const void *)lock,
                                  real.pthread_spin_unlock(lock));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_spin_unlock(pthread_spinlock_t *lock) {
    return pep_lock_is_waited((const void *)lock) ? spin_unlock_slow(lock)
                                                  : real.pthread_spin_unlock(lock);
}

/* -- ends of threads ------------------------------------------------------------------------ */

PEP_EXPORT PEP_HOOK_SAFE int pthread_join(pthread_t thread, void **result) {
    return JOINED(thread, real.pthread_join(thread, result));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_timedjoin_np(pthread_t thread, void **result,
                                                  const struct timespec *limit) {
    return JOINED(thread, real.pthread_timedjoin_np(thread, result, limit));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock,
                                                  const struct timespec *limit) {
    return JOINED(thread, real.pthread_clockjoin_np(thread, result, clock, limit));
}

PEP_EXPORT PEP_HOOK_SAFE int thrd_join(thrd_t thread, int *result) {
    return JOINED(thread, real.thrd_join(thread, result));
}
