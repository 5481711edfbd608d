/* LDFLAGS: -Wl,--wrap=pep_unwind,--wrap=pep_os_perf_event_open */
/* The handler: whose signal it is, when it refuses, what it leaves untouched. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/stack_table.h"
#include "sampler/unwind.h"
#include "test/unit/cpu_help.h"

static int refuse_perf;
int __real_pep_os_perf_event_open(struct perf_event_attr *, int, int, int, unsigned long);
int __wrap_pep_os_perf_event_open(struct perf_event_attr *, int, int, int, unsigned long);
int __wrap_pep_os_perf_event_open(struct perf_event_attr *attr, int tid, int cpu, int group,
                                  unsigned long flags) {
    return refuse_perf ? refuse_perf : __real_pep_os_perf_event_open(attr, tid, cpu, group, flags);
}

/* The walk is not the subject: this one knows a single frame, and can be held. */
static int is_held, holding;
static uintptr_t walk_sp;
int __wrap_pep_unwind(const struct pep_regs *, const struct pep_stack_range *,
                      struct pep_unwind_scratch *, uintptr_t *, int);
int __wrap_pep_unwind(const struct pep_regs *regs, const struct pep_stack_range *stack,
                      struct pep_unwind_scratch *scratch, uintptr_t *pcs, int max) {
    (void)stack;
    (void)scratch;
    (void)max;
    walk_sp = (uintptr_t)__builtin_frame_address(0);
    __atomic_fetch_add(&holding, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&is_held, __ATOMIC_SEQ_CST))
        pep_os_sleep_ns(1000000);
    __atomic_fetch_sub(&holding, 1, __ATOMIC_SEQ_CST);
    pcs[0] = regs->pc;
    return 1;
}

static volatile sig_atomic_t seen_count, seen_code, seen_value, was_blocked;

static void on_foreign(int sig, siginfo_t *info, void *context) {
    (void)context;
    uint64_t mask;
    pep_os_sigprocmask(0, NULL, &mask);
    was_blocked =
        (mask >> (sig - 1) & 1) && (mask >> (SIGUSR2 - 1) & 1) && !(mask >> (SIGTERM - 1) & 1);
    seen_count++;
    seen_code = info->si_code;
    seen_value = info->si_value.sival_int;
}

static void on_plain(int sig) {
    seen_value = sig;
    seen_count++;
}

static void signals_of_others_reach_the_host(void **state) {
    (void)state;
    int sig = pep_cpu_signal();
    uint64_t before = PEP_COUNTED(signal_foreign);
    struct pep_ksigaction action = {.handler = (void *)SIG_IGN}, old;
    pep_cpu_host_action(&action, &old);
    assert_ptr_equal(old.handler, SIG_DFL);
    raise(sig);
    assert_int_equal(PEP_COUNTED(signal_foreign), before + 1);
    action = (struct pep_ksigaction){
        .handler = (void *)on_foreign, .flags = SA_SIGINFO, .mask = 1ull << (SIGUSR2 - 1)};
    pep_cpu_host_action(&action, NULL);
    assert_int_equal(sigqueue(getpid(), sig, (union sigval){.sival_int = 77}), 0);
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen_code, SI_QUEUE);
    assert_int_equal(seen_value, 77);
    assert_true(was_blocked);
    uint64_t mask;
    pep_os_sigprocmask(0, NULL, &mask);
    assert_false(mask >> (sig - 1) & 1); /* all as before */
    action = (struct pep_ksigaction){.handler = (void *)on_plain, .flags = SA_RESETHAND};
    pep_cpu_host_action(&action, &old);
    assert_ptr_equal(old.handler, on_foreign);
    assert_int_equal(old.mask, 1ull << (SIGUSR2 - 1));
    raise(sig);
    assert_int_equal(seen_value, sig);
    assert_int_equal(seen_count, 2);
    pep_cpu_host_action(NULL, &old);
    assert_ptr_equal(old.handler, SIG_DFL);
}

