/*
 * What becomes of signals that are blocked when they come, above all of those with the number that
 * the sampler uses too: signals_kept MODE [NUMBER]. The output must be the same bare and watched.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8

static int number;
static sigset_t all, none, one;
static volatile sig_atomic_t hits, last_value;
static pthread_t opener;
static int elsewhere;
static pthread_barrier_t barrier;

static void on_info(int n, siginfo_t *info, void *context) {
    (void)n;
    (void)context;
    hits++;
    last_value = info->si_value.sival_int;
}

static void on_thread(int n) {
    (void)n;
    __atomic_fetch_add(&elsewhere, !pthread_equal(pthread_self(), opener), __ATOMIC_RELAXED);
    hits++;
}

static void handle(void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction set = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(number, &set, NULL);
}

static void queue(int n, int value) {
    if (sigqueue(getpid(), n, (union sigval){.sival_int = value}) != 0)
        perror("sigqueue");
}

__attribute__((noinline)) static void burn_after(int milliseconds) {
    struct timespec now;
    volatile unsigned long sink = 0;
    do {
        for (int i = 0; i < 100000; i++)
            sink += (unsigned long)i;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    } while (now.tv_sec * 1000 + now.tv_nsec / 1000000 < milliseconds);
}

/* Takes what is pending, all of it, line by line. */
static void take_all(void) {
    const struct timespec at_once = {0, 0};
    siginfo_t info;
    int n;
    while ((n = sigtimedwait(&all, &info, &at_once)) > 0)
        printf("%d: code %d value %d own %d\n", n, info.si_code,
               info.si_code == SI_QUEUE ? info.si_value.sival_int : 0, info.si_pid == getpid());
    printf("then %d %s\n", n, strerror(errno));
}

static void queue_all(void) {
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (int round = 0; round < 3; round++)
        for (int n = SIGRTMIN; n <= SIGRTMAX; n++)
            queue(n, n * 10 + round);
    take_all();
    for (int round = 0; round < 2; round++)
        for (int n = SIGRTMAX; n >= SIGRTMIN; n--)
            if (round == 0)
                kill(getpid(), n);
            else
                pthread_kill(pthread_self(), n);
    for (int n = SIGRTMIN; n <= SIGRTMAX; n++) {
        sigset_t set;
        int got = 0;
        sigemptyset(&set);
        sigaddset(&set, n);
        printf("%d", sigwait(&set, &got));
        printf(" %d\n", got);
    }
    take_all();
}

static void print_pending(const char *when) {
    sigset_t set;
    sigpending(&set);
    printf("%s: %d\n", when, sigismember(&set, number));
}

static void pending(void) {
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    for (int round = 0; round < 3; round++) {
        print_pending("before");
        kill(getpid(), number);
        print_pending("sent");
        queue(number, 1);
        int got = 0;
        sigwait(&one, &got);
        print_pending("one taken");
        sigwait(&one, &got);
        print_pending("both taken");
    }
}

static void *read_one(void *fd) {
    struct signalfd_siginfo info = {0};
    ssize_t count = read(*(int *)fd, &info, sizeof(info));
    printf("thread read %zd: %u %d\n", count, info.ssi_signo, info.ssi_int);
    return NULL;
}

static void descriptor(void) {
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    int fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    for (int round = 0; round < 3; round++) {
        struct signalfd_siginfo info[4] = {0};
        printf("nothing %d %d\n", poll(&poll_fd, 1, 0), epoll_wait(epoll, &event, 1, 0));
        queue(number, 5);
        queue(number, 6);
        printf("two %d %d\n", poll(&poll_fd, 1, 0), epoll_wait(epoll, &event, 1, 0));
        ssize_t count = read(fd, info, sizeof(info));
        printf("read %zd: %u %d %d, %u %d\n", count / (ssize_t)sizeof(*info), info[0].ssi_signo,
               info[0].ssi_int, info[0].ssi_code, info[1].ssi_signo, info[1].ssi_int);
    }
    fd = signalfd(-1, &one, SFD_CLOEXEC);
    for (int round = 0; round < 3; round++) {
        pthread_t thread;
        pthread_create(&thread, NULL, read_one, &fd);
        queue(number, round);
        pthread_join(thread, NULL);
    }
}

static void suspend_until(int count) {
    while (hits < count)
        sigsuspend(&none);
}

/* Each answers the other's signal with one; nobody goes on before it has come. */
static void ping_pong(void) {
    handle(on_info);
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    pid_t parent = getpid(), child = fork();
    for (int i = 1; i <= 1000; i++) {
        if (child != 0)
            kill(child, number);
        suspend_until(i);
        if (child == 0)
            kill(parent, number);
    }
    if (child == 0)
        _exit(hits == 1000 ? 7 : 1);
    int status = 0;
    waitpid(child, &status, 0);
    printf("%d came, the other's end %x\n", (int)hits, (unsigned)status);
}

