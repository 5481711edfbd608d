/*
 * Every live block of the host's malloc, one byte each.
 *
 * Model:   a byte for 16 bytes of heap: 0 nothing starts here, PEP_LIVE_BLOCK a block,
 *          PEP_LIVE_SAMPLED a block whose stack is known, PEP_LIVE_OWN one of profep's own. A
 *          plain store each way. A directory (one entry for 8 MiB of address space) says how far
 *          from a block's number its byte lies, in one reservation of the map's bound: so the way
 *          to the byte is two shifts, a load and an addition.
 * Writers: hooks of the malloc family: set after the real malloc, cleared before the real free.
 *          [hook]
 * Readers: free (was it sampled?), the heap snapshot, the leak search.
 * Memory:  a reservation of live_map_bytes and a 128-MiB directory, both touched as they fill.
 * When full: blocks in further 8-MiB stretches are not covered; counted live_map_full and told. No
 *          map at all where it would take more than a sixteenth of a limited address space.
 *
 * Blocks that have no byte of their own (no map, or not covered) and that a free must notice all
 * the same, sampled and own ones, are counted in a filter: a byte for all addresses that are equal
 * modulo 4 MiB. There 0 says "nothing to notice", and anything else "look it up".
 */
#ifndef PEP_SAMPLER_LIVE_MAP_H
#define PEP_SAMPLER_LIVE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"

enum pep_live { PEP_LIVE_NOTHING = 0, PEP_LIVE_BLOCK = 1, PEP_LIVE_SAMPLED = 2, PEP_LIVE_OWN = 3 };

#define PEP_LIVE_ADDRESS_LOG2 47
#define PEP_LIVE_STRETCH_LOG2 23 /* bytes of heap that one directory entry speaks of */
#define PEP_LIVE_STRETCHES (1u << (PEP_LIVE_ADDRESS_LOG2 - PEP_LIVE_STRETCH_LOG2))
#define PEP_LIVE_CHUNK_LOG2 (PEP_LIVE_STRETCH_LOG2 - 4)
#define PEP_LIVE_CHUNK_BYTES (1u << PEP_LIVE_CHUNK_LOG2)
#define PEP_LIVE_FILTER_BYTES (1u << 18)

/* By stretch: its chunk's address less the number of the stretch's first block; 0: not covered.
 * NULL: there is no map. Set once. */
extern PEP_HIDDEN uintptr_t *pep_live_directory;
extern PEP_HIDDEN uint8_t pep_live_filter[PEP_LIVE_FILTER_BYTES];

/* 0 or -errno: then there is no map and every call answers PEP_LIVE_NOTHING. */
int pep_live_map_init(uint64_t bound_bytes);
/* Blocks inside [from, from + size) are nobody's business but the hook's: a free always notices
 * them. Before init; once. */
void pep_live_map_reserve(uintptr_t from, size_t size_bytes);

/* Addresses are taken modulo 2^47: what lies above, with larger page tables, may share a byte. */
static inline uintptr_t pep_live_map_stretch(uintptr_t block) {
    return block << (64 - PEP_LIVE_ADDRESS_LOG2) >>
           (64 - PEP_LIVE_ADDRESS_LOG2 + PEP_LIVE_STRETCH_LOG2);
}
static inline uintptr_t pep_live_map_number(uintptr_t block) {
    return block << (64 - PEP_LIVE_ADDRESS_LOG2) >> (64 - PEP_LIVE_ADDRESS_LOG2 + 4);
}

static inline bool pep_live_map_exists(void) {
    return pep_load_relaxed(&pep_live_directory) != NULL;
}

/* What leads from a block's number to its own byte; 0: it has none. */
static inline uintptr_t pep_live_map_bias(uintptr_t block) {
    const uintptr_t *directory = pep_load_relaxed(&pep_live_directory);
    if (pep_unlikely(directory == NULL))
        return 0;
    /* acquire: pairs with the exchange in cover() */
    return pep_load_acquire(&directory[pep_live_map_stretch(block)]);
}

static inline uint8_t *pep_live_map_byte(uintptr_t bias, uintptr_t block) {
    return (uint8_t *)(bias + pep_live_map_number(block));
}

/* Never PEP_LIVE_BLOCK. */
static inline uint8_t *pep_live_map_filter_byte(uintptr_t block) {
    return &pep_live_filter[block >> 4 & (PEP_LIVE_FILTER_BYTES - 1)];
}

/* What a free looks at: the block's own byte or the one it shares in the filter. */
static inline uint8_t *pep_live_map_place(uintptr_t block) {
    uintptr_t bias = pep_live_map_bias(block);
    return pep_likely(bias != 0) ? pep_live_map_byte(bias, block) : pep_live_map_filter_byte(block);
}

/* Writes a block down; false when that takes pep_live_map_add_slow, which covers the block's
 * stretch or counts it. */
static inline bool pep_live_map_add_fast(uintptr_t block) {
    uintptr_t bias = pep_live_map_bias(block);
    if (pep_unlikely(bias == 0))
        return false;
    pep_store_relaxed(pep_live_map_byte(bias, block), PEP_LIVE_BLOCK);
    return true;
}
PEP_HOOK_SAFE void pep_live_map_add_slow(uintptr_t block);
/* The same on the slow way: leaves a mark of the block that shares the byte, 8 bytes away. */
static inline void pep_live_map_add(uintptr_t block) {
    uintptr_t bias = pep_live_map_bias(block);
    if (pep_unlikely(bias == 0)) {
        pep_live_map_add_slow(block);
        return;
    }
    uint8_t nothing = PEP_LIVE_NOTHING;
    (void)pep_cas_relaxed(pep_live_map_byte(bias, block), &nothing, PEP_LIVE_BLOCK);
}

/* From now on a free of the block is noticed; what is PEP_LIVE_SAMPLED or PEP_LIVE_OWN. Each mark
 * wants one unmark, after which nothing starts there. */
PEP_HOOK_SAFE void pep_live_map_mark(uintptr_t block, enum pep_live what);
PEP_HOOK_SAFE void pep_live_map_unmark(uintptr_t block);
/* After the unmark of the block 8 bytes away: this one is sampled too. */
PEP_HOOK_SAFE void pep_live_map_mark_still(uintptr_t block);

/* Blocks allocated before it is known whether there will be a map: kept in a short list. drop:
 * false when it was not in the list. end: after init, or without one; enters them in the map. */
PEP_HOOK_SAFE void pep_live_map_keep_early(uintptr_t block);
PEP_HOOK_SAFE bool pep_live_map_drop_early(uintptr_t block);
void pep_live_map_end_early(void);

/* Blocks allocated where the map does not reach, since the start; a few hundred may be late. */
uint64_t pep_live_map_uncovered(void);
/* Bytes of memory that the map has touched. */
uint64_t pep_live_map_bytes(void);
/* Calls visit for each block that starts in the map, in address order, until it returns false;
 * the host runs on, so each answer was true a moment ago. The number visited. */
uint64_t pep_live_map_walk(bool (*visit)(uintptr_t block, enum pep_live what, void *context),
                           void *context);

#endif
