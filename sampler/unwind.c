#include "sampler/unwind.h"

#include <ucontext.h>

#include "sampler/modules.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/unwind_cfi.h"
#include "sampler/unwind_guess.h"
#include "sampler/unwind_learn.h"
#include "sampler/unwind_memory.h"
#include "sampler/unwind_rule.h"

#define STEPS_MAX (2 * PEP_UNWIND_DEPTH_MAX) /* own frames take steps but no place */
#define SIGNALS_MAX 16                       /* frames that may move the stack downwards */

/* AddressSanitizer would take the red zones of the frames that are read for mistakes. */
#define NO_SANITIZE __attribute__((no_sanitize("address", "thread", "alignment")))

/* Offsets in ucontext_t at SP of a signal frame (sys/ucontext.h; the kernel's ABI). */
#define UC_GREGS offsetof(ucontext_t, uc_mcontext.gregs)

struct pep_unwind_scratch {
    struct pep_unwind_memory memory;
    struct pep_learner learner;
    bool is_complete;
};

struct walk {
    struct pep_unwind_memory *memory;
    struct pep_learner *learner;
    struct pep_learner_frame frame; /* pc: where the frame goes on */
    bool is_exact;                  /* pc was interrupted, not called from */
    bool is_slow;                   /* libunwind leaves every frame, all registers are followed */
    bool needs_slow;                /* an odd frame needs registers that the rules do not follow */
    bool is_complete;               /* the first frame was reached */
    uintptr_t context;              /* ucontext_t of an exact frame; 0: none */
    int signals;
    uintptr_t own_start, own_bytes;
};

int pep_unwind_init(void) {
    pep_learner_init();
    return pep_rules_init();
}

size_t pep_unwind_scratch_bytes(void) {
    return sizeof(struct pep_unwind_scratch);
}

/* The handler's own ucontext_t and those on the stack are read the same careful way. */
PEP_SIGNAL_SAFE static bool read_gregs(struct walk *walk, uint64_t gregs[PEP_LEARNER_GREGS]) {
    for (int i = 0; i < PEP_LEARNER_GREGS; i++)
        if (!pep_unwind_load(walk->memory, walk->context + UC_GREGS + (uintptr_t)i * 8, &gregs[i]))
            return false;
    return true;
}

PEP_SIGNAL_SAFE static void give_registers(struct walk *walk) {
    uint64_t gregs[PEP_LEARNER_GREGS];
    bool has_all = walk->is_exact && walk->context != 0 && read_gregs(walk, gregs);
    pep_learner_registers(walk->learner, &walk->frame, has_all ? gregs : NULL);
}

/* The interrupted frame below a signal trampoline: everything stands in the ucontext_t at SP. */
PEP_SIGNAL_SAFE static bool leave_signal(struct walk *walk) {
    struct pep_learner_frame next;
    uintptr_t gregs = walk->frame.sp + UC_GREGS;
    if (++walk->signals > SIGNALS_MAX ||
        !pep_unwind_load(walk->memory, gregs + REG_RIP * 8, &next.pc) ||
        !pep_unwind_load(walk->memory, gregs + REG_RSP * 8, &next.sp) ||
        !pep_unwind_load(walk->memory, gregs + REG_RBP * 8, &next.bp))
        return false;
    walk->context = walk->frame.sp;
    walk->frame = next;
    walk->is_exact = true;
    if (walk->is_slow)
        give_registers(walk);
    return true;
}

PEP_SIGNAL_SAFE static bool leave_blind(struct walk *walk) {
    if (!pep_guess_caller(walk->memory, walk->is_exact, &walk->frame)) {
        /* psABI 3.4.1: the deepest frame is marked by a BP of zero. Go's stacks end so. */
        walk->is_complete = !walk->is_exact && walk->frame.bp == 0;
        return false;
    }
    walk->is_exact = false;
    if (walk->is_slow)
        give_registers(walk);
    return true;
}

/* Only libunwind can leave this frame, or all of them. Where the rules do not follow a register
 * that it asks for, the whole walk is done again by libunwind. */
