/*
 * Every thread at one moment: who is listed, what each does, who waits for whom, and what is told
 * of those that cannot be read. LDFLAGS: -Wl,--wrap=pep_os_call6 -Wl,--wrap=pep_os_open
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmocka.h>

#include "look_help.h"
#include "sampler/ask.h"
#include "sampler/cpu.h"
#include "sampler/dump.h"
#include "sampler/lock.h"
#include "sampler/modules.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"
#include "sampler/stack_table.h"
#include "sampler/thread.h"
#include "waiters.h"

#define PATIENT \
    { .deadline_ns = 20000000000u }

static bool has_no_tasks;

int __real_pep_os_open(const char *path, int flags, int mode);
int __wrap_pep_os_open(const char *path, int flags, int mode);
int __wrap_pep_os_open(const char *path, int flags, int mode) {
    return has_no_tasks && strcmp(path, "/proc/self/task") == 0
               ? -ENOENT
               : __real_pep_os_open(path, flags, mode);
}

static int teardown(void **state) {
    has_no_tasks = false;
    return look_teardown(state);
}

static struct pep_dump *take(void) {
    const struct pep_dump_options options = PATIENT;
    struct pep_dump *dump = pep_dump_take(&look_arena, &options);
    assert_non_null(dump);
    assert_ptr_equal(dump->profile->samples == NULL, dump->task_count == 0);
    assert_int_equal(dump->profile->sample_count, dump->task_count);
    for (uint32_t i = 0; i < dump->task_count; i++)
        assert_int_equal(dump->profile->samples[i].tid, dump->tasks[i].tid);
    return dump;
}

static const struct pep_task *task_of(const struct pep_dump *dump, int tid) {
    for (uint32_t i = 0; i < dump->task_count; i++)
        if (dump->tasks[i].tid == tid)
            return &dump->tasks[i];
    return NULL;
}

static const struct pep_sample *sample_of(const struct pep_dump *dump, int tid) {
    return &dump->profile->samples[task_of(dump, tid) - dump->tasks];
}

static void *be_own(void *argument) {
    pep_thread_become_own();
    pep_store_release((int *)argument, 1);
    pause();
    return NULL;
}

static void everybody_is_listed_but_ours(void **state) {
    (void)state;
    static int is_own;
    int waits = waiter_start(&waiter_kinds[1]), runs = waiter_spin();
    int ours = waiter_run(be_own, &is_own);
    while (!pep_load_acquire(&is_own))
        usleep(1000);
    const struct pep_dump *dump = take();
    assert_int_equal(dump->task_count, pep_dump_count());
    assert_int_equal(dump->tasks[0].tid, getpid());
    for (uint32_t i = 2; i < dump->task_count; i++)
        assert_true(dump->tasks[i].tid > dump->tasks[i - 1].tid);
    assert_null(task_of(dump, ours));
    assert_int_equal(dump->unread, 0);
    assert_int_equal(dump->cycle_count, 0);
    const struct pep_task *task = task_of(dump, waits);
    assert_string_equal(task->name, "test_dump");
    assert_string_equal(task->doing, "IO wait");
    assert_string_equal(task->call, "read");
    assert_int_equal(task->state, 'S');
    assert_true(task->is_blocked);
    assert_null(task->note);
    assert_true(waiter_is_whole(&waiter_kinds[1], sample_of(dump, waits)->pcs,
                                (int)sample_of(dump, waits)->pc_count));
    assert_string_equal(task_of(dump, runs)->doing, "running");
    assert_false(task_of(dump, runs)->is_blocked);
    assert_true(sample_of(dump, runs)->pc_count > 2);
    assert_string_equal(dump->profile->kind, "goroutine");
    assert_true(dump->profile->mapping_count > 2);
    assert_string_equal(sample_of(dump, waits)->state, "IO wait");
    assert_int_equal(sample_of(dump, waits)->values[0], 1);
}

static void only_those_asked_for_are_kept(void **state) {
    (void)state;
    int tid = waiter_start(&waiter_kinds[0]);
    char digits[16];
    snprintf(digits, sizeof digits, "%d", tid);
    const struct pep_dump_options options = {.filter = {.thread = digits}};
    const struct pep_dump *dump = pep_dump_take(&look_arena, &options);
    assert_int_equal(dump->task_count, 1);
    assert_int_equal(dump->tasks[0].tid, tid);
}

static void a_hundred_dumps_wake_no_sleeper(void **state) {
    (void)state;
    int tids[10];
    uint64_t switches[10][2];
    const struct pep_dump_options options = {0};
    for (int i = 0; i < 10; i++) {
        tids[i] = waiter_start(&waiter_kinds[i % waiter_kind_count]);
        switches[i][0] = waiter_status(tids[i], "\nvoluntary_ctxt_switches");
        switches[i][1] = waiter_status(tids[i], "\nnonvoluntary_ctxt_switches");
    }
    for (int i = 0; i < 100; i++) {
        struct pep_arena own;
        pep_arena_init(&own, 0);
        assert_non_null(pep_dump_take(&own, &options));
        pep_arena_drop(&own);
    }
    for (int i = 0; i < 10; i++) {
        assert_int_equal(waiter_status(tids[i], "\nvoluntary_ctxt_switches"), switches[i][0]);
        assert_int_equal(waiter_status(tids[i], "\nnonvoluntary_ctxt_switches"), switches[i][1]);
    }
}

struct pair {
    pthread_mutex_t *first, *second;
    int *has_first, *other_has_first;
};

static void *lock_both(void *argument) {
    const struct pair *pair = argument;
    pthread_mutex_lock(pair->first);
    pep_store_release(pair->has_first, 1);
    while (!pep_load_acquire(pair->other_has_first))
        sched_yield(); /* it sleeps at the second lock only: see waiter_await */
    pthread_mutex_lock(pair->second);
    return NULL;
}

