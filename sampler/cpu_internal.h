/*
 * What the parts of the CPU sampler share: cpu.c (windows), cpu_handler.c, and the two engines.
 *
 * Model:   an engine arms one thread. A timer sends one signal and is set again by each handler; an
 *          event of perf runs by itself, watched by the armer. A slot is worked on by whoever holds
 *          its is_busy: the handler tries once and, refused, leaves is_missed for the holder, who
 *          then sets the timer after letting go.
 * Writers: slots as above; struct pep_cpu under the windows' lock unless said otherwise.
 * Readers: the handler, relaxed.  [signal]
 * Memory:  static; the scratch pool is one mapping.
 * When full: see cpu.h.
 */
#ifndef PEP_SAMPLER_CPU_INTERNAL_H
#define PEP_SAMPLER_CPU_INTERNAL_H

#include <ucontext.h>

#include "sampler/cpu.h"

struct pep_cpu_shared {
    int signal;           /* 0 before init */
    uint32_t hz;          /* the highest rate asked; 0: disarmed */
    int is_perf_refused;  /* the kernel does not give us perf events: do not ask again */
    int is_timer_refused; /* the same for timers */
    uint32_t perfs;       /* armed now, any thread */
    uint32_t perfs_max;
    uint32_t timers;
    uint32_t timers_max;
    uint32_t ways;       /* threads that give way; any thread */
    uint32_t clears;     /* threads that have others give way just now: nobody comes back */
    int is_visit_wanted; /* some came back: to be armed with the next sweep */
    uint64_t tick_ns;    /* the kernel looks at CPU timers this often */
    const char *note;    /* why perf is not used, or NULL */
};
extern struct pep_cpu_shared pep_cpu;

/* Rights to a slot. lock waits at most some milliseconds for a handler that was interrupted;
 * false: not got. unlock arms again when a signal was missed meanwhile. */
PEP_SIGNAL_SAFE bool pep_cpu_lock(struct pep_thread *thread);
PEP_SIGNAL_SAFE void pep_cpu_unlock(struct pep_thread *thread);

/* Charges what the last sample of a thread still has to get, and count and weight with it. Under
 * the slot's lock or in the thread's handler. */
PEP_SIGNAL_SAFE void pep_cpu_charge_last(struct pep_thread *thread, uint64_t count,
                                         uint64_t weight);

/* The engines. arm: under the slot's lock; 0 or -errno. disarm: the same; gives back what arm took.
 *
 * perf: armed by the armer alone; disarmed anywhere, and closed by the armer. */
PEP_HOOK_SAFE int pep_cpu_perf_arm(struct pep_thread *thread, uint64_t delay_ns);
PEP_SIGNAL_SAFE void pep_cpu_perf_disarm(struct pep_thread *thread);
/* On the armer: a new period, and more signals allowed. */
PEP_HOOK_SAFE void pep_cpu_perf_tend(struct pep_thread *thread);
PEP_HOOK_SAFE void pep_cpu_perf_close_orphans(void);
/* On the armer, with each sweep. */
PEP_HOOK_SAFE void pep_cpu_perf_reap(void);
/* False: an event that was disarmed elsewhere is not closed yet. */
PEP_SIGNAL_SAFE bool pep_cpu_perf_is_closed(int fd);
/* A signal of its event reached the thread; is_last: the kernel stopped the event with it. */
PEP_SIGNAL_SAFE void pep_cpu_perf_fired(struct pep_thread *thread, bool is_last);
/* The thread whose event has this descriptor, or NULL. */
PEP_SIGNAL_SAFE struct pep_thread *pep_cpu_perf_thread(int fd);
/* On the armer, first: looks at the limits of this process. */
void pep_cpu_perf_limits(void);
/* Closes what a forked child inherited. */
void pep_cpu_perf_after_fork_child(void);

/* cpu_armer.c: the thread that holds the events of perf while a window is open. start and stop
 * under the windows' lock; 0 or -errno. Before stop everything is disarmed. */
int pep_cpu_armer_start(void);
void pep_cpu_armer_stop(void);
PEP_SIGNAL_SAFE bool pep_cpu_armer_is_running(void);
PEP_SIGNAL_SAFE bool pep_cpu_armer_is_here(void);
/* Does work(argument) on it and returns when it is done; here when it does not run. One caller at a
 * time: the windows' lock. */
void pep_cpu_armer_run(void (*work)(void *argument), void *argument);
/* It is to look at a slot: soon, or at once. */
PEP_SIGNAL_SAFE void pep_cpu_armer_note(struct pep_thread *thread);
PEP_SIGNAL_SAFE void pep_cpu_armer_call(struct pep_thread *thread);
/* Returns when the event is closed, or after a second. */
PEP_SIGNAL_SAFE void pep_cpu_armer_await_closed(int fd);
void pep_cpu_armer_after_fork_child(void);
/* What it does with a slot that was noted: cpu.c. */
void pep_cpu_attend(struct pep_thread *thread);

/* next: the time to the next signal, by the thread's own handler or under the lock; delay_ns 0
 * stops. */
PEP_HOOK_SAFE int pep_cpu_timer_arm(struct pep_thread *thread, uint64_t delay_ns);
PEP_SIGNAL_SAFE void pep_cpu_timer_disarm(struct pep_thread *thread);
/* The same of a thread whose engine is another one by now. */
PEP_SIGNAL_SAFE void pep_cpu_timer_drop(struct pep_thread *thread);
PEP_SIGNAL_SAFE void pep_cpu_timer_next(struct pep_thread *thread, uint64_t delay_ns);
/* The thread whose timer carries this value, or NULL; *is_ours tells a stale one of ours from
 * the host's. */
