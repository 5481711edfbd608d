/*
 * Read-write locks, condition variables, semaphores, barriers, spinlocks, joins and raw futexes:
 * what each call gives and leaves in errno, told line by line, to be compared with the same program
 * without us. Arguments: none.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <threads.h>

#include "lock_say.h"

static const struct timespec past = {1, 0}, wrong = {1, 2000000000};

/* One thread beside the main one: what it does, who it is, what it said. */
static struct {
    pthread_t thread;
    void (*work)(void);
    volatile int tid;
    struct aside aside;
} other;

static void *do_other(void *unused) {
    say_aside(&other.aside);
    other.tid = (int)syscall(SYS_gettid);
    other.work();
    aside_ends();
    return unused;
}

static void start_other(void (*work)(void)) {
    other.work = work;
    other.tid = 0;
    pthread_create(&other.thread, NULL, do_other, NULL);
}

static void join_other(void) {
    pthread_join(other.thread, NULL);
    tell(&other.aside);
}

/* -- read-write locks ----------------------------------------------------------------------- */

static pthread_rwlock_t rwlock;

static void read_it(void) {
    SAY(pthread_rwlock_rdlock(&rwlock));
    SAY(pthread_rwlock_unlock(&rwlock));
}

static void write_it(void) {
    SAY(pthread_rwlock_wrlock(&rwlock));
    SAY(pthread_rwlock_unlock(&rwlock));
}

static void write_within_limits(void) {
    struct timespec limit = from_now(CLOCK_REALTIME, 60000);
    SAY(pthread_rwlock_timedwrlock(&rwlock, &limit));
    SAY(pthread_rwlock_unlock(&rwlock));
    limit = from_now(CLOCK_MONOTONIC, 60000);
    SAY(pthread_rwlock_clockrdlock(&rwlock, CLOCK_MONOTONIC, &limit));
    SAY(pthread_rwlock_unlock(&rwlock));
}

static void try_limits(void) {
    SAY(pthread_rwlock_tryrdlock(&rwlock) == 0 ? pthread_rwlock_unlock(&rwlock) : 99);
    SAY(pthread_rwlock_timedwrlock(&rwlock, &past));
    SAY(pthread_rwlock_timedwrlock(&rwlock, &wrong));
    SAY(pthread_rwlock_clockwrlock(&rwlock, CLOCK_MONOTONIC, &past));
    SAY(pthread_rwlock_clockwrlock(&rwlock, 77, &past));
    SAY(pthread_rwlock_clockrdlock(&rwlock, 77, &past) == 0 ? pthread_rwlock_unlock(&rwlock) : 98);
}

static void rwlocks(void) {
    static void (*const works[])(void) = {read_it, write_it, write_within_limits};
    for (int kind = 0; kind < 3; kind++) {
        pthread_rwlockattr_t attributes;
        pthread_rwlockattr_init(&attributes);
        pthread_rwlockattr_setkind_np(&attributes, kind);
        SAY(pthread_rwlock_init(&rwlock, &attributes));
        SAY(pthread_rwlock_timedrdlock(&rwlock, &wrong));
        SAY(pthread_rwlock_rdlock(&rwlock));
        SAY(pthread_rwlock_rdlock(&rwlock));
        try_limits();
        SAY(pthread_rwlock_unlock(&rwlock));
        SAY(pthread_rwlock_unlock(&rwlock));
        for (size_t i = 0; i < 3; i++) {
            SAY(pthread_rwlock_wrlock(&rwlock));
            SAY(pthread_rwlock_wrlock(&rwlock));
            SAY(pthread_rwlock_rdlock(&rwlock));
            try_limits();
            start_other(works[i]);
            await_sleep(&other.tid, SYS_futex);
            SAY(pthread_rwlock_unlock(&rwlock));
            join_other();
        }
        SAY(pthread_rwlock_destroy(&rwlock));
    }
}

/* -- semaphores ----------------------------------------------------------------------------- */

static sem_t *sem;

static void wait_for_it(void) {
    struct timespec limit = from_now(CLOCK_REALTIME, 60000);
    SAY(sem_wait(sem));
    SAY(sem_timedwait(sem, &limit));
    limit = from_now(CLOCK_MONOTONIC, 60000);
    SAY(sem_clockwait(sem, CLOCK_MONOTONIC, &limit));
}

static volatile int signals_seen;

static void count(int sig) {
    signals_seen = signals_seen + (sig == SIGUSR1);
}

/* What a signal does to a wait, as the host's own handler wants it. */
static void interrupted(void) {
    struct timespec limit = from_now(CLOCK_REALTIME, 60000);
    SAY(sem_wait(sem));
    SAY(sem_timedwait(sem, &limit));
}

