/*
 * What one sample costs, beyond what the kernel takes for a signal to an empty handler: 30 frames,
 * all met before, both engines, everything the handler does (clock, walk, table, the next moment).
 *
 * The signals are sent by the thread to itself, in the form in which the engine's own arrive, so
 * that the two loops differ in the handler alone. Prints medians, ns of the thread's CPU time.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "sampler/cpu_internal.h"
#include "sampler/modules.h"
#include "sampler/rt/counters.h"
#include "sampler/stack_table.h"
#include "sampler/unwind.h"

#define FRAMES 30
#define ROUNDS 2000
#define TIMES 41
#define HZ 1 /* so that next to none comes by itself */
#define TIMER_COOKIE 0x70f5ull

static double empty_ns[TIMES], sample_ns[TIMES], walk_ns[TIMES];
static int empty_signal, frames_seen;
static volatile int sink;

static double cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void nothing(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)info;
    (void)context;
}

static int by_value(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

/* What the engine's own signal would carry. */
static siginfo_t like_the_engine(void) {
    const struct pep_thread *thread = pep_thread_self();
    siginfo_t info = {0};
    if (thread->engine == PEP_ENGINE_PERF) {
        info.si_code = POLL_IN;
        info.si_fd = thread->perf_fd;
    } else {
        info.si_code = SI_TIMER;
        info.si_value.sival_ptr =
            (void *)(TIMER_COOKIE << 48 | (uint64_t)thread->armed_serial << 16 |
                     pep_thread_index(thread));
    }
    return info;
}

static double signals(int sig, siginfo_t *info) {
    pid_t pid = getpid(), tid = gettid();
    double begin = cpu_ns();
    for (int i = 0; i < ROUNDS; i++)
        syscall(SYS_rt_tgsigqueueinfo, pid, tid, sig, info);
    return (cpu_ns() - begin) / ROUNDS;
}

static double walks(void) {
    static uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
    static struct pep_unwind_scratch *scratch;
    if (scratch == NULL)
        scratch = malloc(pep_unwind_scratch_bytes());
    ucontext_t here;
    getcontext(&here);
    const struct pep_regs regs = {.pc = (uintptr_t)here.uc_mcontext.gregs[REG_RIP],
                                  .sp = (uintptr_t)here.uc_mcontext.gregs[REG_RSP],
                                  .bp = (uintptr_t)here.uc_mcontext.gregs[REG_RBP],
                                  .ucontext = &here};
    double begin = cpu_ns();
    for (int i = 0; i < ROUNDS; i++)
        frames_seen =
            pep_unwind(&regs, &pep_thread_self()->stack, scratch, pcs, PEP_UNWIND_DEPTH_MAX);
    return (cpu_ns() - begin) / ROUNDS;
}

__attribute__((noinline)) static int measure(void) {
    siginfo_t info = like_the_engine();
    uint64_t before = PEP_COUNTED(samples);
    signals(pep_cpu_signal(), &info);
    walks();
    for (int i = 0; i < TIMES; i++) {
        empty_ns[i] = signals(empty_signal, &info);
        sample_ns[i] = signals(pep_cpu_signal(), &info);
        walk_ns[i] = walks();
    }
    return PEP_COUNTED(samples) - before >= (TIMES + 1) * ROUNDS;
}

__attribute__((noinline)) static int descend(int depth) {
    int result = depth > 0 ? descend(depth - 1) : measure();
    sink++;
    return result;
}

static int run(const char *name, enum pep_cpu_choice engine) {
    const struct pep_cpu_options options = {.engine = engine};
    if (pep_cpu_init(&options) < 0 || pep_cpu_begin(HZ) < 0)
        return 1;
    const int is_right =
        pep_thread_self()->engine == (engine == PEP_CPU_PERF ? PEP_ENGINE_PERF : PEP_ENGINE_TIMER);
    struct sigaction empty = {.sa_sigaction = nothing, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigfillset(&empty.sa_mask);
    empty_signal = pep_cpu_signal() - 1;
    sigaction(empty_signal, &empty, NULL);
    /* measure, descend(0), main, run and the C library's two start functions are frames too. */
    if (!is_right || !descend(FRAMES - 7))
        return 1;
    pep_cpu_end(HZ);
    qsort(empty_ns, TIMES, sizeof(double), by_value);
    qsort(sample_ns, TIMES, sizeof(double), by_value);
    qsort(walk_ns, TIMES, sizeof(double), by_value);
    double empty_middle = empty_ns[TIMES / 2], sample_middle = sample_ns[TIMES / 2];
    printf(
        "%s: +%.0f ns above the %.0f ns of an empty signal; walk %.0f ns, %.1f ns a frame (%d)\n",
        name, sample_middle - empty_middle, empty_middle, walk_ns[TIMES / 2],
        walk_ns[TIMES / 2] / frames_seen, frames_seen);
    return 0;
}

int main(int argc, char **argv) {
    /* One engine a process: the choice is made once. */
    int is_timer = argc > 1 && argv[1][0] == 't';
    return run(is_timer ? "timer engine" : "perf engine", is_timer ? PEP_CPU_TIMER : PEP_CPU_PERF);
}
