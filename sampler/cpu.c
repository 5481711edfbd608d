#include "sampler/cpu.h"
#include "sampler/rt/attrs.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>

#include "sampler/cpu_internal.h"
#include "sampler/modules.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/stack_table.h"
#include "sampler/unwind.h"

#define NS_PER_SECOND 1000000000u
#define LOCK_TRIES 200
#define LOCK_WAIT_NS 50000
#define FULL_SWEEP 16    /* every so many sweeps, although the number of threads is the same */
#define LOOKS_A_VISIT 64 /* threads whose engine is thought over */

struct pep_cpu_shared pep_cpu;

/* All below: under windows_lock. */
static int windows_lock;
static uint32_t windows;
static uint32_t visits;                                   /* of the slots */
static uint16_t windows_at[PEP_CPU_HZ_MAX + 1] PEP_LARGE; /* open windows by rate */
static enum pep_cpu_choice choice;
static uint32_t sweeps;
static bool is_unwind_ready;
static bool is_signal_taken; /* the host has a function of its own on our signal */

static void lock_windows(void) {
    int free = 0;
    while (!pep_cas_acq_rel(&windows_lock, &free, 1)) {
        pep_os_futex_wait(&windows_lock, 1, 10000000);
        free = 0;
    }
}

static void unlock_windows(void) {
    pep_store_release(&windows_lock, 0);
    pep_os_futex_wake(&windows_lock, 1);
}

PEP_SIGNAL_SAFE bool pep_cpu_lock(struct pep_thread *thread) {
    for (int i = 0; i < LOCK_TRIES; i++) {
        int busy = PEP_BUSY_FREE;
        if (pep_cas_acq_rel(&thread->is_busy, &busy, PEP_BUSY_ARMING))
            return true;
        pep_os_sleep_ns(LOCK_WAIT_NS);
    }
    return false;
}

PEP_SIGNAL_SAFE void pep_cpu_unlock(struct pep_thread *thread) {
    for (;;) {
        pep_store_release(&thread->is_busy, PEP_BUSY_FREE);
        pep_fence_seq_cst(); /* pairs with enter() in cpu_handler.c */
        int busy = PEP_BUSY_FREE;
        if (pep_swap_acq_rel(&thread->is_missed, 0) == 0 ||
            !pep_cas_acq_rel(&thread->is_busy, &busy, PEP_BUSY_ARMING))
            return;
        uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
        if (pep_load_relaxed(&thread->engine) == PEP_ENGINE_TIMER)
            pep_cpu_timer_next(thread, hz != 0 ? NS_PER_SECOND / hz : 0);
    }
}

/* False when the thread has ended. A thread that has not run yet is at 0, which is why
 * pep_os_clock_ns will not do. */