static void semaphores(void) {
    static sem_t own;
    char name[40];
    snprintf(name, sizeof name, "/lock_others.%d", (int)getpid());
    sem_t *named = sem_open(name, O_CREAT | O_EXCL, 0600, 0);
    sem_unlink(name);
    sem_init(&own, 0, 0);
    sem_t *const all[] = {&own, named};
    for (int i = 0; i < 2; i++) {
        sem = all[i];
        SAY(sem_timedwait(sem, &past));
        SAY(sem_timedwait(sem, &wrong));
        SAY(sem_clockwait(sem, CLOCK_MONOTONIC, &past));
        SAY(sem_clockwait(sem, 77, &past));
        SAY(sem_post(sem));
        SAY(sem_timedwait(sem, &wrong));
        SAY(sem_wait(sem));
        SAY(sem_trywait(sem));
        start_other(wait_for_it);
        for (int posts = 0; posts < 3; posts++) {
            await_sleep(&other.tid, SYS_futex);
            SAY(sem_post(sem));
        }
        join_other();
        for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART) {
            sigaction(SIGUSR1, &(struct sigaction){.sa_handler = count, .sa_flags = flags}, NULL);
            start_other(interrupted);
            signals_seen = 0;
            for (int signals = 1; signals <= 2; signals++) {
                await_sleep(&other.tid, SYS_futex);
                pthread_kill(other.thread, SIGUSR1);
                if (flags != 0) { /* sem_wait is restarted, sem_timedwait may be */
                    sem_post(sem);
                    sem_post(sem);
                    break;
                }
                while (signals_seen < signals)
                    sched_yield();
            }
            pthread_join(other.thread, NULL);
            while (sem_trywait(sem) == 0)
                continue;
            if (flags == 0)
                tell(&other.aside);
        }
    }
    sem_init(&own, 0, SEM_VALUE_MAX);
    SAY(sem_post(&own));
}

/* -- condition variables -------------------------------------------------------------------- */

static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int asked, answered; /* how often the thread waited, and was let go */

static void wait_until_ready(void) {
    struct timespec limit = from_now(CLOCK_REALTIME, 60000);
    pthread_mutex_lock(&mutex);
    for (asked = 1; answered < 1;)
        SAY(pthread_cond_wait(&cond, &mutex));
    for (asked = 2; answered < 2;)
        SAY(pthread_cond_timedwait(&cond, &mutex, &limit));
    limit = from_now(CLOCK_MONOTONIC, 60000);
    for (asked = 3; answered < 3;)
        SAY(pthread_cond_clockwait(&cond, &mutex, CLOCK_MONOTONIC, &limit));
    pthread_mutex_unlock(&mutex);
}

static void conds(void) {
    pthread_mutex_t checking = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
    SAY(pthread_cond_signal(&cond));
    SAY(pthread_cond_broadcast(&cond));
    SAY(pthread_cond_wait(&cond, &checking));
    SAY(pthread_cond_timedwait(&cond, &checking, &past));
    pthread_mutex_lock(&mutex);
    SAY(pthread_cond_timedwait(&cond, &mutex, &past));
    SAY(pthread_cond_timedwait(&cond, &mutex, &wrong));
    SAY(pthread_cond_clockwait(&cond, &mutex, CLOCK_MONOTONIC, &past));
    SAY(pthread_cond_clockwait(&cond, &mutex, 77, &past));
    pthread_mutex_unlock(&mutex);
    start_other(wait_until_ready);
    for (int round = 1; round <= 3; round++) {
        pthread_mutex_lock(&mutex);
        while (asked < round) { /* who asked and has let the mutex go waits */
            pthread_mutex_unlock(&mutex);
            sched_yield();
            pthread_mutex_lock(&mutex);
        }
        answered = round;
        SAY(round == 2 ? pthread_cond_broadcast(&cond) : pthread_cond_signal(&cond));
        pthread_mutex_unlock(&mutex);
    }
    join_other();
    SAY(pthread_cond_destroy(&cond));
}

static cnd_t cnd;
static mtx_t mtx;

static void wait_c11(void) {
    struct timespec limit = from_now(CLOCK_REALTIME, 60000);
    mtx_lock(&mtx);
    for (asked = 4; answered < 4;)
        SAY(cnd_wait(&cnd, &mtx));
    for (asked = 5; answered < 5;)
        SAY(cnd_timedwait(&cnd, &mtx, &limit));
    mtx_unlock(&mtx);
}

static void conds_c11(void) {
    cnd_init(&cnd);
    mtx_init(&mtx, mtx_timed);
    SAY(cnd_signal(&cnd));
    SAY(cnd_broadcast(&cnd));
    mtx_lock(&mtx);
    SAY(cnd_timedwait(&cnd, &mtx, &past));
    SAY(cnd_timedwait(&cnd, &mtx, &wrong));
    mtx_unlock(&mtx);
    start_other(wait_c11);
    for (int round = 4; round <= 5; round++) {
        mtx_lock(&mtx);
        while (asked < round) {
            mtx_unlock(&mtx);
            sched_yield();
            mtx_lock(&mtx);
        }
        answered = round;
        SAY(round == 4 ? cnd_signal(&cnd) : cnd_broadcast(&cnd));
        mtx_unlock(&mtx);
    }
    join_other();
}

