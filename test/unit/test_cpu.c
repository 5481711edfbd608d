/* LDFLAGS: -Wl,--wrap=pep_os_perf_event_open,--wrap=pep_os_timer_create,--wrap=pep_os_map */
/* LDFLAGS: -Wl,--wrap=pep_os_call6 */
/* The CPU sampler's windows and engines: arming, rates, limits, churn, fork. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/cpu.h"
#include "sampler/cpu_internal.h"
#include "sampler/modules.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/stack_table.h"
#include "test/unit/cpu_help.h"

static int refuse_perf, refuse_timer, refuse_maps, refuse_table;

int __real_pep_os_perf_event_open(struct perf_event_attr *, int, int, int, unsigned long);
int __wrap_pep_os_perf_event_open(struct perf_event_attr *, int, int, int, unsigned long);
int __wrap_pep_os_perf_event_open(struct perf_event_attr *attr, int tid, int cpu, int group,
                                  unsigned long flags) {
    return refuse_perf ? refuse_perf : __real_pep_os_perf_event_open(attr, tid, cpu, group, flags);
}
int __real_pep_os_timer_create(clockid_t, const struct sigevent *, int *);
int __wrap_pep_os_timer_create(clockid_t, const struct sigevent *, int *);
int __wrap_pep_os_timer_create(clockid_t clock, const struct sigevent *event, int *id) {
    if (refuse_timer)
        return refuse_timer;
    /* What other processes of this user have queued counts too: not the test's subject. */
    struct rlimit now, high;
    getrlimit(RLIMIT_SIGPENDING, &now);
    high = (struct rlimit){now.rlim_max, now.rlim_max};
    setrlimit(RLIMIT_SIGPENDING, &high);
    int r = __real_pep_os_timer_create(clock, event, id);
    setrlimit(RLIMIT_SIGPENDING, &now);
    return r;
}
void *__real_pep_os_map(size_t);
void *__wrap_pep_os_map(size_t);
void *__wrap_pep_os_map(size_t size_bytes) {
    return refuse_maps ? NULL : __real_pep_os_map(size_bytes);
}

long __real_pep_os_call6(long, long, long, long, long, long, long);
long __wrap_pep_os_call6(long, long, long, long, long, long, long);
long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f) {
    if (refuse_table && nr == 436) /* close_range */
        return -ENOSYS;
    return __real_pep_os_call6(nr, a, b, c, d, e, f);
}
/* Where perf is not allowed, its tests are the timer's. */
static bool has_perf;

static const int engines[] = {0, -EACCES}; /* what perf_event_open answers */

static void init_needs_a_signal_that_is_free(void **state) {
    (void)state;
    assert_int_equal(pep_cpu_signal(), 0);
    assert_int_equal(pep_cpu_begin(100), -ENXIO);
    struct pep_cpu_options options = {.engine = PEP_CPU_AUTO, .signal = 99};
    assert_int_equal(pep_cpu_init(&options), -EINVAL);
    options.signal = 0;
    assert_ptr_equal(signal(63, SIG_IGN), SIG_DFL);
    assert_int_equal(pep_cpu_init(&options), 0);
    assert_int_equal(pep_cpu_signal(), 61);
    assert_int_equal(pep_cpu_init(&options), 0);
    refuse_maps = 1;
    assert_int_equal(pep_cpu_begin(100), -ENOMEM);
    refuse_maps = 0;
    assert_int_equal(pep_cpu_begin(0), -EINVAL);
    assert_int_equal(pep_cpu_begin(PEP_CPU_HZ_MAX + 1), -EINVAL);
    struct pep_cpu_state now;
    pep_cpu_state(&now);
    assert_int_equal(now.windows, 0);
    assert_int_equal(now.hz, 0);
}

static void overlapping_windows_share_the_highest_rate(void **state) {
    (void)state;
    static const uint32_t rates[] = {100, 1000, 10, 1000, 10000};
    struct pep_cpu_state now;
    for (int i = 0; i < 5; i++)
        assert_int_equal(pep_cpu_begin(rates[i]), 0);
    pep_cpu_state(&now);
    assert_int_equal(now.windows, 5);
    assert_int_equal(now.hz, 10000);
    assert_int_equal(now.threads_perf + now.threads_timer, 1);
    static const uint32_t ends[] = {1000, 10000, 10, 1000, 100},
                          left[] = {10000, 1000, 1000, 100, 0};
    for (int i = 0; i < 5; i++) {
        pep_cpu_end(ends[i]);
        pep_cpu_state(&now);
        assert_int_equal(now.hz, left[i]);
    }
    assert_int_equal(now.windows, 0);
    assert_int_equal(now.threads_perf + now.threads_timer, 0);
    assert_int_equal(help_timers() + help_perf_fds(), 0);
}

/* Whether the kernel, which lowers this where interrupts take long, gives as many signals. */
static bool has_rate(long hz) {
    char text[32] = "";
    return pep_os_read_file("/proc/sys/kernel/perf_event_max_sample_rate", text, sizeof text) > 0 &&
           strtol(text, NULL, 10) >= 4 * hz;
}

