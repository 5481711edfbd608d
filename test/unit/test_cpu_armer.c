/* LDFLAGS: -Wl,--wrap=pep_os_perf_event_open,--wrap=pep_os_timer_create,--wrap=pep_os_call6 */
/* LDFLAGS: -Wl,--wrap=pthread_create */
/* The thread that holds the events of perf: whose descriptors, how many, and without it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "test/unit/cpu_help.h"

static int refuse_perf, refuse_table, refuse_thread;

int __real_pep_os_perf_event_open(struct perf_event_attr *, int, int, int, unsigned long);
int __wrap_pep_os_perf_event_open(struct perf_event_attr *, int, int, int, unsigned long);
int __wrap_pep_os_perf_event_open(struct perf_event_attr *attr, int tid, int cpu, int group,
                                  unsigned long flags) {
    return refuse_perf ? refuse_perf : __real_pep_os_perf_event_open(attr, tid, cpu, group, flags);
}
int __real_pep_os_timer_create(clockid_t, const struct sigevent *, int *);
int __wrap_pep_os_timer_create(clockid_t, const struct sigevent *, int *);
int __wrap_pep_os_timer_create(clockid_t clock, const struct sigevent *event, int *id) {
    /* What other processes of this user have queued counts too: not the test's subject. */
    struct rlimit now, high;
    getrlimit(RLIMIT_SIGPENDING, &now);
    high = (struct rlimit){now.rlim_max, now.rlim_max};
    setrlimit(RLIMIT_SIGPENDING, &high);
    int r = __real_pep_os_timer_create(clock, event, id);
    setrlimit(RLIMIT_SIGPENDING, &now);
    return r;
}
long __real_pep_os_call6(long, long, long, long, long, long, long);
long __wrap_pep_os_call6(long, long, long, long, long, long, long);
long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f) {
    if (refuse_table && nr == 436) /* close_range */
        return -ENOSYS;
    return __real_pep_os_call6(nr, a, b, c, d, e, f);
}
int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument) {
    return refuse_thread ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}

/* Where perf is not allowed, its tests are the timer's. */
static bool has_perf;

static const int engines[] = {0, -EACCES}; /* what perf_event_open answers */

static pthread_barrier_t gate;

static void *wait_at_gate(void *argument) {
    pep_thread_enter((uintptr_t)pthread_self(), 8u << 20);
    pthread_barrier_wait(&gate);
    pthread_barrier_wait(&gate);
    pep_thread_leave();
    return argument;
}

#define CROWD 60

/* What the sampler says of a crowd of threads under a limit. */
static struct pep_cpu_state state_of_crowd(int resource, rlim_t soft) {
    struct rlimit old, limit;
    struct pep_cpu_state now;
    pthread_t threads[CROWD];
    pthread_barrier_init(&gate, NULL, CROWD + 1);
    for (int i = 0; i < CROWD; i++)
        pthread_create(&threads[i], NULL, wait_at_gate, NULL);
    pthread_barrier_wait(&gate);
    getrlimit(resource, &old);
    limit = (struct rlimit){soft, old.rlim_max};
    setrlimit(resource, &limit);
    assert_int_equal(pep_cpu_begin(100), 0);
    pep_cpu_state(&now);
    setrlimit(resource, &old);
    pep_cpu_end(100);
    pthread_barrier_wait(&gate);
    for (int i = 0; i < CROWD; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&gate);
    return now;
}

static void all_but_some_of_our_own_descriptors(void **state) {
    (void)state;
    if (!has_perf)
        skip();
    struct pep_cpu_state now = state_of_crowd(RLIMIT_NOFILE, 40);
    assert_int_equal(now.threads_perf, 40 - 16);
    assert_int_equal(now.threads_timer, CROWD + 1 - (40 - 16));
    now = state_of_crowd(RLIMIT_SIGPENDING, 1000); /* SIGIO would come instead of our signal */
    assert_int_equal(now.threads_perf, 0);
    assert_non_null(now.note);
    assert_int_equal(help_perf_fds(), 0);
}

static void a_quarter_of_the_programs_descriptors(void **state) {
    (void)state;
    if (!has_perf)
        skip();
    refuse_table = 1;
    struct pep_cpu_state now = state_of_crowd(RLIMIT_NOFILE, 160);
    assert_int_equal(now.threads_perf, 40);
    assert_int_equal(now.threads_timer, CROWD + 1 - 40);
    now = state_of_crowd(RLIMIT_NOFILE, 90);
    assert_int_equal(now.threads_perf, 0);
    assert_int_equal(help_perf_fds_here(), 0);
    refuse_table = 0;
}

static void the_program_has_no_descriptor_of_ours(void **state) {
    (void)state;
    assert_int_equal(pep_cpu_begin(1000), 0);
    assert_int_equal(help_perf_fds(), has_perf);
    assert_int_equal(help_perf_fds_here(), 0);
    int below = open("/dev/null", O_RDONLY), above = open("/dev/null", O_RDONLY);
    help_burn_ms(20);
    close(above);
    assert_int_equal(syscall(SYS_close_range, below, ~0u, 0), 0);
    uint64_t before = PEP_COUNTED(samples);
    assert_true(HELP_BURN_UNTIL(PEP_COUNTED(samples) > before));
    pep_cpu_end(1000);
}

