/*
 * Sums by stack, thread and tag: what wall time, waiting and births are charged to.
 *
 * Model:   a set that only grows of (stack, thread identity, tag) -> count and weight, which only
 *          rise. A window is the difference of two readings (profile_cells.h). A cell is complete
 *          before the index points to it, so nobody waits for a writer.
 * Writers: any thread, concurrently; lock-free.  [signal]
 * Readers: profep's own threads.                 [normal]
 * Memory:  one fixed mapping for each set, made by pep_cells_init, touched as it fills.
 * When full: the cell of that stack and tag without its thread; counted cell_table_full; when not
 *          even that is there, the event is lost, counted cells_lost.
 */
#ifndef PEP_SAMPLER_CELLS_H
#define PEP_SAMPLER_CELLS_H

#include <stdint.h>

#include "sampler/rt/attrs.h"
#include "sampler/stack_table.h"

struct pep_tagged_cell {
    uint64_t key;    /* stack 24 bits, identity 24, tag 16; 0: empty */
    uint64_t count;  /* events; relaxed */
    uint64_t weight; /* in the set's unit; relaxed */
};

/* Static storage, zero at first. */
struct pep_cells {
    uint32_t *index;               /* twice as many slots as cells; NULL before init */
    struct pep_tagged_cell *cells; /* a cell keeps its place */
    uint32_t capacity;             /* of cells; a power of two */
    uint32_t used;                 /* cells given out; may pass capacity */
};

/* Makes the mapping; idempotent, one caller at a time. capacity: a power of two up to 2^20. 0 or
 * -ENOMEM, and then everything added is lost. */
int pep_cells_init(struct pep_cells *set, uint32_t capacity);
/* identity 0: no thread. Nothing happens for stack 0. */
PEP_SIGNAL_SAFE void pep_cells_add(struct pep_cells *set, pep_stack_id stack, uint32_t identity,
                                   uint16_t tag, const uint64_t sums[2]);

/* Cells [0, count) may be in use; empty ones have key 0. */
uint32_t pep_cells_count(const struct pep_cells *set);
static inline pep_stack_id pep_cell_stack(uint64_t key) {
    return (pep_stack_id)(key >> 40);
}
static inline uint32_t pep_cell_identity(uint64_t key) {
    return (uint32_t)(key >> 16) & 0xffffff;
}
static inline uint16_t pep_cell_tag(uint64_t key) {
    return (uint16_t)key;
}

#endif
