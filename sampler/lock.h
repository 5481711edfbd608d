/*
 * Waiting for each other: the waiter's stack (block) and the stack of who let go (mutex).
 *
 * Model:   hooks try first; only a try that fails comes here. A waiter notes lock and time, makes
 *          the real call, then charges its wait to its own stack. While anybody waits for a lock,
 *          whoever lets it go is charged, at its own stack, the time that all of them waited since
 *          it was let go before. Nothing but the slot's note survives a real call, and that is
 *          checked by who reads it: a siglongjmp out of the call may leave it behind.
 * Writers: the hooks, any thread, concurrently; lock-free.  [hook]
 * Readers: the dump (who waits for what); http's windows.   [normal]
 * Memory:  two sets of cells, made by the first event; a fixed table of places for locks that are
 *          waited for now; two notes a thread.
 * When full: lock_places_full: the wait is in block, not in mutex.
 */
#ifndef PEP_SAMPLER_LOCK_H
#define PEP_SAMPLER_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/profile.h"
#include "sampler/profile_cells.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"

enum pep_lock_kind {
    PEP_LOCK_NONE = 0,
    PEP_LOCK_MUTEX,
    PEP_LOCK_RWLOCK,
    PEP_LOCK_COND,
    PEP_LOCK_SEMAPHORE,
    PEP_LOCK_BARRIER,
    PEP_LOCK_JOIN,
    PEP_LOCK_SPIN,
    PEP_LOCK_FUTEX,
    PEP_LOCK_KINDS
};
/* "mutex", "condition variable" ...; NULL for NONE and unknown. */
const char *pep_lock_kind_name(uint16_t kind);

#define PEP_LOCK_RATE_MAX 1000000000000ll /* ns */

/* rate_ns: waits at least that long are all recorded, shorter ones with the probability wait /
 * rate and scaled up (as Go's SetBlockProfileRate(3)); 1: every one; 0: none. Idempotent. 0 or
 * -errno. */
int pep_lock_init(uint64_t rate_ns);
/* While a window of its own rate is open the finest of all counts. Each begin that gave 0 needs one
 * end. 0, -EINVAL for rate 0, -EBUSY when too many are open. */
int pep_lock_begin(uint64_t rate_ns);
void pep_lock_end(uint64_t rate_ns);
/* The rate in force; 0: nothing is recorded. */
uint64_t pep_lock_rate(void);

/* -- the hooks ------------------------------------------------------------------------------ */

/* Stack-local state of one wait; its address is the note's frame. */
struct pep_lock_wait {
    uint64_t began_ns; /* 0: not recorded */
    const void *lock;
    enum pep_lock_kind kind;
    /* private */
    struct pep_lock_slot *note;
    uint32_t thread; /* number of the slot + 1; of who waits at a barrier */
    uint64_t others_ns;
};
/* Around the real call that may wait. errno is kept. */
PEP_HOOK_SAFE void pep_lock_wait_begin(struct pep_lock_wait *wait, const void *lock,
                                       enum pep_lock_kind kind);
PEP_HOOK_SAFE void pep_lock_wait_end(struct pep_lock_wait *wait);

#define PEP_LOCK_PLACES_LOG2 12
#define PEP_LOCK_PLACES (1u << PEP_LOCK_PLACES_LOG2)
/* Who waits, by the hash of the lock. */
extern PEP_HIDDEN uint16_t pep_lock_waiting[PEP_LOCK_PLACES];

static inline uint32_t pep_lock_hash(const void *lock) {
    return (uint32_t)((uintptr_t)lock * UINT64_C(0x9e3779b97f4a7c15) >>
                      (64 - PEP_LOCK_PLACES_LOG2));
}
/* Before a lock is let go: false when surely nobody waits for it. One load. */
static inline bool pep_lock_is_waited(const void *lock) {
    return pep_unlikely(pep_load_relaxed(&pep_lock_waiting[pep_lock_hash(lock)]) != 0);
}

struct pep_lock_release {
    const void *lock;
    enum pep_lock_kind kind;
    uint64_t waited_ns; /* by all who wait, since the lock was let go before; 0: nobody waits */
};
/* Around the real call that lets go. Before it only the sum is taken; the stack is walked after
 * it, when others may go on already. is_done false: it failed, the sum is given back. */
PEP_HOOK_SAFE void pep_lock_release_begin(struct pep_lock_release *release, const void *lock,
                                          enum pep_lock_kind kind);
PEP_HOOK_SAFE void pep_lock_release_end(const struct pep_lock_release *release, bool is_done);

/* A thread ends: what it left behind by longjmp or by cancellation is taken away. */
struct pep_thread;
PEP_HOOK_SAFE void pep_lock_thread_leave(struct pep_thread *thread);
/* In a forked child nobody waits. */
void pep_lock_after_fork_child(void);

/* -- reading -------------------------------------------------------------------------------- */

/* What a thread waits for by its own note, if that note is not stale. False: nothing known. */
struct pep_lock_note {
    const void *lock;
    enum pep_lock_kind kind;
    uint64_t since_ns; /* CLOCK_MONOTONIC */
    uintptr_t frame;   /* of the hook: stale when the thread's SP is above */
};
bool pep_lock_note_of(int tid, struct pep_lock_note *note);
/* Who holds a lock, as far as it tells: tid, or 0. Reads so that it cannot fault. */
int pep_lock_owner(const void *lock, enum pep_lock_kind kind);

enum pep_lock_side { PEP_LOCK_BLOCK = 0, PEP_LOCK_HOLD };
struct pep_cells_snapshot *pep_lock_snapshot_take(struct pep_arena *arena, enum pep_lock_side side);
/* contentions/count and delay/nanoseconds; kind "block" or "mutex"; label state is the kind of
 * lock. before NULL: since the start. NULL when memory was refused. */
struct pep_profile *pep_profile_lock(struct pep_arena *arena, enum pep_lock_side side,
                                     const struct pep_cells_snapshot *before,
                                     const struct pep_profile_filter *filter);

#endif
