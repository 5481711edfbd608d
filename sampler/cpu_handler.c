/*
 * The handler: from a signal to a charged stack.
 *
 * Model:   first whose signal it is, then the thread's slot, then a scratch block; the walk runs
 *          on the block's own stack, so the host's, or its 8 KiB signal stack, holds little more
 *          than the kernel's frame. Every way out arms the next signal.
 * Writers: each profiled thread, in its own signal.  [signal]
 * Readers: -
 * Memory:  2 scratch blocks a processor and 16 more, one mapping, touched at the first arming.
 * When full: sample_no_scratch; the time goes to the thread's next sample.
 *
 * Source: sigaction(2), rt_sigaction's kernel structure; fcntl(2) F_SETSIG for si_fd.
 */
#include <errno.h>
#include <ucontext.h>
#include <unistd.h>

#include "sampler/ask.h"
#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/reserve.h"
#include "sampler/stack_table.h"
#include "sampler/unwind.h"

#define SCRATCH_STACK_BYTES (32u << 10)
#define SIGNAL_STACK_LEFT 1024u /* our frames on the host's stack are below 400 bytes */
#define KERNEL_SA_RESTORER 0x04000000ul
#define HOST_READS 1000 /* a bound: others would have to write as often meanwhile */
#define BIT(sig) (1ull << ((sig)-1))

struct pep_cpu_job {
    struct pep_thread *thread;
    const ucontext_t *context;
    struct pep_cpu_scratch *scratch;
    uint64_t now_ns;
    uint64_t period_ns;
    const struct pep_stack_range *stack;
    uintptr_t *pcs; /* where an answer goes; NULL: it is a sample */
    int depth;
};

/* A block: this, libunwind's state, then the stack. */
struct pep_cpu_scratch {
    int is_used;
    uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
    char rest[] PEP_ALIGNED(64);
};

static char *blocks;
static size_t block_bytes;
static uint32_t block_count;

/* The host's own action for our signal: the one that is not being written. seq is odd while the
 * other is; a reader may be a handler above the writer. */
static struct pep_ksigaction host_actions[2];
static uint32_t host_seq;

int pep_cpu_scratch_init(void) {
    if (blocks != NULL)
        return 0;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    block_count = 2 * (uint32_t)(processors > 0 ? processors : 1) + 16;
    size_t unwind_bytes = (pep_unwind_scratch_bytes() + 63) & ~(size_t)63;
    block_bytes = sizeof(struct pep_cpu_scratch) + unwind_bytes + SCRATCH_STACK_BYTES;
    block_bytes = (block_bytes + 4095) & ~(size_t)4095;
    char *memory = pep_reserve_alone(block_bytes * block_count);
    if (memory == NULL)
        return -ENOMEM;
    for (size_t at = 0; at < block_bytes * block_count; at += 4096)
        *(volatile char *)(memory + at) = 0;
    pep_store_release(&blocks, memory);
    return 0;
}

void pep_cpu_scratch_after_fork_child(void) {
    for (uint32_t i = 0; blocks != NULL && i < block_count; i++)
        ((struct pep_cpu_scratch *)(void *)(blocks + i * block_bytes))->is_used = 0;
}

PEP_SIGNAL_SAFE static struct pep_cpu_scratch *take_scratch(uint32_t first) {
    if (pep_load_acquire(&blocks) == NULL)
        return NULL;
    for (uint32_t i = 0; i < block_count; i++) {
        struct pep_cpu_scratch *scratch =
            (void *)(blocks + (size_t)((first + i) % block_count) * block_bytes);
        int unused = 0;
        if (pep_load_relaxed(&scratch->is_used) == 0 &&
            pep_cas_acq_rel(&scratch->is_used, &unused, 1))
            return scratch;
    }
    return NULL;
}

/* How many samples a weight stands for: one, unless signals were missed. The timer engine misses
 * them as a rule above CONFIG_HZ, so there the remainder waits in the slot. */
PEP_SIGNAL_SAFE static uint64_t whole_samples(struct pep_thread *thread, uint64_t weight_ns,
                                              uint64_t period_ns) {
    /* Signals that waited together are one sample. Between two periods of an event there may be
     * three: pep_cpu_redraw. */
    if (thread->engine == PEP_ENGINE_PERF && weight_ns < 4 * period_ns)
        return weight_ns > period_ns / 8;
    int64_t owed = thread->carry_ns + (int64_t)weight_ns, period = (int64_t)period_ns;
    int64_t count = owed >= 2 * period ? owed / period : 1;
    int64_t left = owed - count * period;
    thread->carry_ns = left < -period ? -period : left;
    return (uint64_t)count;
}