PEP_SIGNAL_SAFE struct pep_thread *pep_cpu_timer_thread(const void *value, bool *is_ours);
void pep_cpu_timer_limits(void);
/* cpu_clock.c. now: the thread's CPU clock, on itself, in its handler. schedule: from now to the
 * next sample, in ns; jittered, the mean rate is hz. */
void pep_cpu_clock_calibrate(void);
/* The mean CPU time between two samples of the thread's engine. */
PEP_SIGNAL_SAFE uint64_t pep_cpu_interval_ns(const struct pep_thread *thread, uint32_t hz);
PEP_SIGNAL_SAFE uint64_t pep_cpu_now(struct pep_thread *thread);
PEP_SIGNAL_SAFE uint64_t pep_cpu_schedule(struct pep_thread *thread, uint64_t now_ns, uint32_t hz);
PEP_HOOK_SAFE uint64_t pep_cpu_schedule_start(struct pep_thread *thread, uint64_t now_ns,
                                              uint32_t hz);
/* The armer looks at events that go on at most so often a second. */
#define PEP_CPU_LOOK_HZ 25
/* The next period of an event that runs by itself. */
PEP_HOOK_SAFE uint64_t pep_cpu_redraw(struct pep_thread *thread, uint64_t now_ns, uint32_t hz);
/* After a sample; and whether a signal comes so soon after it that the program would get less
 * than half of its time. */
PEP_SIGNAL_SAFE void pep_cpu_walked(struct pep_thread *thread, uint32_t hz);
PEP_SIGNAL_SAFE bool pep_cpu_is_crowded(const struct pep_thread *thread);

/* cpu_signal.c. wanted where it is not 0; else a free one, or -EBUSY. */
int pep_cpu_choose_signal(int wanted);

/* The handler. install: for good. check: 0 when it is in place (put back after SIG_DFL or SIG_IGN,
 * counted signal_lost), -EBUSY when the host has a function of its own there. */
PEP_SIGNAL_SAFE int pep_cpu_handler_install(int sig);
PEP_SIGNAL_SAFE int pep_cpu_handler_check(void);
/* Maps and touches the scratch blocks; idempotent. 0 or -errno. */
int pep_cpu_scratch_init(void);
/* Blocks that other threads held when the process was forked. */
void pep_cpu_scratch_after_fork_child(void);
extern char pep_cpu_way_cookie; /* si_value of a signal that asks a thread to give way */
PEP_SIGNAL_SAFE void pep_cpu_handler(int sig, siginfo_t *info, void *context);

/* cpu.c: charges what the thread used and disarms it; returns when nothing more of it can come.
 * False: somebody else worked on the slot all the time. On the thread itself, our signal blocked.
 */
PEP_SIGNAL_SAFE bool pep_cpu_disarm_self(struct pep_thread *thread);

/* cpu_park.c, in the handler: whether a foreign signal is to wait, as the host blocks it in this
 * thread; and lets it. */
PEP_SIGNAL_SAFE bool pep_cpu_is_to_park(const ucontext_t *context);
/* False for a thread that no hook has met. */
PEP_SIGNAL_SAFE bool pep_cpu_is_host_thread(void);
PEP_SIGNAL_SAFE void pep_cpu_park(const siginfo_t *info, ucontext_t *context);
/* cpu_reach.c: another thread would answer a signal of ours. */
PEP_SIGNAL_SAFE bool pep_cpu_is_in_reach(int tid);
/* In the handler of a thread that another asked. */
PEP_SIGNAL_SAFE void pep_cpu_park_asked(ucontext_t *context);
/* What is pending of our number, which is blocked: ours is dropped, the rest stays. */
PEP_SIGNAL_SAFE void pep_cpu_drop_pending(ucontext_t *context);
/* The slot's thread has ended or goes. */
PEP_SIGNAL_SAFE void pep_cpu_park_leave(struct pep_thread *thread);
void pep_cpu_park_after_fork_child(void);
/* A handler of the host's is about to run for one of them: if it was the last, this thread is
 * sampled again. */
PEP_SIGNAL_SAFE void pep_cpu_park_passed(ucontext_t *context);

/* cpu_signalfd.c: descriptors of signalfd(2) hold our number, or do not. */
PEP_SIGNAL_SAFE void pep_cpu_signalfd_show(bool is_shown);

/* ask.c */
PEP_SIGNAL_SAFE bool pep_ask_is_question(const siginfo_t *info);

/* cpu_choice.c: true where an event of perf would cost a thread more than a timer, and a timer is
 * as good at this rate. */
PEP_HOOK_SAFE bool pep_cpu_prefers_timer(int tid, uint32_t hz);
/* The same of a thread that has an event, as now is known. */
PEP_HOOK_SAFE bool pep_cpu_is_for_timer(struct pep_thread *thread);

/* Walks from context on a stack of ours into pcs, PEP_UNWIND_DEPTH_MAX at most: their number;
 * -EBUSY when every scratch block is in use; -EFAULT where the thread is in no state for it. */
PEP_SIGNAL_SAFE int pep_cpu_walk(const ucontext_t *context, const struct pep_stack_range *stack,
                                 uintptr_t *pcs);

/* ask_shorten.c: a call made again waits only for what is left of its time, since it waits since
 * since_ns (CLOCK_MONOTONIC). */
PEP_SIGNAL_SAFE void pep_ask_shorten(ucontext_t *context, uint64_t since_ns);

/* cpu_entry_x86_64.c */
struct pep_cpu_job;
PEP_SIGNAL_SAFE void pep_cpu_call_on_stack(struct pep_cpu_job *job, void *stack_top);
PEP_SIGNAL_SAFE void pep_cpu_record(struct pep_cpu_job *job);
PEP_SIGNAL_SAFE void pep_cpu_restorer(void);

#endif