static void who_waits_for_each_other_is_found(void **state) {
    (void)state;
    static pthread_mutex_t a, b = PTHREAD_MUTEX_INITIALIZER;
    static int has[2];
    static struct pair pairs[2] = {{&a, &b, &has[0], &has[1]}, {&b, &a, &has[1], &has[0]}};
    pthread_mutexattr_t robust;
    pthread_mutexattr_init(&robust);
    pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&a, &robust);
    int one = waiter_run(lock_both, &pairs[0]), two = waiter_run(lock_both, &pairs[1]);
    while (!pep_load_acquire(&has[0]) || !pep_load_acquire(&has[1]))
        usleep(1000);
    waiter_await(one, 'S');
    waiter_await(two, 'S');
    const struct pep_dump *dump = take();
    const struct pep_task *task = task_of(dump, one);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "mutex of thread %d (test_dump)", two);
    assert_string_equal(task->doing, wanted);
    assert_string_equal(task->lock_kind, "mutex");
    assert_int_equal(task->lock, (uintptr_t)&b);
    assert_int_equal(task->owner_tid, two);
    assert_string_equal(task->owner, "test_dump");
    assert_int_equal(task_of(dump, two)->owner_tid, one); /* the robust one */
    assert_int_equal(dump->cycle_count, 1);
    assert_int_equal(dump->cycles[0].count, 2);
    assert_int_equal(dump->cycles[0].tids[0] + dump->cycles[0].tids[1], one + two);
    char tid[12];
    snprintf(tid, sizeof tid, "%d", one);
    const struct pep_dump_options options = {.deadline_ns = 20000000000u,
                                             .filter = {.thread = tid}};
    dump = pep_dump_take(&look_arena, &options);
    assert_non_null(dump);
    assert_int_equal(dump->task_count, 1);
    assert_string_equal(dump->tasks[0].doing, wanted);
    assert_int_equal(dump->cycle_count, 1);
}

static void *lock_twice(void *argument) {
    pthread_mutex_lock(argument);
    pthread_mutex_lock(argument);
    return NULL;
}

