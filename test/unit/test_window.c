/*
 * Windows: what is asked of the sampler, in which order, and that it is always let go.
 * LDFLAGS: -Wl,--wrap=pep_cpu_begin,--wrap=pep_cpu_end
 * LDFLAGS: -Wl,--wrap=pep_cpu_sweep,--wrap=pep_cpu_snapshot_take
 * LDFLAGS: -Wl,--wrap=pep_profile_cpu,--wrap=pep_os_clock_ns
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "http/window.h"

int __wrap_pep_cpu_begin(uint32_t hz);
void __wrap_pep_cpu_end(uint32_t hz);
void __wrap_pep_cpu_sweep(void);
struct pep_cpu_snapshot *__wrap_pep_cpu_snapshot_take(struct pep_arena *arena);
struct pep_profile *__wrap_pep_profile_cpu(struct pep_arena *arena,
                                           const struct pep_cpu_snapshot *before, uint32_t hz,
                                           const struct pep_profile_filter *filter);
uint64_t __wrap_pep_os_clock_ns(clockid_t clock);

static struct pep_profile result;
static char trace[64];  /* a letter a call, waits left out */
static uint64_t now_ns; /* moves only while somebody waits */
static uint64_t waited_ns, longest_ns;
static int waits, sweeps, open_windows, leaves_after, begin_error, failing;
static const char *thread_seen;

static void log_call(char letter) {
    size_t count = strlen(trace);
    if (count < sizeof(trace) - 1)
        trace[count] = letter;
}

uint64_t __wrap_pep_os_clock_ns(clockid_t clock) {
    (void)clock;
    return now_ns;
}

int __wrap_pep_cpu_begin(uint32_t hz) {
    assert_int_equal(hz, 250);
    log_call('b');
    open_windows += begin_error == 0;
    return begin_error;
}

void __wrap_pep_cpu_end(uint32_t hz) {
    assert_int_equal(hz, 250);
    log_call('e');
    open_windows--;
}

void __wrap_pep_cpu_sweep(void) {
    sweeps++;
}

struct pep_cpu_snapshot *__wrap_pep_cpu_snapshot_take(struct pep_arena *arena) {
    (void)arena;
    log_call('s');
    return failing == 's' ? NULL : (struct pep_cpu_snapshot *)&result;
}

struct pep_profile *__wrap_pep_profile_cpu(struct pep_arena *arena,
                                           const struct pep_cpu_snapshot *before, uint32_t hz,
                                           const struct pep_profile_filter *filter) {
    (void)arena;
    (void)before;
    (void)hz;
    log_call('p');
    thread_seen = filter->thread;
    return failing == 'p' ? NULL : &result;
}

static bool wait_fake(struct pep_client *client, uint64_t ns) {
    (void)client;
    assert_int_equal(pep_window_open_count(), 1);
    waits++;
    now_ns += ns;
    waited_ns += ns;
    if (ns > longest_ns)
        longest_ns = ns;
    return !leaves_after || waits < leaves_after;
}

static struct pep_client client = {wait_fake};
static jmp_buf forked;

static int run(int64_t seconds, const char *thread) {
    struct pep_window window = {.hz = 250,
                                .duration_ns = pep_window_duration_ns(seconds),
                                .thread = thread,
                                .client = &client};
    struct pep_profile *profile;
    int error = pep_window_run(NULL, &window, &profile);
    assert_int_equal(open_windows, 0);
    assert_int_equal(pep_window_open_count(), 0);
    assert_ptr_equal(profile, error ? NULL : &result);
    return error;
}

static int reset(void **state) {
    (void)state;
    memset(trace, 0, sizeof(trace));
    now_ns = 12345;
    waited_ns = longest_ns = 0;
    waits = sweeps = leaves_after = begin_error = failing = 0;
    return 0;
}

static void test_whole(void **state) {
    (void)state;
    assert_int_equal(run(3, "worker"), 0);
    assert_string_equal(trace, "sbpe");
    assert_int_equal(waited_ns, 3000000000u);
    assert_int_equal(longest_ns, PEP_WINDOW_SLICE_NS);
    assert_int_equal(sweeps, 30);
    assert_string_equal(thread_seen, "worker");
}

static void test_client_leaves(void **state) {
    (void)state;
    leaves_after = 4;
    assert_int_equal(run(1000, NULL), -ECONNRESET);
    assert_string_equal(trace, "sbe");
    assert_int_equal(waits, 4);
}

static bool wait_forked(struct pep_client *unused, uint64_t ns) {
    (void)unused;
    (void)ns;
    pep_window_after_fork_child();
    assert_int_equal(pep_window_open_count(), 0);
    (void)pep_window_wait(&client, 1); /* the child's own */
    longjmp(forked, 1);
}

/* A child's memory is its parent's, and the wait in it goes on in the parent alone. */
static void test_fork(void **state) {
    (void)state;
    struct pep_client forking = {wait_forked};
    if (setjmp(forked) == 0)
        (void)pep_window_wait(&forking, 1);
    assert_int_equal(waits, 1);
    assert_int_equal(pep_window_open_count(), 0);
}

static void test_endless(void **state) {
    (void)state;
    leaves_after = 20;
    assert_int_equal(run(INT64_MAX, NULL), -ECONNRESET);
    assert_int_equal(waits, 20);
    assert_int_equal(longest_ns, PEP_WINDOW_SLICE_NS);
}

static void test_refusals(void **state) {
    (void)state;
    begin_error = -EPERM;
    assert_int_equal(run(1, NULL), -EPERM);
    assert_string_equal(trace, "sb");
    reset(NULL);
    failing = 's';
    assert_int_equal(run(1, NULL), -ENOMEM);
    assert_string_equal(trace, "s");
    reset(NULL);
    failing = 'p';
    assert_int_equal(run(1, NULL), -ENOMEM);
    assert_string_equal(trace, "sbpe");
}

static void test_modules_only(void **state) {
    (void)state;
    assert_ptr_equal(pep_window_modules(NULL), &result);
    assert_string_equal(trace, "sp");
    failing = 's';
    assert_null(pep_window_modules(NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_whole, reset),
        cmocka_unit_test_setup(test_client_leaves, reset),
        cmocka_unit_test_setup(test_fork, reset),
        cmocka_unit_test_setup(test_endless, reset),
        cmocka_unit_test_setup(test_refusals, reset),
        cmocka_unit_test_setup(test_modules_only, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
