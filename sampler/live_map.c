#include "sampler/live_map.h"
#include "sampler/rt/attrs.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/rt/reserve.h"

#define EARLY_MAX 1024u
#define FILTER_FIRST 2   /* PEP_LIVE_BLOCK means something else to a free */
#define FILTER_STUCK 255 /* so many at one place: it stays noticed for ever */
#define UNCOVERED_BATCH 64
#define DIRECTORY_BYTES (PEP_LIVE_STRETCHES * sizeof(uintptr_t))
#define LEAF 512u /* entries on a page of the directory */
#define LEAVES (PEP_LIVE_STRETCHES / LEAF)

uintptr_t *pep_live_directory;
uint8_t pep_live_filter[PEP_LIVE_FILTER_BYTES] PEP_LARGE PEP_ALIGNED(4096);

static uintptr_t first_chunk; /* chunks are numbered from 1 */
static uint8_t is_leaf_used[LEAVES] PEP_LARGE;
static uint32_t chunks_limit;
static uint32_t chunks_used; /* the highest number given out, or asked for in vain */
static uint64_t uncovered;
static PEP_TLS uint32_t uncovered_here;
static uintptr_t reserved_from, reserved_bytes;

/* Blocks of the time before init: a slot is 0 when empty. */
static uintptr_t early[EARLY_MAX] PEP_LARGE;
static uint32_t early_used;

PEP_HOOK_SAFE static uintptr_t chunk_at(uint32_t chunk) {
    return first_chunk + ((uintptr_t)(chunk - 1) << PEP_LIVE_CHUNK_LOG2);
}

PEP_HOOK_SAFE static bool is_reserved(uintptr_t block) {
    return block - reserved_from < reserved_bytes;
}

void pep_live_map_reserve(uintptr_t from, size_t size_bytes) {
    reserved_from = from;
    reserved_bytes = size_bytes;
}

/* A free must find the reserved blocks in a new chunk as it found them in the filter. */
PEP_HOOK_SAFE static void fill_reserved(uint8_t *bytes, uintptr_t stretch) {
    uintptr_t limit = stretch + (1ul << PEP_LIVE_STRETCH_LOG2);
    uintptr_t at = reserved_from > stretch ? reserved_from : stretch;
    for (; at < limit && is_reserved(at); at += 16)
        bytes[(at - stretch) >> 4] = PEP_LIVE_OWN;
}

/* Gives the block's stretch a chunk; false when there is none left. */
PEP_HOOK_SAFE static bool cover(uintptr_t block) {
    /* acquire: pairs with the release in pep_live_map_init */
    uintptr_t *directory = pep_load_acquire(&pep_live_directory);
    if (directory == NULL)
        return false;
    uintptr_t stretch = pep_live_map_stretch(block), *entry = &directory[stretch];
    if (pep_load_acquire(entry) != 0)
        return true;
    if (pep_load_relaxed(&chunks_used) >= chunks_limit)
        return false;
    uint32_t chunk = pep_add_relaxed(&chunks_used, 1) + 1;
    if (chunk > chunks_limit)
        return false;
    if (chunk == chunks_limit)
        PEP_COUNT(live_map_full, 1);
    uintptr_t start = stretch << PEP_LIVE_STRETCH_LOG2, none = 0;
    fill_reserved((uint8_t *)chunk_at(chunk), start);
    pep_store_relaxed(&is_leaf_used[stretch / LEAF], 1);
    /* acq_rel: pairs with the acquire in pep_live_map_bias */
    if (!pep_cas_acq_rel(entry, &none, chunk_at(chunk) - pep_live_map_number(start))) {
        uint32_t last = chunk; /* somebody was first; untouched memory, so losing it is no loss */
        pep_cas_acq_rel(&chunks_used, &last, chunk - 1);
    }
    return true;
}

PEP_HOOK_SAFE void pep_live_map_add_slow(uintptr_t block) {
    if (block == 0 || !pep_live_map_exists()) /* a request that failed */
        return;
    if (cover(block)) {
        (void)pep_live_map_add_fast(block);
        return;
    }
    if (++uncovered_here % UNCOVERED_BATCH == 0)
        pep_add_relaxed(&uncovered, UNCOVERED_BATCH);
}

PEP_HOOK_SAFE static void filter_add(uintptr_t block) {
    uint8_t *at = pep_live_map_filter_byte(block);
    uint8_t seen = pep_load_relaxed(at);
    while (seen != FILTER_STUCK &&
           !pep_cas_acq_rel(at, &seen, (uint8_t)(seen == 0 ? FILTER_FIRST : seen + 1))) {
    }
}

PEP_HOOK_SAFE static void filter_remove(uintptr_t block) {
    uint8_t *at = pep_live_map_filter_byte(block);
    uint8_t seen = pep_load_relaxed(at);
    while (seen != FILTER_STUCK && seen != 0 &&
           !pep_cas_acq_rel(at, &seen, (uint8_t)(seen == FILTER_FIRST ? 0 : seen - 1))) {
    }
}

/* A stretch that has no chunk after cover() never gets one: there are no more. So mark and unmark
 * always mean the same byte. */
PEP_HOOK_SAFE void pep_live_map_mark(uintptr_t block, enum pep_live what) {
    if (cover(block))
        pep_store_relaxed(pep_live_map_place(block), (uint8_t)what);
    else
        filter_add(block);
}

PEP_HOOK_SAFE void pep_live_map_unmark(uintptr_t block) {
    uintptr_t bias = pep_live_map_bias(block);
    if (bias == 0)
        filter_remove(block);
    else
        pep_store_relaxed(pep_live_map_byte(bias, block), PEP_LIVE_NOTHING);
}

