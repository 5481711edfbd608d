/*
 * Questions to running threads: answered, too late, too many, refused.
 * LDFLAGS: -Wl,--wrap=pep_unwind
 */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "look_help.h"
#include "sampler/ask.h"
#include "sampler/cpu_internal.h"
#include "sampler/modules.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"
#include "waiters.h"

#define NO_TID 4194303
#define SECOND_NS 1000000000ull
#define LONG_NS (20 * SECOND_NS)

static uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
static int is_held, is_let_go; /* the handler's walk */

static void hold(void) {
    if (pep_load_acquire(&is_held) == 1) {
        pep_store_release(&is_held, 2);
        while (!pep_load_acquire(&is_let_go)) {
        }
    }
}

static uint64_t deadline(void) {
    return pep_os_clock_ns(CLOCK_MONOTONIC) + LONG_NS;
}

static void a_running_thread_answers(void **state) {
    (void)state;
    int tid = waiter_spin();
    uint64_t asks = PEP_COUNTED(asks);
    int ticket = pep_ask_send(tid);
    assert_true(ticket >= 0);
    int count = pep_ask_take(ticket, deadline(), pcs, PEP_UNWIND_DEPTH_MAX);
    assert_true(count >= 3);
    assert_int_equal(PEP_COUNTED(asks), asks + 1);
    ticket = pep_ask_send(tid);
    assert_int_equal(pep_ask_take(ticket, deadline(), pcs, 2), 2);
    assert_int_equal(pcs[1], PEP_PC_TRUNCATED);
}

static void each_of_many_answers(void **state) {
    (void)state;
    int tids[3], tickets[30];
    for (int i = 0; i < 3; i++)
        tids[i] = waiter_spin();
    for (int i = 0; i < 30; i++)
        tickets[i] = pep_ask_send(tids[i % 3]);
    for (int i = 30; i-- > 0;) {
        assert_true(tickets[i] >= 0);
        assert_true(pep_ask_take(tickets[i], deadline(), pcs, PEP_UNWIND_DEPTH_MAX) > 0);
    }
}

static void *block_all(void *argument) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (!pep_load_acquire((int *)argument)) {
    }
    pthread_sigmask(SIG_UNBLOCK, &all, NULL);
    pep_store_release((int *)argument, 2);
    for (;;)
        pause();
    return NULL;
}

static void who_does_not_answer_costs_its_place_until_the_deadline(void **state) {
    (void)state;
    static int is_open;
    int tickets[PEP_ASK_PLACES + 1], count = 0;
    int tid = waiter_run(block_all, &is_open);
    while (waiter_status(tid, "\nSigBlk") == 0)
        usleep(1000);
    uint64_t late = PEP_COUNTED(ask_late);
    while (count <= PEP_ASK_PLACES && (tickets[count] = pep_ask_send(tid)) >= 0)
        count++;
    assert_int_equal(tickets[count], -EBUSY);
    assert_int_equal(count, PEP_ASK_PLACES);
    assert_false(pep_ask_is_answered(tickets[0]));
    for (int i = 0; i < count; i++)
        assert_int_equal(pep_ask_take(tickets[i], 1, pcs, 1), -ETIMEDOUT);
    assert_int_equal(PEP_COUNTED(ask_late), late + (uint64_t)count);
    /* Every place is free again, and the answers that come now find nobody. */
    int ticket = pep_ask_send(tid);
    assert_true(ticket >= 0);
    pep_store_release(&is_open, 1);
    assert_true(pep_ask_take(ticket, deadline(), pcs, PEP_UNWIND_DEPTH_MAX) > 0);
    while (pep_load_acquire(&is_open) != 2)
        usleep(1000);
}

