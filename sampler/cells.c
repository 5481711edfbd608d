#include "sampler/cells.h"

#include <errno.h>
#include <stddef.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/reserve.h"

#define NUMBER_BITS 20u /* of an index slot: number + 1 below, bits of the hash above */
#define NUMBER_MASK ((1u << NUMBER_BITS) - 1)

_Static_assert(PEP_STACKS_MAX < 1u << 24, "a stack's id fits a key");

int pep_cells_init(struct pep_cells *set, uint32_t capacity) {
    if (set->index != NULL)
        return 0;
    size_t cells_bytes = capacity * sizeof(struct pep_tagged_cell);
    size_t bytes = cells_bytes + 2 * (size_t)capacity * sizeof(uint32_t);
    void *memory = pep_reserve(bytes);
    if (memory == NULL)
        return -ENOMEM;
    set->cells = memory;
    set->capacity = capacity;
    /* release: whoever sees the index sees the rest. */
    pep_store_release(&set->index, (uint32_t *)(void *)((char *)memory + cells_bytes));
    return 0;
}

PEP_SIGNAL_SAFE static uint64_t hash_key(uint64_t key) {
    key ^= key >> 31;
    key *= 0x9e3779b97f4a7c15u;
    key ^= key >> 29;
    key *= 0xbf58476d1ce4e5b9u;
    return key ^ key >> 32;
}

/* The number of a fresh cell with that key, or UINT32_MAX when cells [0, limit) are used. */
PEP_SIGNAL_SAFE static uint32_t draft_cell(struct pep_cells *set, uint64_t key, uint32_t limit) {
    if (pep_load_relaxed(&set->used) >= limit)
        return UINT32_MAX;
    uint32_t number = pep_add_relaxed(&set->used, 1);
    if (number >= set->capacity)
        return UINT32_MAX;
    pep_store_release(&set->cells[number].key, key);
    return number;
}

/* The cell of a key, made when there is room below limit; NULL otherwise. */
PEP_SIGNAL_SAFE static struct pep_tagged_cell *cell_of(struct pep_cells *set, uint64_t key,
                                                       uint32_t limit) {
    uint32_t *index = pep_load_acquire(&set->index);
    uint32_t mask = 2 * set->capacity - 1;
    uint64_t hash = hash_key(key);
    uint32_t tag = (uint32_t)(hash >> 52) << NUMBER_BITS;
    uint32_t draft = UINT32_MAX;
    uint32_t at = (uint32_t)hash & mask;
    for (uint32_t probes = 0; probes <= mask;) {
        uint32_t slot = pep_load_acquire(&index[at]);
        if (slot == 0) {
            if (draft == UINT32_MAX)
                draft = draft_cell(set, key, limit);
            if (draft == UINT32_MAX)
                return NULL;
            if (pep_cas_acq_rel(&index[at], &slot, tag | (draft + 1)))
                return &set->cells[draft];
        }
        struct pep_tagged_cell *cell = &set->cells[(slot & NUMBER_MASK) - 1];
        if ((slot & ~NUMBER_MASK) == tag && pep_load_acquire(&cell->key) == key) {
            if (draft != UINT32_MAX) /* lost the race: this cell stays empty for ever */
                pep_store_release(&set->cells[draft].key, 0);
            return cell;
        }
        at = (at + 1) & mask;
        probes++;
    }
    return NULL;
}

PEP_SIGNAL_SAFE void pep_cells_add(struct pep_cells *set, pep_stack_id stack, uint32_t identity,
                                   uint16_t tag, const uint64_t sums[2]) {
    if (stack == 0)
        return;
    if (pep_load_acquire(&set->index) == NULL) {
        PEP_COUNT(cells_lost, 1);
        return;
    }
    uint64_t key = (uint64_t)stack << 40 | (uint64_t)(identity & 0xffffff) << 16 | tag;
    struct pep_tagged_cell *cell = NULL;
    if (identity != 0) {
        /* The last quarter is for cells without a thread. */
        cell = cell_of(set, key, set->capacity - set->capacity / 4);
        if (cell == NULL)
            PEP_COUNT(cell_table_full, 1);
    }
    if (cell == NULL)
        cell = cell_of(set, (uint64_t)stack << 40 | tag, set->capacity - 1);
    if (cell == NULL) {
        PEP_COUNT(cells_lost, 1);
        return;
    }
    pep_add_relaxed(&cell->count, sums[0]);
    pep_add_relaxed(&cell->weight, sums[1]);
}

uint32_t pep_cells_count(const struct pep_cells *set) {
    uint32_t used = pep_load_acquire(&set->used);
    return set->index == NULL ? 0 : used < set->capacity ? used : set->capacity;
}