static void who_waits_for_itself_is_found(void **state) {
    (void)state;
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    int tid = waiter_run(lock_twice, &mutex);
    waiter_await(tid, 'S');
    const struct pep_dump *dump = take();
    bool is_found = false;
    assert_int_equal(task_of(dump, tid)->owner_tid, tid);
    for (uint32_t i = 0; i < dump->cycle_count; i++)
        is_found |= dump->cycles[i].count == 1 && dump->cycles[i].tids[0] == tid;
    assert_true(is_found);
}

static void *join(void *argument) {
    pthread_join(*(pthread_t *)argument, NULL);
    return NULL;
}

static int sleeper_tid;

static void *sleep_for_good(void *argument) {
    pep_store_release(&sleeper_tid, (int)syscall(SYS_gettid));
    pause();
    return argument;
}

static void who_waits_for_an_end_is_told(void **state) {
    (void)state;
    static pthread_t sleeper;
    pthread_create(&sleeper, NULL, sleep_for_good, NULL);
    while (pep_load_acquire(&sleeper_tid) == 0)
        sched_yield();
    int tid = waiter_run(join, &sleeper);
    waiter_await(tid, 'S');
    char wanted[64];
    snprintf(wanted, sizeof wanted, "end of thread %d (test_dump)", sleeper_tid);
    assert_string_equal(task_of(take(), tid)->doing, wanted);
}

static void *run_masked(void *argument) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (!pep_load_acquire((int *)argument)) {
    }
    return NULL;
}

static void who_blocks_our_signal_is_told(void **state) {
    (void)state;
    static int is_to_end;
    int tid = waiter_run(run_masked, &is_to_end);
    while (waiter_status(tid, "\nSigBlk") == 0)
        usleep(1000);
    const struct pep_dump *dump = take();
    pep_store_release(&is_to_end, 1);
    assert_string_equal(task_of(dump, tid)->note, "blocks our signal");
    assert_int_equal(sample_of(dump, tid)->pcs[0], PEP_PC_UNKNOWN);
    assert_int_equal(dump->unread, 1);
    assert_int_equal(dump->profile->comment_count, 1);
    assert_int_equal(waiter_status(tid, "\nSigPnd"), 0);
}

static void who_cannot_be_looked_at_is_asked(void **state) {
    (void)state;
    int tid = waiter_start(&waiter_kinds[0]);
    look_refused_file = "syscall";
    const struct pep_dump *dump = take();
    assert_null(task_of(dump, tid)->note);
    assert_string_equal(task_of(dump, tid)->doing, "select");
    assert_string_equal(task_of(dump, tid)->call, "poll");
    assert_true(waiter_is_whole(&waiter_kinds[0], sample_of(dump, tid)->pcs,
                                (int)sample_of(dump, tid)->pc_count));
    waiter_await(tid, 'S'); /* and waits on */
}

static void questions_that_are_refused_are_told(void **state) {
    (void)state;
    struct rlimit before, none;
    int tid = waiter_spin();
    getrlimit(RLIMIT_SIGPENDING, &before);
    none = before;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_SIGPENDING, &none);
    const struct pep_dump *dump = take();
    setrlimit(RLIMIT_SIGPENDING, &before);
    assert_string_equal(task_of(dump, tid)->note, "runs, and the queue of signals is full");
    struct sigaction old;
    signal(pep_cpu_signal(), SIG_IGN);
    signal(pep_cpu_signal(), (void (*)(int))(void *)questions_that_are_refused_are_told);
    dump = take();
    sigaction(pep_cpu_signal(), NULL, &old);
    signal(pep_cpu_signal(), SIG_DFL); /* the next question puts our handler back */
    assert_string_equal(task_of(dump, tid)->note, "runs, and the program took our signal");
}

static void without_proc_the_known_threads_are_asked(void **state) {
    (void)state;
    int tid = waiter_spin();
    struct pep_thread *thread = pep_thread_adopt(tid);
    assert_non_null(thread);
    has_no_tasks = true;
    look_refused_file = "syscall";
    const struct pep_dump *dump = take();
    assert_non_null(task_of(dump, getpid()));
    assert_non_null(task_of(dump, tid));
    assert_int_equal(dump->unread, 0);
    look_refused_file = "stat";
    assert_string_equal(task_of(take(), tid)->name, "");
    assert_int_not_equal(pep_thread_identity_of_other(thread), 0);
    assert_string_equal(task_of(take(), tid)->name, "test_dump");
    pep_thread_forget(thread);
}