static void who_leaves_during_the_answer_gets_the_place_back_later(void **state) {
    (void)state;
    int tid = waiter_spin(), tickets[PEP_ASK_PLACES], held;
    is_held = 1;
    pep_store_release(&look_while_walking, hold);
    held = pep_ask_send(tid);
    while (pep_load_acquire(&is_held) != 2)
        usleep(1000);
    assert_int_equal(pep_ask_take(held, 1, pcs, 1), -ETIMEDOUT);
    for (int i = 0; i < PEP_ASK_PLACES - 1; i++)
        assert_true((tickets[i] = pep_ask_send(tid)) >= 0);
    assert_int_equal(pep_ask_send(tid), -EBUSY); /* the handler still writes there */
    pep_store_release(&is_let_go, 1);
    for (int i = 0; i < PEP_ASK_PLACES - 1; i++)
        assert_true(pep_ask_take(tickets[i], deadline(), pcs, PEP_UNWIND_DEPTH_MAX) > 0);
    for (int i = 0; i < PEP_ASK_PLACES; i++)
        assert_true((tickets[i] = pep_ask_send(tid)) >= 0);
    for (int i = 0; i < PEP_ASK_PLACES; i++)
        assert_true(pep_ask_take(tickets[i], deadline(), pcs, PEP_UNWIND_DEPTH_MAX) > 0);
    is_held = is_let_go = 0;
}

static int wake[2], poll_result;

static void *wait_for_a_byte(void *argument) {
    struct pollfd fd = {.fd = wake[0], .events = POLLIN};
    pep_store_release(&poll_result, poll(&fd, 1, 3600000) < 0 ? -errno : fd.revents);
    return argument;
}

static void a_wait_that_was_asked_goes_on(void **state) {
    (void)state;
    assert_int_equal(pipe(wake), 0);
    uint64_t restarted = PEP_COUNTED(calls_restarted);
    int tid = waiter_run(wait_for_a_byte, NULL);
    for (int i = 0; i < 3; i++) {
        waiter_await(tid, 'S');
        int ticket = pep_ask_send(tid);
        assert_true(pep_ask_take(ticket, deadline(), pcs, PEP_UNWIND_DEPTH_MAX) > 0);
    }
    waiter_await(tid, 'S');
    assert_int_equal(PEP_COUNTED(calls_restarted), restarted + 3);
    assert_int_equal(write(wake[1], "", 1), 1);
    while (pep_load_acquire(&poll_result) == 0)
        usleep(1000);
    assert_int_equal(poll_result, POLLIN);
}

/* Each waits for a long time and a second, and is told that it has waited for the long time: a
 * second is left. Not longer than the machine runs, nor than poll can tell. */
#define LONG_SECONDS 1000000u
static struct timespec limit;
static int is_over;

static int wait_poll(void) {
    return poll(NULL, 0, (int)limit.tv_sec * 1000) == 0;
}

static int wait_epoll(void) {
    struct epoll_event event;
    return epoll_wait(epoll_create1(0), &event, 1, (int)limit.tv_sec * 1000) == 0;
}

static int wait_ppoll(void) {
    struct timespec rest = {1, 0}; /* the kernel itself shortens this one */
    return ppoll(NULL, 0, &rest, NULL) == 0;
}

static int wait_nanosleep(void) {
    return nanosleep(&limit, NULL) == 0;
}

static int wait_sleep(void) {
    struct timespec rest = {1, 0}; /* and this one, where it is told to write it */
    return nanosleep(&rest, &rest) == 0;
}

/* libc's syscall() leaves no trace of the call's number; other libraries have it in their code. */
static int wait_futex(void) {
    static int word;
    register const struct timespec *time __asm__("r10") = &limit;
    long result;
    __asm__ volatile("mov $202, %%eax\n\tsyscall"
                     : "=a"(result)
                     : "D"(&word), "S"((long)FUTEX_WAIT), "d"(0l), "r"(time)
                     : "rcx", "r11", "memory");
    return result == -ETIMEDOUT;
}

