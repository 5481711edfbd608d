/*
 * Where the CPU time goes: the two engines and the handler.
 *
 * Model:   one sampler for all windows: armed by the first, at the highest rate anybody asked
 *          for, disarmed by the last. Each sample charges its stack with the CPU time that its
 *          thread used since its sample before, so rates may change and signals may be late
 *          without any bias in the sum.
 * Writers: the handler, on each profiled thread.  [signal]
 * Readers: http's windows through profile.h.
 * Memory:  a pool of scratch stacks made at the first arming.
 * When full: sample_no_scratch; the time goes to the thread's next sample.
 */
#ifndef PEP_SAMPLER_CPU_H
#define PEP_SAMPLER_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/rt/attrs.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define PEP_CPU_HZ_MIN 1
#define PEP_CPU_HZ_MAX 10000

enum pep_cpu_choice { PEP_CPU_AUTO = 0, PEP_CPU_PERF, PEP_CPU_TIMER };

struct pep_cpu_options {
    enum pep_cpu_choice engine;
    int signal; /* 0: a high real-time signal that the program leaves at its default */
};

struct pep_cpu_state {
    int signal;            /* the number in use, 0 before init */
    uint32_t hz;           /* asked of the engines now; 0 when disarmed */
    uint32_t windows;      /* open ones */
    uint32_t threads_perf; /* armed by engine */
    uint32_t threads_timer;
    uint32_t threads_none; /* known threads that could not be armed */
    const char *note;      /* why perf is not used, one phrase, or NULL */
};

/* Chooses the signal and installs the handler for good: two system calls. 0 or -errno. */
int pep_cpu_init(const struct pep_cpu_options *options);
/* Our signal's number, for the hooks that protect it; 0 before init. */
PEP_SIGNAL_SAFE int pep_cpu_signal(void);

/* Opens a window at a rate in [PEP_CPU_HZ_MIN, PEP_CPU_HZ_MAX]: arms every thread, or raises the
 * rate of the sampler that runs. 0 or -errno. Each begin needs one end with the same hz. */
int pep_cpu_begin(uint32_t hz);
void pep_cpu_end(uint32_t hz);
/* While a window is open, call every 100 ms or so: arms threads that came by raw clone, frees
 * what dead ones left, checks that the handler is still ours. Without a window it does the rest. */
void pep_cpu_sweep(void);
/* Charges what every armed thread used since its last sample to the stack of that sample, so that
 * a reading is exact at this moment. Called by the readings of profile.h. */
void pep_cpu_settle(void);
void pep_cpu_state(struct pep_cpu_state *state);

/* Ends the thread that holds events of perf, while windows stay open; resume arms anew. Nobody else
 * may begin or end a window in between. */
void pep_cpu_pause(void);
void pep_cpu_resume(void);

/* Foreign signals of our number: cpu_park.c. The host's wish for the calling thread, which hooks
 * note; whether it gives way, so that our number is really blocked. */
PEP_SIGNAL_SAFE bool pep_cpu_host_blocks(void);
PEP_SIGNAL_SAFE void pep_cpu_set_host_blocks(bool is_blocked);
PEP_SIGNAL_SAFE bool pep_cpu_gives_way(void);
/* The host opened our number, and the kernel knows. */
PEP_SIGNAL_SAFE void pep_cpu_opened(void);
/* Where nothing of our number is pending any more, it is opened again and the thread sampled. */
PEP_SIGNAL_SAFE void pep_cpu_come_back(void);
/* A signal of ours that a wait of the host's took: the handler gets it now, our number is open
 * afterwards. */
PEP_SIGNAL_SAFE bool pep_cpu_is_own_signal(const siginfo_t *info);
PEP_SIGNAL_SAFE void pep_cpu_keep(const siginfo_t *info);
/* The host begins to ignore our number: what is pending of it is no more (sigaction(2)). */
PEP_SIGNAL_SAFE void pep_cpu_forget_pending(void);
/* cpu_signalfd.c: what the host wants to read from a descriptor of signalfd(2). */
PEP_SIGNAL_SAFE void pep_cpu_signalfd_note(int fd, uint64_t set);

/* Ends the ppoll(2) of one of profep's threads that waits with begin's mask: the call fails with
 * EINTR, also when the signal comes between begin and the call. end: behind the call. */
uint64_t pep_cpu_wake_begin(void);
void pep_cpu_wake_end(void);
PEP_SIGNAL_SAFE void pep_cpu_wake(int tid);

/* In a handler of ours: the call that returned EINTR for its signal is made again; true when there
 * was one. */
PEP_SIGNAL_SAFE bool pep_cpu_restart_call(ucontext_t *context);

/* Hooks: a thread was born (on itself, masked), or is about to end. Free when disarmed. leave is
 * false when somebody else works on the slot and has no processor: it must be kept, a sweep will
 * find it. */
PEP_HOOK_SAFE void pep_cpu_thread_enter(struct pep_thread *thread);
PEP_HOOK_SAFE bool pep_cpu_thread_leave(struct pep_thread *thread);

/* Around a direct exec by a profiled thread: between the two nothing of ours is armed or pending
 * for it. A perf signal that waits at execve would kill the new program. Both do nothing on a
 * thread that we do not know, such as the child of a vfork. */
PEP_HOOK_SAFE void pep_cpu_exec_begin(void);
PEP_HOOK_SAFE void pep_cpu_exec_failed(void);
/* A number that the host ignores is ignored in the new program too. */
PEP_SIGNAL_SAFE void pep_cpu_exec_ignored(void);
/* Whether an action that the kernel holds is the sampler's. */
PEP_SIGNAL_SAFE bool pep_cpu_is_handler(const void *handler);

/* What the kernel is to return to from the host's handlers, so that EINTR of theirs stays: not to
 * be called. */
PEP_SIGNAL_SAFE void pep_cpu_host_restorer(void);
PEP_SIGNAL_SAFE void pep_cpu_host_restorer_ending(void); /* without SA_RESTART */
/* What the host believes is installed for our signal: stores set (unless NULL), reports what was
 * there (unless old is NULL). Signals that are not ours go to it, counted signal_foreign. */
PEP_SIGNAL_SAFE void pep_cpu_host_action(const struct pep_ksigaction *set,
                                         struct pep_ksigaction *old);

/* Around fork: nothing of the parent's sampler works in the child; it is closed there. Windows
 * that were open in the parent do not exist in the child. */
void pep_cpu_after_fork_child(void);

/* The time stamp counter is not to be read: it faults, prctl(2) PR_SET_TSC. */
PEP_SIGNAL_SAFE void pep_cpu_forbid_tsc(void);

#endif
