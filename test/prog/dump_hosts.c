/*
 * Hosts in trouble, of which somebody wants to know what each thread does: dump_hosts WHAT.
 *
 * Model:   says "ready" when the trouble is there, then stays. WHAT is malloc (a thread holds the
 *          lock of libc's only arena for good), loader FILE (a constructor that never returns),
 *          masked (every thread blocks all signals past libc), coroutine, left (the main thread
 *          ended by itself), nobody (gives up root), sleepers N SPINNERS.
 * Writers: -
 * Readers: test/e2e/600_dump.sh
 * Memory:  -
 * When full: -
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int probes, is_awake;
static volatile uint64_t count;
static void *volatile kept;

static void start(void *(*function)(void *), void *argument) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    if (pthread_create(&thread, &attributes, function, argument) != 0) {
        perror("pthread_create");
        exit(1);
    }
}

static void name(const char *text) {
    prctl(PR_SET_NAME, text, 0, 0, 0);
}

static void nap(long ms) {
    const struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* The number at the beginning of proc(5)'s syscall: the call in which a thread sleeps. In handlers,
 * too. */
static int is_in(int tid, int call) {
    char path[64], text[32] = "";
    char digits[12], *at = digits + sizeof digits;
    *--at = '\0';
    for (; tid != 0; tid /= 10)
        *--at = (char)('0' + tid % 10);
    stpcpy(stpcpy(stpcpy(path, "/proc/self/task/"), at), "/syscall");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t count = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0)
        close(fd);
    return count > 0 && text[0] >= '0' && text[0] <= '9' && atoi(text) == call;
}

static void wait_until_in(const volatile int *tid, int call) {
    while (*tid == 0 || !is_in(*tid, call))
        nap(1);
}

/* -- malloc --------------------------------------------------------------------------------- */

static volatile int is_stuck;
static volatile int probe_tid;

/* Inside malloc or not: whoever allocates next finds out. If it comes back, nobody held the lock;
 * if it sleeps until somebody wakes it, somebody does. */
static void on_signal(int sig) {
    int before = probes;
    (void)sig;
    while (!is_in(probe_tid, SYS_futex)) {
        nap(1);
        if (probes - before > 1)
            return;
    }
    is_stuck = 1;
    for (;;)
        pause();
}

static void *allocate(void *unused) {
    name("allocates");
    for (;;) {
        kept = malloc(2000 + (count & 4095));
        free(kept);
        count++;
    }
    return unused;
}

static void *probe(void *unused) {
    name("probes");
    probe_tid = (int)syscall(SYS_gettid);
    for (;;) {
        void *block = malloc(5000);
        free(block);
        probes++;
        nap(1);
    }
    return unused;
}

static void stick_in_malloc(void) {
    pthread_t thread;
    mallopt(M_ARENA_MAX, 1);
    signal(SIGUSR1, on_signal);
    pthread_create(&thread, NULL, allocate, NULL);
    start(probe, NULL);
    while (probe_tid == 0)
        nap(1);
    for (int i = 0; !is_stuck; i++) {
        nap(3 + i % 7);
        pthread_kill(thread, SIGUSR1);
    }
}

/* -- loader --------------------------------------------------------------------------------- */

static const char *library;

static void *load(void *unused) {
    name("loads");
    dlopen(library, RTLD_NOW);
    return unused;
}

/* -- masked --------------------------------------------------------------------------------- */

static void mask_all(void) {
    const uint64_t all = ~0ull;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all);
}

static volatile int tids[4], threads;

static void *wait_masked(void *unused) {
    name("waits");
    mask_all();
    tids[__atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED)] = (int)syscall(SYS_gettid);
    for (;;)
        nap(100000000);
    return unused;
}

static void *spin_masked(void *unused) {
    name("spins");
    mask_all();
    for (;;)
        count++;
    return unused;
}

/* -- coroutine ------------------------------------------------------------------------------ */

static ucontext_t outside, inside;
static char stack[64 << 10] __attribute__((aligned(16)));

static void wait_in_coroutine(void) {
    pause();
    is_awake = 1;
}

static void spin_in_coroutine(void) {
    for (;;)
        count++;
}

static void *switch_stacks(void *function) {
    static char other[64 << 10] __attribute__((aligned(16)));
    ucontext_t mine;
    name("switches");
    getcontext(&mine);
    mine.uc_stack.ss_sp = other;
    mine.uc_stack.ss_size = sizeof other;
    makecontext(&mine, (void (*)(void))function, 0);
    setcontext(&mine);
    return NULL;
}

static void *wait_on_other_stack(void *unused) {
    name("switched");
    tids[0] = (int)syscall(SYS_gettid);
    getcontext(&inside);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = sizeof stack;
    inside.uc_link = &outside;
    makecontext(&inside, wait_in_coroutine, 0);
    swapcontext(&outside, &inside);
    return unused;
}

/* -- nobody --------------------------------------------------------------------------------- */

/* Each wait ends with its time, whoever looks at it meanwhile. */
static void *poll_for_a_while(void *unused) {
    name("polls");
    for (int i = 0;; i++) {
        int result = poll(NULL, 0, 300);
        if (result < 0)
            (void)!write(1, "interrupted\n", 12);
        else if (i % 10 == 9)
            (void)!write(1, "ten waits\n", 10);
    }
    return unused;
}

/* -- many ----------------------------------------------------------------------------------- */

static void *sleep_for_good(void *unused) {
    for (;;)
        pause();
    return unused;
}

static void *spin(void *unused) {
    for (;;)
        count++;
    return unused;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "malloc") == 0) {
        stick_in_malloc();
    } else if (strcmp(what, "loader") == 0 && argc > 2) {
        library = argv[2];
        start(load, NULL);
    } else if (strcmp(what, "masked") == 0) {
        for (int i = 0; i < 4; i++)
            start(wait_masked, NULL);
        start(spin_masked, NULL);
        mask_all();
        for (int i = 0; i < 4; i++)
            wait_until_in(&tids[i], SYS_clock_nanosleep);
        while (count == 0)
            nap(1);
    } else if (strcmp(what, "coroutine") == 0) {
        start(wait_on_other_stack, NULL);
        start(switch_stacks, (void *)spin_in_coroutine);
        wait_until_in(&tids[0], SYS_pause);
        while (count == 0)
            nap(1);
    } else if (strcmp(what, "nobody") == 0) {
        if (setgid(65534) != 0 || setuid(65534) != 0)
            return 1;
        start(poll_for_a_while, NULL);
        start(sleep_for_good, NULL);
    } else if (strcmp(what, "left") == 0) {
        start(spin, NULL);
        start(sleep_for_good, NULL);
        pthread_exit(NULL);
    } else if (strcmp(what, "sleepers") == 0 && argc > 3) {
        int spinners = atoi(argv[3]);
        for (int i = 0; i < atoi(argv[2]); i++)
            start(i < spinners ? spin : sleep_for_good, NULL);
    } else {
        return 2;
    }
    (void)!write(1, "ready\n", 6);
    for (;;)
        pause();
}
