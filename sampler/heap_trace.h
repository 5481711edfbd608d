/*
 * Stacks that a thread came by before, told again without unwinding: for recording everything.
 *
 * Model:   a trace is a walk with what it depended on: where it began, the place and value of
 *          each return address, and of each frame pointer that was needed. While all of these are
 *          as they were, the stack is the same: a load and a comparison a frame. A few traces a
 *          thread, found by where the walk begins and who called.
 * Writers: the thread itself, while its busy_sp is set.  [hook]
 * Readers: the same.
 * Memory:  PEP_HEAP_TRACE_SETS sets, one mapping, touched as threads take them.
 * When full: further threads unwind every time.
 */
#ifndef PEP_SAMPLER_HEAP_TRACE_H
#define PEP_SAMPLER_HEAP_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/rt/attrs.h"
#include "sampler/unwind.h"

#define PEP_HEAP_TRACE_SETS 512u
#define PEP_HEAP_TRACES 16u /* a thread */
#define PEP_HEAP_TRACE_FACTS 160u
#define PEP_HEAP_TRACE_WAYS 16u

struct pep_heap_fact {
    uintptr_t at, value;
};

struct pep_heap_trace {
    uintptr_t pc, sp, bp;
    uintptr_t caller_at; /* where the hook returns to */
    uint32_t generation; /* of the modules; others may lie at these addresses since */
    uint32_t identity;   /* whose cell it is */
    uint32_t cell;       /* what the stack is charged to */
    uint32_t fact_count; /* 0: no trace */
    bool needs_bp;       /* a frame was left by the bp that the walk began with */
    struct pep_heap_fact facts[PEP_HEAP_TRACE_FACTS];
};

struct pep_heap_trace_set {
    /* From sp to where the hook returns to, as seen last: for each way through the hooks. */
    uintptr_t caller_offsets[PEP_HEAP_TRACE_WAYS];
    struct pep_heap_trace traces[PEP_HEAP_TRACES];
};

/* Maps the sets; idempotent. 0 or -errno. */
int pep_heap_trace_init(void);
/* A set for a thread; NULL when there is none. */
PEP_HOOK_SAFE struct pep_heap_trace_set *pep_heap_trace_take_set(void);
/* The place for a walk that begins here and came by this way, any number that tells ways apart. */
PEP_HOOK_SAFE struct pep_heap_trace *pep_heap_trace_at(struct pep_heap_trace_set *set,
                                                       uintptr_t way, const struct pep_regs *regs,
                                                       const struct pep_stack_range *stack);
/* True when the walk would find what it found then. */
PEP_HOOK_SAFE bool pep_heap_trace_holds(const struct pep_heap_trace *trace,
                                        const struct pep_regs *regs);
/* After a walk: true when the trace stands where it will be looked for. */
PEP_HOOK_SAFE bool pep_heap_trace_keep(struct pep_heap_trace_set *set, uintptr_t way,
                                       struct pep_heap_trace *trace);
/* Walks by known rules of the plain kinds alone and writes the facts down; the number of pcs
 * (at most PEP_UNWIND_DEPTH_MAX), or 0 when it takes pep_unwind. */
PEP_HOOK_SAFE int pep_heap_trace_walk(struct pep_heap_trace *trace, const struct pep_regs *regs,
                                      const struct pep_stack_range *stack, uintptr_t *pcs);

#endif