/* Everything the thread used since begin is charged, nothing more; whatever the engine. */
static void the_sum_is_the_threads_cpu_time(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        refuse_perf = engines[i];
        uint64_t before = help_weight(), count = help_count(), samples = PEP_COUNTED(samples);
        uint64_t outer = help_cpu_ns();
        assert_int_equal(pep_cpu_begin(1000), 0);
        uint64_t inner = help_cpu_ns();
        errno = 1234;
        help_burn_ms(1000);
        assert_int_equal(errno, 1234);
        inner = help_cpu_ns() - inner;
        pep_cpu_settle();
        outer = help_cpu_ns() - outer;
        pep_cpu_end(1000);
        uint64_t charged = help_weight() - before;
        assert_in_range(charged, inner, outer + HELP_AHEAD_NS);
        samples = PEP_COUNTED(samples) - samples;
        count = help_count() - count;
        print_message("%s: %llu signals, count %llu, %.3f ms of %.3f\n", i ? "timer" : "perf",
                      (unsigned long long)samples, (unsigned long long)count, charged / 1e6,
                      outer / 1e6);
        /* A period drawn serves for some dozens of samples; what it is off by is made good. */
        assert_in_range(count, charged / 1000000 * 9 / 10, charged / 1000000 * 11 / 10);
        assert_in_range(samples, i || !has_perf || !has_rate(1000) ? 35 : 900,
                        outer / 1000000 * 11 / 10);
        help_burn_ms(20); /* disarmed: nothing comes any more */
        assert_int_equal(help_weight() - before, charged);
    }
    refuse_perf = 0;
}

/* A slow window runs; a fast one opens: what the thread used before is not the new one's. */
static void a_higher_rate_starts_from_its_own_beginning(void **state) {
    (void)state;
    assert_int_equal(pep_cpu_begin(20), 0);
    help_burn_ms(150);
    uint64_t outer = help_cpu_ns();
    assert_int_equal(pep_cpu_begin(1000), 0);
    pep_cpu_settle();
    uint64_t before = help_weight(), inner = help_cpu_ns();
    help_burn_ms(50);
    inner = help_cpu_ns() - inner;
    pep_cpu_settle();
    uint64_t charged = help_weight() - before;
    outer = help_cpu_ns() - outer;
    assert_in_range(charged, inner, outer + HELP_AHEAD_NS);
    pep_cpu_end(1000);
    pep_cpu_end(20);
}

static void *burn_until(void *stop) {
    pep_thread_enter((uintptr_t)pthread_self(), 8u << 20);
    while (!__atomic_load_n((int *)stop, __ATOMIC_RELAXED))
        help_burn_ms(1);
    pep_thread_leave();
    return NULL;
}

/* Each start may have to wait until others give up a processor: no more than there is time for. */
static void hundreds_of_starts_on_busy_threads(void **state) {
    (void)state;
    int stop = 0;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, burn_until, &stop);
    for (int i = 0; i < 300; i++) {
        refuse_perf = engines[i & 1];
        assert_int_equal(pep_cpu_begin(4000), 0);
        if (i % 10 == 0)
            pep_cpu_sweep();
        if (i % 3 == 0)
            sched_yield();
        pep_cpu_end(4000);
    }
    refuse_perf = 0;
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(help_timers() + help_perf_fds(), 0);
    pep_stack_table_check();
}

static void *short_life(void *argument) {
    pep_thread_enter((uintptr_t)pthread_self(), 8u << 20);
    for (volatile int i = 0; i < 20000; i++) {
    }
    pep_thread_leave();
    return argument;
}

static void churn_leaves_nothing(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        refuse_perf = engines[i];
        assert_int_equal(pep_cpu_begin(1000), 0);
        for (int n = 0; n < 1000; n++) {
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, short_life, NULL), 0);
            if (n % 50 == 0)
                pep_cpu_sweep();
            pthread_join(thread, NULL);
        }
        /* A thread that was joined may be a task still, which a sweep would take for a raw one. */
        while (pep_threads_tasks() > 1u + pep_cpu_armer_is_running())
            sched_yield();
        pep_cpu_sweep();
        /* Our own is left. The armer closes what the dead had when it gets to it. */
        while (help_timers() + help_perf_fds() != 1)
            sched_yield();
        pep_cpu_end(1000);
        assert_int_equal(help_timers() + help_perf_fds(), 0);
    }
    refuse_perf = 0;
}

static volatile int raw_stop, raw_tid;

static int raw_thread(void *unused) {
    (void)unused; /* shares our TLS: no libc here */
    raw_tid = (int)syscall(SYS_gettid);
    while (!raw_stop) {
    }
    syscall(SYS_exit, 0);
    return 0;
}