/* -- barriers, spinlocks -------------------------------------------------------------------- */

static pthread_barrier_t barrier;
static pthread_spinlock_t spin;
static int in_turn, counted;

static void *come(void *last) {
    for (int i = 0; i < 1000; i++)
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
            __atomic_fetch_add(&in_turn, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 20000; i++) {
        pthread_spin_lock(&spin);
        counted++;
        pthread_spin_unlock(&spin);
    }
    return last;
}

static void barriers_and_spinlocks(void) {
    pthread_t threads[3];
    void *result = NULL;
    SAY(pthread_barrier_init(&barrier, NULL, 1));
    SAY(pthread_barrier_wait(&barrier));
    SAY(pthread_barrier_init(&barrier, NULL, 3));
    SAY(pthread_spin_init(&spin, PTHREAD_PROCESS_SHARED));
    for (intptr_t i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, come, (void *)(i + 40));
    for (int i = 0; i < 3; i++) {
        SAY(pthread_join(threads[i], &result));
        SAY((intptr_t)result);
    }
    SAY(in_turn);
    SAY(counted);
    SAY(pthread_barrier_destroy(&barrier));
    SAY(pthread_spin_lock(&spin));
    SAY(pthread_spin_trylock(&spin));
    SAY(pthread_spin_unlock(&spin));
}

/* -- ends of threads ------------------------------------------------------------------------ */

static void wait_for_post(void) {
    sem_wait(sem);
}

static void *wait_unseen(void *semaphore) {
    sem_wait(semaphore);
    return NULL;
}

static void joins(void) {
    static sem_t until;
    pthread_attr_t attributes;
    pthread_t detached;
    sem_init(&until, 0, 0);
    sem = &until;
    SAY(pthread_join(pthread_self(), NULL));
    start_other(wait_for_post);
    SAY(pthread_tryjoin_np(other.thread, NULL));
    SAY(pthread_timedjoin_np(other.thread, NULL, &past));
    SAY(pthread_clockjoin_np(other.thread, NULL, CLOCK_MONOTONIC, &past));
    SAY(pthread_clockjoin_np(other.thread, NULL, 77, &past));
    sem_post(&until);
    struct timespec limit = from_now(CLOCK_REALTIME, 60000);
    SAY(pthread_timedjoin_np(other.thread, NULL, &limit));
    tell(&other.aside);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_create(&detached, &attributes, wait_unseen, &until);
    SAY(pthread_join(detached, NULL));
    sem_post(&until);
}

/* -- futexes -------------------------------------------------------------------------------- */

static int word = 1, words[2];

static long futex(int *at, int operation, int value, const void *limit) {
    return syscall(SYS_futex, at, operation, value, limit, &words[1], -1);
}

static void wait_raw(void) {
    SAY(futex(&word, FUTEX_WAIT_PRIVATE, 1, NULL));
    SAY(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 1, NULL));
    SAY(futex(&words[0], FUTEX_LOCK_PI_PRIVATE, 0, NULL));
    SAY(futex(&words[0], FUTEX_UNLOCK_PI_PRIVATE, 0, NULL));
}

static void futexes(void) {
    const struct timespec soon = {0, 1000000};
    SAY(futex(&word, FUTEX_WAIT, 2, NULL));
    SAY(futex(&word, FUTEX_WAIT_PRIVATE, 1, &soon));
    SAY(futex(&word, FUTEX_WAIT_PRIVATE, 1, &wrong));
    SAY(futex((int *)4096, FUTEX_WAIT_PRIVATE, 1, NULL));
    SAY(futex(&word, FUTEX_WAKE, 1, NULL));
    SAY(futex(&word, 31, 1, NULL));
    SAY(futex(&word, 1000000, 1, NULL));
    SAY(futex(&words[0], FUTEX_UNLOCK_PI, 1, NULL));
    SAY(futex(&words[0], FUTEX_LOCK_PI_PRIVATE, 1, NULL));
    SAY(futex(&words[0], FUTEX_LOCK_PI_PRIVATE, 1, NULL));
    start_other(wait_raw);
    for (int round = 0; round < 2; round++) {
        await_sleep(&other.tid, SYS_futex);
        while (futex(&word, FUTEX_WAKE_PRIVATE, 1, NULL) != 1)
            sched_yield();
    }
    await_sleep(&other.tid, SYS_futex);
    SAY(futex(&words[0], FUTEX_UNLOCK_PI_PRIVATE, 1, NULL));
    join_other();
    SAY(syscall(SYS_getppid) == getppid());
    SAY(syscall(99999));
}

int main(void) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 20);
    static const struct {
        const char *name;
        void (*run)(void);
    } parts[] = {{"rwlock", rwlocks}, {"semaphore", semaphores},           {"cond", conds},
                 {"cnd", conds_c11},  {"barrier", barriers_and_spinlocks}, {"join", joins},
                 {"futex", futexes}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        what = parts[i].name;
        parts[i].run();
    }
    return 0;
}
