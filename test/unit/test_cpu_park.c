/* LDFLAGS: -Wl,--wrap=pep_os_sigqueueinfo,--wrap=pep_os_map,--wrap=pep_cpu_disarm_self */
/* Foreign signals of our number where the host blocks it: kept in the kernel, in their order. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/ask.h"
#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"

static int refuse_queue, refuse_map;
int __real_pep_os_sigqueueinfo(int, int, const siginfo_t *);
int __wrap_pep_os_sigqueueinfo(int, int, const siginfo_t *);
int __wrap_pep_os_sigqueueinfo(int tid, int sig, const siginfo_t *info) {
    if (refuse_queue != 0 && info->si_code != SI_USER)
        return refuse_queue;
    return __real_pep_os_sigqueueinfo(tid, sig, info);
}

void *__real_pep_os_map(size_t);
void *__wrap_pep_os_map(size_t);
void *__wrap_pep_os_map(size_t bytes) {
    return refuse_map ? NULL : __real_pep_os_map(bytes);
}

/* Others are slow to give way; the calling thread waits for them. */
static int slow_tid;
bool __real_pep_cpu_disarm_self(struct pep_thread *);
bool __wrap_pep_cpu_disarm_self(struct pep_thread *);
bool __wrap_pep_cpu_disarm_self(struct pep_thread *thread) {
    int slow = pep_load_relaxed(&slow_tid);
    if (slow != 0 && slow != thread->tid)
        pep_os_sleep_ns(20000000);
    return __real_pep_cpu_disarm_self(thread);
}

static uint64_t our_bit(void) {
    return 1ull << (pep_cpu_signal() - 1);
}

static bool is_really_blocked(void) {
    uint64_t mask = 0;
    pep_os_sigprocmask(SIG_BLOCK, NULL, &mask);
    return (mask & our_bit()) != 0;
}

static void queue(int value) {
    assert_int_equal(sigqueue(getpid(), pep_cpu_signal(), (union sigval){.sival_int = value}), 0);
}

/* The value of the one that is pending first, -1: none is. */
static int take(int *code) {
    siginfo_t info;
    if (pep_os_sigtake(our_bit(), &info) < 0)
        return -1;
    if (code != NULL)
        *code = info.si_code;
    return info.si_value.sival_int;
}

static int begin(void **state) {
    (void)state;
    pep_cpu_set_host_blocks(true);
    return 0;
}

static int end(void **state) {
    (void)state;
    while (take(NULL) >= 0) {
    }
    pep_cpu_come_back();
    pep_cpu_set_host_blocks(false);
    refuse_queue = refuse_map = 0;
    return is_really_blocked() || pep_cpu_gives_way() || pep_cpu.ways != 0;
}

static void a_blocked_one_stays(void **state) {
    (void)state;
    uint64_t parked = PEP_COUNTED(signal_parked);
    int code = 0;
    assert_false(is_really_blocked());
    for (int i = 0; i < 5; i++)
        queue(70 + i);
    assert_true(is_really_blocked());
    assert_true(pep_cpu_gives_way());
    assert_int_equal(PEP_COUNTED(signal_parked), parked + 1);
    pep_cpu_come_back(); /* something is pending */
    assert_true(pep_cpu_gives_way());
    for (int i = 0; i < 5; i++)
        assert_int_equal(take(&code), 70 + i);
    assert_int_equal(code, SI_QUEUE);
    pep_cpu_come_back();
    assert_false(pep_cpu_gives_way());
    assert_false(is_really_blocked());
    assert_int_equal(pep_cpu.is_visit_wanted, 1);
}

static void one_for_the_thread_stays_the_threads(void **state) {
    (void)state;
    int code = 0;
    pthread_kill(pthread_self(), pep_cpu_signal());
    assert_true(take(&code) >= 0);
    assert_int_equal(code, SI_TKILL);
}

/* Several wait as our number is opened: the first must not go behind the rest; ours end there. */
static void what_waits_keeps_its_order(void **state) {
    (void)state;
    uint64_t ours = our_bit();
    siginfo_t own;
    memset(&own, 0, sizeof own);
    own.si_signo = pep_cpu_signal();
    own.si_code = POLL_IN;
    own.si_fd = 500;
    for (int round = 0; round < 2; round++) {
        refuse_map = round;
        pep_os_sigprocmask(SIG_BLOCK, &ours, NULL);
        for (int i = 0; i < 4; i++)
            queue(i);
        if (round == 0)
            assert_int_equal(pep_os_tgsigqueueinfo(getpid(), pep_os_gettid(), own.si_signo, &own),
                             0);
        pep_os_sigprocmask(SIG_UNBLOCK, &ours, NULL);
        assert_true(is_really_blocked());
        for (int i = 0; i < 4; i++)
            assert_int_equal(take(NULL), round == 0 ? i : (i + 1) % 4); /* no room: none is lost */
        assert_int_equal(take(NULL), -1);
        pep_cpu_come_back();
    }
}