/* The host's own POSIX timer on our number: SI_TIMER, but not our value. */
static void the_hosts_timer_is_the_hosts(void **state) {
    (void)state;
    struct pep_ksigaction action = {.handler = (void *)on_foreign, .flags = SA_SIGINFO};
    pep_cpu_host_action(&action, NULL);
    seen_count = 0;
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_signo = pep_cpu_signal();
    info.si_code = SI_TIMER;
    info.si_value.sival_ptr = &info;
    assert_int_equal(pep_os_tgsigqueueinfo(getpid(), getpid(), info.si_signo, &info), 0);
    assert_int_equal(seen_count, 1);
    action.handler = (void *)SIG_IGN;
    pep_cpu_host_action(&action, NULL);
}

static void late_signals_are_told(void **state) {
    (void)state;
    siginfo_t info;
    uint64_t before = PEP_COUNTED(sample_stale), samples = PEP_COUNTED(samples);
    memset(&info, 0, sizeof info);
    info.si_signo = pep_cpu_signal();
    info.si_code = SI_TIMER; /* our mark, an old serial; then a slot that cannot be */
    info.si_value.sival_ptr = (void *)(0x70f5ull << 48 | 0xfffffull << 16);
    assert_int_equal(pep_os_tgsigqueueinfo(getpid(), getpid(), info.si_signo, &info), 0);
    info.si_value.sival_ptr = (void *)(0x70f5ull << 48 | 0xffff);
    assert_int_equal(pep_os_tgsigqueueinfo(getpid(), getpid(), info.si_signo, &info), 0);
    info.si_code = POLL_HUP;
    static const int descriptors[] = {500, -1, 1 << 30};
    for (int i = 0; i < 3; i++) {
        info.si_fd = descriptors[i];
        assert_int_equal(pep_os_tgsigqueueinfo(getpid(), getpid(), info.si_signo, &info), 0);
    }
    assert_int_equal(PEP_COUNTED(sample_stale), before + 5);
    assert_int_equal(PEP_COUNTED(samples), samples);
}

/* Runs work in a handler of SIGUSR1 on a signal stack of its own. */
static void (*volatile alt_work)(void);
static volatile uintptr_t alt_sp;

static void on_alt(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)info;
    (void)context;
    alt_sp = (uintptr_t)__builtin_frame_address(0);
    if (alt_work != NULL)
        alt_work();
}

static void run_on_alt(void *stack, size_t size, void (*work)(void)) {
    stack_t set = {.ss_sp = stack, .ss_size = size}, none = {.ss_flags = SS_DISABLE};
    struct sigaction action = {.sa_sigaction = on_alt, .sa_flags = SA_SIGINFO | SA_ONSTACK}, old;
    alt_work = work;
    assert_int_equal(sigaltstack(&set, NULL), 0);
    sigaction(SIGUSR1, &action, &old);
    raise(SIGUSR1);
    sigaction(SIGUSR1, &old, NULL);
    assert_int_equal(sigaltstack(&none, NULL), 0);
}