PEP_SIGNAL_SAFE void pep_cpu_charge_last(struct pep_thread *thread, uint64_t count,
                                         uint64_t weight) {
    count += thread->pending_count;
    weight += thread->pending_ns;
    thread->pending_count = thread->pending_ns = 0;
    if (thread->last_stack != 0 && (count | weight) != 0)
        pep_stack_table_charge(thread->last_stack, pep_thread_identity(thread), count, weight);
}

/* The time since the sample before belongs half to each of the two stacks: where the host went
 * from one to the other in between is as likely early as late. Given to the later one alone, each
 * function that begins would gain and each that ends would lose half a period. A sample's own half
 * waits for the next one, so there is one charge a sample. */
PEP_SIGNAL_SAFE static void charge(const struct pep_cpu_job *job, pep_stack_id stack) {
    struct pep_thread *thread = job->thread;
    uint64_t weight = job->now_ns > thread->last_cpu_ns ? job->now_ns - thread->last_cpu_ns : 0;
    uint64_t earlier = thread->last_stack != 0 ? weight / 2 : 0;
    pep_cpu_charge_last(thread, 0, earlier);
    thread->pending_count = whole_samples(thread, weight, job->period_ns);
    thread->pending_ns = weight - earlier;
    thread->last_cpu_ns += weight;
    thread->last_stack = stack;
}

/* Runs on the scratch block's stack. */
PEP_SIGNAL_SAFE void pep_cpu_record(struct pep_cpu_job *job) {
    const greg_t *registers = job->context->uc_mcontext.gregs;
    const struct pep_regs regs = {
        .pc = (uintptr_t)registers[REG_RIP],
        .sp = (uintptr_t)registers[REG_RSP],
        .bp = (uintptr_t)registers[REG_RBP],
        .ucontext = job->context,
    };
    uintptr_t *pcs = job->pcs != NULL ? job->pcs : job->scratch->pcs;
    job->depth = pep_unwind(&regs, job->stack, (struct pep_unwind_scratch *)job->scratch->rest, pcs,
                            PEP_UNWIND_DEPTH_MAX);
    if (job->pcs != NULL)
        return;
    charge(job, pep_stack_table_add_again(job->thread->last_stack, pcs, job->depth));
    PEP_COUNT(samples, 1);
}

PEP_SIGNAL_SAFE static void run_job(struct pep_cpu_job *job) {
    char *end = (char *)job->scratch + block_bytes; /* a page's end: aligned for the call */
    pep_cpu_call_on_stack(job, end);
    pep_store_release(&job->scratch->is_used, 0);
}

PEP_SIGNAL_SAFE static void sample(struct pep_thread *thread, const ucontext_t *context,
                                   uint64_t now_ns, uint32_t hz) {
    struct pep_cpu_scratch *scratch = take_scratch(pep_thread_index(thread));
    if (scratch == NULL) {
        PEP_COUNT(sample_no_scratch, 1);
        return;
    }
    struct pep_cpu_job job = {.thread = thread,
                              .context = context,
                              .scratch = scratch,
                              .now_ns = now_ns,
                              .period_ns = 1000000000u / hz,
                              .stack = &thread->stack};
    run_job(&job);
}

/* A fault's handler is running: its thread is in no state to be looked at, and its signal stack
 * is small. A thread that blocks everything, as workers of servers do, is none. */
PEP_SIGNAL_SAFE static bool is_in_fault(const ucontext_t *context) {
    uint64_t blocked;
    pep_copy(&blocked, &context->uc_sigmask, sizeof blocked);
    const uint64_t faults = BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGILL) | BIT(SIGFPE) | BIT(SIGABRT);
    const uint64_t ordinary = BIT(SIGHUP) | BIT(SIGINT) | BIT(SIGTERM) | BIT(SIGUSR1) |
                              BIT(SIGUSR2) | BIT(SIGALRM) | BIT(SIGCHLD);
    return (blocked & faults) != 0 && (blocked & ordinary) != ordinary;
}

PEP_SIGNAL_SAFE static bool is_stack_small(const ucontext_t *context) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    uintptr_t start = (uintptr_t)context->uc_stack.ss_sp;
    return here - start < context->uc_stack.ss_size && here - start < SIGNAL_STACK_LEFT;
}

PEP_SIGNAL_SAFE int pep_cpu_walk(const ucontext_t *context, const struct pep_stack_range *stack,
                                 uintptr_t *pcs) {
    if (is_in_fault(context) || is_stack_small(context))
        return -EFAULT;
    struct pep_cpu_scratch *scratch = take_scratch(0);
    if (scratch == NULL)
        return -EBUSY;
    struct pep_cpu_job job = {.context = context, .scratch = scratch, .stack = stack, .pcs = pcs};
    run_job(&job);
    return job.depth;
}