static void raw_threads_are_found_and_forgotten(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        refuse_perf = engines[i];
        static char stack[65536] __attribute__((aligned(16)));
        raw_stop = raw_tid = 0;
        assert_int_equal(pep_cpu_begin(1000), 0);
        int tid = clone(
            raw_thread, stack + sizeof stack,
            CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, NULL);
        assert_true(tid > 0);
        assert_null(pep_thread_of(tid));
        pep_cpu_sweep();
        struct pep_thread *thread = pep_thread_of(tid);
        assert_non_null(thread);
        assert_false(thread->is_registered);
        while (__atomic_load_n(&thread->identity, __ATOMIC_RELAXED) == 0)
            sched_yield(); /* until its first sample */
        assert_int_equal(pep_identity_get(thread->identity)->tid, tid);
        raw_stop = 1;
        while (pep_os_clock_ns(pep_os_thread_cpu_clock(tid)) != 0)
            sched_yield();
        pep_cpu_sweep();
        assert_null(pep_thread_of(tid));
        assert_int_equal(help_timers() + help_perf_fds(), 1);
        pep_cpu_end(1000);
    }
    refuse_perf = 0;
}

static void refusals_are_told(void **state) {
    (void)state;
    static const int lasting[] = {-EACCES, -EPERM, -ENOSYS, -ENOENT, -EINVAL};
    struct pep_cpu_state now;
    for (size_t i = 0; i < PEP_COUNT_OF(lasting); i++) {
        uint64_t before = PEP_COUNTED(perf_refused);
        refuse_perf = lasting[i];
        assert_int_equal(pep_cpu_begin(1000), 0);
        pep_cpu_state(&now);
        assert_non_null(now.note);
        assert_int_equal(now.threads_timer, 1);
        assert_int_equal(PEP_COUNTED(perf_refused), before + 1);
        pep_cpu_end(1000);
    }
    refuse_perf = -EMFILE; /* passes: no note */
    refuse_timer = -EAGAIN;
    uint64_t before = PEP_COUNTED(timer_refused);
    assert_int_equal(pep_cpu_begin(1000), 0);
    pep_cpu_state(&now);
    assert_null(now.note);
    assert_int_equal(now.threads_none, 1);
    pep_cpu_sweep(); /* tries no timer again while this window is open */
    assert_true(PEP_COUNTED(timer_refused) > before);
    pep_cpu_end(1000);
    refuse_perf = refuse_timer = 0;
}

static void a_forked_child_starts_clean(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        refuse_perf = engines[i % 2];
        refuse_table = i == 2;
        assert_int_equal(pep_cpu_begin(1000), 0);
        help_burn_ms(5);
        pid_t child = fork();
        if (child == 0) {
            timer_t own[2]; /* these may have the numbers that the parent's had */
            struct sigevent none = {.sigev_notify = SIGEV_NONE};
            int bad = timer_create(CLOCK_MONOTONIC, &none, &own[0]) != 0;
            bad |= timer_create(CLOCK_MONOTONIC, &none, &own[1]) != 0;
            pep_modules_after_fork();
            pep_cpu_after_fork_child();
            pep_threads_after_fork();
            struct pep_cpu_state now;
            pep_cpu_state(&now);
            bad |= now.windows != 0 || now.hz != 0 || help_perf_fds() != 0 || help_timers() != 2;
            bad |= pep_cpu_begin(1000) != 0;
            uint64_t before = help_weight();
            bad |= !HELP_BURN_UNTIL(help_weight() > before);
            pep_cpu_end(1000);
            bad |= help_perf_fds() != 0 || help_timers() != 2;
            _exit(bad);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        uint64_t before = help_weight();
        assert_true(HELP_BURN_UNTIL(help_weight() > before)); /* the parent's goes on */
        pep_cpu_end(1000);
    }
    refuse_perf = refuse_table = 0;
}

/* Until the mark nothing of ours may be armed; nothing may be pending when it is set. */
static void an_exec_finds_nothing_of_ours(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        refuse_perf = engines[i];
        assert_int_equal(pep_cpu_begin(10000), 0);
        help_burn_ms(3);
        pep_cpu_exec_begin();
        assert_int_equal(help_timers() + help_perf_fds(), 0);
        pep_cpu_sweep();
        assert_int_equal(help_timers() + help_perf_fds(), 0);
        pep_cpu_exec_failed();
        while (i == 0 && has_perf && pep_thread_self()->timer_id != -1)
            sched_yield(); /* the timer serves until the event is there */
        assert_int_equal(help_timers() + help_perf_fds(), 1);
        pep_cpu_end(10000);
    }
    refuse_perf = 0;
}

int main(void) {
#ifdef __SANITIZE_THREAD__
    return 77; /* its runtime knows nothing of a handler installed behind its back */
#endif
    if (pep_threads_init() < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_needs_a_signal_that_is_free),
        cmocka_unit_test(overlapping_windows_share_the_highest_rate),
        cmocka_unit_test(the_sum_is_the_threads_cpu_time),
        cmocka_unit_test(a_higher_rate_starts_from_its_own_beginning),
        cmocka_unit_test(hundreds_of_starts_on_busy_threads),
        cmocka_unit_test(churn_leaves_nothing),
        cmocka_unit_test(raw_threads_are_found_and_forgotten),
        cmocka_unit_test(refusals_are_told),
        cmocka_unit_test(a_forked_child_starts_clean),
        cmocka_unit_test(an_exec_finds_nothing_of_ours),
    };
    has_perf = help_has_perf();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
