/*
 * What the hooks of locks share.
 *
 * Model:   try, or look; only what would wait is watched, around the real call. Nothing of ours is
 *          held or set meanwhile but a note that goes stale by itself, so cancellation, longjmp and
 *          exceptions may leave our frames at any point. Results and errno are the real call's.
 * Writers: -
 * Readers: hook_lock_*.c.  [hook]
 * Memory:  none.
 * When full: sampler/lock.h.
 */
#ifndef PEP_PRELOAD_HOOK_LOCK_H
#define PEP_PRELOAD_HOOK_LOCK_H

#include "preload/init.h"
#include "preload/real_lock.h"
#include "sampler/lock.h"
#include "sampler/thread.h"

#define PEP_NOINLINE __attribute__((noinline))

static inline bool pep_hook_lock_is_watched(void) {
    return pep_init_is_awake() && !pep_thread_is_own() && !pep_init_is_starting_own();
}

/* Around a call that lets go, when pep_lock_is_waited. */
static inline void pep_hook_lock_release(struct pep_lock_release *release, const void *lock,
                                         enum pep_lock_kind kind) {
    release->waited_ns = 0;
    if (pep_hook_lock_is_watched())
        pep_lock_release_begin(release, lock, kind);
}

/* WATCHED(kind, lock, call): the call, watched; its result. */
#define PEP_HOOK_LOCK_WATCHED(kind, lock, call) \
    __extension__({ \
        struct pep_lock_wait wait_ = {.began_ns = 0}; \
        if (pep_hook_lock_is_watched()) \
            pep_lock_wait_begin(&wait_, (lock), (kind)); \
        int result_ = (call); \
        pep_lock_wait_end(&wait_); \
        result_; \
    })
/* The same for a call that lets go; 0 is success. */
#define PEP_HOOK_LOCK_RELEASED(kind, lock, call) \
    __extension__({ \
        struct pep_lock_release release_; \
        pep_hook_lock_release(&release_, (lock), (kind)); \
        int result_ = (call); \
        pep_lock_release_end(&release_, result_ == 0); \
        result_; \
    })

/* hook_lock_mutex.c: mutexes, of C11 too. True when somebody seems to have it, so that lock would
 * have to wait, or fail. */
static inline bool pep_hook_lock_has_owner(const pthread_mutex_t *mutex) {
    return pep_load_relaxed(&mutex->__data.__lock) != 0;
}

#endif