PEP_SIGNAL_SAFE static bool leave_odd(struct walk *walk, uintptr_t lookup) {
    const struct pep_module *module = pep_modules_find(lookup);
    struct pep_learner_frame next = walk->frame;
    PEP_COUNT(unwind_slow, 1);
    if (module == NULL)
        return false;
    if (!walk->learner->has_state || walk->learner->lookup != lookup)
        (void)pep_learner_learn(walk->learner, module, lookup);
    if (!walk->is_slow)
        give_registers(walk);
    bool is_signal = walk->learner->is_signal;
    if (!pep_learner_apply(walk->learner, &next)) {
        walk->needs_slow = !walk->is_slow;
        return false;
    }
    if (is_signal ? ++walk->signals > SIGNALS_MAX : next.sp <= walk->frame.sp)
        return false;
    walk->frame = next;
    walk->is_exact = is_signal;
    walk->context = 0;
    return true;
}

/* A handler returns to its trampoline, which nobody called: what stands before it is somebody
 * else's code. libc's says so in its call frame information; others are known by their bytes, and
 * kept out of the table, where the address before them belongs to that other code. */
PEP_SIGNAL_SAFE static bool is_bare_trampoline(struct walk *walk) {
    return !walk->is_exact && !pep_guess_is_confirmed(walk->frame.pc) &&
           pep_guess_is_sigreturn(walk->memory, walk->frame.pc) &&
           !pep_guess_is_after_call(walk->memory, walk->frame.pc);
}

/* The rule that call frame information gives; *may_be_bare: nothing says that the frame's PC
 * belongs to the same function as the address before it. */
PEP_SIGNAL_SAFE static struct pep_rule rule_of_module(struct walk *walk,
                                                      const struct pep_module *module,
                                                      uintptr_t lookup, bool *may_be_bare) {
    struct pep_cfi_found plain;
    *may_be_bare = true;
    if (!walk->is_slow && pep_cfi_find(walk->memory, module, lookup, &plain)) {
        *may_be_bare = walk->frame.pc >= plain.limit;
        return plain.rule;
    }
    PEP_COUNT(unwind_slow, 1);
    return pep_learner_learn(walk->learner, module, lookup);
}

PEP_SIGNAL_SAFE __attribute__((noinline)) static struct pep_rule learn(struct walk *walk,
                                                                       uintptr_t lookup) {
    const struct pep_module *module = pep_modules_find(lookup);
    struct pep_rule rule = {.kind = PEP_RULE_BLIND};
    bool may_be_bare = true;
    if (module != NULL)
        rule = rule_of_module(walk, module, lookup, &may_be_bare);
    else if (lookup >= PEP_PC_FIRST_REAL && !pep_modules_is_executable(lookup))
        pep_modules_note_unknown();
    if (may_be_bare && rule.kind != PEP_RULE_SIGNAL && is_bare_trampoline(walk))
        return (struct pep_rule){.kind = PEP_RULE_SIGNAL};
    if (module != NULL && rule.kind != PEP_RULE_NONE && !pep_modules_is_gone(module->id))
        pep_rules_add(lookup, rule);
    return rule;
}

/* The CFA of a plain rule, 0 when it cannot be read. */
PEP_SIGNAL_SAFE static inline uintptr_t cfa_of(struct walk *walk, struct pep_rule rule) {
    uintptr_t offset = (uintptr_t)((int64_t)rule.cfa * 8), value;
    switch (rule.kind) {
    case PEP_RULE_SP:
        return walk->frame.sp + offset;
    case PEP_RULE_BP:
        return walk->frame.bp + offset;
    case PEP_RULE_SP_DEREF:
        return pep_unwind_load(walk->memory, walk->frame.sp + offset, &value)
                   ? value + rule.plus * 8
                   : 0;
    case PEP_RULE_BP_DEREF:
        return pep_unwind_load(walk->memory, walk->frame.bp + offset, &value)
                   ? value + rule.plus * 8
                   : 0;
    default:
        return 0;
    }
}

