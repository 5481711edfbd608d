/*
 * Every distinct call stack, once; and what was charged to it, by thread.
 *
 * Model:   two sets that only grow. A stack keeps its id and address until exit. A cell is
 *          (stack, thread identity) with a count and a weight that only rise. Windows are
 *          differences of two readings (profile.h). Ids are good for the life of the process
 *          image; a forked child keeps the stacks and starts its own cells' story from there.
 *          An entry is complete before the index points to it, so nobody waits for a writer;
 *          whoever loses the race for a slot uses the winner's entry.
 * Writers: CPU handler and hooks, any thread, concurrently; lock-free.  [signal]
 * Readers: profep's own threads.                                        [normal]
 * Memory:  fixed mappings made by pep_stack_table_init, touched as they fill.
 * When full: stacks: id of the stack [profep: table full], counted stack_table_full; cells: the
 *          cell of that stack without its thread, counted cell_table_full.
 */
#ifndef PEP_SAMPLER_STACK_TABLE_H
#define PEP_SAMPLER_STACK_TABLE_H

#include <stdint.h>

#include "sampler/rt/attrs.h"

#define PEP_STACKS_MAX 65536
#define PEP_STACK_ARENA_BYTES (32u << 20)
#define PEP_CELLS_MAX 262144

typedef uint32_t pep_stack_id; /* 0: none */

struct pep_stack {
    uint64_t hash;
    uint32_t count;  /* of pcs, >= 1 */
    uintptr_t pcs[]; /* look-up addresses, innermost first (unwind.h) */
};

struct pep_cell {
    uint64_t key;    /* stack id << 32 | thread identity; 0: empty */
    uint64_t count;  /* events; relaxed; only rises */
    uint64_t weight; /* ns of CPU; relaxed; only rises */
};

/* Makes the mappings; idempotent. 0 or -errno. */
int pep_stack_table_init(void);

/* The id of a stack, entering it when new. Never 0 for count >= 1. */
PEP_SIGNAL_SAFE pep_stack_id pep_stack_table_add(const uintptr_t *pcs, int count);
/* The same, where it may well be the stack `likely` (0: none) once more: a third of the cost then,
 * and a compared word or two where it is not. */
PEP_SIGNAL_SAFE pep_stack_id pep_stack_table_add_again(pep_stack_id likely, const uintptr_t *pcs,
                                                       int count);
/* Adds count and weight to (stack, identity). identity 0: no thread label. */
PEP_SIGNAL_SAFE void pep_stack_table_charge(pep_stack_id stack, uint32_t identity, uint64_t count,
                                            uint64_t weight);

/* NULL for 0 and unknown ids. Valid for ever. */
const struct pep_stack *pep_stack_table_get(pep_stack_id id);
/* Cells [0, count): a cell keeps its place; empty ones have key 0. */
uint32_t pep_stack_table_cell_count(void);
const struct pep_cell *pep_stack_table_cell(uint32_t index);
/* Stacks in the table; walks it. */
uint32_t pep_stack_table_stack_count(void);
/* Traps unless the invariants hold (tests): every cell's stack exists; hashes are right; no stack
 * twice. */
void pep_stack_table_check(void);

#endif
