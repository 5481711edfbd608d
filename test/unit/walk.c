#include "walk.h"

#include <execinfo.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sampler/modules.h"
#include "sampler/rt/counters.h"

struct pep_stack_range walk_range;
int walk_max = PEP_UNWIND_DEPTH_MAX;
struct walk_result walk_last;

static struct pep_unwind_scratch *scratch;

void walk_registers(const struct pep_regs *regs) {
    uint64_t partial = PEP_COUNTED(unwind_partial), truncated = PEP_COUNTED(unwind_truncated);
    walk_last.count = pep_unwind(regs, &walk_range, scratch, walk_last.pcs, walk_max);
    walk_last.is_partial = PEP_COUNTED(unwind_partial) != partial;
    walk_last.is_truncated = PEP_COUNTED(unwind_truncated) != truncated;
}

void walk_context(const ucontext_t *context) {
    const greg_t *gregs = context->uc_mcontext.gregs;
    struct pep_regs regs = {.pc = (uintptr_t)gregs[REG_RIP],
                            .sp = (uintptr_t)gregs[REG_RSP],
                            .bp = (uintptr_t)gregs[REG_RBP],
                            .ucontext = context};
    walk_registers(&regs);
}

static void on_trap(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)info;
    walk_context(context);
    void *trace[PEP_UNWIND_DEPTH_MAX + 8];
    int count = backtrace(trace, PEP_UNWIND_DEPTH_MAX + 8), at = 0;
    void *interrupted = (void *)((const ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    while (at < count && trace[at] != interrupted)
        at++; /* this handler, its trampoline, what a sanitizer puts between */
    walk_last.trace_count = count - at;
    for (int i = at; i < count; i++)
        walk_last.trace[i - at] = trace[i];
}

int walk_setup(void **state) {
    (void)state;
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    void *first[2];
    backtrace(first, 2); /* loads what it needs now */
    scratch = malloc(pep_unwind_scratch_bytes());
    sigaction(SIGUSR1, &action, NULL);
    if (pep_modules_refresh() < 0)
        return -1;
    return pep_unwind_init();
}

void walk_know_stack(void) {
    extern void *__libc_stack_end;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    walk_range.lo = here - (1 << 20);
    walk_range.hi = (uintptr_t)__libc_stack_end + 64;
}

void walk_forget_stack(void) {
    walk_range = (struct pep_stack_range){0, 0};
}

int walk_trap(void) {
    raise(SIGUSR1);
    return 1;
}

void walk_assert_same(void) {
    assert_int_equal(walk_last.count, walk_last.trace_count);
    assert_int_equal(walk_last.pcs[0], (uintptr_t)walk_last.trace[0]);
    for (int i = 1; i < walk_last.count; i++)
        assert_int_equal(walk_last.pcs[i], (uintptr_t)walk_last.trace[i] - 1);
    assert_false(walk_last.is_partial);
    assert_false(walk_last.is_truncated);
}

bool walk_has(const void *function) {
    for (int i = 0; i < walk_last.count; i++)
        if (walk_last.pcs[i] - (uintptr_t)function < WALK_FUNCTION_BYTES)
            return true;
    return false;
}
