/*
 * Semaphores.
 *
 * Model:   looked at, not tried: sem_wait is a cancellation point even when it need not wait, and
 *          sem_trywait is none, and sets errno.
 * Writers: any thread; sem_post also in signal handlers.  [hook]
 * Readers: -
 * Memory:  none.
 * When full: sampler/lock.h.
 */
#include "preload/hook_lock.h"

#define real pep_real_lock
#define WATCHED(semaphore, call) PEP_HOOK_LOCK_WATCHED(PEP_LOCK_SEMAPHORE, semaphore, call)

/* Its value is the first word in every glibc. */
PEP_HOOK_SAFE static inline bool is_free(const sem_t *semaphore) {
    return pep_load_relaxed((const unsigned *)(const void *)semaphore) != 0;
}

PEP_HOOK_SAFE PEP_NOINLINE static int wait_slow(sem_t *semaphore) {
    return WATCHED(semaphore, real.sem_wait(semaphore));
}

PEP_EXPORT PEP_HOOK_SAFE int sem_wait(sem_t *semaphore) {
    return is_free(semaphore) ? real.sem_wait(semaphore) : wait_slow(semaphore);
}

PEP_EXPORT PEP_HOOK_SAFE int sem_timedwait(sem_t *restrict semaphore,
                                           const struct timespec *restrict limit) {
    if (is_free(semaphore))
        return real.sem_timedwait(semaphore, limit);
    return WATCHED(semaphore, real.sem_timedwait(semaphore, limit));
}

PEP_EXPORT PEP_HOOK_SAFE int sem_clockwait(sem_t *restrict semaphore, clockid_t clock,
                                           const struct timespec *restrict limit) {
    if (is_free(semaphore))
        return real.sem_clockwait(semaphore, clock, limit);
    return WATCHED(semaphore, real.sem_clockwait(semaphore, clock, limit));
}

PEP_HOOK_SAFE PEP_NOINLINE static int post_slow(sem_t *semaphore) {
    return PEP_HOOK_LOCK_RELEASED(PEP_LOCK_SEMAPHORE, semaphore, real.sem_post(semaphore));
}

PEP_EXPORT PEP_HOOK_SAFE int sem_post(sem_t *semaphore) {
    return pep_lock_is_waited(semaphore) ? post_slow(semaphore) : real.sem_post(semaphore);
}
