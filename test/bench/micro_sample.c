/*
 * What one sample costs beyond an empty signal: micro_sample perf|timer.
 *
 * Under 30 frames a loop reads the time stamp counter; a step in it during which a handler ran is
 * one signal, with all that the kernel does for it. Signals of the engine's kind come by turns to
 * an empty handler and to the sampler's. Medians, so what else the machine does is left out; where
 * it does much, the fifth part that was fastest says more.
 *
 * Where an interrupt leaves a virtual machine, much of a sample is the caches that are cold
 * afterwards. So the same again without one: the thread sends itself at the same moments, by turns,
 * a signal for the empty handler and one like its event's for the sampler's.
 */
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/counters.h"
#include "sampler/unwind.h"

#define FRAMES 30
#define TURNS 8
#define GAPS_MAX 20000
#define WALKS 20000
#define SENT 8000

struct gaps {
    double ticks[GAPS_MAX];
    int count;
};

static struct gaps empty, ours, sent_empty, sent_ours;
static uint64_t empty_count;
static int is_timer, hz, frames_seen;
static double walk_ns;
static volatile int sink;

static double now_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void nothing(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)info;
    (void)context;
    empty_count++;
}

static int start_empty(int sig) {
    if (is_timer) {
        timer_t timer;
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = sig};
        struct timespec period = {.tv_nsec = 1000000000 / hz};
        struct itimerspec value = {period, period};
        timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer);
        timer_settime(timer, 0, &value, NULL);
        return (int)(intptr_t)timer;
    }
    struct perf_event_attr attr = {.size = sizeof attr,
                                   .type = PERF_TYPE_SOFTWARE,
                                   .config = PERF_COUNT_SW_TASK_CLOCK,
                                   .sample_period = 1000000000u / (unsigned)hz,
                                   .wakeup_events = 1};
    struct f_owner_ex owner = {F_OWNER_TID, gettid()};
    int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    fcntl(fd, F_SETOWN_EX, &owner);
    fcntl(fd, F_SETSIG, sig);
    fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK);
    return fd;
}

static void stop_empty(int id) {
    if (is_timer)
        timer_delete((timer_t)(intptr_t)id);
    else
        close(id);
}

/* Steps of the counter during which *signals rose, for a time. */
static void collect(struct gaps *gaps, const volatile uint64_t *signals, double seconds) {
    double end = now_ns(CLOCK_MONOTONIC) + seconds * 1e9;
    uint64_t seen = *signals, last = __rdtsc();
    for (unsigned i = 1;; i++) {
        uint64_t now = __rdtsc(), count = *signals;
        if (count != seen) {
            now = __rdtsc(); /* it may have come after the first reading */
            if (gaps->count < GAPS_MAX)
                gaps->ticks[gaps->count++] = (double)(now - last);
        }
        seen = count;
        last = now;
        if (i % 65536 == 0) {
            if (now_ns(CLOCK_MONOTONIC) > end)
                return;
            last = __rdtsc();
        }
    }
}

static void send_one(struct gaps *gaps, siginfo_t *info, int sig) {
    info->si_signo = sig;
    uint64_t begin = __rdtsc();
    pep_os_tgsigqueueinfo(getpid(), gettid(), sig, info);
    if (gaps->count < GAPS_MAX)
        gaps->ticks[gaps->count++] = (double)(__rdtsc() - begin);
}

static void wait_until(uint64_t due) {
    while (__rdtsc() < due)
        sink++;
}

/* At the event's moments, which itself stands still as long as the armer lets it. */
static int send_all(int sig, double ns_per_tick) {
    struct pep_thread *self = pep_thread_self();
    if (pep_cpu_begin((uint32_t)hz) < 0)
        return 1;
    siginfo_t info = {.si_code = POLL_IN};
    info.si_fd = self->perf_fd;
    const volatile uint64_t *samples = &pep_counter_values[PEP_COUNTER_samples];
    uint64_t before = *samples, due = __rdtsc();
    for (int i = 0; i < SENT; i++) {
        ioctl(self->perf_fd, PERF_EVENT_IOC_DISABLE, 0);
        due += (uint64_t)((double)self->delay_ns / 2 / ns_per_tick);
        wait_until(due);
        send_one(&sent_empty, &info, sig);
        due += (uint64_t)((double)self->delay_ns / 2 / ns_per_tick);
        wait_until(due);
        send_one(&sent_ours, &info, pep_cpu_signal());
    }
    pep_cpu_end((uint32_t)hz);
    return *samples - before < SENT * 9 / 10; /* each was a sample, or it says nothing */
}