/* Until a signal of ours has come, whatever became of it. */
static void burn_some(void) {
    uint64_t before =
        PEP_COUNTED(samples) + PEP_COUNTED(sample_small_stack) + PEP_COUNTED(sample_in_crash);
    (void)HELP_BURN_UNTIL(PEP_COUNTED(samples) + PEP_COUNTED(sample_small_stack) +
                              PEP_COUNTED(sample_in_crash) >
                          before);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SMALL_STACK 65536 /* the sanitizers' own frames are large */
#else
#define SMALL_STACK 8192
#endif

/* 8 KiB hold the host's handler, our frame and little else: the walk runs elsewhere. */
static void small_signal_stacks_are_not_overrun(void **state) {
    (void)state;
    static char stack[3][SMALL_STACK] __attribute__((aligned(16)));
    memset(stack, 0x5a, sizeof stack);
    uint64_t before = PEP_COUNTED(samples);
    assert_int_equal(pep_cpu_begin(1000), 0);
    run_on_alt(stack[1], SMALL_STACK, burn_some);
    pep_cpu_end(1000);
    assert_true(PEP_COUNTED(samples) > before);
    assert_false(walk_sp - (uintptr_t)stack < sizeof stack);
    for (int i = 0; i < SMALL_STACK; i++)
        assert_int_equal(stack[0][i], 0x5a);
}

static void a_signal_stack_nearly_used_up_is_left_alone(void **state) {
    (void)state;
    if (SMALL_STACK != 8192)
        skip(); /* what a call takes is not known there */
    static char stack[32768] __attribute__((aligned(64)));
    run_on_alt(stack, sizeof stack, NULL);
    size_t frame = (uintptr_t)stack + sizeof stack - alt_sp; /* the kernel's frame and a little */
    /* Room for two such frames, what burn_some and its calls take, and some hundred bytes. */
    size_t size = 2 * frame + 900;
    uint64_t before = PEP_COUNTED(sample_small_stack);
    assert_int_equal(pep_cpu_begin(1000), 0);
    run_on_alt(stack, size & ~(size_t)63, burn_some);
    help_burn_ms(20);
    pep_cpu_end(1000);
    assert_true(PEP_COUNTED(sample_small_stack) > before);
}

static void on_fault(int sig) {
    (void)sig;
    burn_some();
}

static void a_fault_handler_is_left_alone(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = on_fault}, old;
    sigaction(SIGSEGV, &action, &old);
    assert_int_equal(pep_cpu_begin(1000), 0);
    uint64_t before = PEP_COUNTED(sample_in_crash);
    raise(SIGSEGV);
    assert_true(PEP_COUNTED(sample_in_crash) > before);
    before = PEP_COUNTED(samples);
    assert_true(HELP_BURN_UNTIL(PEP_COUNTED(samples) > before)); /* and afterwards all goes on */
    pep_cpu_end(1000);
    sigaction(SIGSEGV, &old, NULL);
}

/* Workers of servers block every signal; with the hooks in place all but ours. */
static void a_thread_that_blocks_all_is_sampled(void **state) {
    (void)state;
    uint64_t mask = ~(1ull << (pep_cpu_signal() - 1)), old;
    pep_os_sigprocmask(SIG_SETMASK, &mask, &old);
    uint64_t before = PEP_COUNTED(samples);
    assert_int_equal(pep_cpu_begin(1000), 0);
    bool is_sampled = HELP_BURN_UNTIL(PEP_COUNTED(samples) > before);
    pep_cpu_end(1000);
    pep_os_sigprocmask(SIG_SETMASK, &old, NULL);
    assert_true(is_sampled);
}

/* As if a hook were recording on this very thread. */
static void nested_samples_are_counted_and_do_not_stop_the_rest(void **state) {
    (void)state;
    static const int engines[] = {0, -EACCES};
    for (int i = 0; i < 2; i++) {
        refuse_perf = engines[i];
        struct pep_thread *self = pep_thread_self();
        assert_int_equal(pep_cpu_begin(1000), 0);
        uint64_t before = PEP_COUNTED(sample_nested), samples = PEP_COUNTED(samples);
        self->is_busy = PEP_BUSY_SAMPLING;
        pep_signal_fence();
        assert_true(HELP_BURN_UNTIL(PEP_COUNTED(sample_nested) > before));
        pep_cpu_unlock(self);
        assert_true(HELP_BURN_UNTIL(PEP_COUNTED(samples) > samples));
        pep_cpu_end(1000);
    }
    refuse_perf = 0;
}

static int stop;

static void *burn(void *argument) {
    pep_thread_enter((uintptr_t)pthread_self(), 8u << 20);
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
        help_burn_ms(1);
    pep_thread_leave();
    return argument;
}

