/*
 * What the parts of the lock profiles share: lock.c (waits, releases, notes), lock_place.c (who
 * waits for which lock), lock_charge.c (rates, cells), lock_clock.c.
 *
 * Model:   a place is (lock, how many wait, sum) where waiters * now - sum is the time that they
 *          have waited since the lock was let go before. Lock and number share a word, so that a
 *          place is free in the same moment in which its last waiter leaves.
 * Writers: the hooks, any thread, concurrently; lock-free.  [hook]
 * Readers: the same.
 * Memory:  static, touched as it is used.
 * When full: PEP_LOCK_NO_PLACE.
 */
#ifndef PEP_SAMPLER_LOCK_INTERNAL_H
#define PEP_SAMPLER_LOCK_INTERNAL_H

#include "sampler/lock.h"
#include "sampler/rt/attrs.h"

#define PEP_LOCK_NO_PLACE UINT32_MAX

/* lock_clock.c: CLOCK_MONOTONIC in ns, by the kernel's own page: no system call where that is so,
 * and none of the libraries that change time. */
PEP_HOOK_SAFE uint64_t pep_lock_now(void);
void pep_lock_clock_init(void);

/* lock_place.c. The number of the place, or PEP_LOCK_NO_PLACE. */
PEP_HOOK_SAFE uint32_t pep_lock_place_join(const void *lock, uint64_t now_ns);
/* Who began to wait then leaves. True when the lock was let go since. */
PEP_HOOK_SAFE bool pep_lock_place_leave(uint32_t place, const void *lock, uint64_t began_ns);
/* What all have waited until now; take: and from now on it counts from 0 again. */
PEP_HOOK_SAFE uint64_t pep_lock_place_sum(const void *lock, uint64_t now_ns);
PEP_HOOK_SAFE uint64_t pep_lock_place_take(const void *lock, uint64_t now_ns);
PEP_HOOK_SAFE void pep_lock_place_give_back(const void *lock, uint64_t waited_ns);
/* Who came to a barrier last, as far as it is known. */
PEP_HOOK_SAFE uint32_t *pep_lock_place_last(uint32_t place);
void pep_lock_places_clear(void);

/* lock_charge.c. What the caller's stack is charged with; is it at all decides the rate. */
PEP_HOOK_SAFE void pep_lock_charge(enum pep_lock_side side, enum pep_lock_kind kind,
                                   uint64_t waited_ns);
/* Makes the cells. False while another thread does, and when memory was refused: so it is called
 * when a wait begins, and what is charged at its end finds them. */
PEP_HOOK_SAFE bool pep_lock_warm_up(void);
extern PEP_HIDDEN uint64_t pep_lock_rate_ns;
const struct pep_cells *pep_lock_cells(enum pep_lock_side side);
void pep_lock_cells_forget(void);

#endif