PEP_SIGNAL_SAFE static bool read_clock(int tid, uint64_t *ns) {
    struct timespec now = {0, 0};
    long r = pep_os_call6(SYS_clock_gettime, pep_os_thread_cpu_clock(tid), (long)&now, 0, 0, 0, 0);
    *ns = (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
    return r == 0;
}

/* Under the slot's lock. Charges what the thread used since its last sample to that sample's
 * stack: at the border of a window, or at the thread's end, no later sample can take it. */
PEP_SIGNAL_SAFE static void settle(struct pep_thread *thread) {
    if (thread->engine == PEP_ENGINE_NONE || thread->last_stack == 0)
        return;
    uint64_t now;
    if (!read_clock(thread->tid, &now) || now < thread->last_cpu_ns)
        now = thread->last_cpu_ns;
    uint64_t weight = now - thread->last_cpu_ns, count = 0;
    uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
    if (thread->engine == PEP_ENGINE_TIMER && hz != 0) {
        int64_t period = NS_PER_SECOND / hz, owed = thread->carry_ns + (int64_t)weight;
        count = owed > period ? (uint64_t)(owed / period) : 0;
        thread->carry_ns = owed - (int64_t)count * period;
    }
    pep_cpu_charge_last(thread, count, weight);
    thread->last_cpu_ns = now;
    thread->last_tsc = 0;
}

PEP_SIGNAL_SAFE static void disarm(struct pep_thread *thread) {
    if (thread->engine == PEP_ENGINE_PERF)
        pep_cpu_perf_disarm(thread);
    else if (thread->engine == PEP_ENGINE_TIMER)
        pep_cpu_timer_disarm(thread);
}

/* Under the slot's lock, at the thread's end. A thread that lived shorter than the time between
 * two samples was met with a chance of its life by that time: the one that was met stands for all
 * the others, or a program of short threads would seem to use no CPU at all. */
PEP_HOOK_SAFE static void settle_end(struct pep_thread *thread) {
    uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
    uint64_t now, interval = hz != 0 ? pep_cpu_interval_ns(thread, hz) : 0;
    bool is_short = thread->is_newborn && thread->last_stack != 0 && interval != 0 &&
                    read_clock(thread->tid, &now) && now - thread->armed_cpu_ns < interval;
    if (thread->engine == PEP_ENGINE_NONE || !is_short) {
        settle(thread);
        return;
    }
    uint64_t charged = thread->last_cpu_ns - thread->armed_cpu_ns;
    pep_cpu_charge_last(thread, 0, charged < interval ? interval - charged : 0);
    thread->last_stack = 0;
}

/* A thread that is being born has no past to judge it by. */
PEP_HOOK_SAFE static bool is_perf_wanted(const struct pep_thread *thread, uint32_t hz) {
    if (choice == PEP_CPU_TIMER || pep_load_relaxed(&pep_cpu.is_perf_refused) ||
        !pep_cpu_armer_is_running())
        return false;
    return choice == PEP_CPU_PERF || thread->is_newborn || !pep_cpu_prefers_timer(thread->tid, hz);
}

/* Under the slot's lock. Time before this moment is never charged. */
PEP_HOOK_SAFE static void arm(struct pep_thread *thread, uint32_t hz) {
    uint64_t now;
    if (!read_clock(thread->tid, &now))
        return;
    thread->last_cpu_ns = thread->armed_cpu_ns = now;
    thread->carry_ns = 0;
    thread->last_stack = 0;
    thread->walk_ns = 0;
    thread->pending_count = thread->pending_ns = 0;
    uint64_t delay = pep_cpu_schedule_start(thread, now, hz);
    bool is_armer = pep_cpu_armer_is_here(), is_perf = is_perf_wanted(thread, hz);
    if (is_armer && is_perf && pep_cpu_perf_arm(thread, delay) == 0)
        return;
    pep_cpu_timer_arm(thread, delay);
    if (!is_armer && is_perf)
        pep_cpu_armer_call(thread); /* until it comes the timer serves */
}

/* Arms a thread that is not; with is_anew also one that is, as when the rate rises. */
PEP_HOOK_SAFE static void arm_thread(struct pep_thread *thread, bool is_anew) {
    uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
    if (hz == 0 || thread->is_own || thread->is_leaving || pep_load_relaxed(&thread->gives_way) ||
        (thread->engine != PEP_ENGINE_NONE && !is_anew))
        return;
    if (!pep_cpu_lock(thread))
        return;
    if (is_anew) {
        settle(thread);
        disarm(thread);
    }
    if (thread->engine == PEP_ENGINE_NONE && thread->tid != 0 && !thread->is_leaving &&
        !pep_load_relaxed(&thread->gives_way))
        arm(thread, hz);
    pep_cpu_unlock(thread);
}

PEP_HOOK_SAFE static void disarm_thread(struct pep_thread *thread) {
    if (thread->engine == PEP_ENGINE_NONE || !pep_cpu_lock(thread))
        return;
    settle(thread);
    disarm(thread);
    pep_cpu_unlock(thread);
}

#define SELF_TRIES 20

PEP_SIGNAL_SAFE bool pep_cpu_disarm_self(struct pep_thread *thread) {
    bool is_locked = false;
    for (int i = 0; i < SELF_TRIES && !is_locked; i++)
        is_locked = pep_cpu_lock(thread);
    if (!is_locked)
        return false;
    bool is_perf = thread->engine == PEP_ENGINE_PERF;
    int fd = thread->perf_fd;
    settle(thread);
    disarm(thread);
    pep_cpu_unlock(thread);
    if (is_perf)
        pep_cpu_armer_await_closed(fd);
    return true;
}

PEP_HOOK_SAFE void pep_cpu_thread_enter(struct pep_thread *thread) {
    if (pep_load_relaxed(&pep_cpu.hz) == 0)
        return;
    arm_thread(thread, false);
    pep_fence_seq_cst(); /* pairs with disarm_all: it sees our engine, or we see its zero */
    if (pep_load_relaxed(&pep_cpu.hz) == 0)
        disarm_thread(thread);
}

/* Whoever would arm it now waits for the lock, and then finds that it is not to be armed. */
PEP_HOOK_SAFE bool pep_cpu_thread_leave(struct pep_thread *thread) {
    if (!pep_cpu_lock(thread))
        return false;
    settle_end(thread);
    disarm(thread);
    thread->is_leaving = true;
    pep_cpu_unlock(thread);
    pep_cpu_park_leave(thread);
    return true;
}

/* On the armer: a thread that began with a timer gets its event. */
static void take_to_perf(struct pep_thread *thread) {
    uint64_t now;
    uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
    if (!pep_cpu_lock(thread)) {
        pep_cpu_armer_note(thread);
        return;
    }
    if (thread->engine == PEP_ENGINE_TIMER && hz != 0 && is_perf_wanted(thread, hz) &&
        read_clock(thread->tid, &now)) {
        uint64_t delay = thread->due_ns > now ? thread->due_ns - now : 0;
        if (pep_cpu_perf_arm(thread, delay) == 0)
            pep_cpu_timer_drop(thread);
    }
    pep_cpu_unlock(thread);
}

void pep_cpu_attend(struct pep_thread *thread) {
    int engine = pep_load_acquire(&thread->engine);
    if (engine == PEP_ENGINE_PERF)
        pep_cpu_perf_tend(thread);
    else if (engine == PEP_ENGINE_TIMER)
        take_to_perf(thread);
}

static void disarm_all_here(void *unused) {
    (void)unused;
    for (uint32_t i = 0; i < pep_threads_limit(); i++) {
        struct pep_thread *thread = pep_thread_at(i);
        uint64_t now;
        disarm_thread(thread);
        if (thread->tid != 0 && !read_clock(thread->tid, &now)) /* its end found the slot held */
            pep_thread_forget(thread);
    }
}

static void disarm_all(void) {
    pep_cpu_armer_run(disarm_all_here, NULL);
    pep_cpu_armer_stop();
}

/* After pep_threads_adopt: arms, and frees what threads left that ended by a raw system call. */
static void visit_slots_here(void *argument) {
    bool is_anew = *(bool *)argument;
    const uint32_t share = pep_threads_limit() / LOOKS_A_VISIT + 1, turn = visits++ % share;
    for (uint32_t i = 0; i < pep_threads_limit(); i++) {
        struct pep_thread *thread = pep_thread_at(i);
        int tid = pep_load_acquire(&thread->tid);
        if (tid == 0)
            continue;
        uint64_t now;
        if (thread->seen != sweeps && !read_clock(tid, &now))
            pep_thread_forget(thread);
        else
            arm_thread(thread, is_anew || (i % share == turn && choice == PEP_CPU_AUTO &&
                                           pep_cpu_is_for_timer(thread)));
    }
    if (pep_cpu_armer_is_here())
        pep_cpu_perf_reap();
}

static void visit_slots(bool is_anew) {
    pep_cpu_armer_run(visit_slots_here, &is_anew);
}

static void visit_threads(bool is_anew) {
    sweeps++;
    pep_threads_adopt(sweeps);
    visit_slots(is_anew);
}

int pep_cpu_init(const struct pep_cpu_options *options) {
    if (pep_cpu.signal != 0)
        return 0;
    int sig = pep_cpu_choose_signal(options->signal);
    int r = sig < 0 ? sig : pep_cpu_handler_install(sig);
    if (r < 0)
        return r;
    choice = options->engine;
    pep_store_release(&pep_cpu.signal, sig);
    return 0;
}

PEP_SIGNAL_SAFE int pep_cpu_signal(void) {
    return pep_load_relaxed(&pep_cpu.signal);
}

/* What the handler needs, before the first signal. */
static int prepare(void) {
    if (pep_cpu.signal == 0)
        return -ENXIO;
    int r = pep_threads_init();
    if (r == 0)
        r = pep_stack_table_init();
    if (r == 0)
        pep_modules_refresh(); /* without modules the stacks are short, not wrong */
    if (r == 0 && !is_unwind_ready) {
        r = pep_unwind_init();
        is_unwind_ready = r == 0;
    }
    if (r == 0)
        r = pep_cpu_scratch_init();
    if (r == 0)
        r = pep_cpu_handler_check();
    return r;
}

/* A perf signal that comes while execve(2) works outlives the program and ends the next one; only
 * timers' signals are flushed. The hooks disarm before libc's exec; Go's runtime makes the system
 * call by itself. */
static bool has_go_runtime(void) {
    for (pep_module_id id = 1; id <= pep_modules_count(); id++) {
        const struct pep_module *module = pep_modules_get(id);
        if (module != NULL && module->is_go)
            return true;
    }
    return false;
}

static void start_armer(void) {
    if (choice == PEP_CPU_TIMER || pep_load_relaxed(&pep_cpu.is_perf_refused) ||
        pep_cpu_armer_start() == 0)
        return;
    pep_store_relaxed(&pep_cpu.is_perf_refused, 1);
    pep_store_relaxed(&pep_cpu.note, "no thread could be made to hold perf events");
}

static void start_engines(void) {
    pep_store_relaxed(&pep_cpu.is_perf_refused, 0);
    pep_store_relaxed(&pep_cpu.is_timer_refused, 0);
    pep_store_relaxed(&pep_cpu.note, NULL);
    pep_cpu_timer_limits();
    pep_cpu_clock_calibrate();
    if (choice == PEP_CPU_TIMER)
        pep_store_relaxed(&pep_cpu.note, "the timer engine was asked for");
    if (choice == PEP_CPU_AUTO && has_go_runtime()) {
        pep_store_relaxed(&pep_cpu.is_perf_refused, 1);
        pep_store_relaxed(&pep_cpu.note, "a Go program may exec past our hooks");
    }
    start_armer();
    is_signal_taken = false;
}

int pep_cpu_begin(uint32_t hz) {
    if (hz < PEP_CPU_HZ_MIN || hz > PEP_CPU_HZ_MAX)
        return -EINVAL;
    lock_windows();
    int r = windows_at[hz] == UINT16_MAX ? -EBUSY : prepare();
    if (r == 0) {
        if (windows == 0)
            start_engines();
        windows++;
        windows_at[hz]++;
        bool is_faster = hz > pep_cpu.hz;
        if (is_faster)
            pep_store_release(&pep_cpu.hz, hz);
        visit_threads(is_faster);
    }
    unlock_windows();
    return r;
}

void pep_cpu_end(uint32_t hz) {
    lock_windows();
    PEP_CHECK(hz <= PEP_CPU_HZ_MAX && windows_at[hz] > 0);
    if (hz <= PEP_CPU_HZ_MAX && windows_at[hz] > 0) {
        windows--;
        windows_at[hz]--;
        uint32_t highest = is_signal_taken ? 0 : pep_cpu.hz;
        while (highest > 0 && windows_at[highest] == 0)
            highest--;
        pep_store_release(&pep_cpu.hz, highest);
        pep_fence_seq_cst(); /* pairs with pep_cpu_thread_enter */
        if (highest == 0)
            disarm_all();
    }
    unlock_windows();
}

void pep_cpu_sweep(void) {
    lock_windows();
    if (windows > 0 && pep_cpu.hz > 0 && pep_cpu_handler_check() < 0) {
        is_signal_taken = true;
        pep_store_relaxed(&pep_cpu.note, "the program took our signal for itself");
        pep_store_release(&pep_cpu.hz, 0);
        pep_fence_seq_cst();
        disarm_all();
    } else if (pep_swap_acq_rel(&pep_cpu.is_visit_wanted, 0) != 0 ||
               pep_threads_tasks() != pep_threads_slots() || sweeps % FULL_SWEEP == 0) {
        visit_threads(false);
    } else {
        sweeps++;
    }
    bool is_open = windows > 0;
    unlock_windows();
    if (is_open && pep_modules_is_stale())
        pep_modules_refresh(); /* a library came by itself; what was known stays if it fails */
}

void pep_cpu_settle(void) {
    for (uint32_t i = 0; i < pep_threads_limit(); i++) {
        struct pep_thread *thread = pep_thread_at(i);
        if (pep_load_relaxed(&thread->engine) == PEP_ENGINE_NONE || !pep_cpu_lock(thread))
            continue;
        settle(thread);
        pep_cpu_unlock(thread);
    }
}

void pep_cpu_state(struct pep_cpu_state *state) {
    *state = (struct pep_cpu_state){
        .signal = pep_cpu.signal,
        .hz = pep_load_relaxed(&pep_cpu.hz),
        .windows = pep_load_relaxed(&windows),
        .note = pep_load_relaxed(&pep_cpu.note),
    };
    for (uint32_t i = 0; i < pep_threads_limit(); i++) {
        const struct pep_thread *thread = pep_thread_at(i);
        if (pep_load_relaxed(&thread->tid) == 0 || thread->is_own)
            continue;
        int engine = pep_load_relaxed(&thread->engine);
        state->threads_perf += engine == PEP_ENGINE_PERF;
        state->threads_timer += engine == PEP_ENGINE_TIMER;
        state->threads_none += engine == PEP_ENGINE_NONE;
    }
}

void pep_cpu_pause(void) {
    lock_windows();
    if (windows > 0)
        disarm_all();
    unlock_windows();
}

void pep_cpu_resume(void) {
    lock_windows();
    if (windows > 0 && pep_cpu.hz > 0) {
        start_armer();
        visit_threads(true);
    }
    unlock_windows();
}

void pep_cpu_after_fork_child(void) {
    pep_cpu_perf_after_fork_child();
    pep_cpu_armer_after_fork_child();
    pep_cpu_park_after_fork_child();
    for (uint32_t i = 0; i < pep_threads_limit(); i++) {
        struct pep_thread *thread = pep_thread_at(i);
        /* The parent's timers do not exist here; their numbers may be the child's own timers. */
        thread->engine = PEP_ENGINE_NONE;
        thread->timer_id = -1;
        thread->is_busy = PEP_BUSY_FREE;
    }
    if (windows > 0)
        pep_zero(windows_at, sizeof windows_at);
    windows = 0;
    windows_lock = 0;
    pep_store_relaxed(&pep_cpu.timers, 0);
    pep_store_relaxed(&pep_cpu.hz, 0);
    pep_cpu_scratch_after_fork_child();
}