/* Our own walk for a hook goes over to a stack of its own, which may lie above the thread's
 * (pep_heap_call_on_stack): a sample that hits it comes back by BP. */
PEP_SIGNAL_SAFE static bool is_way_back(const struct walk *walk, struct pep_rule rule) {
    return rule.kind == PEP_RULE_BP && walk->frame.pc - walk->own_start < walk->own_bytes;
}

PEP_SIGNAL_SAFE static inline bool leave_plain(struct walk *walk, struct pep_rule rule) {
    struct pep_learner_frame next = {.bp = walk->frame.bp};
    next.sp = cfa_of(walk, rule);
    if (pep_unlikely(next.sp <= walk->frame.sp && !is_way_back(walk, rule)))
        return false;
    if (!pep_unwind_load(walk->memory, next.sp - 8, &next.pc))
        return false;
    uintptr_t offset = (uintptr_t)((int64_t)rule.bp * 8);
    if (rule.bp_kind == PEP_RULE_BP_CFA) {
        if (!pep_unwind_load(walk->memory, next.sp + offset, &next.bp))
            return false;
    } else if (rule.bp_kind == PEP_RULE_BP_BP) {
        if (!pep_unwind_load(walk->memory, walk->frame.bp + offset, &next.bp))
            return false;
    } else if (rule.bp_kind == PEP_RULE_BP_LOST) {
        next.bp = 0;
    }
    walk->frame = next;
    walk->is_exact = false;
    return true;
}

PEP_SIGNAL_SAFE __attribute__((noinline)) static bool
leave_other(struct walk *walk, struct pep_rule rule, uintptr_t lookup) {
    switch (rule.kind) {
    case PEP_RULE_END:
        walk->is_complete = true;
        return false;
    case PEP_RULE_SIGNAL:
        return leave_signal(walk);
    case PEP_RULE_BLIND:
        return leave_blind(walk);
    case PEP_RULE_NONE:
        return false;
    default:
        return leave_odd(walk, lookup);
    }
}

/* The common frame: CFA is SP or BP with an offset, BP is where it was or beside the return
 * address, and all of it lies in the thread's own stack. Values stay in registers from one frame
 * to the next; two loads of the table and two of the stack. */
PEP_SIGNAL_SAFE NO_SANITIZE static inline bool leave_fast(const struct pep_unwind_memory *memory,
                                                          struct pep_rule rule,
                                                          struct pep_learner_frame *frame) {
    if (pep_unlikely(rule.kind > PEP_RULE_BP || rule.bp_kind > PEP_RULE_BP_CFA))
        return false;
    uintptr_t base = rule.kind == PEP_RULE_SP ? frame->sp : frame->bp;
    uintptr_t cfa = base + (uintptr_t)((int64_t)rule.cfa * 8);
    uintptr_t bp_at = cfa + (uintptr_t)((int64_t)rule.bp * 8);
    if (pep_unlikely(cfa <= frame->sp || !pep_unwind_is_direct(memory, cfa - 8)))
        return false;
    if (rule.bp_kind == PEP_RULE_BP_CFA) {
        if (pep_unlikely(!pep_unwind_is_direct(memory, bp_at)))
            return false;
        frame->bp = *(const volatile uintptr_t *)bp_at;
    }
    frame->pc = *(const volatile uintptr_t *)(cfa - 8);
    frame->sp = cfa;
    return true;
}

/* One step of any kind; false at the end of the walk. */
PEP_SIGNAL_SAFE __attribute__((noinline)) static bool leave(struct walk *walk, struct pep_rule rule,
                                                            uintptr_t lookup, uintptr_t *pc_shown) {
    if (rule.kind == PEP_RULE_NONE || walk->is_slow)
        rule = learn(walk, lookup);
    if (rule.kind == PEP_RULE_SIGNAL && pc_shown != NULL)
        *pc_shown = walk->frame.pc; /* nobody called a trampoline */
    bool is_plain = rule.kind >= PEP_RULE_SP && rule.kind <= PEP_RULE_BP_DEREF;
    if (is_plain && !walk->is_slow)
        return leave_plain(walk, rule);
    return leave_other(walk, rule, lookup);
}

