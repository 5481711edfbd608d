/*
 * What children that were not made by fork do to their signals, and whether their parent notices:
 * signals_apart MAKER... with vfork, clone, __vfork, __clone (their other names), copy (clone
 * without CLONE_VM), clone_call or fork_call (by syscall), nested (a child of vfork's has some) or
 * threads (several have such children at once). The output must be the same bare and watched, in
 * any order of makers.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK_BYTES 65536
#define THREADS 4
#define ROUNDS 200

pid_t __vfork(void);
int __clone(int (*function)(void *), void *stack, int flags, void *argument, ...);

static int number;
static sigset_t none, one;
static volatile sig_atomic_t hits;

static void count_hit(int n) {
    (void)n;
    hits++;
}

/* What it saw of the mask that it began with, and of its own. */
static int change_signals(void *unused) {
    (void)unused;
    sigset_t old;
    for (int n = 1; n < SIGRTMAX; n++)
        signal(n, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, &old);
    int seen = sigismember(&old, number);
    sigprocmask(SIG_BLOCK, &one, &old);
    seen = seen * 2 + sigismember(&old, number);
    sigprocmask(SIG_SETMASK, NULL, &old);
    _exit(seen * 2 + sigismember(&old, number));
}

static int status_of(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

/* A child between two of its own children: what these begin with is its mask. */
static void have_children(void) {
    int seen = 0;
    for (int round = 0; round < 3; round++) {
        sigprocmask(round == 1 ? SIG_BLOCK : SIG_UNBLOCK, &one, NULL);
        pid_t child = vfork();
        if (child == 0)
            change_signals(NULL);
        seen = seen * 2 + (WEXITSTATUS(status_of(child)) >> 2);
        sigset_t mask;
        sigprocmask(SIG_SETMASK, NULL, &mask);
        seen = seen * 2 + sigismember(&mask, number);
    }
    _exit(seen);
}

/* How many children, or the thread itself, found a mask that nobody gave them. */
static void *vfork_often(void *unused) {
    (void)unused;
    long wrong = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const int is_blocked = round & 1;
        sigset_t mask;
        sigprocmask(is_blocked ? SIG_BLOCK : SIG_UNBLOCK, &one, NULL);
        pid_t child = vfork();
        if (child == 0)
            change_signals(NULL);
        wrong += WEXITSTATUS(status_of(child)) != is_blocked * 4 + 1;
        sigprocmask(SIG_SETMASK, NULL, &mask);
        wrong += sigismember(&mask, number) != is_blocked;
    }
    return (void *)wrong;
}

static long vfork_at_once(void) {
    pthread_t threads[THREADS];
    long wrong = 0;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, vfork_often, NULL);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        wrong += (long)result;
    }
    return wrong;
}

static pid_t make(const char *maker) {
    static _Alignas(16) char stack[STACK_BYTES];
    const int shared = CLONE_VM | CLONE_VFORK | SIGCHLD;
    if (strcmp(maker, "vfork") == 0) {
        pid_t child = vfork();
        if (child == 0)
            change_signals(NULL);
        return child;
    }
    if (strcmp(maker, "__vfork") == 0) {
        pid_t child = __vfork();
        if (child == 0)
            change_signals(NULL);
        return child;
    }
    if (strcmp(maker, "nested") == 0) {
        pid_t child = vfork();
        if (child == 0)
            have_children();
        return child;
    }
    if (strcmp(maker, "clone") == 0)
        return clone(change_signals, stack + STACK_BYTES, shared, NULL);
    if (strcmp(maker, "__clone") == 0)
        return __clone(change_signals, stack + STACK_BYTES, shared, NULL);
    if (strcmp(maker, "copy") == 0)
        return clone(change_signals, stack + STACK_BYTES, SIGCHLD, NULL);
    long child = strcmp(maker, "fork_call") == 0 ? syscall(SYS_fork)
                                                 : syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
    if (child == 0)
        change_signals(NULL);
    return (pid_t)child;
}

static void show(const char *when) {
    sigset_t pending, mask;
    sigpending(&pending);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    printf("%s: pending %d, blocked %d, %d came\n", when, sigismember(&pending, number),
           sigismember(&mask, number), (int)hits);
}

int main(int count, char **makers) {
    number = SIGRTMAX - 1;
    sigemptyset(&none);
    sigemptyset(&one);
    sigaddset(&one, number);
    signal(number, count_hit);
    for (int i = 1; i < count; i++)
        for (int way = 0; way < 4; way++) {
            sigprocmask(way & 1 ? SIG_BLOCK : SIG_UNBLOCK, &one, NULL);
            if (way & 2)
                kill(getpid(), number);
            fflush(stdout);
            if (strcmp(makers[i], "threads") == 0)
                printf("threads: %ld wrong\n", vfork_at_once());
            else
                printf("%s: child %x\n", makers[i], (unsigned)status_of(make(makers[i])));
            show("behind it");
            kill(getpid(), number);
            show("sent");
            sigprocmask(SIG_UNBLOCK, &one, NULL);
            show("open");
        }
    return 0;
}
