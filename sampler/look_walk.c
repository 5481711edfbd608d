/*
 * The stack of a thread that waits, from SP and PC alone.
 *
 * Model:   most of libc's calls are left by SP, and functions that use BP for something else have
 *          saved it. What remains is a host built with frame pointers: its first own frame needs
 *          BP, which nobody tells. It is where that function's first instructions put it, or where
 *          a saved BP and a return address stand side by side; and it is taken only when the walk
 *          that begins with it ends at the thread's first frame.
 * Writers: -
 * Readers: look.c.  [normal]
 * Memory:  the looker's.
 * When full: after TRIALS_MAX walks the longest one counts.
 *
 * Another thread's stack is never loaded from directly: it may be unmapped at any moment. The main
 * thread's stays.
 */
#include <string.h>

#include "sampler/look_internal.h"
#include "sampler/modules.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"
#include "sampler/unwind_guess.h"
#include "sampler/unwind_rule.h"

#define TRIALS_MAX 32
#define SCAN_BYTES (64u << 10) /* a frame larger than this keeps its secret */
#define STEPS_MAX 64           /* frames from the system call to the one that needs BP */
#define PROLOGUE_BYTES 48
#define CALL_BYTES 5 /* e8 rel32 */

/* No stack is there, and it is not the zero that marks a first frame. */
#define NO_BP 8

/* A frame that cannot be left without BP. */
struct puzzle {
    const struct pep_look *look;
    struct pep_stack_range stack;
    uintptr_t sp, lookup;
    struct pep_rule rule;
    uintptr_t function; /* its first instruction; 0 unknown */
    uintptr_t *pcs;
    int max, trials;
};

static struct pep_stack_range stack_of(const struct pep_look *look) {
    const struct pep_thread *thread = pep_thread_of(look->tid);
    if (thread == NULL || look->tid != pep_os_getpid())
        return (struct pep_stack_range){0, 0};
    return thread->stack;
}

static int walk(struct pep_looker *looker, const struct puzzle *puzzle, uintptr_t bp,
                bool is_trial) {
    const struct pep_regs regs = {
        .pc = puzzle->look->pc, .sp = puzzle->look->sp, .bp = bp, .is_trial = is_trial};
    return pep_unwind(&regs, &puzzle->stack, looker->scratch, puzzle->pcs, puzzle->max);
}

/* Goes up by the rules that the walk before has learnt; false when that walk did not end for want
 * of BP. */
static bool find_puzzle(struct pep_looker *looker, struct puzzle *puzzle) {
    struct pep_learner_frame frame = {.pc = puzzle->look->pc, .sp = puzzle->look->sp};
    for (int i = 0; i < STEPS_MAX; i++) {
        uintptr_t lookup = frame.pc - (i != 0), cfa;
        struct pep_rule rule = pep_rules_find(lookup);
        if (rule.kind == PEP_RULE_NONE && pep_modules_find(lookup) == NULL)
            rule = (struct pep_rule){.kind = PEP_RULE_BLIND};
        if (rule.kind == PEP_RULE_BP || rule.kind == PEP_RULE_BP_DEREF ||
            rule.kind == PEP_RULE_BLIND) {
            puzzle->sp = frame.sp;
            puzzle->lookup = lookup;
            puzzle->rule = rule;
            return true;
        }
        cfa = frame.sp + (uintptr_t)((int64_t)rule.cfa * 8);
        if (rule.kind != PEP_RULE_SP || rule.bp_kind != PEP_RULE_BP_SAME || cfa <= frame.sp ||
            !pep_unwind_load(&looker->memory, cfa - 8, &frame.pc))
            return false;
        frame.sp = cfa;
    }
    return false;
}

/* The frame's CFA if BP is this, or 0. Code without call frame information is taken for code that
 * keeps a frame pointer. */
static uintptr_t cfa_with(struct pep_looker *looker, const struct puzzle *puzzle, uintptr_t bp) {
    uintptr_t at = bp + (uintptr_t)((int64_t)puzzle->rule.cfa * 8), cfa = at;
    if (puzzle->rule.kind == PEP_RULE_BLIND)
        cfa = bp + 16;
    else if (puzzle->rule.kind == PEP_RULE_BP_DEREF && !pep_unwind_load(&looker->memory, at, &cfa))
        return 0;
    else if (puzzle->rule.kind == PEP_RULE_BP_DEREF)
        cfa += puzzle->rule.plus * 8;
    /* psABI 3.2.2: before a call SP is a multiple of 16. */
    return cfa % 16 == 0 && cfa > puzzle->sp && cfa - puzzle->sp <= 2 * SCAN_BYTES ? cfa : 0;
}

static bool is_called_from(struct pep_looker *looker, uintptr_t address) {
    return address >= PEP_PC_FIRST_REAL && pep_modules_is_executable(address - 1) &&
           pep_guess_is_after_call(&looker->memory, address);
}

/* The function that the call before a return address goes to: 0 when the address is computed. */
static uintptr_t target_of(struct pep_looker *looker, uintptr_t address) {
    struct __attribute__((packed)) {
        uint8_t opcode;
        int32_t offset;
    } call;
    if (!pep_unwind_read(&looker->memory, address - CALL_BYTES, &call, sizeof call) ||
        call.opcode != 0xe8)
        return 0;
    return address + (uintptr_t)(intptr_t)call.offset;
}

