/*
 * Threads caught inside our own code: in a handler, on a signal stack, on the stack that a walk has
 * for itself. Their stacks go on with what was interrupted.
 * LDFLAGS: -Wl,--wrap=pep_unwind -Wl,--wrap=pep_modules_own_range
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "look_help.h"
#include "sampler/ask.h"
#include "sampler/cpu_internal.h"
#include "sampler/heap.h"
#include "sampler/heap_internal.h"
#include "sampler/look_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"
#include "waiters.h"

#define FRAMELESS __attribute__((noinline, noclone, optimize("omit-frame-pointer")))
#define FUNCTION_BYTES 512 /* with a sanitizer's checks */
#define ENTRY_BYTES 16     /* to the call and what follows it */
#define SIGNAL_STACK_BYTES 65536

static struct pep_looker *looker;
static uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
static int held_tid;              /* waits when it begins to walk */
static int may_walk;              /* a futex word */
static int is_to_end, is_to_note; /* what work does */
static int is_working;
static uintptr_t own_function; /* it changes stacks */
static char signal_stack[SIGNAL_STACK_BYTES] __attribute__((aligned(16)));

static void wait_here(void) {
    while (!pep_load_acquire(&may_walk))
        pep_os_futex_wait(&may_walk, 0, UINT64_MAX);
}

static void wait_if_held(void) {
    if (pep_load_acquire(&held_tid) == pep_os_gettid())
        wait_here();
}

/* The library is part of the test's program here. */
void __wrap_pep_modules_own_range(uintptr_t *start, uintptr_t *limit);
void __wrap_pep_modules_own_range(uintptr_t *start, uintptr_t *limit) {
    *start = own_function;
    *limit = own_function != 0 ? own_function + ENTRY_BYTES : 0;
}

/* What is interrupted. */
FRAMELESS static void work(void) {
    uint32_t identity;
    pep_store_release(&is_working, 1);
    while (!pep_load_acquire(&is_to_end))
        if (pep_load_acquire(&is_to_note))
            (void)pep_heap_stack_here(&identity);
}

static void *run_work(void *argument) {
    const stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    if (argument != NULL)
        sigaltstack(&stack, NULL);
    work();
    return NULL;
}

static int start_work(void *has_signal_stack) {
    int tid = waiter_run(run_work, has_signal_stack);
    while (!pep_load_acquire(&is_working))
        usleep(1000);
    return tid;
}

static void stay(int n) {
    (void)n;
    wait_here();
}

static int setup(void **state) {
    look_setup(state);
    pep_store_release(&look_while_walking, wait_if_held);
    held_tid = may_walk = is_to_end = is_to_note = is_working = 0;
    own_function = 0;
    looker = pep_looker_open(&look_arena);
    return looker != NULL ? 0 : -1;
}

static int teardown(void **state) {
    pep_store_release(&may_walk, 1);
    pep_os_futex_wake(&may_walk, 1);
    pep_store_release(&is_to_end, 1);
    pep_looker_close(looker);
    return look_teardown(state);
}

/* The thread waits in our code: the stack is whole, and work in it. */
static void is_read_from_work_on(int tid) {
    struct pep_look look;
    int at = 0;
    waiter_await(tid, 'S');
    pep_look_at(looker, tid, &look);
    assert_int_equal(look.kind, PEP_LOOK_WAITS);
    assert_int_equal(look.call, SYS_futex);
    int count = pep_look_walk(looker, &look, pcs, PEP_UNWIND_DEPTH_MAX);
    assert_true(pep_unwind_is_complete(looker->scratch));
    while (at + 1 < count && (pcs[at] - (uintptr_t)work >= FUNCTION_BYTES ||
                              pcs[at + 1] - (uintptr_t)run_work >= FUNCTION_BYTES))
        at++;
    assert_true(count - at >= 3); /* work, run_work, start_thread */
}

static void in_a_handler(int flags, void *has_signal_stack) {
    struct sigaction action = {.sa_handler = stay, .sa_flags = flags};
    sigfillset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    int tid = start_work(has_signal_stack);
    syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
    is_read_from_work_on(tid);
}

static void who_is_in_a_handler_is_read(void **state) {
    (void)state;
    in_a_handler(SA_RESTART, NULL);
}

static void who_is_on_a_signal_stack_is_read(void **state) {
    in_a_handler(SA_RESTART | SA_ONSTACK, state);
}

static void whose_sample_waits_is_read(void **state) {
    (void)state;
    int tid = start_work(NULL);
    held_tid = tid;
    own_function = (uintptr_t)pep_cpu_call_on_stack;
    int ticket = pep_ask_send(tid);
    assert_true(ticket >= 0);
    is_read_from_work_on(tid);
    assert_int_equal(pep_ask_take(ticket, 0, pcs, 10), -ETIMEDOUT);
}

static void whose_hook_waits_is_read(void **state) {
    (void)state;
    int tid = start_work(NULL);
    held_tid = tid;
    own_function = (uintptr_t)pep_heap_call_on_stack;
    pep_store_release(&is_to_note, 1);
    is_read_from_work_on(tid);
}

int main(void) {
#ifdef __SANITIZE_THREAD__
    return 77; /* its runtime replaces the calls that threads wait in */
#endif
    const struct pep_cpu_options cpu = {.engine = PEP_CPU_AUTO};
    const struct pep_heap_options heap = {0};
    if (pep_threads_init() < 0 || pep_cpu_init(&cpu) < 0 || pep_ask_init() < 0 ||
        pep_heap_init(&heap) < 0)
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(who_is_in_a_handler_is_read),
        TEST(who_is_on_a_signal_stack_is_read),
        TEST(whose_sample_waits_is_read),
        TEST(whose_hook_waits_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
