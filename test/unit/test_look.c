/*
 * Waiting threads, read from outside: every kind of waiting, whole; and what happens when they
 * move, end, or the kernel does not tell.
 * LDFLAGS: -Wl,--wrap=pep_os_call6 -Wl,--wrap=pep_unwind
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "look_help.h"
#include "sampler/look_internal.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"
#include "waiters.h"

static struct pep_looker *looker;
static uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];

static int setup(void **state) {
    look_setup(state);
    looker = pep_looker_open(&look_arena);
    return looker != NULL ? 0 : -1;
}

static int teardown(void **state) {
    pep_looker_close(looker);
    return look_teardown(state);
}

static void every_wait_is_told_and_whole(void **state) {
    (void)state;
    for (int i = 0; i < waiter_kind_count; i++) {
        const struct waiter_kind *kind = &waiter_kinds[i];
        struct pep_look look;
        int tid = waiter_start(kind);
        uint64_t looks = PEP_COUNTED(looks);
        pep_look_at(looker, tid, &look);
        assert_int_equal(look.kind, PEP_LOOK_WAITS);
        assert_int_equal(look.tid, tid);
        assert_int_equal(look.state, 'S');
        assert_string_equal(pep_look_state(&look), kind->state);
        assert_string_equal(pep_look_call_name(&look), kind->name);
        assert_string_equal(look.name, "test_look");
        int count = pep_look_walk(looker, &look, pcs, PEP_UNWIND_DEPTH_MAX);
        assert_true(count > 0);
        assert_true(pep_unwind_is_complete(looker->scratch));
        assert_true(waiter_is_whole(kind, pcs, count));
        assert_int_equal(PEP_COUNTED(looks), looks + 1);
    }
}

static void looking_wakes_nobody(void **state) {
    (void)state;
    struct pep_look look, again;
    int tid = waiter_start(&waiter_kinds[0]);
    uint64_t voluntary = waiter_status(tid, "\nvoluntary_ctxt_switches");
    uint64_t others = waiter_status(tid, "\nnonvoluntary_ctxt_switches");
    pep_look_at(looker, tid, &look);
    for (int i = 0; i < 100; i++)
        assert_true(pep_look_walk(looker, &look, pcs, PEP_UNWIND_DEPTH_MAX) > 0);
    pep_look_at(looker, tid, &again);
    assert_true(pep_look_is_same(&look, &again));
    assert_int_equal(waiter_status(tid, "\nvoluntary_ctxt_switches"), voluntary);
    assert_int_equal(waiter_status(tid, "\nnonvoluntary_ctxt_switches"), others);
}

static void who_runs_is_told(void **state) {
    (void)state;
    struct pep_look look;
    pep_look_at(looker, waiter_spin(), &look);
    assert_int_equal(look.kind, PEP_LOOK_RUNS);
    assert_string_equal(pep_look_state(&look), "running");
    assert_null(pep_look_call_name(&look));
    assert_int_equal(pep_look_walk(looker, &look, pcs, 10), -EAGAIN);
    assert_int_equal(pep_look_since(looker, &look), 0);
    waiter_spin_end();
}

static sem_t go, done;

static void *step(void *argument) {
    for (;;) {
        sem_wait(&go);
        sem_post(&done);
    }
    return argument;
}

static void make_a_step(void) {
    look_while_walking = NULL;
    sem_post(&go);
    sem_wait(&done);
}

static void who_moves_meanwhile_is_not_believed(void **state) {
    (void)state;
    struct pep_look look, again;
    uint64_t raced = PEP_COUNTED(look_raced);
    sem_init(&go, 0, 0);
    sem_init(&done, 0, 0);
    int tid = waiter_run(step, NULL);
    waiter_await(tid, 'S');
    pep_look_at(looker, tid, &look);
    assert_true(pep_look_walk(looker, &look, pcs, PEP_UNWIND_DEPTH_MAX) > 0);
    look_while_walking = make_a_step;
    assert_int_equal(pep_look_walk(looker, &look, pcs, PEP_UNWIND_DEPTH_MAX), -EAGAIN);
    assert_int_equal(PEP_COUNTED(look_raced), raced + 1);
    waiter_await(tid, 'S'); /* in the same call, at the same place */
    pep_look_at(looker, tid, &again);
    assert_int_equal(again.pc, look.pc);
    assert_false(pep_look_is_same(&look, &again));
}

static sem_t leave;

static void *wait_and_return(void *argument) {
    sem_wait(&leave);
    return argument;
}

static void who_ended_is_gone(void **state) {
    (void)state;
    struct pep_look look, again;
    sem_init(&leave, 0, 0);
    int tid = waiter_run(wait_and_return, NULL);
    waiter_await(tid, 'S');
    pep_look_at(looker, tid, &look);
    sem_post(&leave);
    while (syscall(SYS_tgkill, getpid(), tid, 0) == 0)
        usleep(1000);
    assert_int_equal(pep_look_walk(looker, &look, pcs, 10), -ESRCH);
    pep_look_at(looker, tid, &again);
    assert_int_equal(again.kind, PEP_LOOK_GONE);
    assert_string_equal(pep_look_state(&again), "ended");
    assert_int_equal(pep_look_walk(looker, &again, pcs, 10), -ESRCH);
}

