/*
 * Threads that block our signal: for good, for a while, or in a handler of ours; what a dump tells
 * of them. LDFLAGS: -Wl,--wrap=pep_os_call6 -Wl,--wrap=pep_os_clock_ns
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "look_help.h"
#include "sampler/cpu.h"
#include "sampler/dump.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"
#include "waiters.h"

#define LONG_NS 20000000000u

static int masked_tid; /* its mask is read: */
static int masks_read; /* so often */
static void (*before_mask)(void);
static clockid_t stopped_clock;

static bool is_mask_of(const char *path, int tid) {
    char end[32];
    snprintf(end, sizeof end, "/%d/status", tid);
    return strlen(path) >= strlen(end) && strcmp(path + strlen(path) - strlen(end), end) == 0;
}

long __real_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f) {
    if (nr == SYS_openat && masked_tid != 0 && is_mask_of((const char *)b, masked_tid)) {
        masks_read++;
        before_mask();
    }
    return __real_pep_os_call6(nr, a, b, c, d, e, f);
}

uint64_t __real_pep_os_clock_ns(clockid_t clock);
uint64_t __wrap_pep_os_clock_ns(clockid_t clock);
uint64_t __wrap_pep_os_clock_ns(clockid_t clock) {
    return stopped_clock != 0 && clock == stopped_clock ? 1 : __real_pep_os_clock_ns(clock);
}

static int teardown(void **state) {
    masked_tid = masks_read = 0;
    stopped_clock = 0;
    return look_teardown(state);
}

/* What a dump tells of a thread. */
static const char *note_of(int tid, int leaving_tid, uint64_t ns, uint32_t *pc_count) {
    const struct pep_dump_options options = {.deadline_ns = ns, .leaving_tid = leaving_tid};
    const struct pep_dump *dump = pep_dump_take(&look_arena, &options);
    for (uint32_t i = 0; dump != NULL && i < dump->task_count; i++)
        if (dump->tasks[i].tid == tid) {
            *pc_count = dump->profile->samples[i].pc_count;
            return dump->tasks[i].note;
        }
    return "is not listed";
}

static void *run_masked(void *argument) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (!pep_load_acquire((int *)argument)) {
    }
    return NULL;
}

static int is_unmasked;

static void *run_masked_for_a_while(void *argument) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (!pep_load_acquire(&is_unmasked)) {
    }
    pthread_sigmask(SIG_UNBLOCK, &all, NULL);
    while (!pep_load_acquire((int *)argument)) {
    }
    return NULL;
}

static int masks_wanted;

static void unmask_it(void) {
    if (masks_read != masks_wanted)
        return;
    pep_store_release(&is_unmasked, 1);
    while (waiter_status(masked_tid, "\nSigBlk") != 0)
        usleep(1000);
}

static void is_asked_after(int masks, bool is_clock_stopped) {
    int is_to_end = 0;
    is_unmasked = 0;
    masks_wanted = masks;
    before_mask = unmask_it;
    int tid = waiter_run(run_masked_for_a_while, &is_to_end);
    while (waiter_status(tid, "\nSigBlk") == 0)
        usleep(1000);
    stopped_clock = is_clock_stopped ? pep_os_thread_cpu_clock(tid) : 0;
    masked_tid = tid;
    uint32_t pc_count = 0;
    const char *note = note_of(tid, 0, LONG_NS, &pc_count);
    pep_store_release(&is_unmasked, 1);
    pep_store_release(&is_to_end, 1);
    while (syscall(SYS_tgkill, getpid(), tid, 0) == 0)
        usleep(1000);
    assert_int_equal(masks_read, masks + 1); /* as every thread that is asked */
    assert_null(note);
    assert_true(pc_count > 2);
}

static void who_blocks_our_signal_for_a_while_is_asked(void **state) {
    (void)state;
    is_asked_after(2, false);
}

static void who_has_not_run_is_looked_at_again(void **state) {
    (void)state;
    is_asked_after(10, true);
}

static int handler_word, handler_is_to_end;

/* As ours do, it blocks everything; it is left when it is asked. */
static void be_asked(int n) {
    sigset_t pending;
    pep_store_release(&handler_word, n);
    do
        sigpending(&pending);
    while (!sigismember(&pending, pep_cpu_signal()) && !pep_load_acquire(&handler_is_to_end));
}

static void who_leaves_our_handler_is_asked(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = be_asked};
    sigfillset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    int tid = waiter_spin();
    syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
    while (!pep_load_acquire(&handler_word))
        usleep(1000);
    uint32_t pc_count = 0;
    const char *note = note_of(tid, tid, LONG_NS, &pc_count);
    pep_store_release(&handler_is_to_end, 1);
    assert_null(note);
    assert_true(pc_count > 2);
}

static void who_does_not_leave_it_is_told(void **state) {
    (void)state;
    static int is_to_end;
    int tid = waiter_run(run_masked, &is_to_end);
    while (waiter_status(tid, "\nSigBlk") == 0)
        usleep(1000);
    uint32_t pc_count = 0;
    const char *note = note_of(tid, tid, 1, &pc_count);
    pep_store_release(&is_to_end, 1);
    assert_string_equal(note, "blocks our signal");
}

int main(void) {
#ifdef __SANITIZE_THREAD__
    return 77; /* its runtime replaces the calls that threads wait in */
#endif
    const struct pep_cpu_options options = {.engine = PEP_CPU_AUTO};
    if (pep_threads_init() < 0 || pep_cpu_init(&options) < 0)
        return 1;
#define TEST(name) cmocka_unit_test_setup_teardown(name, look_setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(who_blocks_our_signal_for_a_while_is_asked),
        TEST(who_has_not_run_is_looked_at_again),
        TEST(who_leaves_our_handler_is_asked),
        TEST(who_does_not_leave_it_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
