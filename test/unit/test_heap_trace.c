/* Traces tell the same stacks as unwinding, whatever path led there; and do not hold when anything
 * changed on which the walk depended. */
#include <alloca.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "heap_help.h"
#include "sampler/heap.h"
#include "sampler/heap_hook.h"
#include "sampler/heap_internal.h"
#include "sampler/heap_trace.h"
#include "sampler/modules.h"
#include "sampler/rt/counters.h"
#include "sampler/thread.h"

#define BASE 0x100000000000ul
#define DEPTH 24
#define FUNCTIONS 4
#define ROUNDS 20000

static char path[DEPTH];
static int depth;
static uintptr_t next_block = BASE;

static void go_on(int level);

/* Frames of different kinds: small, large, of a size that is not known beforehand. */
__attribute__((noipa, aligned(256))) static void plain(int level) {
    go_on(level + 1);
    __asm__ volatile("" : : : "memory");
}

__attribute__((noipa, aligned(256))) static void large(int level) {
    volatile char room[200];
    room[0] = (char)level;
    go_on(level + 1);
    room[1] = room[0];
}

__attribute__((noipa, aligned(256))) static void growing(int level) {
    volatile char *room = alloca((size_t)(16 + level % 3 * 64 + (int)(next_block >> 4) % 5 * 32));
    room[0] = (char)level;
    go_on(level + 1);
    room[1] = room[0];
}

__attribute__((noipa, aligned(256), optimize("no-omit-frame-pointer"))) static void
framed(int level) {
    go_on(level + 1);
    __asm__ volatile("" : : : "memory");
}

static void (*const functions[FUNCTIONS])(int) = {plain, large, growing, framed};

__attribute__((noipa)) static void go_on(int level) {
    if (level == depth) {
        help_allocate(next_block, 16);
        next_block += 16;
        return;
    }
    functions[(int)path[level]](level);
    __asm__ volatile("" : : : "memory");
}

static int function_of(uintptr_t pc) {
    for (int i = 0; i < FUNCTIONS; i++)
        if (pc - (uintptr_t)functions[i] < 256)
            return i;
    return -1;
}

static bool is_path(const struct pep_stack *stack) {
    int level = depth;
    for (uint32_t i = 0; i < stack->count; i++) {
        int function = function_of(stack->pcs[i]);
        if (function >= 0 && (level == 0 || path[--level] != function))
            return false;
    }
    return level == 0;
}

/* The stack that the last block was charged to. */
static const struct pep_stack *stack_of_last(void) {
    struct pep_heap_taken taken = pep_heap_take_out(next_block - 16);
    assert_int_equal(taken.what, PEP_LIVE_SAMPLED);
    pep_heap_freed(&taken);
    return pep_stack_table_get((pep_stack_id)(pep_heap_cell_at(taken.cell)->key >> 32));
}

static void before_init_there_are_no_sets(void **state) {
    (void)state;
    const struct pep_heap_options options = {.is_recording_all = true};
    assert_null(pep_heap_trace_take_set());
    assert_int_equal(pep_threads_init(), 0);
    assert_int_equal(pep_heap_init(&options), 0);
    assert_int_equal(pep_heap_trace_init(), 0);
}

/* Paths change a little from one to the next, so that most of what a trace saw is still there. */
static void every_stack_is_the_path_that_was_taken(void **state) {
    (void)state;
    uint64_t seed = 88172645463325252u;
    depth = 8;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t r = help_random(&seed);
        path[r % DEPTH] = (char)(r / DEPTH % FUNCTIONS);
        if (r / 1024 % 8 == 0)
            depth = 1 + (int)(r / 65536 % DEPTH);
        for (int again = 0; again < 2; again++) {
            go_on(0);
            const struct pep_stack *stack = stack_of_last();
            assert_non_null(stack);
            assert_true(is_path(stack));
        }
    }
    assert_non_null(pep_heap_thread.traces);
}