/* How well a BP fits, before any walk: 0 not at all; 1 there is a return address; 2 its call may
 * well be one of this function, by a pointer or through a table; 3 it is. What an earlier call left
 * behind looks like 1. */
static int fit_of(struct pep_looker *looker, const struct puzzle *puzzle, uintptr_t bp) {
    uintptr_t address, cfa = cfa_with(looker, puzzle, bp);
    if (cfa == 0 || !pep_unwind_load(&looker->memory, cfa - 8, &address) ||
        !is_called_from(looker, address))
        return 0;
    uintptr_t target = target_of(looker, address);
    if (target == 0 || puzzle->function == 0)
        return 2;
    if (target == puzzle->function)
        return 3;
    /* From another object the way goes through a stub of the caller's. */
    return pep_modules_find(target) == pep_modules_find(puzzle->lookup) ? 1 : 2;
}

static int try_bp(struct pep_looker *looker, struct puzzle *puzzle, uintptr_t bp) {
    puzzle->trials++;
    int count = walk(looker, puzzle, bp, true);
    return pep_unwind_is_complete(looker->scratch) ? count : 0;
}

/* Bytes from BP down to SP that a function's first instructions make: "push %rbp; mov %rsp,%rbp",
 * then pushes, then "sub $N,%rsp". -1 when they are not these. */
static long prologue_bytes(struct pep_looker *looker, uintptr_t function) {
    uint8_t code[PROLOGUE_BYTES];
    if (function == 0 || !pep_unwind_read(&looker->memory, function, code, sizeof code))
        return -1;
    size_t at = 0;
    long bytes = 0;
    if (code[0] == 0xf3 && code[1] == 0x0f && code[2] == 0x1e && code[3] == 0xfa)
        at = 4; /* endbr64 */
    if (code[at] != 0x55 || code[at + 1] != 0x48 || code[at + 2] != 0x89 || code[at + 3] != 0xe5)
        return -1;
    for (at += 4; at + 8 < sizeof code;) {
        const uint8_t *c = code + at;
        if (c[0] == 0x53) { /* push %rbx */
            bytes += 8;
            at += 1;
        } else if (c[0] == 0x41 && c[1] >= 0x54 && c[1] <= 0x57) { /* push %r12 .. %r15 */
            bytes += 8;
            at += 2;
        } else if (c[0] == 0x48 && c[1] == 0x83 && c[2] == 0xec) { /* sub $imm8,%rsp */
            return bytes + (int8_t)c[3];
        } else if (c[0] == 0x48 && c[1] == 0x81 && c[2] == 0xec) { /* sub $imm32,%rsp */
            int32_t more;
            memcpy(&more, c + 3, sizeof more);
            return bytes + more;
        } else {
            break;
        }
    }
    return bytes;
}

static int by_prologue(struct pep_looker *looker, struct puzzle *puzzle) {
    long bytes = prologue_bytes(looker, puzzle->function);
    if (bytes < 0)
        return 0;
    uintptr_t bp = puzzle->sp + (uintptr_t)bytes;
    return fit_of(looker, puzzle, bp) >= 2 ? try_bp(looker, puzzle, bp) : 0;
}

/* The innermost place that fits that well. */
static int by_search(struct pep_looker *looker, struct puzzle *puzzle, int fit) {
    uintptr_t word, at = (puzzle->sp + 7) & ~(uintptr_t)7;
    for (uintptr_t end = at + SCAN_BYTES; at < end && puzzle->trials < TRIALS_MAX; at += 8) {
        if (!pep_unwind_load(&looker->memory, at, &word))
            return 0;
        int count = fit_of(looker, puzzle, at) >= fit ? try_bp(looker, puzzle, at) : 0;
        if (count > 0)
            return count;
    }
    return 0;
}

static int solve(struct pep_looker *looker, struct puzzle *puzzle) {
    const struct pep_module *module = pep_modules_find(puzzle->lookup);
    if (module != NULL) {
        pep_learner_begin(&looker->learner, &looker->memory);
        (void)pep_learner_learn(&looker->learner, module, puzzle->lookup);
        puzzle->function = looker->learner.function;
    }
    int count = by_prologue(looker, puzzle);
    for (int fit = 3; fit > 0 && count == 0; fit--)
        count = by_search(looker, puzzle, fit);
    return count;
}

int pep_look_stack(struct pep_looker *looker, const struct pep_look *look, uintptr_t *pcs,
                   int max) {
    struct puzzle puzzle = {.look = look, .stack = stack_of(look), .pcs = pcs, .max = max};
    int count = walk(looker, &puzzle, NO_BP, true);
    if (pep_unwind_is_complete(looker->scratch))
        return count;
    bool is_near = look->sp >= puzzle.stack.lo && look->sp < puzzle.stack.hi;
    pep_unwind_memory_begin(&looker->memory, is_near ? look->sp : 0, is_near ? puzzle.stack.hi : 0);
    int solved = find_puzzle(looker, &puzzle) ? solve(looker, &puzzle) : 0;
    return solved > 0 ? solved : walk(looker, &puzzle, NO_BP, false);
}
