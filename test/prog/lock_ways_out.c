/*
 * Ways out of a wait other than its end: cancellation, deferred and asynchronous, siglongjmp from a
 * signal's handler, a child forked while others wait, locks in handlers of pthread_atfork and in
 * constructors. Told line by line, to be compared with the same program without us.
 *
 * usage: lock_ways_out [JUMPS]
 */
#include <linux/futex.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <threads.h>

#include "lock_say.h"

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER, mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_t sleeper;
static sem_t sem;
static mtx_t mtx_held, mtx;
static cnd_t cnd;
static int word;
static struct timespec late;

/* Before our own constructor, maybe, and in handlers of fork. */
static pthread_mutex_t early = PTHREAD_MUTEX_INITIALIZER;
static int early_locks;

__attribute__((constructor(101))) static void lock_early(void) {
    pthread_mutex_lock(&early);
    early_locks++;
    pthread_mutex_unlock(&early);
}

/* -- what can be waited for ----------------------------------------------------------------- */

static void wait_mutex(void) {
    pthread_mutex_lock(&held);
}
static void wait_mutex_timed(void) {
    pthread_mutex_timedlock(&held, &late);
}
static void wait_mtx(void) {
    mtx_lock(&mtx_held);
}
static void wait_read(void) {
    pthread_rwlock_rdlock(&rwlock);
}
static void wait_write(void) {
    pthread_rwlock_timedwrlock(&rwlock, &late);
}
static void wait_cond(void) {
    pthread_mutex_lock(&mutex);
    pthread_cond_wait(&cond, &mutex);
}
static void wait_cond_timed(void) {
    pthread_mutex_lock(&mutex);
    pthread_cond_timedwait(&cond, &mutex, &late);
}
static void wait_cond_clock(void) {
    struct timespec limit = from_now(CLOCK_MONOTONIC, 3600000);
    pthread_mutex_lock(&mutex);
    pthread_cond_clockwait(&cond, &mutex, CLOCK_MONOTONIC, &limit);
}
static void wait_cnd(void) {
    mtx_lock(&mtx);
    cnd_wait(&cnd, &mtx);
}
static void wait_sem(void) {
    sem_wait(&sem);
}
static void wait_sem_timed(void) {
    sem_timedwait(&sem, &late);
}
static void wait_barrier(void) {
    pthread_barrier_wait(&barrier);
}
static void wait_join(void) {
    pthread_join(sleeper, NULL);
}
static void wait_join_timed(void) {
    pthread_timedjoin_np(sleeper, NULL, &late);
}
static void wait_futex(void) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static const struct way {
    const char *name;
    void (*wait)(void);
    bool is_cancellable, has_mutex;
} ways[] = {
    {"mutex", wait_mutex, false, false},
    {"mutex timed", wait_mutex_timed, false, false},
    {"mtx", wait_mtx, false, false},
    {"rdlock", wait_read, false, false},
    {"wrlock timed", wait_write, false, false},
    {"cond", wait_cond, true, true},
    {"cond timed", wait_cond_timed, true, true},
    {"cond clock", wait_cond_clock, true, true},
    {"cnd", wait_cnd, true, false},
    {"sem", wait_sem, true, false},
    {"sem timed", wait_sem_timed, true, false},
    {"barrier", wait_barrier, false, false},
    {"join", wait_join, true, false},
    {"join timed", wait_join_timed, true, false},
    {"futex", wait_futex, false, false},
};
#define WAYS (sizeof ways / sizeof ways[0])

static void *sleep_for_ever(void *unused) {
    for (;;)
        pause();
    return unused;
}

/* -- cancellation --------------------------------------------------------------------------- */

static struct {
    const struct way *way;
    bool is_async;
    volatile int tid;
    volatile int cleaned;
} victim;

static void clean(void *argument) {
    victim.cleaned++;
    if (victim.way->has_mutex) /* the mutex is ours again */
        victim.cleaned += 10 * pthread_mutex_unlock(&mutex);
    if (victim.way->wait == wait_cnd)
        mtx_unlock(&mtx);
    (void)argument;
}

static void *be_cancelled(void *argument) {
    int old;
    pthread_cleanup_push(clean, argument);
    pthread_setcanceltype(victim.is_async ? PTHREAD_CANCEL_ASYNCHRONOUS : PTHREAD_CANCEL_DEFERRED,
                          &old);
    victim.tid = (int)syscall(SYS_gettid);
    victim.way->wait();
    pthread_cleanup_pop(0);
    return "came back";
}

static void cancel(const struct way *way, bool is_async) {
    pthread_t thread;
    void *result = NULL;
    victim.way = way;
    victim.is_async = is_async;
    victim.tid = victim.cleaned = 0;
    pthread_create(&thread, NULL, be_cancelled, NULL);
    await_sleep(&victim.tid, SYS_futex);
    SAY(pthread_cancel(thread));
    SAY(pthread_join(thread, &result));
    SAY(result == PTHREAD_CANCELED);
    SAY(victim.cleaned);
    SAY(pthread_mutex_trylock(&mutex) == 0 ? pthread_mutex_unlock(&mutex) : -1);
    sem_init(&sem, 0, 0);
    pthread_cond_init(&cond, NULL);
    cnd_init(&cnd);
    pthread_barrier_init(&barrier, NULL, 2);
}