static void walk(void) {
    static uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
    struct pep_unwind_scratch *scratch = malloc(pep_unwind_scratch_bytes());
    ucontext_t here;
    getcontext(&here);
    const struct pep_regs regs = {.pc = (uintptr_t)here.uc_mcontext.gregs[REG_RIP],
                                  .sp = (uintptr_t)here.uc_mcontext.gregs[REG_RSP],
                                  .bp = (uintptr_t)here.uc_mcontext.gregs[REG_RBP],
                                  .ucontext = &here};
    const struct pep_stack_range *stack = &pep_thread_self()->stack;
    double begin = now_ns(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < WALKS; i++)
        frames_seen = pep_unwind(&regs, stack, scratch, pcs, PEP_UNWIND_DEPTH_MAX);
    walk_ns = (now_ns(CLOCK_THREAD_CPUTIME_ID) - begin) / WALKS;
    free(scratch);
}

static double tick_ns(void) {
    uint64_t ticks = __rdtsc();
    double begin = now_ns(CLOCK_MONOTONIC);
    while (now_ns(CLOCK_MONOTONIC) < begin + 1e7)
        sink++;
    return (now_ns(CLOCK_MONOTONIC) - begin) / (double)(__rdtsc() - ticks);
}

__attribute__((noinline)) static int measure(void) {
    const volatile uint64_t *samples = &pep_counter_values[PEP_COUNTER_samples];
    int sig = pep_cpu_signal() - 1, engine = is_timer ? PEP_ENGINE_TIMER : PEP_ENGINE_PERF;
    struct sigaction action = {.sa_sigaction = nothing, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigfillset(&action.sa_mask);
    sigaction(sig, &action, NULL);
    for (int i = 0; i < TURNS; i++) {
        int id = start_empty(sig);
        collect(&empty, &empty_count, 0.25);
        stop_empty(id);
        if (pep_cpu_begin((uint32_t)hz) < 0 || pep_thread_self()->engine != engine)
            return 1;
        collect(&ours, samples, 0.25);
        pep_cpu_end((uint32_t)hz);
    }
    walk();
    return is_timer ? 0 : send_all(sig, tick_ns());
}

__attribute__((noinline)) static int descend(int depth) {
    int result = depth > 0 ? descend(depth - 1) : measure();
    sink++;
    return result;
}

static int by_value(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double percentile(struct gaps *gaps, int percent) {
    qsort(gaps->ticks, (size_t)gaps->count, sizeof(double), by_value);
    return gaps->ticks[(long)gaps->count * percent / 100];
}

int main(int argc, char **argv) {
    is_timer = argc > 1 && strcmp(argv[1], "timer") == 0;
    hz = is_timer ? 250 : 4000;
    const struct pep_cpu_options options = {.engine = is_timer ? PEP_CPU_TIMER : PEP_CPU_PERF};
    uint64_t ticks = __rdtsc();
    double begin = now_ns(CLOCK_MONOTONIC);
    /* measure, descend(0), main and the two start functions of the C library are frames too. */
    if (pep_cpu_init(&options) < 0 || descend(FRAMES - 7) != 0)
        return 1;
    double ns_per_tick = (now_ns(CLOCK_MONOTONIC) - begin) / (double)(__rdtsc() - ticks);
    double bare = percentile(&empty, 50) * ns_per_tick, all = percentile(&ours, 50) * ns_per_tick;
    double fast = (percentile(&ours, 10) - percentile(&empty, 10)) * ns_per_tick;
    printf(
        "%s engine: +%.0f ns above the %.0f ns that its empty signal takes, +%.0f in the fastest "
        "fifth; walk %.0f ns, %.1f ns a frame (%d frames, %d samples)\n",
        is_timer ? "timer" : "perf", all - bare, bare, fast, walk_ns, walk_ns / frames_seen,
        frames_seen, ours.count);
    if (!is_timer)
        printf("sent by the thread itself: +%.0f ns above the %.0f ns that an empty one takes\n",
               (percentile(&sent_ours, 50) - percentile(&sent_empty, 50)) * ns_per_tick,
               percentile(&sent_empty, 50) * ns_per_tick);
    return 0;
}