static int wait_signal(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    return sigtimedwait(&set, NULL, &limit) < 0 && errno == EAGAIN;
}

static int (*const waits[])(void) = {wait_poll,  wait_epoll, wait_ppoll, wait_nanosleep,
                                     wait_sleep, wait_futex, wait_signal};

static void *wait_long(void *argument) {
    int (*wait)(void) = *(int (*const *)(void))argument;
    int result = wait();
    pep_store_release(&is_over, result ? 1 : -1);
    return NULL;
}

static void a_wait_of_limited_time_ends_in_time(void **state) {
    (void)state;
    for (size_t i = 0; i < PEP_COUNT_OF(waits); i++) {
        uint64_t began = pep_os_clock_ns(CLOCK_MONOTONIC), seconds = began / SECOND_NS;
        seconds = seconds < LONG_SECONDS ? seconds : LONG_SECONDS;
        limit.tv_sec = (time_t)seconds + 1;
        is_over = 0;
        int tid = waiter_run(wait_long, (void *)(uintptr_t)&waits[i]);
        pep_thread_adopt(tid);
        waiter_await(tid, 'S');
        int ticket = pep_ask_send_since(tid, began - seconds * SECOND_NS);
        int count = ticket < 0 ? ticket : pep_ask_take(ticket, began + LONG_NS, pcs, 10);
        if (count <= 0) /* those that wait for a second alone may be asked too late */
            assert_true(pep_os_clock_ns(CLOCK_MONOTONIC) - began >= SECOND_NS);
        while (pep_load_acquire(&is_over) == 0)
            usleep(1000);
        assert_int_equal(is_over, 1);
    }
}

static void what_cannot_be_asked_is_told(void **state) {
    (void)state;
    int tid = waiter_spin();
    assert_int_equal(pep_ask_send(NO_TID), -ESRCH);
    struct rlimit before, none;
    getrlimit(RLIMIT_SIGPENDING, &before);
    none = before;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_SIGPENDING, &none);
    assert_int_equal(pep_ask_send(tid), -EAGAIN);
    assert_int_equal(pep_ask_init(), 0); /* looks at the limit again: one at a time */
    setrlimit(RLIMIT_SIGPENDING, &before);
    int ticket = pep_ask_send(tid);
    assert_true(ticket >= 0);
    assert_int_equal(pep_ask_send(tid), -EBUSY);
    assert_true(pep_ask_take(ticket, deadline(), pcs, PEP_UNWIND_DEPTH_MAX) > 0);
    assert_int_equal(pep_ask_init(), 0);
}

static void on_plain(int sig) {
    (void)sig;
}

static void the_call_of_who_waits_is_told(void **state) {
    (void)state;
    struct pep_look look;
    int tid = waiter_start(&waiter_kinds[0]);
    int ticket = pep_ask_send_since(tid, pep_os_clock_ns(CLOCK_MONOTONIC));
    while (!pep_ask_is_answered(ticket))
        usleep(1000);
    assert_true(pep_ask_call_of(ticket, &look));
    assert_int_equal(look.call, SYS_poll);
    assert_int_equal((int)look.arguments[2], -1);
    assert_true(pep_ask_take(ticket, 1, pcs, PEP_UNWIND_DEPTH_MAX) > 0);
    ticket = pep_ask_send(tid); /* it has come to wait since it was seen to run */
    while (!pep_ask_is_answered(ticket))
        usleep(1000);
    assert_true(pep_ask_call_of(ticket, &look));
    assert_int_equal(look.call, SYS_poll);
    assert_true(pep_ask_take(ticket, 1, pcs, PEP_UNWIND_DEPTH_MAX) > 0);
    ticket = pep_ask_send(waiter_spin());
    while (!pep_ask_is_answered(ticket))
        usleep(1000);
    assert_false(pep_ask_call_of(ticket, &look));
    assert_true(pep_ask_take(ticket, 1, pcs, PEP_UNWIND_DEPTH_MAX) > 0);
}