static void a_full_queue_is_counted(void **state) {
    (void)state;
    uint64_t before = PEP_COUNTED(signal_unqueued);
    int code = 1;
    refuse_queue = -EAGAIN;
    queue(9);
    assert_int_equal(PEP_COUNTED(signal_unqueued), before + 1);
    assert_int_not_equal(take(&code), -1);
    assert_int_equal(code, SI_USER);
}

static volatile sig_atomic_t seen;

static void on_foreign(int sig) {
    (void)sig;
    seen++;
}

/* sigsuspend(2) lets it in; then nothing is left and the thread is as before. */
static void a_call_with_an_open_mask_gets_it(void **state) {
    (void)state;
    const struct pep_ksigaction action = {.handler = (void *)on_foreign};
    sigset_t none;
    sigemptyset(&none);
    pep_cpu_host_action(&action, NULL);
    seen = 0;
    queue(1);
    queue(2);
    assert_int_equal(seen, 0);
    assert_int_equal(sigsuspend(&none), -1);
    assert_int_equal(seen, 1); /* blocked again as the first one's handler ended */
    assert_true(pep_cpu_gives_way());
    assert_int_equal(sigsuspend(&none), -1);
    assert_int_equal(seen, 2);
    assert_false(pep_cpu_gives_way());
    assert_false(is_really_blocked());
}

static void what_is_opened_comes(void **state) {
    (void)state;
    uint64_t ours = our_bit();
    seen = 0;
    queue(1);
    pep_cpu_set_host_blocks(false);
    pep_os_sigprocmask(SIG_UNBLOCK, &ours, NULL);
    assert_int_equal(seen, 1);
    assert_false(pep_cpu_gives_way());
    pep_cpu_opened();
    queue(2);
    assert_int_equal(seen, 2);
}

static void the_default_is_the_kernels(void **state) {
    (void)state;
    const struct pep_ksigaction by_default = {.handler = (void *)SIG_DFL};
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        pep_cpu_set_host_blocks(false);
        pep_cpu_host_action(&by_default, NULL);
        kill(getpid(), pep_cpu_signal());
        /* The copy has another thread id, so no slot, as a child of a raw clone. */
        _exit(3);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), pep_cpu_signal());
}

static void who_gives_way_is_not_asked(void **state) {
    (void)state;
    assert_int_equal(pep_ask_init(), 0);
    queue(1);
    assert_int_equal(pep_ask_send(pep_os_gettid()), -ENOTSUP);
    assert_int_equal(take(NULL), 1);
    assert_int_equal(take(NULL), -1);
}

static void *ask(void *tid) {
    return (void *)(long)pep_ask_send(*(int *)tid);
}

/* A question that is just being sent is waited for and answered, and stays in nobody's way. */
static void a_question_on_its_way_is_answered(void **state) {
    (void)state;
    pthread_t asker;
    void *ticket;
    int tid = pep_os_gettid();
    uintptr_t pcs[8];
    siginfo_t info;
    uint64_t ours = our_bit();
    assert_int_equal(pep_ask_init(), 0);
    pep_os_sigprocmask(SIG_BLOCK, &ours, NULL);
    assert_int_equal(pthread_create(&asker, NULL, ask, &tid), 0);
    pthread_join(asker, &ticket);
    assert_true((long)ticket >= 0);
    queue(5);
    pep_os_sigprocmask(SIG_UNBLOCK, &ours, NULL); /* the question, then the other */
    assert_true(pep_ask_is_answered((int)(long)ticket));
    (void)pep_ask_take((int)(long)ticket, 0, pcs, 8);
    assert_true(pep_cpu_gives_way());
    assert_true(pep_os_sigtake(ours, &info) > 0);
    assert_int_equal(info.si_code, SI_QUEUE);
    assert_true(pep_os_sigtake(ours, &info) < 0);
}

static pthread_barrier_t barrier;

static void *be_blocked(void *unused) {
    (void)unused;
    pep_thread_enter(0, 0);
    pep_cpu_set_host_blocks(true);
    pthread_barrier_wait(&barrier);
    while (!pep_cpu_gives_way())
        usleep(1000);
    bool was_blocked = is_really_blocked();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    pep_thread_leave();
    return (void *)(long)was_blocked;
}

/* One for the process: whoever blocks it gives way, then it is there for anybody to take. */
static void everybody_gives_way(void **state) {
    (void)state;
    pthread_t threads[3];
    pthread_barrier_init(&barrier, NULL, 4);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, be_blocked, NULL), 0);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 10; i++)
        queue(i);
    pthread_barrier_wait(&barrier);
    assert_int_equal(pep_cpu.ways, 4);
    for (int i = 0; i < 10; i++)
        assert_int_equal(take(NULL), i);
    assert_int_equal(take(NULL), -1);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 3; i++) {
        void *was_blocked;
        pthread_join(threads[i], &was_blocked);
        assert_true((long)was_blocked);
    }
    assert_int_equal(pep_cpu.ways, 1); /* who ends is not counted */
}

static int lookers, is_put_back, came_back_early;