static struct pep_heap_trace trace;
static uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];

__attribute__((noipa)) static void here(struct pep_regs *regs) {
    regs->ucontext = NULL;
    __asm__ volatile("lea 0(%%rip), %0\n\tmov %%rsp, %1\n\tmov %%rbp, %2"
                     : "=&r"(regs->pc), "=&r"(regs->sp), "=&r"(regs->bp));
    int count = pep_heap_trace_walk(&trace, regs, &pep_heap_thread.stack, pcs);
    if (count == 0) { /* not all rules are known yet */
        struct pep_unwind_scratch *scratch = alloca(pep_unwind_scratch_bytes());
        assert_true(pep_unwind(regs, &pep_heap_thread.stack, scratch, pcs, 256) > 3);
        count = pep_heap_trace_walk(&trace, regs, &pep_heap_thread.stack, pcs);
    }
    assert_true(count > 3);
    assert_true(pep_heap_trace_holds(&trace, regs));
    for (uint32_t i = 0; i < trace.fact_count; i++) {
        trace.facts[i].value ^= 1; /* as if that word had changed */
        assert_false(pep_heap_trace_holds(&trace, regs));
        trace.facts[i].value ^= 1;
    }
    struct pep_heap_trace kept = trace;
    trace.sp += 8;
    assert_false(pep_heap_trace_holds(&trace, regs));
    trace = kept;
    trace.pc += 1;
    assert_false(pep_heap_trace_holds(&trace, regs));
    trace = kept;
    trace.generation++;
    assert_false(pep_heap_trace_holds(&trace, regs));
    trace = kept;
    trace.needs_bp = true;
    trace.bp ^= 8;
    assert_false(pep_heap_trace_holds(&trace, regs));
    trace = kept;
    assert_true(pep_heap_trace_holds(&trace, regs));
}

static void a_trace_holds_until_something_changed(void **state) {
    (void)state;
    struct pep_regs regs;
    here(&regs);
    struct pep_stack_range nowhere = {0, 0};
    assert_int_equal(pep_heap_trace_walk(&trace, &regs, &nowhere, pcs), 0);
    assert_false(pep_heap_trace_holds(&trace, &regs));
    assert_null(pep_heap_trace_at(pep_heap_thread.traces, 1, &regs, &nowhere));
    assert_non_null(pep_heap_trace_at(pep_heap_thread.traces, 1, &regs, &pep_heap_thread.stack));
}

static void a_trace_is_kept_where_it_is_looked_for(void **state) {
    (void)state;
    static struct pep_heap_trace_set set;
    static struct pep_heap_trace made = {.sp = 0x1000, .caller_at = 0x1040, .fact_count = 3};
    assert_false(pep_heap_trace_keep(&set, 7, &made)); /* it was looked for elsewhere */
    made.fact_count = 3;
    assert_true(pep_heap_trace_keep(&set, 7, &made));
    made.fact_count = 0;
    assert_false(pep_heap_trace_keep(&set, 7, &made));
}

static void sets_run_out_and_stacks_are_right_all_the_same(void **state) {
    (void)state;
    uint32_t taken = 0;
    while (pep_heap_trace_take_set() != NULL)
        taken++;
    assert_true(taken < PEP_HEAP_TRACE_SETS);
    struct pep_heap_trace_set *own = pep_heap_thread.traces;
    pep_heap_thread.traces = NULL;
    memset(path, 1, sizeof path);
    depth = DEPTH;
    go_on(0);
    assert_true(is_path(stack_of_last()));
    assert_null(pep_heap_thread.traces);
    pep_heap_thread.traces = own;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_init_there_are_no_sets),
        cmocka_unit_test(every_stack_is_the_path_that_was_taken),
        cmocka_unit_test(a_trace_holds_until_something_changed),
        cmocka_unit_test(a_trace_is_kept_where_it_is_looked_for),
        cmocka_unit_test(sets_run_out_and_stacks_are_right_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
