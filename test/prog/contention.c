/*
 * contention [ROUNDS [HOLD_MS]]: for every kind of lock one thread that holds it for 40 ms and
 * rests for 60, and three that want it. Prints what the three waited by their own clocks, a line a
 * kind
 * ("mutex 1234567890 30 1234567": nanoseconds, how often, and nanoseconds until the holder began to
 * let it go: the rest of it they waited for each other, or for a processor), then "done", and waits
 * to be ended. For each kind NAME the waiting is in NAME_wants and the letting go in NAME_lets_go.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define WAITERS 3
#define REST_NS 60000000
#define POLL_NS 200000
#define APART __attribute__((noinline))
#define STAY __asm__ volatile("" ::: "memory") /* no tail call: the frame is to be seen */

struct kind {
    const char *name;
    void (*take)(void);
    void (*lets_go)(void);
    void (*wants)(void);
    uint64_t waited_ns, held_ns, began_ns[WAITERS];
    int round, finished, count;
};

static int rounds;
static uint64_t hold_ns = 40000000;

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void rest_until(uint64_t ns) {
    struct timespec time = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static void nothing(void) {
}

/* -- the kinds -------------------------------------------------------------------------------- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void mutex_take(void) {
    pthread_mutex_lock(&mutex);
}
APART static void mutex_lets_go(void) {
    pthread_mutex_unlock(&mutex);
    STAY;
}
APART static void mutex_wants(void) {
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
    STAY;
}

static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static void rwlock_take(void) {
    pthread_rwlock_wrlock(&rwlock);
}
APART static void rwlock_lets_go(void) {
    pthread_rwlock_unlock(&rwlock);
    STAY;
}
APART static void rwlock_wants(void) {
    pthread_rwlock_rdlock(&rwlock);
    pthread_rwlock_unlock(&rwlock);
    STAY;
}

static pthread_mutex_t cond_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int cond_tokens;
APART static void cond_lets_go(void) {
    pthread_mutex_lock(&cond_mutex);
    cond_tokens = WAITERS;
    pthread_mutex_unlock(&cond_mutex);
    pthread_cond_broadcast(&cond);
    STAY;
}
APART static void cond_wants(void) {
    pthread_mutex_lock(&cond_mutex);
    while (cond_tokens == 0)
        pthread_cond_wait(&cond, &cond_mutex);
    cond_tokens--;
    pthread_mutex_unlock(&cond_mutex);
    STAY;
}

static sem_t semaphore;
APART static void semaphore_lets_go(void) {
    for (int i = 0; i < WAITERS; i++)
        sem_post(&semaphore);
    STAY;
}
APART static void semaphore_wants(void) {
    sem_wait(&semaphore);
    STAY;
}

static mtx_t c11_mutex;
static void mtx_take(void) {
    mtx_lock(&c11_mutex);
}
APART static void mtx_lets_go(void) {
    mtx_unlock(&c11_mutex);
    STAY;
}
APART static void mtx_wants(void) {
    mtx_lock(&c11_mutex);
    mtx_unlock(&c11_mutex);
    STAY;
}

static mtx_t cnd_mutex;
static cnd_t c11_cond;
static int cnd_tokens;
APART static void cnd_lets_go(void) {
    mtx_lock(&cnd_mutex);
    cnd_tokens = WAITERS;
    mtx_unlock(&cnd_mutex);
    for (int i = 0; i < WAITERS; i++)
        cnd_signal(&c11_cond);
    STAY;
}
APART static void cnd_wants(void) {
    mtx_lock(&cnd_mutex);
    while (cnd_tokens == 0)
        cnd_wait(&c11_cond, &cnd_mutex);
    cnd_tokens--;
    mtx_unlock(&cnd_mutex);
    STAY;
}

static pthread_barrier_t barrier;
APART static void barrier_lets_go(void) {
    pthread_barrier_wait(&barrier);
    STAY;
}
APART static void barrier_wants(void) {
    pthread_barrier_wait(&barrier);
    STAY;
}

static void *live_shortly(void *unused) {
    rest_until(now_ns() + hold_ns);
    return unused;
}
APART static void join_wants(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, live_shortly, NULL) == 0)
        pthread_join(thread, NULL);
    STAY;
}

static struct kind kinds[] = {
    {"mutex", mutex_take, mutex_lets_go, mutex_wants, 0, 0, {0}, 0, 0, 0},
    {"rwlock", rwlock_take, rwlock_lets_go, rwlock_wants, 0, 0, {0}, 0, 0, 0},
    {"cond", nothing, cond_lets_go, cond_wants, 0, 0, {0}, 0, 0, 0},
    {"semaphore", nothing, semaphore_lets_go, semaphore_wants, 0, 0, {0}, 0, 0, 0},
    {"mtx", mtx_take, mtx_lets_go, mtx_wants, 0, 0, {0}, 0, 0, 0},
    {"cnd", nothing, cnd_lets_go, cnd_wants, 0, 0, {0}, 0, 0, 0},
    {"barrier", nothing, barrier_lets_go, barrier_wants, 0, 0, {0}, 0, 0, 0},
    {"join", nothing, nothing, join_wants, 0, 0, {0}, 0, 0, 0},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* -- who holds and who waits ------------------------------------------------------------------ */

static struct kind *waiters[KINDS * WAITERS];

/* A round begins when the lock is taken and ends when all three have had it. Whoever waits for
 * either looks now and then: no other lock has a part in this. */
static void *waiter(void *argument) {
    struct kind *kind = *(struct kind **)argument;
    size_t number = (size_t)((struct kind **)argument - waiters) % WAITERS;
    for (int round = 1; round <= rounds; round++) {
        while (__atomic_load_n(&kind->round, __ATOMIC_ACQUIRE) < round)
            rest_until(now_ns() + POLL_NS);
        uint64_t began_ns = now_ns();
        kind->began_ns[number] = began_ns;
        kind->wants();
        __atomic_fetch_add(&kind->waited_ns, now_ns() - began_ns, __ATOMIC_RELAXED);
        __atomic_fetch_add(&kind->count, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&kind->finished, 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void *holder(void *argument) {
    struct kind *kind = argument;
    for (int round = 1; round <= rounds; round++) {
        kind->take();
        __atomic_store_n(&kind->round, round, __ATOMIC_RELEASE);
        rest_until(now_ns() + hold_ns);
        uint64_t ended_ns = now_ns();
        kind->lets_go();
        while (__atomic_load_n(&kind->finished, __ATOMIC_ACQUIRE) < round * WAITERS)
            rest_until(now_ns() + POLL_NS);
        for (int i = 0; i < WAITERS; i++)
            kind->held_ns += kind->began_ns[i] < ended_ns ? ended_ns - kind->began_ns[i] : 0;
        rest_until(now_ns() + REST_NS);
    }
    return NULL;
}

static int start(pthread_t *thread, void *(*run)(void *), void *argument) {
    return pthread_create(thread, NULL, run, argument) == 0;
}

int main(int count, char **arguments) {
    pthread_t threads[KINDS * (WAITERS + 1)];
    size_t started = 0;
    rounds = count > 1 ? atoi(arguments[1]) : 10;
    hold_ns = count > 2 ? (uint64_t)atoi(arguments[2]) * 1000000 : hold_ns;
    sem_init(&semaphore, 0, 0);
    mtx_init(&c11_mutex, mtx_plain);
    mtx_init(&cnd_mutex, mtx_plain);
    cnd_init(&c11_cond);
    pthread_barrier_init(&barrier, NULL, WAITERS + 1);
    for (size_t i = 0; i < KINDS * WAITERS; i++) {
        waiters[i] = &kinds[i / WAITERS];
        if (!start(&threads[started++], waiter, &waiters[i]))
            return 1;
    }
    for (size_t i = 0; i < KINDS; i++)
        if (!start(&threads[started++], holder, &kinds[i]))
            return 1;
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < KINDS; i++)
        printf("%s %llu %d %llu\n", kinds[i].name, (unsigned long long)kinds[i].waited_ns,
               kinds[i].count, (unsigned long long)kinds[i].held_ns);
    printf("done\n");
    fflush(stdout);
    for (;;)
        pause();
}
