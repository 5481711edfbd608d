/*
 * A program and SIGUSR1, in one of the ways to deal with it: peek MODE [seconds].
 *
 * own: a handler; ignore; wait: sigwait(3) in a thread, blocked in all; ask: what sigaction(2) and
 * signal(2) say, then a handler, then the default again; raise: sends it to itself; child: a child
 * that is sent it by its parent, which then ends; spin: two threads compute; block: one waits for a
 * mutex, one in poll(2), for 6 s, whose result is told; masked: blocked in the only thread. Says
 * "ready" when it is; ends by itself after so many seconds (20).
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;

static void on_signal(int n) {
    static const char text[] = "own handler\n";
    if (n == SIGUSR1)
        (void)!write(1, text, sizeof(text) - 1);
}

static const char *name_of(sighandler_t handler) {
    return handler == SIG_DFL ? "default" : handler == SIG_IGN ? "ignore" : "handler";
}

static void rest(void) {
    for (;;)
        pause();
}

static void *wait_for_signal(void *unused) {
    sigset_t set;
    int n = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    while (sigwait(&set, &n) == 0)
        printf("waited for %d\n", n);
    return unused;
}

static void block_usr1(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void ask(void) {
    struct sigaction action;
    memset(&action, 0x55, sizeof(action));
    sigaction(SIGUSR1, NULL, &action);
    printf("first %s %x %d\n", name_of(action.sa_handler), (unsigned)action.sa_flags,
           sigismember(&action.sa_mask, SIGTERM));
    printf("was %s\n", name_of(signal(SIGUSR1, on_signal)));
    printf("then %s\n", name_of(signal(SIGUSR1, SIG_DFL)));
    sigaction(SIGUSR1, NULL, &action);
    printf("last %s %x %d\n", name_of(action.sa_handler), (unsigned)action.sa_flags,
           sigismember(&action.sa_mask, SIGTERM));
}

static void send_to_child(void) {
    pid_t child = fork();
    if (child == 0)
        rest();
    sleep(2);
    kill(child, SIGUSR1);
    int status = 0;
    waitpid(child, &status, 0);
    printf("the child ended by %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static volatile int is_main_there;

/* By the one that is not the main thread, when both compute. */
static void say_ready(void) {
    while (!is_main_there)
        continue;
    puts("ready");
}

static void *compute(void *is_main) {
    if (is_main)
        is_main_there = 1;
    else
        say_ready();
    for (volatile unsigned long sum = 0;; sum++)
        continue;
    return is_main;
}

static void *want_mutex(void *unused) {
    pthread_mutex_lock(&held);
    return unused;
}

static void *poll_for_long(void *unused) {
    int result = poll(NULL, 0, 6000);
    printf("poll gave %d %s\n", result, result < 0 ? strerror(errno) : "");
    rest();
    return unused;
}

static void start(void *(*run)(void *)) {
    pthread_t thread;
    pthread_create(&thread, NULL, run, NULL);
}

int main(int count, char **words) {
    const char *mode = count > 1 ? words[1] : "spin";
    setvbuf(stdout, NULL, _IOLBF, 0);
    alarm(count > 2 ? (unsigned)atoi(words[2]) : 20);
    if (strcmp(mode, "own") == 0) {
        signal(SIGUSR1, on_signal);
    } else if (strcmp(mode, "ignore") == 0) {
        signal(SIGUSR1, SIG_IGN);
    } else if (strcmp(mode, "wait") == 0) {
        block_usr1();
        start(wait_for_signal);
    } else if (strcmp(mode, "masked") == 0) {
        block_usr1();
    } else if (strcmp(mode, "ask") == 0) {
        ask();
    } else if (strcmp(mode, "raise") == 0) {
        sleep(1);
        raise(SIGUSR1);
    } else if (strcmp(mode, "child") == 0) {
        send_to_child();
        return 0;
    } else if (strcmp(mode, "block") == 0) {
        pthread_mutex_lock(&held);
        start(want_mutex);
        start(poll_for_long);
    } else if (strcmp(mode, "spin") == 0) {
        start(compute);
    }
    if (strcmp(mode, "spin") == 0)
        compute(&mode);
    puts("ready");
    rest();
}
