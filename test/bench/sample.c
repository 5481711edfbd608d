/*
 * The cost of one warm CPU sample above an empty signal: sample [rounds [frames]].
 *
 * The same work under 30 frames, its CPU time taken with nothing armed, with a perf event of our
 * own whose handler only arms it again, and with the sampler, all at 10 kHz and by turns. The
 * lowest of each counts: the rest is what else the machine did. Prints "name nanoseconds" lines.
 */
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/counters.h"
#include "sampler/unwind.h"

#define HZ 10000
#define LOOPS 40000000 /* some 30 ms */

static int rounds = 40, frames = 30, empty_fd = -1;
static volatile int depth_guard;
static volatile uint64_t empty_count;

static void on_empty(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)context;
    empty_count++;
    pep_os_ioctl(info->si_fd, PERF_EVENT_IOC_REFRESH, 1);
}

static int open_empty(void) {
    struct sigaction action = {.sa_sigaction = on_empty, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct perf_event_attr attr = {.size = sizeof attr,
                                   .type = PERF_TYPE_SOFTWARE,
                                   .config = PERF_COUNT_SW_TASK_CLOCK,
                                   .sample_period = 1000000000 / HZ,
                                   .wakeup_events = 1,
                                   .disabled = 1};
    struct f_owner_ex owner = {F_OWNER_TID, pep_os_gettid()};
    int fd = pep_os_perf_event_open(&attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0)
        return fd;
    sigaction(SIGRTMIN + 3, &action, NULL);
    fcntl(fd, F_SETOWN_EX, &owner);
    fcntl(fd, F_SETSIG, SIGRTMIN + 3);
    fcntl(fd, F_SETFL, O_ASYNC);
    return fd;
}

static double cpu_ns(void) {
    return (double)pep_os_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static double work_ns(void) {
    double start = cpu_ns();
    uint64_t x = 1;
    for (int i = 0; i < LOOPS; i++)
        __asm__ volatile("lea 1(%0), %0" : "+r"(x));
    return cpu_ns() - start;
}

__attribute__((noinline)) static double at_depth(int depth) {
    double result = depth > 0 ? at_depth(depth - 1) : work_ns();
    depth_guard = depth; /* no tail call */
    return result;
}

struct lowest {
    double ns;
    uint64_t signals;
};

static void take_lower(struct lowest *lowest, double ns, uint64_t signals) {
    if (lowest->ns == 0 || ns < lowest->ns)
        *lowest = (struct lowest){ns, signals};
}

int main(int argc, char **argv) {
    const struct pep_cpu_options options = {.engine = PEP_CPU_AUTO};
    struct lowest bare = {0, 0}, empty = {0, 0}, sampled = {0, 0};
    if (argc > 1)
        rounds = atoi(argv[1]);
    if (argc > 2)
        frames = atoi(argv[2]);
    empty_fd = open_empty();
    if (empty_fd < 0) {
        printf("sample: no perf events here\n");
        return 77;
    }
    if (rounds < 1 || frames < 1 || pep_threads_init() < 0 || pep_cpu_init(&options) < 0)
        return 1;
    for (int i = 0; i < rounds; i++) {
        take_lower(&bare, at_depth(frames), 0);
        empty_count = 0;
        pep_os_ioctl(empty_fd, PERF_EVENT_IOC_REFRESH, 2);
        double ns = at_depth(frames);
        pep_os_ioctl(empty_fd, PERF_EVENT_IOC_DISABLE, 0);
        take_lower(&empty, ns, empty_count);
        if (pep_cpu_begin(HZ) != 0)
            return 1;
        uint64_t before = PEP_COUNTED(samples);
        ns = at_depth(frames);
        take_lower(&sampled, ns, PEP_COUNTED(samples) - before);
        pep_cpu_end(HZ);
    }
    if (empty.signals == 0 || sampled.signals == 0)
        return 1;
    double empty_each = (empty.ns - bare.ns) / (double)empty.signals;
    double sample_each = (sampled.ns - bare.ns) / (double)sampled.signals;
    printf("sample_frames %d\nempty_signal %.0f\nsample %.0f\nsample_above_empty %.0f\n", frames,
           empty_each, sample_each, sample_each - empty_each);
    return 0;
}