static void *sleep_blocked(void *unused) {
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return unused;
}

static void start_blocked(pthread_t threads[THREADS]) {
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, sleep_blocked, NULL);
    pthread_barrier_wait(&barrier);
}

static void end_blocked(pthread_t threads[THREADS]) {
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void *be_open(void *unused) {
    opener = pthread_self();
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    pthread_barrier_wait(&barrier);
    while (__atomic_load_n(&hits, __ATOMIC_ACQUIRE) < 100)
        usleep(1000);
    return unused;
}

/* One thread has it open, main and others block it. */
static void one_open(void) {
    pthread_t threads[THREADS], open;
    signal(number, on_thread);
    start_blocked(threads);
    pthread_barrier_t *start = &barrier;
    pthread_barrier_wait(start);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_init(&barrier, NULL, THREADS + 2);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, sleep_blocked, NULL);
    pthread_create(&open, NULL, be_open, NULL);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 100; i++)
        kill(getpid(), number);
    pthread_join(open, NULL);
    printf("%d came, %d elsewhere\n", (int)hits, elsewhere);
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
}

/* Many threads, and all block it: what was sent first is taken first. */
static void in_order(void) {
    pthread_t threads[THREADS];
    start_blocked(threads);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 20; i++)
            queue(number, round * 100 + i);
        take_all();
    }
    end_blocked(threads);
}

static void unblocked(void) {
    handle(on_info);
    for (int i = 1; i <= 300; i++) {
        pthread_sigmask(SIG_BLOCK, &one, NULL);
        if (i % 2)
            queue(number, i);
        else
            pthread_kill(pthread_self(), number);
        int before = hits;
        pthread_sigmask(SIG_UNBLOCK, &one, NULL);
        if (before != i - 1 || hits != i)
            printf("%d: %d before, %d after\n", i, before, (int)hits);
    }
    printf("%d came, the last with %d\n", (int)hits, (int)last_value);
}

/* Calls with a mask of their own. */
static void calls(void) {
    handle(on_info);
    int epoll = epoll_create1(0);
    const struct timespec limit = {20, 0};
    for (int i = 0; i < 60; i++) {
        struct epoll_event event;
        pthread_sigmask(SIG_BLOCK, &one, NULL);
        queue(number, i);
        int before = hits;
        int result = i % 4 == 0   ? ppoll(NULL, 0, &limit, &none)
                     : i % 4 == 1 ? pselect(0, NULL, NULL, NULL, &limit, &none)
                     : i % 4 == 2 ? epoll_pwait(epoll, &event, 1, 20000, &none)
                                  : sigsuspend(&none);
        int error = errno;
        printf("%d: %d before, %d after, %d %s\n", i, before, (int)hits, result, strerror(error));
        pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    }
}

static void print_end(const char *what, void (*work)(void)) {
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        work();
        _exit(0);
    }
    waitpid(child, &status, 0);
    printf("%s: %x\n", what, (unsigned)status);
}

static void die_open(void) {
    raise(number);
}

static void die_unblocked(void) {
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    kill(getpid(), number);
    burn_after(20);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

static void live_ignoring(void) {
    signal(number, SIG_IGN);
    raise(number);
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    raise(number);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    _exit(3);
}

static void default_ends(void) {
    print_end("open", die_open);
    print_end("unblocked", die_unblocked);
    print_end("ignored", live_ignoring);
    burn_after(100);
    kill(getpid(), number);
    pause();
}

static void replaced(void) {
    sigset_t set;
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    printf("in the new program: blocked %d\n", sigismember(&set, number));
    print_pending("there");
    take_all();
    fflush(stdout);
}

/* The mask and what is pending outlive an exec. */
static void replace(void) {
    char text[12], *arguments[] = {"signals_kept", "replaced", text, NULL};
    snprintf(text, sizeof(text), "%d", number);
    for (int count = 0; count < 4; count++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            if (count > 0)
                pthread_sigmask(SIG_BLOCK, &one, NULL);
            for (int i = 1; i < count; i++)
                queue(number, i);
            execv("/nonexistent", arguments);
            burn_after(20);
            execv("/proc/self/exe", arguments);
        }
        waitpid(child, NULL, 0);
    }
}

static void ignore_pending(void) {
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    queue(number, 1);
    print_pending("before");
    signal(number, on_thread);
    printf("as told: %d\n", signal(number, SIG_IGN) == on_thread);
    print_pending("ignored");
    queue(number, 2);
    print_pending("sent again");
    take_all();
}