/* A request that is there before the call: sem_wait heeds it even if it need not wait. */
static void *cancelled_before(void *unused) {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_cancel(pthread_self());
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
    sem_post(&sem);
    sem_wait(&sem);
    return unused;
}

static void cancels(void) {
    pthread_t thread;
    void *result = NULL;
    for (size_t i = 0; i < WAYS; i++) {
        what = ways[i].name;
        if (ways[i].is_cancellable)
            cancel(&ways[i], false);
        if (!ways[i].has_mutex && ways[i].wait != wait_cnd && ways[i].wait != wait_barrier)
            cancel(&ways[i], true);
    }
    what = "before";
    pthread_create(&thread, NULL, cancelled_before, NULL);
    SAY(pthread_join(thread, &result));
    SAY(result == PTHREAD_CANCELED);
    SAY(sem_trywait(&sem));
}

/* -- siglongjmp ----------------------------------------------------------------------------- */

static sigjmp_buf back;
static volatile int jumps;

static void jump(int sig) {
    (void)sig;
    siglongjmp(back, 1);
}

/* Such leave libc's own state as they may; what can be used on is used again and again. */
static void jump_out(const struct way *way, int count) {
    const struct itimerval soon = {.it_value.tv_usec = 150}, never = {.it_value.tv_usec = 0};
    signal(SIGALRM, jump);
    jumps = 0;
    while (jumps < count) {
        if (sigsetjmp(back, 1) == 0) {
            setitimer(ITIMER_REAL, &soon, NULL);
            way->wait();
        }
        setitimer(ITIMER_REAL, &never, NULL); /* the wait may have ended by itself */
        jumps = jumps + 1;
    }
    SAY(jumps);
}

static void jumps_out(int count) {
    for (size_t i = 0; i < WAYS; i++) {
        what = ways[i].name;
        if (!ways[i].has_mutex && ways[i].wait != wait_cnd && ways[i].wait != wait_barrier)
            jump_out(&ways[i], count);
    }
    what = "after the jumps";
    SAY(sem_post(&sem));
    SAY(sem_wait(&sem));
    SAY(pthread_mutex_unlock(&held));
    SAY(pthread_mutex_lock(&held));
}

/* -- fork ----------------------------------------------------------------------------------- */

static void before_fork(void) {
    pthread_mutex_lock(&early);
}
static void after_fork(void) {
    pthread_mutex_unlock(&early);
}

static volatile int waiter_tid;

static void *wait_for_held(void *unused) {
    waiter_tid = (int)syscall(SYS_gettid);
    pthread_mutex_lock(&held);
    pthread_mutex_unlock(&held);
    return unused;
}

static void forks(void) {
    pthread_t thread;
    int status = 0;
    what = "fork";
    pthread_atfork(before_fork, after_fork, after_fork);
    pthread_create(&thread, NULL, wait_for_held, NULL);
    await_sleep(&waiter_tid, SYS_futex);
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t own;
            pthread_mutex_unlock(&held);
            waiter_tid = 0;
            pthread_mutex_lock(&held);
            pthread_create(&own, NULL, wait_for_held, NULL);
            await_sleep(&waiter_tid, SYS_futex);
            pthread_mutex_unlock(&held);
            pthread_join(own, NULL);
            _exit(early_locks + 6);
        }
        waitpid(child, &status, 0);
        if (WEXITSTATUS(status) != 7)
            SAY(status);
    }
    SAY(WEXITSTATUS(status));
    SAY(pthread_mutex_unlock(&held));
    SAY(pthread_join(thread, NULL));
}

/* -- memory that is gone at once ------------------------------------------------------------ */

static void *let_go(void *mutex_of_its_own) {
    pthread_mutex_lock(mutex_of_its_own);
    pthread_mutex_unlock(mutex_of_its_own);
    pthread_mutex_destroy(mutex_of_its_own);
    free(mutex_of_its_own);
    return NULL;
}

/* Whoever gets a mutex may free it when the holder before has let it go. */
static void destroy(void) {
    what = "destroyed";
    for (int i = 0; i < 2000; i++) {
        pthread_t thread;
        pthread_mutex_t *one = malloc(sizeof *one);
        pthread_mutex_init(one, NULL);
        pthread_mutex_lock(one);
        pthread_create(&thread, NULL, let_go, one);
        if (i % 2 == 0)
            sched_yield();
        pthread_mutex_unlock(one);
        pthread_join(thread, NULL);
    }
    SAY(early_locks);
}

int main(int count, char **arguments) {
    sigset_t all, old;
    late = from_now(CLOCK_REALTIME, 3600000);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* whoever jumps has to be the main thread */
    pthread_create(&sleeper, NULL, sleep_for_ever, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_mutex_lock(&held);
    mtx_init(&mtx_held, mtx_plain);
    mtx_init(&mtx, mtx_plain);
    mtx_lock(&mtx_held);
    cnd_init(&cnd);
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_rwlock_wrlock(&rwlock);
    sem_init(&sem, 0, 0);
    cancels();
    jumps_out(count > 1 ? atoi(arguments[1]) : 100);
    forks();
    destroy();
    fflush(stdout);
    _exit(0);
}