PEP_SIGNAL_SAFE static bool enter(struct pep_thread *thread) {
    int busy = PEP_BUSY_FREE;
    if (pep_cas_acq_rel(&thread->is_busy, &busy, PEP_BUSY_SAMPLING))
        return true;
    if (busy == PEP_BUSY_SAMPLING)
        PEP_COUNT(sample_nested, 1);
    /* Whoever holds the slot looks at is_missed after letting go; if that was just before, the
     * slot is free now. Both sides full fences: one of the two sees the other. */
    (void)pep_swap_acq_rel(&thread->is_missed, 1);
    pep_fence_seq_cst();
    busy = PEP_BUSY_FREE;
    if (!pep_cas_acq_rel(&thread->is_busy, &busy, PEP_BUSY_SAMPLING))
        return false;
    pep_store_relaxed(&thread->is_missed, 0);
    return true;
}

/* As the kernel would have done it, had we not been there. Behind it stands a handler again only
 * where nothing has happened: the first process of a namespace outlives its own signals. */
PEP_SIGNAL_SAFE static void end_by_default(int sig, const siginfo_t *info) {
    const struct pep_ksigaction by_default = {.handler = (void *)SIG_DFL};
    uint64_t bit = BIT(sig);
    if (pep_os_sigaction(sig, &by_default, NULL) < 0)
        return;
    if (pep_os_tgsigqueueinfo(pep_os_getpid(), pep_os_gettid(), sig, info) < 0)
        (void)pep_os_kill(pep_os_getpid(), sig);
    pep_os_sigprocmask(SIG_UNBLOCK, &bit, NULL);
    (void)pep_cpu_handler_install(sig);
}

/* siglongjmp out of the host's handler is fine: nothing of ours is held here. */
PEP_SIGNAL_SAFE static void pass_on(int sig, siginfo_t *info, ucontext_t *context) {
    struct pep_ksigaction action;
    pep_cpu_park_passed(context);
    pep_cpu_host_action(NULL, &action);
    if (action.handler == (void *)SIG_DFL && pep_cpu_is_host_thread())
        end_by_default(sig, info);
    else if (action.handler == (void *)SIG_DFL)
        pep_cpu_park(info, context); /* whether the host has it blocked here we do not know */
    if (action.handler == (void *)SIG_DFL || action.handler == (void *)SIG_IGN)
        return;
    if (action.flags & (unsigned long)SA_RESETHAND) {
        const struct pep_ksigaction none = {.handler = (void *)SIG_DFL};
        pep_cpu_host_action(&none, NULL);
    }
    uint64_t mask;
    pep_copy(&mask, &context->uc_sigmask, sizeof mask);
    mask |= action.mask;
    if (!(action.flags & SA_NODEFER))
        mask |= BIT(sig);
    pep_os_sigprocmask(SIG_SETMASK, &mask, NULL);
    if (action.flags & SA_SIGINFO)
        ((void (*)(int, siginfo_t *, void *))action.handler)(sig, info, context);
    else
        ((void (*)(int))action.handler)(sig);
}

PEP_SIGNAL_SAFE static void serve_foreign(int sig, siginfo_t *info, ucontext_t *context) {
    PEP_COUNT(signal_foreign, 1);
    if (pep_cpu_is_to_park(context))
        pep_cpu_park(info, context);
    else
        pass_on(sig, info, context);
}

/* The slot that a signal of ours is for, or NULL; *is_ours is true also for late ones. */
PEP_SIGNAL_SAFE static struct pep_thread *whose(const siginfo_t *info, const ucontext_t *context,
                                                bool *is_ours) {
    *is_ours = false;
    if (info->si_code == SI_TIMER)
        return pep_cpu_timer_thread(info->si_value.sival_ptr, is_ours);
    if (info->si_code < POLL_IN || info->si_code > POLL_HUP)
        return NULL;
    *is_ours = true;
    struct pep_thread *thread = pep_cpu_perf_thread(info->si_fd);
    if (thread == NULL || pep_load_acquire(&thread->engine) != PEP_ENGINE_PERF)
        return NULL;
    /* A late signal's descriptor may belong to another thread's event by now. On its own stack a
     * thread is itself; elsewhere (coroutines, signal stacks) the kernel tells. */
    uintptr_t sp = (uintptr_t)context->uc_mcontext.gregs[REG_RSP];
    bool is_here = sp - thread->stack.lo < thread->stack.hi - thread->stack.lo;
    if (!is_here && pep_os_gettid() != thread->tid)
        return NULL;
    pep_cpu_perf_fired(thread, info->si_code == POLL_HUP);
    return thread;
}

