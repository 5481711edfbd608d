/*
 * What the hooks of the malloc family do on the fast way: a subtraction and a byte.
 *
 * Model:   a thread's countdown is lowered by every allocation, before the real malloc. While it
 *          stays at or above the floor, nothing else happens but the byte in the live map. Below
 *          the floor the slow way decides. Threads that were never here, profep's own, and all
 *          threads while everything is recorded, are below it always.
 * Writers: the thread itself; the floor by windows.  [hook]
 * Readers: the hooks.
 * Memory:  static, and thread-local.
 * When full: see heap.h.
 */
#ifndef PEP_SAMPLER_HEAP_HOOK_H
#define PEP_SAMPLER_HEAP_HOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/live_map.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"
#include "sampler/unwind.h"

struct pep_heap_thread {
    int64_t countdown; /* bytes left of this step */
    int64_t beyond;    /* bytes to the next sample that lie after this step */
    uint64_t rng;      /* 0: never seeded */
    struct pep_stack_range stack;
    float probability;
    uint32_t rate_bytes;               /* in force when the countdown was drawn */
    uint32_t epoch;                    /* of the settings; 0: nothing drawn yet */
    uint32_t identity;                 /* 0: not known yet */
    struct pep_heap_trace_set *traces; /* while everything is recorded; NULL: none */
    uintptr_t way;                     /* which hook it was, by its address */
    /* Where the stack was when this thread began to record; 0: it does not. A signal handler may
     * allocate meanwhile, or leave by longjmp. */
    uintptr_t busy_sp;
    void *scratch; /* held meanwhile */
};

extern PEP_HIDDEN PEP_TLS struct pep_heap_thread pep_heap_thread;
/* 0, or INT64_MAX while every allocation takes the slow way. */
extern PEP_HIDDEN int64_t pep_heap_floor;

/* Where the real malloc puts blocks 8 bytes apart, those below this size take the slow way: two may
 * share a byte of the map. Else 0. Set once. */
extern PEP_HIDDEN size_t pep_heap_small;

/* Every allocation, before the real call. True: take the slow way after it, or give the bytes back
 * when it failed. */
static inline bool pep_heap_take(size_t size_bytes) {
    bool is_odd = (int64_t)(size_bytes - pep_heap_small) < 0;
    if (pep_unlikely(is_odd) && size_bytes > PTRDIFF_MAX) /* fails */
        return false;
    int64_t left = (int64_t)((uint64_t)pep_heap_thread.countdown - size_bytes);
    pep_heap_thread.countdown = left;
    return pep_unlikely(left < pep_load_relaxed(&pep_heap_floor) || is_odd);
}
static inline void pep_heap_give_back(size_t size_bytes) {
    if (size_bytes <= PTRDIFF_MAX)
        pep_heap_thread.countdown =
            (int64_t)((uint64_t)pep_heap_thread.countdown + (uint64_t)size_bytes);
}

/* The slow way, after the real call succeeded: decides, records, writes the live map. */
PEP_HOOK_SAFE void pep_heap_allocated(uintptr_t block, size_t size_bytes);

/* A sampled block or one of our own, taken out because it is about to be freed. */
struct pep_heap_taken {
    enum pep_live what; /* PEP_LIVE_NOTHING: neither */
    uint32_t cell;
    float weight;
    uint32_t time_ms;
    uint64_t size_bytes;
};
/* Before the real free or realloc, when the block's byte says that there is something to notice. */
PEP_HOOK_SAFE struct pep_heap_taken pep_heap_take_out(uintptr_t block);
/* The realloc failed, so the block lives on. */
PEP_HOOK_SAFE void pep_heap_put_back(uintptr_t block, const struct pep_heap_taken *taken);
/* It is gone. */
PEP_HOOK_SAFE void pep_heap_freed(const struct pep_heap_taken *taken);

/* Remembers a block of our own allocator that libc may hand to anybody's free; false when it
 * cannot be remembered. */
PEP_HOOK_SAFE bool pep_heap_keep_own(uintptr_t block);
PEP_HOOK_SAFE bool pep_heap_is_own(uintptr_t block);
/* The calling thread is profep's: its allocations always take the slow way. */
void pep_heap_thread_become_own(void);

#endif