/* As many threads stand still inside the handler as there are blocks: the next has none. */
static void when_every_block_is_in_use_the_sample_waits(void **state) {
    (void)state;
    int blocks = 2 * (int)sysconf(_SC_NPROCESSORS_ONLN) + 16;
    pthread_t *threads = calloc((size_t)blocks + 1, sizeof *threads);
    stop = 0;
    __atomic_store_n(&is_held, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i <= blocks; i++)
        pthread_create(&threads[i], NULL, burn, NULL);
    uint64_t before = PEP_COUNTED(sample_no_scratch);
    struct pep_thread *self = pep_thread_self();
    self->is_leaving = true; /* this thread shall not be held */
    assert_int_equal(pep_cpu_begin(1000), 0);
    while (PEP_COUNTED(sample_no_scratch) == before)
        sched_yield();
    /* Who has taken the last block may not have come to the walk yet. */
    while (__atomic_load_n(&holding, __ATOMIC_SEQ_CST) < blocks)
        sched_yield();
    assert_int_equal(__atomic_load_n(&holding, __ATOMIC_SEQ_CST), blocks);
    __atomic_store_n(&is_held, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i <= blocks; i++)
        pthread_join(threads[i], NULL);
    pep_cpu_end(1000);
    self->is_leaving = false;
    free(threads);
    assert_int_equal(help_timers() + help_perf_fds(), 0);
}

static void a_handler_taken_away_is_put_back(void **state) {
    (void)state;
    struct pep_ksigaction none = {.handler = (void *)SIG_DFL}, now;
    uint64_t before = PEP_COUNTED(signal_lost);
    assert_int_equal(pep_cpu_begin(100), 0);
    assert_int_equal(pep_os_sigaction(pep_cpu_signal(), &none, NULL), 0);
    pep_cpu_sweep();
    assert_int_equal(PEP_COUNTED(signal_lost), before + 1);
    pep_os_sigaction(pep_cpu_signal(), NULL, &now);
    assert_ptr_equal(now.handler, pep_cpu_handler);
    assert_true((now.flags & SA_ONSTACK) && (now.flags & SA_RESTART));
    assert_int_equal(help_timers() + help_perf_fds(), 1);
    pep_cpu_end(100);
}

static void a_host_that_takes_the_signal_has_it(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = on_plain}, now;
    struct pep_cpu_state told;
    assert_int_equal(pep_cpu_begin(100), 0);
    sigaction(pep_cpu_signal(), &action, NULL);
    pep_cpu_sweep();
    assert_int_equal(help_timers() + help_perf_fds(), 0);
    pep_cpu_state(&told);
    assert_int_equal(told.hz, 0);
    assert_non_null(told.note);
    assert_int_equal(pep_cpu_begin(100), -EBUSY);
    sigaction(pep_cpu_signal(), NULL, &now);
    assert_ptr_equal(now.sa_handler, on_plain);
    pep_cpu_end(100);
    signal(pep_cpu_signal(), SIG_DFL); /* it lets go: the next window works */
    assert_int_equal(pep_cpu_begin(100), 0);
    pep_cpu_state(&told);
    assert_int_equal(told.hz, 100);
    assert_int_equal(told.threads_perf + told.threads_timer, 1);
    pep_cpu_end(100);
}

int main(void) {
#ifdef __SANITIZE_THREAD__
    return 77; /* its runtime knows nothing of a handler installed behind its back */
#endif
    const struct pep_cpu_options options = {.engine = PEP_CPU_AUTO};
    if (pep_threads_init() < 0 || pep_cpu_init(&options) < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_of_others_reach_the_host),
        cmocka_unit_test(the_hosts_timer_is_the_hosts),
        cmocka_unit_test(late_signals_are_told),
        cmocka_unit_test(small_signal_stacks_are_not_overrun),
        cmocka_unit_test(a_signal_stack_nearly_used_up_is_left_alone),
        cmocka_unit_test(a_fault_handler_is_left_alone),
        cmocka_unit_test(a_thread_that_blocks_all_is_sampled),
        cmocka_unit_test(nested_samples_are_counted_and_do_not_stop_the_rest),
        cmocka_unit_test(when_every_block_is_in_use_the_sample_waits),
        cmocka_unit_test(a_handler_taken_away_is_put_back),
        cmocka_unit_test(a_host_that_takes_the_signal_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