PEP_HOOK_SAFE void pep_live_map_mark_still(uintptr_t block) {
    uintptr_t bias = pep_live_map_bias(block); /* the filter counts them, the map does not */
    if (bias != 0)
        pep_store_relaxed(pep_live_map_byte(bias, block), PEP_LIVE_SAMPLED);
}

/* -- before there is a map ------------------------------------------------------------------ */

PEP_HOOK_SAFE void pep_live_map_keep_early(uintptr_t block) {
    if (pep_load_relaxed(&early_used) >= EARLY_MAX || block == 0)
        return;
    uint32_t slot = pep_add_relaxed(&early_used, 1);
    if (slot >= EARLY_MAX)
        return;
    filter_add(block);
    pep_store_release(&early[slot], block);
}

PEP_HOOK_SAFE bool pep_live_map_drop_early(uintptr_t block) {
    uint32_t used = pep_load_relaxed(&early_used);
    for (uint32_t i = 0; i < used && i < EARLY_MAX; i++) {
        uintptr_t seen = block;
        if (pep_load_relaxed(&early[i]) == block && pep_cas_acq_rel(&early[i], &seen, 0)) {
            filter_remove(block);
            return true;
        }
    }
    return false;
}

void pep_live_map_end_early(void) {
    uint32_t used = pep_swap_acq_rel(&early_used, EARLY_MAX);
    for (uint32_t i = 0; i < used && i < EARLY_MAX; i++) {
        uintptr_t block = pep_load_acquire(&early[i]);
        if (block == 0 || !pep_live_map_drop_early(block))
            continue;
        pep_live_map_add(block);
    }
}

/* A host that may have only so much address space shall have it for itself. */
static bool is_too_much(uint64_t bytes) {
    uint64_t limits[2] = {UINT64_MAX, UINT64_MAX}; /* the kernel's struct rlimit64 */
    pep_os_call6(SYS_prlimit64, 0, RLIMIT_AS, 0, (long)limits, 0, 0);
    return limits[0] != UINT64_MAX && bytes > limits[0] / 16;
}

int pep_live_map_init(uint64_t bound_bytes) {
    if (pep_live_map_exists())
        return 0;
    uint64_t count = bound_bytes >> PEP_LIVE_CHUNK_LOG2;
    count = count > PEP_LIVE_STRETCHES ? PEP_LIVE_STRETCHES : count;
    size_t chunks_bytes = count << PEP_LIVE_CHUNK_LOG2;
    if (is_too_much(DIRECTORY_BYTES + chunks_bytes))
        return -ENOMEM;
    char *directory = pep_reserve_alone(DIRECTORY_BYTES + chunks_bytes);
    if (directory == NULL)
        return -ENOMEM;
    const uintptr_t chunks = (uintptr_t)directory + DIRECTORY_BYTES;
    /* So far up that no entry is 0 by chance. */
    if (count > 0 && chunks >> (PEP_LIVE_ADDRESS_LOG2 - 4) == 0) {
        pep_os_unmap(directory, DIRECTORY_BYTES + chunks_bytes);
        return -ENOMEM;
    }
    first_chunk = chunks;
    chunks_limit = (uint32_t)count;
    /* release: pairs with the acquire in cover() */
    pep_store_release(&pep_live_directory, (uintptr_t *)(void *)directory);
    return 0;
}

/* -- reading -------------------------------------------------------------------------------- */

uint64_t pep_live_map_uncovered(void) {
    return pep_load_relaxed(&uncovered);
}

uint64_t pep_live_map_bytes(void) {
    uint32_t used = pep_load_relaxed(&chunks_used);
    return (uint64_t)(used < chunks_limit ? used : chunks_limit) << PEP_LIVE_CHUNK_LOG2;
}

struct walk {
    bool (*visit)(uintptr_t block, enum pep_live what, void *context);
    void *context;
    uint64_t visited;
};

static bool walk_chunk(struct walk *walk, const uint8_t *bytes, uintptr_t start) {
    for (uint32_t i = 0; i < PEP_LIVE_CHUNK_BYTES; i += 8) {
        if (pep_load_relaxed((const uint64_t *)(const void *)(bytes + i)) == 0)
            continue;
        for (uint32_t j = i; j < i + 8; j++) {
            uint8_t what = pep_load_relaxed(&bytes[j]);
            uintptr_t block = start + ((uintptr_t)j << 4);
            if (what == PEP_LIVE_NOTHING || block == 0 || is_reserved(block))
                continue;
            walk->visited++;
            if (!walk->visit(block, (enum pep_live)what, walk->context))
                return false;
        }
    }
    return true;
}

static bool walk_leaf(struct walk *walk, uintptr_t stretch) {
    for (uintptr_t limit = stretch + LEAF; stretch < limit; stretch++) {
        uintptr_t bias = pep_load_acquire(&pep_live_directory[stretch]);
        uintptr_t start = stretch << PEP_LIVE_STRETCH_LOG2;
        if (bias != 0 && !walk_chunk(walk, pep_live_map_byte(bias, start), start))
            return false;
    }
    return true;
}

uint64_t pep_live_map_walk(bool (*visit)(uintptr_t block, enum pep_live what, void *context),
                           void *context) {
    struct walk walk = {.visit = visit, .context = context};
    uint32_t leaves = pep_live_map_exists() ? LEAVES : 0;
    /* Only pages of the directory that are in use: to look at the others would make them. */
    for (uint32_t i = 0; i < leaves; i++)
        if (pep_load_relaxed(&is_leaf_used[i]) != 0 && !walk_leaf(&walk, (uintptr_t)i * LEAF))
            break;
    return walk.visited;
}
