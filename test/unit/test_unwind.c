/* Walks of well-behaved code, frame by frame beside backtrace(3). */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/modules.h"
#include "sampler/rt/counters.h"
#include "sampler/unwind_rule.h"
#include "walk.h"

#define NOINLINE __attribute__((noinline, noclone))
#define WITH_BP __attribute__((noinline, noclone, optimize("no-omit-frame-pointer")))

static int know_stack(void **state) {
    (void)state;
    walk_max = PEP_UNWIND_DEPTH_MAX;
    walk_know_stack();
    return 0;
}

/* -- recursion ------------------------------------------------------------------------------ */

NOINLINE static int without_bp(int depth) {
    volatile char room[40];
    room[0] = (char)depth;
    return depth <= 0 ? walk_trap() : without_bp(depth - 1) + room[0];
}

WITH_BP static int with_bp(int depth) {
    volatile char room[72];
    room[0] = (char)depth;
    return depth <= 0 ? walk_trap() : with_bp(depth - 1) + room[0];
}

NOINLINE static int mixed_even(int depth);

WITH_BP static int mixed_odd(int depth) {
    volatile char room[24];
    room[0] = (char)depth;
    return depth <= 0 ? walk_trap() : mixed_even(depth - 1) + room[0];
}

NOINLINE static int mixed_even(int depth) {
    volatile char room[3000];
    room[0] = (char)depth;
    return depth <= 0 ? walk_trap() : mixed_odd(depth - 1) + room[0];
}

/* A frame that realigns its stack: its CFA is a word in memory. */
NOINLINE static int aligned(int depth, int size) {
    _Alignas(64) volatile char room[64];
    volatile char *more = __builtin_alloca((size_t)size);
    room[0] = more[0] = (char)depth;
    return depth <= 0 ? walk_trap() : aligned(depth - 1, size + 8) + room[0] + more[0];
}

static int frames_of(int (*recurse)(int), int depth) {
    recurse(depth);
    walk_assert_same();
    return walk_last.count;
}

static void every_frame_of_a_recursion_is_told(void **state) {
    (void)state;
    int (*const kinds[])(int) = {without_bp, with_bp, mixed_even};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        int base = frames_of(kinds[i], 0);
        for (int depth = 1; depth < 100; depth += 7)
            assert_int_equal(frames_of(kinds[i], depth), base + depth);
    }
}

static void the_same_without_knowing_the_stack(void **state) {
    walk_forget_stack();
    every_frame_of_a_recursion_is_told(state);
}

static void frames_that_realign_their_stack_are_left(void **state) {
    (void)state;
    for (int depth = 0; depth < 20; depth++) {
        aligned(depth, 100);
        walk_assert_same();
    }
}

static int compare_and_trap(const void *a, const void *b) {
    walk_trap();
    return *(const int *)a - *(const int *)b;
}

static void callbacks_through_libc_are_left(void **state) {
    (void)state;
    int values[] = {3, 1, 2};
    qsort(values, 3, sizeof(values[0]), compare_and_trap);
    walk_assert_same();
    assert_true(walk_has(compare_and_trap));
}

static void warm_walks_learn_nothing(void **state) {
    (void)state;
    uint64_t counts[3];
    for (int i = 0; i < 3; i++) { /* one place to call from, so one return address */
        with_bp(20);
        walk_assert_same();
        counts[i] = PEP_COUNTED(unwind_slow);
    }
    assert_int_equal(counts[2], counts[1]);
}

/* -- limits --------------------------------------------------------------------------------- */

static void a_deep_stack_keeps_its_leaf_side(void **state) {
    (void)state;
    without_bp(40);
    struct walk_result whole = walk_last;
    for (int max = 1; max <= whole.count + 1; max++) {
        walk_max = max;
        without_bp(40);
        bool is_cut = max < whole.count;
        assert_int_equal(walk_last.count, is_cut ? max : whole.count);
        assert_int_equal(walk_last.is_truncated, is_cut);
        assert_false(walk_last.is_partial);
        if (is_cut)
            assert_int_equal(walk_last.pcs[max - 1], PEP_PC_TRUNCATED);
        for (int i = 1; i < max - 1 && i < 30; i++)
            assert_int_equal(walk_last.pcs[i], whole.pcs[i]);
    }
}

static void endless_recursion_is_cut(void **state) {
    (void)state;
    without_bp(5000);
    assert_int_equal(walk_last.count, PEP_UNWIND_DEPTH_MAX);
    assert_int_equal(walk_last.pcs[PEP_UNWIND_DEPTH_MAX - 1], PEP_PC_TRUNCATED);
    assert_true(walk_last.is_truncated);
}

/* Gives every place of the first part of the table to somebody. */
static void fill_first_part(void) {
    for (uintptr_t i = 0; i < PEP_RULES_FIRST; i++)
        pep_rules_add((PEP_RULES_FIRST << PEP_RULES_FIRST_LOG2) + i,
                      (struct pep_rule){.kind = PEP_RULE_END});
}