static void *look_again(void *unused) {
    (void)unused;
    pep_thread_enter(0, 0);
    pep_cpu_set_host_blocks(true);
    pthread_barrier_wait(&barrier);
    while (!pep_cpu_gives_way())
        usleep(1000);
    while (pep_cpu_gives_way()) {
        pep_cpu_come_back();
        if (!pep_cpu_gives_way() && !pep_load_acquire(&is_put_back))
            pep_add_relaxed(&came_back_early, 1);
    }
    pep_add_relaxed(&lookers, 1);
    pep_thread_leave();
    return NULL;
}

/* While one thread has the signal in its hands nothing is pending: no reason to come back. And
 * whoever has given way has no other in its hands, however long that takes it. */
static void nobody_comes_back_before_it_is_there(void **state) {
    (void)state;
    pthread_t threads[3];
    pthread_barrier_init(&barrier, NULL, 4);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look_again, NULL), 0);
    pthread_barrier_wait(&barrier);
    pep_store_relaxed(&slow_tid, pep_os_gettid());
    queue(1);
    pep_store_relaxed(&slow_tid, 0);
    for (uint32_t i = 0; i < pep_threads_limit(); i++) {
        const struct pep_thread *thread = pep_thread_at(i);
        if (thread->tid != 0 && !thread->is_own)
            assert_true(pep_load_acquire(&thread->is_out_of_way));
    }
    pep_store_release(&is_put_back, 1);
    assert_int_equal(take(NULL), 1);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(lookers, 3);
    assert_int_equal(came_back_early, 0);
}

/* Our number is in the descriptor only as long as nothing of ours can be read from it. */
static void descriptors_show_it_for_as_long(void **state) {
    (void)state;
    sigset_t none;
    struct signalfd_siginfo info;
    sigemptyset(&none);
    int fd = signalfd(-1, &none, SFD_CLOEXEC | SFD_NONBLOCK);
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    pep_cpu_signalfd_note(fd, our_bit());
    queue(8);
    assert_int_equal(poll(&poll_fd, 1, 0), 1);
    assert_int_equal(read(fd, &info, sizeof info), sizeof info);
    assert_int_equal(info.ssi_int, 8);
    pep_cpu_come_back();
    uint64_t ours = our_bit();
    pep_os_sigprocmask(SIG_BLOCK, &ours, NULL);
    queue(9);
    assert_int_equal(poll(&poll_fd, 1, 0), 0);
    assert_int_equal(take(NULL), 9);
    pep_os_sigprocmask(SIG_UNBLOCK, &ours, NULL);
    pep_cpu_signalfd_note(fd, 0);
    queue(10);
    assert_int_equal(poll(&poll_fd, 1, 0), 0); /* forgotten */
    for (int i = 0; i < 70; i++)
        pep_cpu_signalfd_note(1000 + i, ours);
    pep_cpu_signalfd_note(fd, ours); /* no room, but a signal is kept just now */
    assert_int_equal(poll(&poll_fd, 1, 0), 1);
    for (int i = 0; i < 70; i++)
        pep_cpu_signalfd_note(1000 + i, 0);
    close(fd);
}

static void what_is_ignored_is_no_more(void **state) {
    (void)state;
    queue(1);
    pep_cpu_forget_pending();
    assert_int_equal(take(NULL), -1);
    queue(2); /* blocked signals wait, whatever their action */
    assert_int_equal(take(NULL), 2);
    assert_int_equal(pep_cpu_handler_check(), 0);
}

static void own_ones_are_told_apart(void **state) {
    (void)state;
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_code = SI_TIMER;
    assert_false(pep_cpu_is_own_signal(&info));
    info.si_value.sival_ptr = &pep_cpu_way_cookie;
    assert_true(pep_cpu_is_own_signal(&info));
    info.si_code = SI_QUEUE;
    assert_false(pep_cpu_is_own_signal(&info));
    info.si_code = POLL_HUP;
    assert_true(pep_cpu_is_own_signal(&info));
}

static int prepare(void **state) {
    (void)state;
    const struct pep_cpu_options options = {.engine = PEP_CPU_TIMER};
    return pep_threads_init() < 0 || pep_cpu_init(&options) < 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_blocked_one_stays, begin, end),
        cmocka_unit_test_setup_teardown(one_for_the_thread_stays_the_threads, begin, end),
        cmocka_unit_test_setup_teardown(what_waits_keeps_its_order, begin, end),
        cmocka_unit_test_setup_teardown(a_full_queue_is_counted, begin, end),
        cmocka_unit_test_setup_teardown(a_call_with_an_open_mask_gets_it, begin, end),
        cmocka_unit_test_setup_teardown(what_is_opened_comes, begin, end),
        cmocka_unit_test_setup_teardown(the_default_is_the_kernels, begin, end),
        cmocka_unit_test_setup_teardown(who_gives_way_is_not_asked, begin, end),
        cmocka_unit_test_setup_teardown(a_question_on_its_way_is_answered, begin, end),
        cmocka_unit_test_setup_teardown(everybody_gives_way, begin, end),
        cmocka_unit_test_setup_teardown(nobody_comes_back_before_it_is_there, begin, end),
        cmocka_unit_test_setup_teardown(descriptors_show_it_for_as_long, begin, end),
        cmocka_unit_test_setup_teardown(what_is_ignored_is_no_more, begin, end),
        cmocka_unit_test(own_ones_are_told_apart),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
