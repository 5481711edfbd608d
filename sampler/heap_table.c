#include <errno.h>

#include "sampler/heap_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/reserve.h"

#define INDEX_SIZE 65536u
#define INDEX_FIRST 4096u /* looked at before, so that a short program touches few pages */
#define FIRST_PROBES 8u
#define WAYS 8u /* of a bucket: its keys are one cache line */
#define FIRST_LIVE_LOG2_MAX 20u
#define FIRST_BUCKETS 128u    /* enough for a heap of half a gigabyte at the usual rate */
#define BUSY 1ull             /* a key that is being written; no block is there */
#define FULL_KEY (1ull << 32) /* the stack that stands for "table full", and nobody */
#define FULL_CELL 0u          /* where what has no cell goes */

/* The index says number + 1; the cell's key is written before. */
struct cells {
    uint32_t index[INDEX_FIRST + INDEX_SIZE];
    struct pep_heap_cell cells[PEP_HEAP_CELLS_MAX];
};

struct live {
    uint64_t size_bytes;
    uint32_t cell;
    float weight;
    uint32_t time_ms;
    uint32_t what;
};

static struct cells *cells;
static uint32_t cells_used = FULL_CELL + 1;

/* A block may stand in any way of two buckets, so a free slot is found until the table is nearly
 * full, and a removed block leaves nothing behind. A third one, asked before them, is among a few
 * that stand apart: few samples live in few pages. */
static uint64_t *keys;
static struct live *lives;
static uint32_t buckets_log2;
static uint32_t first_count; /* buckets apart; none where every block is a sample */
static int is_wide;          /* somebody stands elsewhere; relaxed, for good */

int pep_heap_tables_init(uint32_t live_log2) {
    if (cells != NULL)
        return 0;
    uint32_t apart = live_log2 <= FIRST_LIVE_LOG2_MAX ? FIRST_BUCKETS : 0;
    size_t count = ((size_t)1 << live_log2) + (size_t)apart * WAYS;
    size_t keys_bytes = count * sizeof(uint64_t);
    size_t size = sizeof(struct cells) + 4096;
    char *table = pep_reserve(keys_bytes + count * sizeof(struct live) + size);
    if (table == NULL)
        return -ENOMEM;
    keys = (uint64_t *)(void *)table;
    lives = (struct live *)(void *)(table + keys_bytes);
    buckets_log2 = live_log2 - 3;
    first_count = apart;
    cells = (struct cells *)(void *)(table + keys_bytes + count * sizeof(struct live));
    return 0;
}

PEP_HOOK_SAFE static uint64_t mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* -- cells ---------------------------------------------------------------------------------- */

/* Is written when it is needed: a start touches one page less. */
PEP_HOOK_SAFE static uint32_t take_full(void) {
    pep_store_release(&cells->cells[FULL_CELL].key, FULL_KEY);
    return FULL_CELL;
}

PEP_HOOK_SAFE uint32_t pep_heap_cell_of(pep_stack_id stack, uint32_t identity) {
    uint64_t key = (uint64_t)stack << 32 | identity;
    if (pep_unlikely(key == FULL_KEY))
        return take_full();
    uint32_t hash = (uint32_t)mix(mix(key) + key);
    uint32_t draft = UINT32_MAX;
    for (uint32_t probes = 0; probes < INDEX_SIZE; probes++) {
        uint32_t at = probes < FIRST_PROBES ? (hash + probes) % INDEX_FIRST
                                            : INDEX_FIRST + (hash + probes) % INDEX_SIZE;
        uint32_t slot = pep_load_acquire(&cells->index[at]);
        if (slot == 0) {
            if (draft == UINT32_MAX) {
                if (pep_load_relaxed(&cells_used) >= PEP_HEAP_CELLS_MAX)
                    break;
                draft = pep_add_relaxed(&cells_used, 1);
                if (draft >= PEP_HEAP_CELLS_MAX)
                    break;
                pep_store_release(&cells->cells[draft].key, key);
            }
            /* acq_rel: the key is seen by whoever sees the slot */
            if (pep_cas_acq_rel(&cells->index[at], &slot, draft + 1))
                return draft;
        }
        if (pep_load_acquire(&cells->cells[slot - 1].key) == key) {
            if (draft < PEP_HEAP_CELLS_MAX) /* lost the race: this cell stays empty for ever */
                pep_store_release(&cells->cells[draft].key, 0);
            return slot - 1;
        }
    }
    PEP_COUNT(heap_cells_full, 1);
    return take_full();
}

PEP_HOOK_SAFE struct pep_heap_cell *pep_heap_cell_at(uint32_t number) {
    return &cells->cells[number];
}

uint32_t pep_heap_cell_count(void) {
    uint32_t count = pep_load_acquire(&cells_used);
    return cells == NULL ? 0 : count < PEP_HEAP_CELLS_MAX ? count : PEP_HEAP_CELLS_MAX;
}

