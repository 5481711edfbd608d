/*
 * What the parts of the heap sampler share: heap.c (settings, windows), heap_record.c (the slow
 * way of the hooks), heap_table.c (cells and live samples), profile_heap.c.
 *
 * Model:   a cell is (stack, thread identity) with sums that only rise. A live sample is a block's
 *          address with its cell and weight; it is in the table from before the host gets the
 *          block until before the real free, so nobody else asks for that address meanwhile.
 * Writers: hooks, any thread, concurrently; lock-free.  [hook]
 * Readers: profile_heap.c.  [normal]
 * Memory:  one reservation made by pep_heap_tables_init, touched as it fills.
 * When full: cells: the cell of [profep: table full], counted heap_cells_full; live samples: not
 *          followed, counted heap_live_full.
 */
#ifndef PEP_SAMPLER_HEAP_INTERNAL_H
#define PEP_SAMPLER_HEAP_INTERNAL_H

#include "sampler/heap.h"
#include "sampler/heap_hook.h"
#include "sampler/stack_table.h"

#define PEP_HEAP_CELLS_MAX 40960u
#define PEP_HEAP_TEMPORARY_MS 10u
#define PEP_HEAP_CELL_NONE UINT32_MAX /* of a live sample: a block of our own */
#define PEP_HEAP_WEIGHT_ONE 1024      /* unbiased objects are counted in fractions of this */

/* exact: recorded with certainty, weight 1. raw: the other samples as they are. unbiased: the same
 * samples, each multiplied by its weight. So a sample of weight 1 costs two additions. */
struct pep_heap_sums {
    uint64_t exact_objects, exact_bytes;
    uint64_t raw_objects, raw_bytes;
    uint64_t unbiased_objects, unbiased_bytes;
};

struct pep_heap_cell {
    uint64_t key; /* stack id << 32 | thread identity; 0: empty */
    struct pep_heap_sums allocated;
    struct pep_heap_sums freed;
    uint64_t temporary_objects, temporary_bytes; /* unbiased */
    uint64_t peak_objects, peak_bytes; /* unbiased, what lived when peak peak_number was reached */
    uint64_t peak_number;
};

/* The settings in force. epoch rises with each change: threads see it at their next step. */
struct pep_heap_settings {
    uint32_t epoch; /* 0: asleep, nothing is sampled */
    uint32_t rate_bytes;
    float probability;
    bool is_recording_all;
    bool is_retired; /* nothing is sampled any more */
};
extern struct pep_heap_settings pep_heap_settings;

/* heap_table.c. live_log2: how many live samples there is room for. 0 or -errno. */
int pep_heap_tables_init(uint32_t live_log2);
/* The number of a cell, made when new; that of [profep: table full] when there is no room. */
PEP_HOOK_SAFE uint32_t pep_heap_cell_of(pep_stack_id stack, uint32_t identity);
PEP_HOOK_SAFE struct pep_heap_cell *pep_heap_cell_at(uint32_t number);
PEP_HOOK_SAFE bool pep_heap_live_put(uintptr_t block, const struct pep_heap_taken *sample);
PEP_HOOK_SAFE bool pep_heap_live_take(uintptr_t block, struct pep_heap_taken *sample);
/* Looks without taking. */
PEP_HOOK_SAFE enum pep_live pep_heap_live_what(uintptr_t block);
/* Cells [0, count): a cell keeps its place; empty ones have key 0. */
uint32_t pep_heap_cell_count(void);
/* Live samples, counted now: walks the table. */
uint64_t pep_heap_live_count(void);

/* heap_record.c. */
void pep_heap_record_after_fork_child(void);
/* The stack that leads to the caller and the identity of the thread, for whoever records other
 * things than blocks; that of [unknown] when it cannot be walked, 0 when there is no table. */
PEP_HOOK_SAFE pep_stack_id pep_heap_stack_here(uint32_t *identity);
struct pep_heap_job;
PEP_HOOK_SAFE void pep_heap_call_on_stack(struct pep_heap_job *job, void *stack_top);
PEP_HOOK_SAFE void pep_heap_walk(struct pep_heap_job *job);
/* The number of the last peak of all that lives, and what lived then. */
uint64_t pep_heap_peak_number(void);
uint64_t pep_heap_peak_bytes(void);

#endif
