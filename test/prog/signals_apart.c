/*
 * What children that were not made by fork do to their signals, and whether their parent notices:
 * signals_apart MAKER... with vfork, clone, copy (clone without CLONE_VM), clone_call or fork_call
 * (by syscall). The output must be the same bare and watched, in any order of makers.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK_BYTES 65536

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

static pid_t make(const char *maker) {
    static _Alignas(16) char stack[STACK_BYTES];
    if (strcmp(maker, "vfork") == 0) {
        pid_t child = vfork();
        if (child == 0)
            change_signals(NULL);
        return child;
    }
    if (strcmp(maker, "clone") == 0)
        return clone(change_signals, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
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
            int status = 0;
            waitpid(make(makers[i]), &status, 0);
            printf("%s: child %x\n", makers[i], (unsigned)status);
            show("behind it");
            kill(getpid(), number);
            show("sent");
            sigprocmask(SIG_UNBLOCK, &one, NULL);
            show("open");
        }
    return 0;
}