static pthread_mutex_t left_locked = PTHREAD_MUTEX_INITIALIZER;

static void *lock_and_end(void *argument) {
    *(int *)argument = pep_os_gettid();
    pthread_mutex_lock(&left_locked);
    return NULL;
}

static void *wait_for_the_end_of_time(void *unused) {
    struct pep_lock_wait wait;
    pep_thread_enter(0, 0);
    pep_lock_wait_begin(&wait, &left_locked, PEP_LOCK_MUTEX);
    pthread_mutex_lock(&left_locked);
    pep_lock_wait_end(&wait);
    return unused;
}

static void a_holder_that_is_gone_is_told(void **state) {
    (void)state;
    pthread_t thread;
    int holder = 0;
    assert_int_equal(pep_lock_init(1), 0);
    assert_int_equal(pthread_create(&thread, NULL, lock_and_end, &holder), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    int tid = waiter_run(wait_for_the_end_of_time, NULL);
    waiter_await(tid, 'S');
    left_locked.__data.__owner = 1 << 30;
    assert_string_equal(task_of(take(), tid)->doing, "mutex");
    left_locked.__data.__owner = holder;
    const struct pep_task *task = task_of(take(), tid);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "mutex of thread %d (not in this process)", holder);
    assert_string_equal(task->doing, wanted);
    assert_int_equal(task->owner_tid, holder);
    assert_null(task->owner);
    pthread_mutex_unlock(&left_locked);
}

static ucontext_t outer, inner;
static char coroutine_stack[65536] __attribute__((aligned(16)));

static volatile int is_awake;

static void wait_in_coroutine(void) {
    pause();
    is_awake = 1; /* not left by a jump into pause */
}

static void *run_coroutine(void *argument) {
    getcontext(&inner);
    inner.uc_stack.ss_sp = coroutine_stack;
    inner.uc_stack.ss_size = sizeof coroutine_stack;
    inner.uc_link = &outer;
    makecontext(&inner, wait_in_coroutine, 0);
    swapcontext(&outer, &inner);
    return argument;
}

static void a_coroutine_is_read(void **state) {
    (void)state;
    int tid = waiter_run(run_coroutine, NULL);
    waiter_await(tid, 'S');
    const struct pep_dump *dump = take();
    const struct pep_sample *sample = sample_of(dump, tid);
    bool has_frame = false;
    for (uint32_t i = 0; i < sample->pc_count; i++)
        has_frame |= sample->pcs[i] - (uintptr_t)wait_in_coroutine < 64;
    assert_true(has_frame);
    assert_null(task_of(dump, tid)->note);
}

static void without_memory_there_is_no_dump(void **state) {
    (void)state;
    const struct pep_dump_options options = {0};
    int taken = 0;
    for (size_t limit = 1; limit < 4 << 20; limit += 65536) {
        struct pep_arena small;
        pep_arena_init(&small, limit);
        taken += pep_dump_take(&small, &options) != NULL;
        assert_true(small.total_bytes <= limit);
        pep_arena_drop(&small);
    }
    assert_true(taken > 0 && taken < 64);
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
        TEST(everybody_is_listed_but_ours),        TEST(only_those_asked_for_are_kept),
        TEST(a_hundred_dumps_wake_no_sleeper),     TEST(who_waits_for_each_other_is_found),
        TEST(who_waits_for_itself_is_found),       TEST(who_waits_for_an_end_is_told),
        TEST(who_blocks_our_signal_is_told),       TEST(who_cannot_be_looked_at_is_asked),
        TEST(questions_that_are_refused_are_told), TEST(without_proc_the_known_threads_are_asked),
        TEST(a_holder_that_is_gone_is_told),       TEST(a_coroutine_is_read),
        TEST(without_memory_there_is_no_dump),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