static void a_host_with_our_signal_is_not_asked(void **state) {
    (void)state;
    struct sigaction taken = {.sa_handler = on_plain}, old;
    sigaction(pep_cpu_signal(), &taken, &old);
    assert_int_equal(pep_ask_send(waiter_spin()), -ENOSYS);
    signal(pep_cpu_signal(), SIG_DFL);
    int ticket = pep_ask_send(waiter_spin()); /* it let go: the handler is put back */
    assert_true(pep_ask_take(ticket, deadline(), pcs, PEP_UNWIND_DEPTH_MAX) > 0);
}

static void other_values_are_not_answers(void **state) {
    (void)state;
    siginfo_t info = {.si_code = SI_TIMER};
    ucontext_t context;
    memset(&context, 0, sizeof context);
    info.si_value.sival_ptr = &info;
    assert_false(pep_ask_answer(&info, &context));
    info.si_code = SI_QUEUE;
    info.si_value.sival_ptr = (void *)(0x70f6ull << 48);
    assert_false(pep_ask_answer(&info, &context));
    info.si_code = SI_TIMER; /* ours, and nobody waits for it */
    assert_true(pep_ask_answer(&info, &context));
}

static void a_forked_child_has_every_place(void **state) {
    (void)state;
    static int is_open;
    int tid = waiter_run(block_all, &is_open), tickets[PEP_ASK_PLACES];
    while (waiter_status(tid, "\nSigBlk") == 0)
        usleep(1000);
    for (int i = 0; i < PEP_ASK_PLACES; i++)
        tickets[i] = pep_ask_send(tid);
    pep_ask_after_fork_child();
    for (int i = 0; i < PEP_ASK_PLACES; i++)
        assert_true((tickets[i] = pep_ask_send(tid)) >= 0);
    for (int i = 0; i < PEP_ASK_PLACES; i++)
        assert_int_equal(pep_ask_take(tickets[i], 1, pcs, 1), -ETIMEDOUT);
    pep_store_release(&is_open, 1);
}

static void nobody_is_asked_before_the_start(void **state) {
    (void)state;
    assert_int_equal(pep_ask_send(pep_os_gettid()), -ENOSYS);
    pep_ask_after_fork_child();
}

int main(void) {
#ifdef __SANITIZE_THREAD__
    return 77; /* its runtime knows nothing of a handler installed behind its back */
#endif
    const struct pep_cpu_options options = {.engine = PEP_CPU_AUTO};
    const struct CMUnitTest before[] = {cmocka_unit_test(nobody_is_asked_before_the_start)};
    int failed = cmocka_run_group_tests_name("before", before, NULL, NULL);
    if (pep_threads_init() < 0 || pep_cpu_init(&options) < 0 || pep_ask_init() < 0)
        return 1;
    pep_modules_refresh();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_running_thread_answers, look_teardown),
        cmocka_unit_test_teardown(each_of_many_answers, look_teardown),
        cmocka_unit_test_teardown(who_does_not_answer_costs_its_place_until_the_deadline,
                                  look_teardown),
        cmocka_unit_test_teardown(who_leaves_during_the_answer_gets_the_place_back_later,
                                  look_teardown),
        cmocka_unit_test_teardown(a_wait_that_was_asked_goes_on, look_teardown),
        cmocka_unit_test_teardown(a_wait_of_limited_time_ends_in_time, look_teardown),
        cmocka_unit_test_teardown(what_cannot_be_asked_is_told, look_teardown),
        cmocka_unit_test_teardown(the_call_of_who_waits_is_told, look_teardown),
        cmocka_unit_test_teardown(a_host_with_our_signal_is_not_asked, look_teardown),
        cmocka_unit_test_teardown(other_values_are_not_answers, look_teardown),
        cmocka_unit_test_teardown(a_forked_child_has_every_place, look_teardown),
    };
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