/* The thread's slot is held. */
PEP_SIGNAL_SAFE static void serve(struct pep_thread *thread, const ucontext_t *context) {
    uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
    bool is_timer = thread->engine == PEP_ENGINE_TIMER;
    uint64_t delay = 0;
    if (hz != 0 && !is_timer && pep_cpu_is_crowded(thread)) {
        PEP_COUNT(sample_crowded, 1);
    } else if (hz != 0) {
        uint64_t now = pep_cpu_now(thread);
        if (is_in_fault(context))
            PEP_COUNT(sample_in_crash, 1);
        else if (is_stack_small(context))
            PEP_COUNT(sample_small_stack, 1);
        else
            sample(thread, context, now, hz);
        if (is_timer)
            delay = pep_cpu_schedule(thread, now, hz);
        else
            pep_cpu_walked(thread, hz);
        if (thread->last_cpu_ns != now)
            thread->last_tsc = 0; /* nothing was charged, or the estimate was ahead */
    }
    if (is_timer)
        pep_cpu_timer_next(thread, delay);
    pep_store_release(&thread->is_busy, PEP_BUSY_FREE);
}

PEP_SIGNAL_SAFE void pep_cpu_handler(int sig, siginfo_t *info, void *context) {
    bool is_ours;
    if (info->si_code == SI_TIMER && info->si_value.sival_ptr == &pep_cpu_way_cookie) {
        pep_cpu_park_asked(context);
        return;
    }
    struct pep_thread *thread = whose(info, context, &is_ours);
    if (thread == NULL && !is_ours) {
        if (!pep_ask_answer(info, context))
            serve_foreign(sig, info, context);
        return;
    }
    if (thread == NULL)
        PEP_COUNT(sample_stale, 1);
    else if (enter(thread))
        serve(thread, context);
    pep_cpu_restart_call(context);
}

PEP_SIGNAL_SAFE static void fill(struct pep_ksigaction *action) {
    *action = (struct pep_ksigaction){
        .handler = (void *)pep_cpu_handler,
        .flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | KERNEL_SA_RESTORER,
        .restorer = (void *)pep_cpu_restorer,
        .mask = ~0ull,
    };
}

PEP_SIGNAL_SAFE int pep_cpu_handler_install(int sig) {
    struct pep_ksigaction action, old;
    fill(&action);
    int r = pep_os_sigaction(sig, &action, &old);
    if (r == 0 && old.handler != (void *)pep_cpu_handler)
        pep_cpu_host_action(&old, NULL);
    return r;
}

PEP_SIGNAL_SAFE bool pep_cpu_is_handler(const void *handler) {
    return handler == (const void *)pep_cpu_handler;
}

PEP_SIGNAL_SAFE int pep_cpu_handler_check(void) {
    struct pep_ksigaction now;
    if (pep_os_sigaction(pep_cpu.signal, NULL, &now) < 0 || now.handler == (void *)pep_cpu_handler)
        return 0;
    PEP_COUNT(signal_lost, 1);
    if (now.handler != (void *)SIG_DFL && now.handler != (void *)SIG_IGN)
        return -EBUSY;
    /* At once: a signal that is on its way would end the program now. */
    return pep_cpu_handler_install(pep_cpu.signal);
}

PEP_SIGNAL_SAFE static struct pep_ksigaction read_host_action(void) {
    struct pep_ksigaction action;
    for (int i = 0; i < HOST_READS; i++) {
        uint32_t seq = pep_load_acquire(&host_seq);
        action = host_actions[seq / 2 % 2];
        pep_fence_acquire();
        if (pep_load_relaxed(&host_seq) / 2 == seq / 2)
            break;
    }
    return action;
}

PEP_SIGNAL_SAFE void pep_cpu_host_action(const struct pep_ksigaction *set,
                                         struct pep_ksigaction *old) {
    struct pep_ksigaction before = read_host_action();
    if (set != NULL) {
        uint32_t seq = pep_load_relaxed(&host_seq) & ~1u;
        /* Two writers at a time is the host racing with itself: the last one to come gives up. */
        if (pep_cas_acq_rel(&host_seq, &seq, seq + 1)) {
            host_actions[(seq / 2 + 1) % 2] = *set;
            pep_store_release(&host_seq, seq + 2);
        }
    }
    if (old != NULL) /* set and old may be one */
        *old = before;
}
