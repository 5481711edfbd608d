/*
 * Threads that wait in every way, each under its own name in a function of its own, and one that
 * shares its time: 300 ms of every second in work_a_while, the rest asleep. "waits N [W]" has N
 * sleepers instead, of which W work for a moment every 5 ms. Says its threads' ids and "ready".
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_SECOND 1000000000ll
#define WORK_NS 300000000ll
#define ROUND_NS 1000000000ll
#define CHORE_NS 5000000ll

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t never_lock = PTHREAD_MUTEX_INITIALIZER;
static int empty_pipe[2];
static pthread_barrier_t ready;
static volatile unsigned long sink;

static long long read_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

static long long now_ns(void) {
    return read_ns(CLOCK_MONOTONIC);
}

static void sleep_until(long long ns) {
    struct timespec until = {ns / NS_PER_SECOND, ns % NS_PER_SECOND};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

/* The barrier, or a call that never comes back, would otherwise be a jump. */
#define KEEP_FRAME() __asm__ volatile("" ::: "memory")

__attribute__((noinline)) static void nap_for_ever(void) {
    for (;;) {
        struct timespec day = {86400, 0};
        nanosleep(&day, NULL);
        KEEP_FRAME();
    }
}

__attribute__((noinline)) static void burn_for_ever(void) {
    for (;;)
        sink++;
}

__attribute__((noinline)) static void sip_from_pipe(void) {
    char byte;
    while (read(empty_pipe[0], &byte, 1) != 0)
        KEEP_FRAME();
}

__attribute__((noinline)) static void poll_with_limit(void) {
    for (;;) {
        struct pollfd fd = {.fd = empty_pipe[0], .events = POLLIN};
        poll(&fd, 1, 86400000);
        KEEP_FRAME();
    }
}

__attribute__((noinline)) static void queue_for_lock(void) {
    pthread_mutex_lock(&held);
    KEEP_FRAME();
}

__attribute__((noinline)) static void wait_for_news(void) {
    pthread_mutex_lock(&never_lock);
    for (;;)
        pthread_cond_wait(&never, &never_lock);
}

__attribute__((noinline)) static void work_a_while(long long until_ns) {
    while (now_ns() < until_ns)
        sink++;
}

__attribute__((noinline)) static void rest_a_while(long long until_ns) {
    sleep_until(until_ns);
    KEEP_FRAME();
}

/* Says when it worked: on a busy machine a thread that is to work has to wait for a processor. */
__attribute__((noinline)) static void share_time(void) {
    for (long long round_ns = now_ns();; round_ns += ROUND_NS) {
        long long began_ns = read_ns(CLOCK_REALTIME);
        work_a_while(round_ns + WORK_NS);
        printf("worked %lld %lld\n", began_ns, read_ns(CLOCK_REALTIME));
        fflush(stdout);
        rest_a_while(round_ns + ROUND_NS);
    }
}

__attribute__((noinline)) static void do_chores(void) {
    for (long long due_ns = now_ns();; due_ns += CHORE_NS) {
        for (int i = 0; i < 1000; i++)
            sink++;
        sleep_until(due_ns + CHORE_NS);
    }
}

static const struct role {
    const char *name;
    void (*run)(void);
} roles[] = {
    {"sleeper", nap_for_ever},   {"spinner", burn_for_ever}, {"reader", sip_from_pipe},
    {"poller", poll_with_limit}, {"queued", queue_for_lock}, {"waiter", wait_for_news},
    {"sharer", share_time},      {"chores", do_chores},
};
#define ROLES (sizeof(roles) / sizeof(roles[0]))
#define CHORES (&roles[ROLES - 1])

static void *play(void *argument) {
    const struct role *role = argument;
    pthread_setname_np(pthread_self(), role->name);
    printf("%s %ld\n", role->name, syscall(SYS_gettid));
    fflush(stdout);
    pthread_barrier_wait(&ready);
    role->run();
    return NULL;
}

int main(int argc, char **argv) {
    int more = argc > 1 ? atoi(argv[1]) : 0, chores = argc > 2 ? atoi(argv[2]) : 0;
    int count = more > 0 ? more : (int)ROLES - 1;
    pthread_attr_t small;
    if (pipe(empty_pipe) != 0)
        return 1;
    pthread_mutex_lock(&held);
    pthread_barrier_init(&ready, NULL, (unsigned)count + 1);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    for (int i = 0; i < count; i++) {
        const struct role *role = more == 0 ? &roles[i] : i < chores ? CHORES : &roles[0];
        pthread_t thread;
        if (pthread_create(&thread, &small, play, (void *)role) != 0)
            return 1;
    }
    pthread_barrier_wait(&ready);
    printf("ready\n");
    fflush(stdout);
    for (;;)
        pause();
}