/* Fills pcs with what is left from the walk's frame on; the number filled. */
PEP_SIGNAL_SAFE NO_SANITIZE static int run(struct walk *walk, uintptr_t *pcs, int max) {
    struct pep_learner_frame frame = walk->frame;
    bool is_exact = walk->is_exact, is_fast = !walk->is_slow;
    int count = 0;
    for (int steps = 0; steps < STEPS_MAX; steps++) {
        uintptr_t lookup = frame.pc - !is_exact;
        bool is_own = lookup - walk->own_start < walk->own_bytes;
        if (pep_unlikely(count == max && !is_own)) {
            pcs[max - 1] = PEP_PC_TRUNCATED;
            PEP_COUNT(unwind_truncated, 1);
            walk->is_complete = true;
            return max;
        }
        if (!is_own)
            pcs[count++] = lookup < PEP_PC_FIRST_REAL ? (uintptr_t)PEP_PC_UNKNOWN : lookup;
        struct pep_rule rule = pep_rules_find(lookup);
        if (pep_likely(is_fast && rule.kind != PEP_RULE_NONE &&
                       leave_fast(walk->memory, rule, &frame))) {
            is_exact = false;
        } else {
            walk->frame = frame;
            walk->is_exact = is_exact;
            if (!leave(walk, rule, lookup, is_own ? NULL : &pcs[count - 1]))
                return count;
            frame = walk->frame;
            is_exact = walk->is_exact;
        }
        if (pep_unlikely(frame.pc == 0)) {
            walk->is_complete = true; /* a stack that somebody ended by hand */
            return count;
        }
    }
    return count;
}

PEP_SIGNAL_SAFE static void begin(struct walk *walk, const struct pep_regs *regs) {
    walk->frame = (struct pep_learner_frame){.pc = regs->pc, .sp = regs->sp, .bp = regs->bp};
    walk->is_exact = true;
    walk->context = (uintptr_t)regs->ucontext;
    walk->needs_slow = walk->is_complete = false;
    walk->signals = 0;
    if (walk->is_slow)
        give_registers(walk);
}

PEP_SIGNAL_SAFE int pep_unwind(const struct pep_regs *regs, const struct pep_stack_range *stack,
                               struct pep_unwind_scratch *scratch, uintptr_t *pcs, int max) {
    struct walk walk = {.memory = &scratch->memory, .learner = &scratch->learner};
    uintptr_t own_limit;
    if (max < 1)
        return 0;
    /* Below SP only the rest of its page is sure to be there: the red zone begins in it. */
    uintptr_t lo = 0, hi = 0;
    if (regs->sp >= stack->lo && regs->sp < stack->hi) {
        lo = regs->sp & ~(uintptr_t)4095;
        lo = lo < stack->lo ? stack->lo : lo;
        hi = stack->hi;
    }
    pep_unwind_memory_begin(&scratch->memory, lo, hi);
    pep_learner_begin(&scratch->learner, &scratch->memory);
    pep_modules_own_range(&walk.own_start, &own_limit);
    walk.own_bytes = own_limit - walk.own_start;
    begin(&walk, regs);
    int count = run(&walk, pcs, max);
    if (pep_unlikely(walk.needs_slow && regs->ucontext != NULL)) {
        walk.is_slow = true;
        begin(&walk, regs);
        count = run(&walk, pcs, max);
    }
    scratch->is_complete = walk.is_complete;
    if (!walk.is_complete && !regs->is_trial)
        PEP_COUNT(unwind_partial, 1);
    if (count == 0)
        pcs[count++] = PEP_PC_UNKNOWN;
    return count;
}

PEP_SIGNAL_SAFE bool pep_unwind_is_complete(const struct pep_unwind_scratch *scratch) {
    return scratch->is_complete;
}
