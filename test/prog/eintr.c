/*
 * eintr SECONDS: calls that wait for a limited time, by threads that use CPU time in between. No
 * signal of this program's is on its way, so none may return EINTR.
 * eintr own: a handler that blocks everything interrupts a wait again and again, as it has to.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8
#define KINDS 9
#define ROUNDS 60
#define WAIT_NS 2000000

static int seconds;
static long calls[KINDS], interrupted[KINDS];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void burn(double span) {
    double end = now() + span;
    while (now() < end)
        ;
}

static int timed_semaphore(void) {
    sem_t never;
    struct timespec until;
    sem_init(&never, 0, 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WAIT_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return sem_timedwait(&never, &until);
}

static int call(int kind, int pollfd, int receiver) {
    struct timespec time = {0, WAIT_NS};
    struct timeval span = {0, WAIT_NS / 1000};
    struct epoll_event event;
    sigset_t usr2;
    char byte;
    switch (kind) {
    case 0:
        return poll(NULL, 0, WAIT_NS / 1000000);
    case 1:
        return ppoll(NULL, 0, &time, NULL);
    case 2:
        return select(0, NULL, NULL, NULL, &span);
    case 3:
        return epoll_wait(pollfd, &event, 1, WAIT_NS / 1000000);
    case 4:
        return nanosleep(&time, NULL);
    case 5:
        errno = clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
        return errno ? -1 : 0;
    case 6:
        return (int)recv(receiver, &byte, 1, 0);
    case 7:
        return timed_semaphore();
    default:
        sigemptyset(&usr2);
        sigaddset(&usr2, SIGUSR2);
        return sigtimedwait(&usr2, NULL, &time);
    }
}

static void *wait_much(void *first) {
    int pair[2], pollfd = epoll_create1(0);
    struct timeval limit = {0, WAIT_NS / 1000};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return NULL;
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    double end = now() + seconds;
    for (long kind = (long)first; now() < end; kind = (kind + 1) % KINDS) {
        burn(0.0005);
        int result = call((int)kind, pollfd, pair[0]);
        __atomic_add_fetch(&calls[kind], 1, __ATOMIC_RELAXED);
        if (result < 0 && errno == EINTR)
            __atomic_add_fetch(&interrupted[kind], 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void on_usr1(int sig) {
    (void)sig;
    burn(0.005); /* a sampling signal comes meanwhile */
}

static volatile int is_waiting;

static void *wait_for_usr1(void *lost) {
    sigset_t open;
    struct timespec limit = {5, 0};
    sigemptyset(&open);
    for (int i = 0; i < ROUNDS; i++) {
        is_waiting = 1;
        if (ppoll(NULL, 0, &limit, &open) != -1 || errno != EINTR)
            ++*(int *)lost;
    }
    is_waiting = 2;
    return NULL;
}

static void print_waits(void) {
    pthread_t threads[THREADS];
    long bad = 0, all = 0;
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, wait_much, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < KINDS; i++) {
        all += calls[i];
        bad += interrupted[i];
        fprintf(stderr, "kind %d: %ld of %ld\n", i, interrupted[i], calls[i]);
    }
    printf("%s, %ld interrupted\n", all > 0 ? "waited" : "did not wait", bad);
}

static void print_own(void) {
    pthread_t waiter;
    int lost = 0;
    struct sigaction action = {.sa_handler = on_usr1}, old;
    sigset_t usr1;
    sigfillset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR1, NULL, &old);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    pthread_create(&waiter, NULL, wait_for_usr1, &lost);
    while (is_waiting != 2) {
        if (is_waiting == 1) {
            is_waiting = 0;
            pthread_kill(waiter, SIGUSR1);
        }
        usleep(100);
    }
    pthread_join(waiter, NULL);
    printf("%d lost, mask %s\n", lost, sigismember(&old.sa_mask, 64) ? "full" : "changed");
}

int main(int count, char **arguments) {
    seconds = count > 1 ? atoi(arguments[1]) : 2;
    if (seconds > 0)
        print_waits();
    else
        print_own();
    return 0;
}
