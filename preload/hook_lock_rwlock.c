/*
 * Read-write locks.
 *
 * Model:   tried first; EBUSY goes to the real call, which waits, or says EDEADLK. Those with a
 *          limit are tried only after they were looked at: what a wrong time gives depends on
 *          whether the lock is free.
 * Writers: any thread.  [hook]
 * Readers: -
 * Memory:  none.
 * When full: sampler/lock.h.
 */
#include <errno.h>

#include "preload/hook_lock.h"

#define real pep_real_lock
#define WATCHED(lock, call) PEP_HOOK_LOCK_WATCHED(PEP_LOCK_RWLOCK, lock, call)

PEP_HOOK_SAFE PEP_NOINLINE static int rdlock_slow(pthread_rwlock_t *lock) {
    return WATCHED(lock, real.pthread_rwlock_rdlock(lock));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_rwlock_rdlock(pthread_rwlock_t *lock) {
    int result = real.pthread_rwlock_tryrdlock(lock);
    return result != EBUSY ? result : rdlock_slow(lock);
}

PEP_HOOK_SAFE PEP_NOINLINE static int wrlock_slow(pthread_rwlock_t *lock) {
    return WATCHED(lock, real.pthread_rwlock_wrlock(lock));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_rwlock_wrlock(pthread_rwlock_t *lock) {
    int result = real.pthread_rwlock_trywrlock(lock);
    return result != EBUSY ? result : wrlock_slow(lock);
}

/* Nobody has it: in every glibc since 2.25 this word, and before it another that is as good a
 * guess, is 0. Wrong, a wait is not seen, or a call that does not wait is watched. */
PEP_HOOK_SAFE static inline bool is_free(const pthread_rwlock_t *lock) {
    return pep_load_relaxed(&lock->__data.__readers) == 0;
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_rwlock_timedrdlock(pthread_rwlock_t *lock,
                                                        const struct timespec *limit) {
    if (is_free(lock))
        return real.pthread_rwlock_timedrdlock(lock, limit);
    return WATCHED(lock, real.pthread_rwlock_timedrdlock(lock, limit));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_rwlock_timedwrlock(pthread_rwlock_t *lock,
                                                        const struct timespec *limit) {
    if (is_free(lock))
        return real.pthread_rwlock_timedwrlock(lock, limit);
    return WATCHED(lock, real.pthread_rwlock_timedwrlock(lock, limit));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_rwlock_clockrdlock(pthread_rwlock_t *lock, clockid_t clock,
                                                        const struct timespec *limit) {
    if (is_free(lock))
        return real.pthread_rwlock_clockrdlock(lock, clock, limit);
    return WATCHED(lock, real.pthread_rwlock_clockrdlock(lock, clock, limit));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_rwlock_clockwrlock(pthread_rwlock_t *lock, clockid_t clock,
                                                        const struct timespec *limit) {
    if (is_free(lock))
        return real.pthread_rwlock_clockwrlock(lock, clock, limit);
    return WATCHED(lock, real.pthread_rwlock_clockwrlock(lock, clock, limit));
}

PEP_HOOK_SAFE PEP_NOINLINE static int unlock_slow(pthread_rwlock_t *lock) {
    return PEP_HOOK_LOCK_RELEASED(PEP_LOCK_RWLOCK, lock, real.pthread_rwlock_unlock(lock));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_rwlock_unlock(pthread_rwlock_t *lock) {
    return pep_lock_is_waited(lock) ? unlock_slow(lock) : real.pthread_rwlock_unlock(lock);
}
