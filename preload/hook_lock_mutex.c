/*
 * Mutexes, of pthread and of C11.
 *
 * Model:   plain, recursive, error-checking and adaptive ones are tried; what trylock gives other
 *          than EBUSY is what lock would have given. Robust, priority-inheriting and -protecting
 *          ones are looked at instead: there trylock has effects and results of its own (glibc's
 *          lets the owner of a PI mutex have it twice).
 * Writers: any thread.  [hook]
 * Readers: -
 * Memory:  none.
 * When full: sampler/lock.h.
 */
#include <errno.h>

#include "preload/hook_lock.h"

#define real pep_real_lock
#define WATCHED(mutex, call) PEP_HOOK_LOCK_WATCHED(PEP_LOCK_MUTEX, mutex, call)
#define ODD (16 | 32 | 64) /* robust, inheriting, protecting: bits of __kind in every glibc */

PEP_HOOK_SAFE static inline bool is_plain(const pthread_mutex_t *mutex) {
    return pep_likely((mutex->__data.__kind & ODD) == 0);
}

/* True when it is ours now or lock fails at once: *result is what lock gives. False: lock may
 * wait. */
PEP_HOOK_SAFE static inline bool is_settled(pthread_mutex_t *mutex, int *result) {
    if (is_plain(mutex))
        return (*result = real.pthread_mutex_trylock(mutex)) != EBUSY;
    if (pep_hook_lock_has_owner(mutex))
        return false;
    *result = real.pthread_mutex_lock(mutex);
    return true;
}

PEP_HOOK_SAFE PEP_NOINLINE static int lock_slow(pthread_mutex_t *mutex) {
    return WATCHED(mutex, real.pthread_mutex_lock(mutex));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_mutex_lock(pthread_mutex_t *mutex) {
    int result;
    return is_settled(mutex, &result) ? result : lock_slow(mutex);
}

/* Tried only where it is plain: the time may be wrong, and then what the call gives depends on who
 * has the mutex. */
PEP_EXPORT PEP_HOOK_SAFE int pthread_mutex_timedlock(pthread_mutex_t *mutex,
                                                     const struct timespec *limit) {
    if (!pep_hook_lock_has_owner(mutex))
        return real.pthread_mutex_timedlock(mutex, limit);
    return WATCHED(mutex, real.pthread_mutex_timedlock(mutex, limit));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock,
                                                     const struct timespec *limit) {
    if (!pep_hook_lock_has_owner(mutex))
        return real.pthread_mutex_clocklock(mutex, clock, limit);
    return WATCHED(mutex, real.pthread_mutex_clocklock(mutex, clock, limit));
}

PEP_HOOK_SAFE PEP_NOINLINE static int unlock_slow(pthread_mutex_t *mutex) {
    return PEP_HOOK_LOCK_RELEASED(PEP_LOCK_MUTEX, mutex, real.pthread_mutex_unlock(mutex));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_mutex_unlock(pthread_mutex_t *mutex) {
    return pep_lock_is_waited(mutex) ? unlock_slow(mutex) : real.pthread_mutex_unlock(mutex);
}

/* -- C11 ------------------------------------------------------------------------------------ */

/* libc's mtx_t is a mutex of the plain kinds. */
PEP_HOOK_SAFE static inline const pthread_mutex_t *inside(const mtx_t *mutex) {
    return (const pthread_mutex_t *)(const void *)mutex;
}

PEP_HOOK_SAFE PEP_NOINLINE static int mtx_lock_slow(mtx_t *mutex) {
    return WATCHED(mutex, real.mtx_lock(mutex));
}

PEP_EXPORT PEP_HOOK_SAFE int mtx_lock(mtx_t *mutex) {
    int result = real.mtx_trylock(mutex);
    return result != thrd_busy ? result : mtx_lock_slow(mutex);
}

PEP_EXPORT PEP_HOOK_SAFE int mtx_timedlock(mtx_t *restrict mutex,
                                           const struct timespec *restrict limit) {
    if (!pep_hook_lock_has_owner(inside(mutex)))
        return real.mtx_timedlock(mutex, limit);
    return WATCHED(mutex, real.mtx_timedlock(mutex, limit));
}

PEP_HOOK_SAFE PEP_NOINLINE static int mtx_unlock_slow(mtx_t *mutex) {
    return PEP_HOOK_LOCK_RELEASED(PEP_LOCK_MUTEX, mutex, real.mtx_unlock(mutex));
}

PEP_EXPORT PEP_HOOK_SAFE int mtx_unlock(mtx_t *mutex) {
    return pep_lock_is_waited(mutex) ? mtx_unlock_slow(mutex) : real.mtx_unlock(mutex);
}
