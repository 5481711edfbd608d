/*
 * A CPU-bound host, 30 frames deep, that says how much work it has done.
 *
 * usage: deep COUNTER_FILE [SECONDS]
 *
 * The file is mapped shared: word 0 counts finished pieces of work, word 1 is this process's CPU
 * time in ns at that moment, word 2 is the pid. A piece is about 20 us of arithmetic at the
 * bottom of 30 frames, none of which the compiler may merge. SIGUSR1 starts and stops a kernel
 * timer event at DEEP_HZ that tells nobody, or with DEEP_SIGNAL one that signals an empty handler:
 * what any profiler of that kind pays at least.
 */
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH 30
#define ROUNDS 6000

static volatile uint64_t sink;
static volatile sig_atomic_t is_toggled;

static uint64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((noinline)) static uint64_t leaf(uint64_t x) {
    for (int i = 0; i < ROUNDS; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    return x;
}

__attribute__((noinline)) static uint64_t frame(int depth, uint64_t x) {
    uint64_t y = depth > 1 ? frame(depth - 1, x + 1) : leaf(x);
    __asm__ volatile("" : "+r"(y));
    return y + (uint64_t)depth;
}

static void on_toggle(int sig) {
    (void)sig;
    is_toggled = 1;
}

static void on_event(int sig) {
    (void)sig;
}

static void toggle_event(void) {
    static int event = -1;
    const char *hz = getenv("DEEP_HZ");
    if (event >= 0) {
        close(event);
        event = -1;
        return;
    }
    struct perf_event_attr attr = {.size = sizeof attr,
                                   .type = PERF_TYPE_SOFTWARE,
                                   .config = PERF_COUNT_SW_TASK_CLOCK,
                                   .wakeup_events = 1,
                                   .sample_period = 1000000000u / (hz ? (unsigned)atoi(hz) : 100u)};
    event = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
    if (event < 0)
        perror("deep: perf_event_open");
    if (event >= 0 && getenv("DEEP_SIGNAL")) {
        struct f_owner_ex owner = {F_OWNER_TID, getpid()};
        signal(SIGRTMAX, on_event);
        fcntl(event, F_SETOWN_EX, &owner);
        fcntl(event, F_SETSIG, SIGRTMAX);
        fcntl(event, F_SETFL, O_ASYNC | O_NONBLOCK);
    }
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: deep COUNTER_FILE [SECONDS]\n");
        return 2;
    }
    int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0)
        return 1;
    volatile uint64_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint64_t end =
        now_ns(CLOCK_MONOTONIC) + (uint64_t)(argc > 2 ? atoi(argv[2]) : 60) * 1000000000u;
    words[2] = (uint64_t)getpid();
    signal(SIGUSR1, on_toggle);
    while (now_ns(CLOCK_MONOTONIC) < end) {
        for (int i = 0; i < 16; i++)
            sink += frame(DEPTH - 2, sink);
        if (is_toggled) {
            is_toggled = 0;
            toggle_event();
        }
        words[1] = now_ns(CLOCK_PROCESS_CPUTIME_ID);
        words[0] += 16;
    }
    return 0;
}
