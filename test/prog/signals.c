/*
 * Everything a program may do with signals, printed line by line: the output must be the same
 * bare and preloaded while a profile runs. Says "done" at the end.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Old calls are what this is about. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

sighandler_t bsd_signal(int n, sighandler_t handler);
sighandler_t sysv_signal(int n, sighandler_t handler);

static volatile sig_atomic_t hits;

static void on_signal(int n) {
    hits += n > 0;
}

static void on_info(int n, siginfo_t *info, void *context) {
    (void)context;
    hits += n > 0 && info;
}

static void burn(unsigned milliseconds) {
    struct timespec start, now;
    volatile unsigned long sink = 0;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        for (unsigned i = 0; i < 10000; i++)
            sink += i;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 <
             (long)milliseconds);
}

static const char *name_of(sighandler_t handler) {
    if (handler == SIG_DFL)
        return "default";
    if (handler == SIG_IGN)
        return "ignore";
    if (handler == SIG_ERR)
        return "error";
    return handler == on_signal                 ? "on_signal"
           : (void *)handler == (void *)on_info ? "on_info"
                                                : "?";
}

static unsigned long mask_of(const sigset_t *set) {
    unsigned long bits = 0;
    for (int n = 1; n <= 64; n++)
        bits |= sigismember(set, n) == 1 ? 1ul << (n - 1) : 0;
    return bits;
}

/* Each signal through each of the calls that set an action, and what is reported back. */
static void print_actions(void) {
    for (int n = 1; n <= 64; n++) {
        struct sigaction set, old;
        memset(&set, 0, sizeof(set));
        set.sa_sigaction = on_info;
        set.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaddset(&set.sa_mask, SIGUSR2);
        errno = 0;
        int result = sigaction(n, &set, &old);
        printf("%d: %d %d %s", n, result, errno, result == 0 ? name_of(old.sa_handler) : "-");
        if (sigaction(n, NULL, &old) == 0)
            printf(" %s %x %lx", name_of(old.sa_handler), (unsigned)old.sa_flags & ~0x04000000u,
                   mask_of(&old.sa_mask));
        printf(" %s", name_of(signal(n, on_signal)));
        if (sigaction(n, NULL, &old) == 0)
            printf(" %x %lx", (unsigned)old.sa_flags & ~0x04000000u, mask_of(&old.sa_mask));
        printf(" %s %s", name_of(bsd_signal(n, SIG_IGN)), name_of(sysv_signal(n, on_signal)));
        if (sigaction(n, NULL, &old) == 0)
            printf(" %x %lx", (unsigned)old.sa_flags & ~0x04000000u, mask_of(&old.sa_mask));
        printf(" %d", siginterrupt(n, 1));
        printf(" %s", name_of(signal(n, on_signal)));
        if (sigaction(n, NULL, &old) == 0)
            printf(" %x", (unsigned)old.sa_flags & ~0x04000000u);
        printf(" %d %s %s\n", siginterrupt(n, 0), name_of(sigset(n, SIG_IGN)),
               name_of(signal(n, SIG_DFL)));
    }
}

static void print_masks(void) {
    sigset_t all, none, old, rt;
    sigfillset(&all);
    sigemptyset(&none);
    sigemptyset(&rt);
    for (int n = SIGRTMIN; n <= SIGRTMAX; n++)
        sigaddset(&rt, n);
    sigprocmask(SIG_SETMASK, &all, &old);
    printf("before %lx\n", mask_of(&old));
    burn(20);
    pthread_sigmask(SIG_UNBLOCK, &rt, &old);
    printf("all %lx\n", mask_of(&old));
    sigprocmask(SIG_BLOCK, NULL, &old);
    printf("without real-time %lx\n", mask_of(&old));
    sigpending(&old);
    printf("pending %lx\n", mask_of(&old));
    pthread_sigmask(SIG_BLOCK, &rt, &old);
    sigprocmask(SIG_SETMASK, &none, &old);
    printf("all again %lx\n", mask_of(&old));
    printf("bad how %d", sigprocmask(77, &none, NULL));
    printf(" %d\n", errno);
}

/* A thread that waits for any signal, another that reads them; both see the host's alone. */
static void *wait_for_any(void *how) {
    sigset_t all;
    int n = 0;
    sigfillset(&all);
    if (how) {
        struct signalfd_siginfo info = {0};
        int fd = signalfd(-1, &all, SFD_CLOEXEC);
        if (read(fd, &info, sizeof(info)) == sizeof(info))
            n = (int)info.ssi_signo;
        close(fd);
    } else {
        sigwait(&all, &n);
    }
    return (void *)(long)n;
}

static void print_waits(void) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (long how = 0; how < 2; how++) {
        pthread_t thread;
        void *got;
        pthread_create(&thread, NULL, wait_for_any, (void *)how);
        burn(300);
        pthread_kill(thread, SIGUSR1);
        pthread_join(thread, &got);
        printf("waited for %ld\n", (long)got);
    }
    struct timespec soon = {0, 50000000};
    burn(50);
    printf("timed wait %d", sigtimedwait(&all, NULL, &soon));
    printf(" %d\n", errno);
    sigemptyset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
}

static void *inherit_mask(void *unused) {
    sigset_t old;
    pthread_sigmask(SIG_BLOCK, NULL, &old);
    printf("thread starts with %lx\n", mask_of(&old));
    return unused;
}

static void print_inheritance(void) {
    sigset_t all, none;
    pthread_t thread;
    sigfillset(&all);
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    pthread_create(&thread, NULL, inherit_mask, NULL);
    pthread_join(thread, NULL);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    pthread_create(&thread, NULL, inherit_mask, NULL);
    pthread_join(thread, NULL);
}

/* As some servers do when they start: everything back to its default, again and again. */
static void reset_all(void) {
    for (int round = 0; round < 200; round++) {
        struct sigaction by_default = {.sa_handler = SIG_DFL};
        for (int n = 1; n <= 64; n++)
            sigaction(n, &by_default, NULL);
        burn(2);
    }
    puts("reset");
}

static void print_own_signal(void) {
    struct sigaction set = {.sa_handler = on_signal};
    int top = SIGRTMAX;
    hits = 0;
    sigaction(top, &set, NULL);
    burn(50);
    raise(top);
    kill(getpid(), top);
    printf("the highest signal arrived %d times\n", (int)hits);
    signal(top, SIG_DFL);
    pid_t child = fork();
    if (child == 0) {
        raise(SIGTERM);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("child's end %d\n", status);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    print_actions();
    print_masks();
    print_waits();
    print_inheritance();
    reset_all();
    print_own_signal();
    puts("done");
    return 0;
}