/* -- live samples --------------------------------------------------------------------------- */

enum { FIRST = 0, ONE, OTHER, BUCKETS };

/* The two buckets of a block, by halves of one hash, and that among the first ones. */
PEP_HOOK_SAFE static uint64_t *bucket_of(uintptr_t block, int which) {
    uint64_t hash = (block >> 4) * 0x9e3779b97f4a7c15u;
    hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u;
    if (which == FIRST)
        return keys + (hash % FIRST_BUCKETS) * WAYS;
    uint32_t half = which == ONE ? (uint32_t)(hash >> 32) : (uint32_t)(hash >> 8);
    uint32_t at = half >> (24 - buckets_log2) & ((1u << buckets_log2) - 1);
    return keys + (size_t)(first_count + at) * WAYS;
}

/* Which of them may hold a block: [first_way, way_limit). */
PEP_HOOK_SAFE static int first_way(void) {
    return first_count != 0 ? FIRST : ONE;
}

PEP_HOOK_SAFE static int way_limit(void) {
    return first_count == 0 || pep_load_relaxed(&is_wide) ? BUCKETS : ONE;
}

PEP_HOOK_SAFE static bool put_in(uint64_t *bucket, uintptr_t block,
                                 const struct pep_heap_taken *sample) {
    for (uint32_t way = 0; way < WAYS; way++) {
        uint64_t none = 0;
        if (pep_load_relaxed(&bucket[way]) != 0 || !pep_cas_acq_rel(&bucket[way], &none, BUSY))
            continue;
        lives[&bucket[way] - keys] = (struct live){.size_bytes = sample->size_bytes,
                                                   .cell = sample->cell,
                                                   .weight = sample->weight,
                                                   .time_ms = sample->time_ms,
                                                   .what = sample->what};
        /* release: pairs with the acquire in take_from */
        pep_store_release(&bucket[way], (uint64_t)block);
        return true;
    }
    return false;
}

PEP_HOOK_SAFE static uint32_t load_of(const uint64_t *bucket) {
    uint32_t load = 0;
    for (uint32_t way = 0; way < WAYS; way++)
        load += pep_load_relaxed(&bucket[way]) != 0;
    return load;
}

PEP_HOOK_SAFE static bool take_from(uint64_t *bucket, uintptr_t block,
                                    struct pep_heap_taken *sample) {
    for (uint32_t way = 0; way < WAYS; way++) {
        if (pep_load_acquire(&bucket[way]) != block)
            continue;
        const struct live *live = &lives[&bucket[way] - keys];
        *sample = (struct pep_heap_taken){.what = (enum pep_live)live->what,
                                          .cell = live->cell,
                                          .weight = live->weight,
                                          .time_ms = live->time_ms,
                                          .size_bytes = live->size_bytes};
        uint64_t expected = block;
        return pep_cas_acq_rel(&bucket[way], &expected, 0); /* false: the host frees it twice */
    }
    return false;
}

PEP_HOOK_SAFE bool pep_heap_live_put(uintptr_t block, const struct pep_heap_taken *sample) {
    if (keys != NULL) {
        if (first_count != 0 && put_in(bucket_of(block, FIRST), block, sample))
            return true;
        pep_store_relaxed(&is_wide, 1);
        uint64_t *first = bucket_of(block, ONE), *second = bucket_of(block, OTHER);
        uint32_t load = load_of(first);
        /* The emptier of the two, so that both are full only when nearly all are. */
        if (load > WAYS / 2 && load_of(second) < load) {
            uint64_t *swap = first;
            first = second;
            second = swap;
        }
        if (put_in(first, block, sample) || put_in(second, block, sample))
            return true;
    }
    PEP_COUNT(heap_live_full, 1);
    return false;
}

PEP_HOOK_SAFE bool pep_heap_live_take(uintptr_t block, struct pep_heap_taken *sample) {
    for (int which = first_way(); keys != NULL && block > BUSY && which < way_limit(); which++)
        if (take_from(bucket_of(block, which), block, sample))
            return true;
    return false;
}

PEP_HOOK_SAFE enum pep_live pep_heap_live_what(uintptr_t block) {
    for (int which = first_way(); keys != NULL && block > BUSY && which < way_limit(); which++) {
        const uint64_t *bucket = bucket_of(block, which);
        for (uint32_t way = 0; way < WAYS; way++)
            if (pep_load_acquire(&bucket[way]) == block)
                return (enum pep_live)lives[&bucket[way] - keys].what;
    }
    return PEP_LIVE_NOTHING;
}

uint64_t pep_heap_live_count(void) {
    uint64_t count = 0;
    for (size_t i = 0; keys != NULL && i < (first_count + ((size_t)1 << buckets_log2)) * WAYS; i++)
        count += pep_load_relaxed(&keys[i]) > BUSY;
    return count;
}