/* Gives every place from at on to a PC that belongs there, leaving the one given alone. */
static void fill_places(uint32_t at, uintptr_t spared) {
    for (uint32_t i = 0; i < PEP_RULE_PROBES; i++) {
        uintptr_t pc = 0;
        while (pc == spared || pep_rules_near(pc) != ((at + i) & (PEP_RULES_MAX - 1)))
            pc++;
        pep_rules_add(pc, (struct pep_rule){.kind = PEP_RULE_END});
    }
}

static void a_full_rule_table_is_counted_and_walks_go_on(void **state) {
    (void)state;
    uintptr_t pc = 0x1000;
    uint64_t before = PEP_COUNTED(rule_table_full);
    fill_first_part();
    fill_places(pep_rules_near(pc), pc);
    pep_rules_add(pc, (struct pep_rule){.kind = PEP_RULE_BLIND});
    assert_int_equal(pep_rules_find(pc).kind, PEP_RULE_BLIND); /* at its other place */
    pc = 0x2000;
    fill_places(pep_rules_near(pc), pc);
    fill_places(pep_rules_far(pc), pc);
    assert_int_equal(PEP_COUNTED(rule_table_full), before);
    pep_rules_add(pc, (struct pep_rule){.kind = PEP_RULE_BLIND});
    assert_int_equal(PEP_COUNTED(rule_table_full), before + 1);
    assert_int_equal(pep_rules_find(pc).kind, PEP_RULE_NONE);
    without_bp(3);
    walk_assert_same();
}

/* -- signals and threads -------------------------------------------------------------------- */

static void *interrupted_at;
static volatile int sink; /* a result that is kept keeps a call from becoming a jump */

NOINLINE static void on_other_signal(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)info;
    interrupted_at = (void *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    sink = without_bp(3);
}

static void trap_in_handler(int flags) {
    if (WALK_IS_DEFERRED)
        skip();
    struct sigaction action = {.sa_sigaction = on_other_signal, .sa_flags = SA_SIGINFO | flags};
    sigaction(SIGUSR2, &action, NULL);
    raise(SIGUSR2);
    assert_false(walk_last.is_partial);
    assert_int_equal(walk_last.count, walk_last.trace_count);
    assert_true(walk_has(on_other_signal));
    assert_true(walk_has(trap_in_handler));
    /* The interrupted frame has its exact address, and so has the trampoline before it. */
    int at = 1;
    while (at < walk_last.count && walk_last.pcs[at] != (uintptr_t)interrupted_at)
        at++;
    assert_true(at < walk_last.count);
    assert_ptr_equal(walk_last.trace[at], interrupted_at);
    assert_ptr_equal((void *)walk_last.pcs[at - 1], walk_last.trace[at - 1]);
}

static void handlers_lead_to_what_they_interrupted(void **state) {
    (void)state;
    trap_in_handler(0);
}

static void handlers_on_their_own_stack_too(void **state) {
    (void)state;
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536}, before;
    assert_int_equal(sigaltstack(&stack, &before), 0);
    trap_in_handler(SA_ONSTACK);
    sigaltstack(&before, NULL);
    free(stack.ss_sp);
}

NOINLINE static void *trap_on_thread(void *argument) {
    struct pep_stack_range *range = argument;
    walk_range = *range;
    sink = without_bp(5);
    return NULL;
}

/* The thread's stack ends at an unmapped page on both sides. */
static void a_thread_is_walked_to_its_first_frame(void **state) {
    (void)state;
    size_t size = 2 << 20;
    char *pages = mmap(NULL, size + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(mprotect(pages + 4096, size, PROT_READ | PROT_WRITE), 0);
    struct pep_stack_range known = {(uintptr_t)pages + 4096, (uintptr_t)pages + 4096 + size};
    struct pep_stack_range ranges[] = {known, {0, 0}};
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        assert_int_equal(pthread_attr_setstack(&attributes, pages + 4096, size), 0);
        assert_int_equal(pthread_create(&thread, &attributes, trap_on_thread, &ranges[i]), 0);
        pthread_join(thread, NULL);
        pthread_attr_destroy(&attributes);
        walk_assert_same();
        assert_true(walk_has(trap_on_thread));
    }
    munmap(pages, size + 8192);
}

/* -- frames that no rule can say -------------------------------------------------------------- */

/* CFA in rbx, as in the loader's lazy binding: whoever lies between must be followed with all
 * registers. */