static void replaced_ignoring(void) {
    struct sigaction now;
    sigaction(number, NULL, &now);
    printf("in the new program: ignored %d\n", now.sa_handler == SIG_IGN);
    fflush(stdout);
}

/* Actions that are SIG_IGN outlive an exec. */
static void ignore_and_replace(void) {
    char text[12], *arguments[] = {"signals_kept", "heir", text, NULL};
    snprintf(text, sizeof(text), "%d", number);
    signal(number, SIG_IGN);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        execv("/nonexistent", arguments);
        raise(number);
        execv("/proc/self/exe", arguments);
    }
    waitpid(child, NULL, 0);
}

/* What a child of vfork(2) does to its signals is not done to its parent's. */
static void vforked(void) {
    char text[12], *arguments[] = {"signals_kept", "heir", text, NULL};
    snprintf(text, sizeof(text), "%d", number);
    signal(number, on_thread);
    opener = pthread_self();
    for (int is_pending = 0; is_pending < 2; is_pending++) {
        pthread_sigmask(SIG_BLOCK, &one, NULL);
        if (is_pending)
            kill(getpid(), number);
        pid_t child = vfork();
        if (child == 0) {
            sigset_t old;
            for (int n = 1; n < SIGRTMAX; n++)
                signal(n, SIG_DFL);
            sigprocmask(SIG_SETMASK, &none, &old);
            int was_blocked = sigismember(&old, number);
            sigprocmask(SIG_BLOCK, &one, &old);
            _exit(was_blocked * 2 + sigismember(&old, number));
        }
        int status = 0;
        waitpid(child, &status, 0);
        printf("child %x\n", (unsigned)status);
        print_pending("after vfork");
        kill(getpid(), number);
        print_pending("sent");
        pthread_sigmask(SIG_UNBLOCK, &one, NULL);
        printf("%d came\n", (int)hits);
    }
    fflush(stdout);
    pid_t child = vfork();
    if (child == 0) {
        signal(number, SIG_IGN);
        execv("/proc/self/exe", arguments);
    }
    waitpid(child, NULL, 0);
}

/* Some look again and again whether one has come, and are not waited for. */
static void *poll_masks(void *unused) {
    sigset_t old;
    while (__atomic_load_n(&hits, __ATOMIC_ACQUIRE) < 100) {
        pthread_sigmask(SIG_SETMASK, &all, &old);
        if (!sigismember(&old, number))
            puts("not blocked");
    }
    return unused;
}

/* One that was sent while another was put back may come before it. */
static void *poll_waits(void *unused) {
    const struct timespec soon = {0, 100000};
    bool has_come[100] = {false};
    siginfo_t info;
    while (hits < 100) {
        if (sigtimedwait(&all, &info, &soon) < 0)
            continue;
        unsigned value = (unsigned)info.si_value.sival_int;
        if (value >= 100 || has_come[value])
            printf("%u came twice, or was never sent\n", value);
        else
            has_come[value] = true;
        __atomic_fetch_add(&hits, 1, __ATOMIC_RELEASE);
    }
    return unused;
}

static void polled(void) {
    pthread_t threads[THREADS], pollers[2];
    start_blocked(threads);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    pthread_create(&pollers[0], NULL, poll_masks, NULL);
    pthread_create(&pollers[1], NULL, poll_waits, NULL);
    for (int i = 0; i < 100; i++) {
        queue(number, i);
        usleep(1000);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(pollers[i], NULL);
    end_blocked(threads);
    printf("%d came\n", (int)hits);
}

static void sampled(void) {
    int got = 0;
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    queue(number, 1);
    sigwait(&one, &got);
    burn_after(1500);
    printf("got %d\n", got);
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {{"queue", queue_all},        {"pending", pending},
                 {"signalfd", descriptor},    {"pingpong", ping_pong},
                 {"open", one_open},          {"order", in_order},
                 {"unblock", unblocked},      {"calls", calls},
                 {"default", default_ends},   {"sampled", sampled},
                 {"exec", replace},           {"replaced", replaced},
                 {"ignore", ignore_pending},  {"inherit", ignore_and_replace},
                 {"heir", replaced_ignoring}, {"vfork", vforked},
                 {"polled", polled}};
    if (count < 2)
        return 2;
    number = count > 2 ? atoi(arguments[2]) : SIGRTMAX - 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigfillset(&all);
    sigemptyset(&none);
    sigemptyset(&one);
    sigaddset(&one, number);
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
        if (strcmp(modes[i].name, arguments[1]) == 0)
            modes[i].run();
    puts("done");
    return 0;
}
