/*
 * Condition variables, of pthread and of C11.
 *
 * Model:   every wait is watched; libc lets the mutex go inside it and takes it back, past our
 *          hooks, so the mutex is let go here for those who wait for it. Cancellation leaves our
 *          frame with the note in it, which goes stale (sampler/lock.h).
 * Writers: any thread.  [hook]
 * Readers: -
 * Memory:  none.
 * When full: sampler/lock.h.
 */
#include <errno.h>

#include "preload/hook_lock.h"

#define real pep_real_lock

struct waiting {
    struct pep_lock_wait wait;
    struct pep_lock_release release; /* of the mutex */
};

PEP_HOOK_SAFE static void begin(struct waiting *waiting, const void *cond, const void *mutex) {
    waiting->wait.began_ns = 0;
    waiting->release.waited_ns = 0;
    if (!pep_hook_lock_is_watched())
        return;
    if (pep_lock_is_waited(mutex))
        pep_lock_release_begin(&waiting->release, mutex, PEP_LOCK_MUTEX);
    pep_lock_wait_begin(&waiting->wait, cond, PEP_LOCK_COND);
}

/* The mutex was let go unless the call failed at once. The walk for that has waited until now: it
 * would have kept the others from it. */
PEP_HOOK_SAFE static void end(struct waiting *waiting, bool was_let_go) {
    pep_lock_wait_end(&waiting->wait);
    pep_lock_release_end(&waiting->release, was_let_go);
}

PEP_HOOK_SAFE static bool has_let_go(int error) {
    return error == 0 || error == ETIMEDOUT || error == EOWNERDEAD || error == ENOTRECOVERABLE;
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex) {
    struct waiting waiting;
    begin(&waiting, cond, mutex);
    int result = real.pthread_cond_wait(cond, mutex);
    end(&waiting, has_let_go(result));
    return result;
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                                    const struct timespec *limit) {
    struct waiting waiting;
    begin(&waiting, cond, mutex);
    int result = real.pthread_cond_timedwait(cond, mutex, limit);
    end(&waiting, has_let_go(result));
    return result;
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                                    clockid_t clock, const struct timespec *limit) {
    struct waiting waiting;
    begin(&waiting, cond, mutex);
    int result = real.pthread_cond_clockwait(cond, mutex, clock, limit);
    end(&waiting, has_let_go(result));
    return result;
}

PEP_HOOK_SAFE PEP_NOINLINE static int signal_slow(pthread_cond_t *cond) {
    return PEP_HOOK_LOCK_RELEASED(PEP_LOCK_COND, cond, real.pthread_cond_signal(cond));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_cond_signal(pthread_cond_t *cond) {
    return pep_lock_is_waited(cond) ? signal_slow(cond) : real.pthread_cond_signal(cond);
}

PEP_HOOK_SAFE PEP_NOINLINE static int broadcast_slow(pthread_cond_t *cond) {
    return PEP_HOOK_LOCK_RELEASED(PEP_LOCK_COND, cond, real.pthread_cond_broadcast(cond));
}

PEP_EXPORT PEP_HOOK_SAFE int pthread_cond_broadcast(pthread_cond_t *cond) {
    return pep_lock_is_waited(cond) ? broadcast_slow(cond) : real.pthread_cond_broadcast(cond);
}

/* -- C11 ------------------------------------------------------------------------------------ */

PEP_EXPORT PEP_HOOK_SAFE int cnd_wait(cnd_t *cond, mtx_t *mutex) {
    struct waiting waiting;
    begin(&waiting, cond, mutex);
    int result = real.cnd_wait(cond, mutex);
    end(&waiting, result == thrd_success);
    return result;
}

PEP_EXPORT PEP_HOOK_SAFE int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex,
                                           const struct timespec *restrict limit) {
    struct waiting waiting;
    begin(&waiting, cond, mutex);
    int result = real.cnd_timedwait(cond, mutex, limit);
    end(&waiting, result == thrd_success || result == thrd_timedout);
    return result;
}

PEP_HOOK_SAFE PEP_NOINLINE static int cnd_signal_slow(cnd_t *cond) {
    return PEP_HOOK_LOCK_RELEASED(PEP_LOCK_COND, cond, real.cnd_signal(cond));
}

PEP_EXPORT PEP_HOOK_SAFE int cnd_signal(cnd_t *cond) {
    return pep_lock_is_waited(cond) ? cnd_signal_slow(cond) : real.cnd_signal(cond);
}

PEP_HOOK_SAFE PEP_NOINLINE static int cnd_broadcast_slow(cnd_t *cond) {
    return PEP_HOOK_LOCK_RELEASED(PEP_LOCK_COND, cond, real.cnd_broadcast(cond));
}

PEP_EXPORT PEP_HOOK_SAFE int cnd_broadcast(cnd_t *cond) {
    return pep_lock_is_waited(cond) ? cnd_broadcast_slow(cond) : real.cnd_broadcast(cond);
}