static void what_the_kernel_refuses_is_told(void **state) {
    (void)state;
    struct pep_look look;
    int tid = waiter_start(&waiter_kinds[1]);
    look_refused_file = "syscall";
    look_refused_error = -EACCES;
    pep_look_at(looker, tid, &look);
    assert_int_equal(look.kind, PEP_LOOK_REFUSED);
    assert_int_equal(look.state, 'S');
    assert_string_equal(pep_look_state(&look), "waiting");
    assert_int_equal(pep_look_walk(looker, &look, pcs, 10), -EAGAIN);
    look_refused_error = -ESRCH;
    pep_look_at(looker, tid, &look);
    assert_int_equal(look.kind, PEP_LOOK_GONE);
    look_refused_file = "stat";
    look_refused_error = -EMFILE;
    pep_look_at(looker, tid, &look); /* the other file tells what matters */
    assert_int_equal(look.kind, PEP_LOOK_WAITS);
    assert_string_equal(look.name, "");
    look_refused_file = "sched";
    pep_look_at(looker, tid, &look);
    assert_int_equal(pep_look_since(looker, &look), 0);
}

static void since_when_is_told(void **state) {
    (void)state;
    struct pep_look look;
    uint64_t before = pep_os_clock_ns(CLOCK_MONOTONIC);
    int tid = waiter_start(&waiter_kinds[2]);
    pep_look_at(looker, tid, &look);
    uint64_t asked = pep_os_clock_ns(CLOCK_MONOTONIC);
    uint64_t since = pep_look_since(looker, &look);
    uint64_t told = pep_os_clock_ns(CLOCK_MONOTONIC);
    if (since == 0)
        skip(); /* a kernel without /proc/T/sched */
    assert_true(since >= before);
    assert_true(since <= told);
    uint64_t again = pep_look_since(looker, &look);
    assert_true(again >= since);
    assert_true(again == since || since >= asked); /* not told to have waited at all */
}

/* A child stops one of our threads as a debugger does. */
static void who_is_stopped_is_read(void **state) {
    (void)state;
    struct pep_look look;
    int ready[2], status;
    int tid = waiter_start(&waiter_kinds[3]);
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        bool is_seized = ptrace(PTRACE_SEIZE, tid, NULL, NULL) == 0 &&
                         ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) == 0 &&
                         waitpid(tid, &status, __WALL) == tid;
        (void)!write(ready[1], is_seized ? "y" : "n", 1);
        pause();
        _exit(0);
    }
    char answer = 0;
    assert_int_equal(read(ready[0], &answer, 1), 1);
    pep_look_at(looker, tid, &look);
    int count = answer == 'y' ? pep_look_walk(looker, &look, pcs, PEP_UNWIND_DEPTH_MAX) : 0;
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    if (answer != 'y')
        skip();
    assert_int_equal(look.kind, PEP_LOOK_STOPPED);
    assert_string_equal(pep_look_state(&look), "stopped by a debugger");
    assert_true(waiter_is_whole(&waiter_kinds[3], pcs, count));
}

static void tags_stand_for_texts(void **state) {
    (void)state;
    struct pep_look look = {.kind = PEP_LOOK_WAITS, .call = -1, .state = 'D'};
    assert_string_equal(pep_look_state(&look), "page fault");
    assert_string_equal(pep_look_state_of(pep_look_state_tag(&look)), "page fault");
    look.call = SYS_getpid;
    assert_string_equal(pep_look_state(&look), "disk wait");
    look.state = 'S';
    assert_string_equal(pep_look_state(&look), "syscall");
    look.call = SYS_wait4;
    assert_string_equal(pep_look_state(&look), "wait for child");
    look.kind = PEP_LOOK_STOPPED;
    look.state = 'T';
    assert_string_equal(pep_look_state(&look), "stopped");
    assert_null(pep_look_state_of(0));
    assert_null(pep_look_state_of(9999));
    for (uint16_t tag = 1; pep_look_state_of(tag) != NULL; tag++)
        assert_true(strlen(pep_look_state_of(tag)) > 0);
}

static void without_memory_there_is_no_looker(void **state) {
    (void)state;
    struct pep_arena small;
    pep_arena_init(&small, 1);
    assert_null(pep_looker_open(&small));
    pep_arena_drop(&small);
}

int main(void) {
#ifdef __SANITIZE_THREAD__
    return 77; /* its runtime replaces the calls that threads wait in */
#endif
    if (pep_threads_init() < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_wait_is_told_and_whole),
        cmocka_unit_test(looking_wakes_nobody),
        cmocka_unit_test(who_runs_is_told),
        cmocka_unit_test(who_moves_meanwhile_is_not_believed),
        cmocka_unit_test(who_ended_is_gone),
        cmocka_unit_test(since_when_is_told),
        cmocka_unit_test(what_the_kernel_refuses_is_told),
        cmocka_unit_test(who_is_stopped_is_read),
        cmocka_unit_test(tags_stand_for_texts),
        cmocka_unit_test(without_memory_there_is_no_looker),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