int odd_frame(int (*callback)(int), int argument);
__asm__(".text\n.type odd_frame, @function\nodd_frame:\n"
        ".cfi_startproc\n"
        "push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset %rbx, 0\n"
        "mov %rsp, %rbx\n.cfi_def_cfa_register %rbx\n"
        "and $-64, %rsp\n"
        "mov %rdi, %rax\nmov %esi, %edi\n"
        "call *%rax\n"
        "mov %rbx, %rsp\n.cfi_def_cfa_register %rsp\n"
        "pop %rbx\n.cfi_adjust_cfa_offset -8\n.cfi_restore %rbx\n"
        "ret\n.cfi_endproc\n.size odd_frame, . - odd_frame\n");

static void frames_that_need_other_registers_are_left(void **state) {
    (void)state;
    uint64_t before = PEP_COUNTED(unwind_slow);
    odd_frame(mixed_even, 9);
    walk_assert_same();
    assert_true(walk_has(odd_frame));
    assert_true(PEP_COUNTED(unwind_slow) > before);
}

NOINLINE static void odd_handler(int sig) {
    (void)sig;
    sink = odd_frame(with_bp, 2);
}

static void odd_frames_below_signals_are_left(void **state) {
    (void)state;
    if (WALK_IS_DEFERRED)
        skip();
    signal(SIGUSR2, odd_handler);
    raise(SIGUSR2);
    assert_false(walk_last.is_partial);
    assert_int_equal(walk_last.count, walk_last.trace_count);
    assert_true(walk_has(odd_handler));
}

static void without_other_registers_an_odd_frame_ends_the_walk(void **state) {
    (void)state;
    struct pep_regs regs = {.pc = (uintptr_t)odd_frame + 8, .sp = walk_range.hi - 4096};
    walk_registers(&regs);
    assert_true(walk_last.is_partial);
    assert_int_equal(walk_last.count, 1);
}

/* -- libraries that come and go --------------------------------------------------------------- */

static char folder[64];

static int in_library(const char *name, int room, uintptr_t *lookup) {
    char path[128], command[512];
    snprintf(path, sizeof(path), "%s/place.so", folder);
    snprintf(command, sizeof(command),
             "echo 'int helper(int (*f)(int)) { volatile char room[%d]; room[0] = 1; "
             "return f(0) + room[0]; }' | cc -O1 -shared -fPIC -x c -o %s/%s.so - && "
             "mv %s/%s.so %s",
             room, folder, name, folder, name, path);
    assert_int_equal(system(command), 0);
    void *handle = dlopen(path, RTLD_NOW);
    assert_non_null(handle);
    int (*helper)(int (*)(int)) = (int (*)(int (*)(int)))dlsym(handle, "helper");
    assert_int_equal(pep_modules_refresh(), 0);
    helper(without_bp);
    walk_assert_same();
    for (int i = 0; i < walk_last.count; i++)
        if (walk_last.pcs[i] - (uintptr_t)helper < 256)
            *lookup = walk_last.pcs[i];
    dlclose(handle);
    pep_modules_closed();
    unlink(path);
    return 0;
}

static void rules_of_an_unloaded_library_are_learnt_anew(void **state) {
    (void)state;
    uintptr_t first = 0, second = 0, third = 0;
    strcpy(folder, "/tmp/pep_unwindXXXXXX");
    assert_non_null(mkdtemp(folder));
    in_library("a", 2000, &first);
    in_library("b", 3000, &second);
    in_library("a", 2000, &third);
    rmdir(folder);
    assert_true(first != 0 && second != 0 && third != 0);
    if (first != second || first != third)
        skip(); /* the loader chose another place; else: one address, two rules */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_frame_of_a_recursion_is_told, know_stack),
        cmocka_unit_test_setup(the_same_without_knowing_the_stack, know_stack),
        cmocka_unit_test_setup(frames_that_realign_their_stack_are_left, know_stack),
        cmocka_unit_test_setup(callbacks_through_libc_are_left, know_stack),
        cmocka_unit_test_setup(warm_walks_learn_nothing, know_stack),
        cmocka_unit_test_setup(a_deep_stack_keeps_its_leaf_side, know_stack),
        cmocka_unit_test_setup(endless_recursion_is_cut, know_stack),
        cmocka_unit_test_setup(a_full_rule_table_is_counted_and_walks_go_on, know_stack),
        cmocka_unit_test_setup(handlers_lead_to_what_they_interrupted, know_stack),
        cmocka_unit_test_setup(handlers_on_their_own_stack_too, know_stack),
        cmocka_unit_test_setup(a_thread_is_walked_to_its_first_frame, know_stack),
        cmocka_unit_test_setup(frames_that_need_other_registers_are_left, know_stack),
        cmocka_unit_test_setup(odd_frames_below_signals_are_left, know_stack),
        cmocka_unit_test_setup(without_other_registers_an_odd_frame_ends_the_walk, know_stack),
        cmocka_unit_test_setup(rules_of_an_unloaded_library_are_learnt_anew, know_stack),
    };
    return cmocka_run_group_tests(tests, walk_setup, NULL);
}
