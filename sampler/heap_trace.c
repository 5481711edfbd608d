#include "sampler/heap_trace.h"

#include <errno.h>

#include "sampler/modules.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/reserve.h"
#include "sampler/unwind_rule.h"

/* AddressSanitizer would take the red zones of the frames that are read for mistakes. */
#define NO_SANITIZE __attribute__((no_sanitize("address", "thread", "alignment")))

static struct pep_heap_trace_set *sets;
static uint32_t sets_used;

int pep_heap_trace_init(void) {
    const size_t size = PEP_HEAP_TRACE_SETS * sizeof(struct pep_heap_trace_set);
    if (sets != NULL)
        return 0;
    struct pep_heap_trace_set *memory = pep_reserve_alone(size);
    if (memory == NULL)
        return -ENOMEM;
    pep_store_release(&sets, memory);
    return 0;
}

PEP_HOOK_SAFE struct pep_heap_trace_set *pep_heap_trace_take_set(void) {
    if (pep_load_acquire(&sets) == NULL || pep_load_relaxed(&sets_used) >= PEP_HEAP_TRACE_SETS)
        return NULL;
    uint32_t number = pep_add_relaxed(&sets_used, 1);
    return number < PEP_HEAP_TRACE_SETS ? &sets[number] : NULL;
}

PEP_HOOK_SAFE NO_SANITIZE static uintptr_t load(uintptr_t address) {
    return *(const volatile uintptr_t *)address;
}

PEP_HOOK_SAFE static bool is_inside(const struct pep_stack_range *stack, uintptr_t address) {
    return address >= stack->lo && address < stack->hi && stack->hi - address >= sizeof address;
}

PEP_HOOK_SAFE static uintptr_t *offset_of(struct pep_heap_trace_set *set, uintptr_t way) {
    return &set->caller_offsets[(way * UINT64_C(0x9e3779b97f4a7c15)) >> 60];
}

PEP_HOOK_SAFE struct pep_heap_trace *pep_heap_trace_at(struct pep_heap_trace_set *set,
                                                       uintptr_t way, const struct pep_regs *regs,
                                                       const struct pep_stack_range *stack) {
    if (!is_inside(stack, regs->sp))
        return NULL;
    uintptr_t caller_at = regs->sp + *offset_of(set, way);
    uintptr_t caller = is_inside(stack, caller_at) ? load(caller_at) : 0;
    uint64_t hash = (regs->sp >> 4 ^ caller) * UINT64_C(0x9e3779b97f4a7c15);
    return &set->traces[hash >> 32 & (PEP_HEAP_TRACES - 1)];
}

PEP_HOOK_SAFE bool pep_heap_trace_keep(struct pep_heap_trace_set *set, uintptr_t way,
                                       struct pep_heap_trace *trace) {
    uintptr_t *offset = offset_of(set, way), seen = trace->caller_at - trace->sp;
    if (trace->fact_count != 0 && *offset != seen)
        trace->fact_count = 0;
    *offset = seen;
    return trace->fact_count != 0;
}

PEP_HOOK_SAFE NO_SANITIZE bool pep_heap_trace_holds(const struct pep_heap_trace *trace,
                                                    const struct pep_regs *regs) {
    if (trace->fact_count == 0 || trace->sp != regs->sp || trace->pc != regs->pc ||
        trace->generation != pep_modules_generation() || (trace->needs_bp && trace->bp != regs->bp))
        return false;
    const struct pep_heap_fact *fact = trace->facts, *end = fact + trace->fact_count;
    for (; fact < end; fact++) {
        if (load(fact->at) != fact->value)
            return false;
    }
    return true;
}

/* Where the walk stands. bp_at: where bp was loaded from; 0: nowhere, it is the first one. */
struct step {
    uintptr_t pc, sp, bp, bp_at;
    bool is_exact;
};

PEP_HOOK_SAFE static bool add_fact(struct pep_heap_trace *trace, uint32_t *count, uintptr_t at,
                                   uintptr_t value) {
    if (*count >= PEP_HEAP_TRACE_FACTS)
        return false;
    trace->facts[(*count)++] = (struct pep_heap_fact){.at = at, .value = value};
    return true;
}

/* Leaves a frame; false when its rule is not of the plain kinds or leads off the stack. */
PEP_HOOK_SAFE static bool leave(struct pep_heap_trace *trace, uint32_t *count, struct step *step,
                                const struct pep_stack_range *stack) {
    struct pep_rule rule = pep_rules_find(step->pc - !step->is_exact);
    if ((rule.kind != PEP_RULE_SP && rule.kind != PEP_RULE_BP) || rule.bp_kind > PEP_RULE_BP_CFA)
        return false;
    if (rule.kind == PEP_RULE_BP) {
        if (step->bp_at == 0)
            trace->needs_bp = true;
        else if (!add_fact(trace, count, step->bp_at, step->bp))
            return false;
    }
    uintptr_t base = rule.kind == PEP_RULE_SP ? step->sp : step->bp;
    uintptr_t cfa = base + (uintptr_t)((int64_t)rule.cfa * 8);
    uintptr_t bp_at = cfa + (uintptr_t)((int64_t)rule.bp * 8);
    if (cfa <= step->sp || !is_inside(stack, cfa - 8))
        return false;
    if (rule.bp_kind == PEP_RULE_BP_CFA) {
        if (!is_inside(stack, bp_at) || bp_at < trace->sp)
            return false;
        step->bp = load(bp_at);
        step->bp_at = bp_at;
    }
    step->pc = load(cfa - 8);
    step->sp = cfa;
    step->is_exact = false;
    return add_fact(trace, count, cfa - 8, step->pc);
}

PEP_HOOK_SAFE int pep_heap_trace_walk(struct pep_heap_trace *trace, const struct pep_regs *regs,
                                      const struct pep_stack_range *stack, uintptr_t *pcs) {
    struct step step = {.pc = regs->pc, .sp = regs->sp, .bp = regs->bp, .is_exact = true};
    uintptr_t own_start, own_limit;
    uint32_t facts = 0;
    int count = 0;
    trace->fact_count = 0;
    trace->needs_bp = false;
    trace->pc = regs->pc;
    trace->sp = regs->sp;
    trace->bp = regs->bp;
    trace->generation = pep_modules_generation();
    pep_modules_own_range(&own_start, &own_limit);
    while (count < PEP_UNWIND_DEPTH_MAX) {
        uintptr_t lookup = step.pc - !step.is_exact;
        if (step.pc < PEP_PC_FIRST_REAL)
            return 0;
        if (lookup - own_start >= own_limit - own_start) {
            if (count == 0)
                trace->caller_at = step.sp - 8;
            pcs[count++] = lookup;
        }
        if (pep_rules_find(lookup).kind == PEP_RULE_END) {
            trace->fact_count = facts;
            return count;
        }
        if (!leave(trace, &facts, &step, stack))
            return 0;
    }
    return 0;
}