static void without_a_thread_timers_serve(void **state) {
    (void)state;
    struct pep_cpu_state now;
    refuse_thread = 1;
    assert_int_equal(pep_cpu_begin(100), 0);
    refuse_thread = 0;
    pep_cpu_state(&now);
    assert_int_equal(now.threads_timer, 1);
    assert_non_null(now.note);
    pep_cpu_pause();
    assert_int_equal(help_timers(), 0);
    pep_cpu_resume();
    assert_int_equal(help_timers(), 1);
    pep_cpu_end(100);
}

static void a_quarter_of_the_timers_is_enough(void **state) {
    (void)state;
    refuse_perf = -EACCES;
    uint64_t before = PEP_COUNTED(timer_refused);
    struct pep_cpu_state now = state_of_crowd(RLIMIT_SIGPENDING, 80);
    assert_int_equal(now.threads_timer, 20);
    assert_int_equal(now.threads_none, CROWD + 1 - 20);
    assert_int_equal(PEP_COUNTED(timer_refused), before + CROWD + 1 - 20);
    assert_int_equal(help_timers(), 0);
    refuse_perf = 0;
}

/* Blocked by a raw system call, past the hooks: what waits is bounded, and all goes on after. */
static void a_thread_that_blocks_the_signal_has_a_short_queue(void **state) {
    (void)state;
    if (!has_perf)
        skip();
    uint64_t ours = 1ull << (pep_cpu_signal() - 1), old;
    assert_int_equal(pep_cpu_begin(1000), 0);
    help_burn_ms(5);
    pep_os_sigprocmask(SIG_BLOCK, &ours, &old);
    uint64_t before = PEP_COUNTED(samples) + PEP_COUNTED(sample_crowded);
    help_burn_ms(400);
    pep_os_sigprocmask(SIG_SETMASK, &old, NULL);
    uint64_t after = PEP_COUNTED(samples) + PEP_COUNTED(sample_crowded);
    assert_in_range(after - before, 20, 140);
    uint64_t start = help_cpu_ns();
    while (PEP_COUNTED(samples) < after + 50)
        help_burn_ms(1);
    print_message("goes on: 50 samples in %.0f ms\n", (help_cpu_ns() - start) / 1e6);
    pep_cpu_end(1000);
}

static void a_pause_ends_the_thread(void **state) {
    (void)state;
    const uint32_t tasks = pep_threads_tasks();
    for (int i = 0; i < 2; i++) {
        refuse_perf = engines[i];
        pep_cpu_pause(); /* no window: nothing to end */
        assert_int_equal(pep_cpu_begin(1000), 0);
        pep_cpu_pause();
        while (pep_threads_tasks() > tasks) /* joined, not yet buried */
            sched_yield();
        assert_int_equal(help_timers() + help_perf_fds(), 0);
        pep_cpu_resume();
        uint64_t before = help_weight();
        assert_true(HELP_BURN_UNTIL(help_weight() > before));
        assert_int_equal(help_timers() + help_perf_fds(), 1);
        pep_cpu_end(1000);
    }
    refuse_perf = 0;
}

/* Where our table is the host's: it closes our descriptor and gets the number for something of its
 * own. */
static void a_lost_descriptor_is_not_closed(void **state) {
    (void)state;
    if (!has_perf)
        skip();
    refuse_table = 1;
    uint64_t before = PEP_COUNTED(fd_lost);
    assert_int_equal(pep_cpu_begin(1000), 0);
    assert_int_equal(help_perf_fds_here(), 1);
    int number = pep_thread_self()->perf_fd;
    int event = eventfd(0, 0);
    assert_int_equal(dup2(event, number), number);
    help_burn_ms(5);
    pep_cpu_end(1000);
    assert_int_equal(PEP_COUNTED(fd_lost), before + 1);
    assert_int_equal(fcntl(number, F_GETFD), 0);
    close(number);
    close(event);
    refuse_table = 0;
}

static void nothing_to_do(void *done) {
    (*(int *)done)++;
}

/* It looks, clears its bell, looks at slots, and sleeps: whatever comes in between is heard. */
static void it_is_told_at_any_moment(void **state) {
    (void)state;
    for (int i = 0; i < 20000; i++) {
        int done = 0;
        assert_int_equal(pep_cpu_armer_start(), 0);
        for (int wait = i % 64 * 8; wait > 0; wait--)
            pep_signal_fence();
        if (i % 2)
            pep_cpu_armer_run(nothing_to_do, &done);
        pep_cpu_armer_stop();
        assert_int_equal(done, i % 2);
    }
}

int main(void) {
#ifdef __SANITIZE_THREAD__
    return 77; /* its runtime knows nothing of a handler installed behind its back */
#endif
    const struct pep_cpu_options options = {.engine = PEP_CPU_AUTO};
    if (pep_threads_init() < 0 || pep_cpu_init(&options) < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_but_some_of_our_own_descriptors),
        cmocka_unit_test(a_quarter_of_the_programs_descriptors),
        cmocka_unit_test(the_program_has_no_descriptor_of_ours),
        cmocka_unit_test(without_a_thread_timers_serve),
        cmocka_unit_test(a_quarter_of_the_timers_is_enough),
        cmocka_unit_test(a_thread_that_blocks_the_signal_has_a_short_queue),
        cmocka_unit_test(a_pause_ends_the_thread),
        cmocka_unit_test(a_lost_descriptor_is_not_closed),
        cmocka_unit_test(it_is_told_at_any_moment),
    };
    has_perf = help_has_perf();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
