/*
 * The threads of this process: a slot for each that we serve, an identity for each we sampled.
 *
 * Model:   slot: what the handler needs of a live thread, reused after its death. Identity: tid
 *          and name as a label, made at a thread's first sample, kept until exit.
 * Writers: the thread itself (hooks, handler); profep's sweep for threads that came by raw
 *          clone or died by raw exit.  [signal, hook]
 * Readers: the handler; the profile (identities).
 * Memory:  fixed mappings, made by pep_threads_init, touched as they fill.
 * When full: the thread is not profiled (thread_slots_full), or its samples carry no thread
 *          label (thread_identities_full).
 */
#ifndef PEP_SAMPLER_THREAD_H
#define PEP_SAMPLER_THREAD_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/rt/attrs.h"
#include "sampler/unwind.h"

#define PEP_THREADS_MAX 32768
#define PEP_IDENTITIES_MAX 65536

enum pep_engine { PEP_ENGINE_NONE = 0, PEP_ENGINE_PERF, PEP_ENGINE_TIMER };

/* Who works on a slot. The thread itself holds it in the handler and never waits for it; whoever
 * arms or disarms holds it for a few system calls. */
enum pep_busy { PEP_BUSY_FREE = 0, PEP_BUSY_SAMPLING, PEP_BUSY_ARMING };

struct pep_thread {
    int tid;                /* 0: free. Written with release last when a slot is taken */
    int is_busy;            /* enum pep_busy; cpu_internal.h has the rules */
    int is_missed;          /* a signal came while somebody else held the slot */
    uint32_t identity;      /* 0 until the first sample; see pep_thread_identity */
    int engine;             /* enum pep_engine; what is armed for this thread */
    int timer_id;           /* of the timer engine; valid while engine == TIMER */
    int perf_fd;            /* in the table of cpu_armer.c's thread; valid while engine == PERF */
    uint32_t armed_serial;  /* which arming this belongs to; a stale signal is told by it */
    uint32_t perf_granted;  /* signals that its event was allowed since its arming; cpu_armer.c */
    uint32_t perf_fired;    /* of these, the thread had; counted by itself */
    uint64_t last_cpu_ns;   /* thread CPU clock at the last sample; handler and arming */
    uint64_t armed_cpu_ns;  /* the clock at its arming */
    int64_t ahead_ns;       /* how far due_ns has strayed from an even beat */
    uint64_t due_ns;        /* when, on that clock, the next sample is meant to be */
    uint32_t last_stack;    /* of the last sample since arming; 0: none yet */
    uint64_t pending_count; /* of that sample: charged to its stack with the next one */
    uint64_t pending_ns;
    int64_t carry_ns;             /* charged weight that is not yet whole samples */
    uint64_t delay_ns;            /* from the last sample to the next, as drawn */
    int64_t interval_ns;          /* the drawn interval behind it */
    uint32_t repeats;             /* samples that will still use that interval */
    uint32_t unread;              /* samples since the clock was really read */
    uint64_t last_tsc;            /* at last_cpu_ns; 0: not known */
    uint64_t walk_tsc;            /* when the last sample was done */
    uint64_t walk_ns;             /* and how long it took, 0: not worth to know */
    uint64_t beat_ns;             /* perf: fires are counted against an even beat since this */
    uint32_t beat_fired;          /* moment, when there had been so many */
    uint64_t rng;                 /* jitter */
    struct pep_stack_range stack; /* direct loads allowed; {0,0}: unknown (raw clone) */
    bool is_own;                  /* one of profep's: never armed, never shown */
    bool is_registered;           /* came through our hook or is the main thread */
    bool is_newborn;              /* came through our hook: its life began at armed_cpu_ns */
    bool is_blocked_by_host;      /* our signal, as the host set it; written by the thread */
    bool gives_way;               /* not to be armed nor asked: cpu_park.c */
    bool is_out_of_way;           /* and nothing of the process's is in its hands any more */
    uint32_t asks;                /* questions just being sent to it; ask.c */
    bool is_leaving;              /* about to end or to replace the program: not to be armed */
    uint32_t seen;                /* the last sweep that found the thread in /proc; sweep only */
    uint32_t birth_stack;         /* birth.h; written by the thread as it begins, relaxed */
    uint32_t birth_creator;
} PEP_ALIGNED(64);

struct pep_identity {
    int tid;       /* written with release last */
    char name[16]; /* comm, NUL-ended; refreshed while the thread lives */
};

/* Makes the mappings and the slot of the calling (main) thread; idempotent. 0 or -errno. */
int pep_threads_init(void);
/* Marks the calling thread as profep's own: never sampled, never listed. */
void pep_thread_become_own(void);
/* True on profep's own threads; hooks pass through there. */
PEP_SIGNAL_SAFE bool pep_thread_is_own(void);

/* The hook's trampoline calls these on the new thread, first and last; stack_bytes is the size
 * of its stack (0 unknown). enter takes a slot, leave disarms and frees it. leave runs from a
 * pthread key's destructor and may be the thread's last act. */
PEP_HOOK_SAFE void pep_thread_enter(uintptr_t frame, uint64_t stack_bytes);
PEP_HOOK_SAFE void pep_thread_leave(void);

/* Slots [0, limit) may be in use. */
PEP_SIGNAL_SAFE uint32_t pep_threads_limit(void);
PEP_SIGNAL_SAFE struct pep_thread *pep_thread_at(uint32_t index);
/* The slot whose address this is, or NULL when it is none of ours. */
PEP_SIGNAL_SAFE struct pep_thread *pep_thread_check(const void *slot);
/* The calling thread's slot, or NULL. */
PEP_SIGNAL_SAFE struct pep_thread *pep_thread_self(void);
/* The same by the thread's own memory alone: no system call; for threads that libc knows. NULL:
 * perhaps. */
PEP_SIGNAL_SAFE struct pep_thread *pep_thread_mine(void);
/* The slot of a tid, or NULL. */
PEP_SIGNAL_SAFE struct pep_thread *pep_thread_of(int tid);
PEP_SIGNAL_SAFE uint32_t pep_thread_index(const struct pep_thread *thread);
/* The slot of a tid, taking one for a thread we had not met (raw clone): sweep only. */
struct pep_thread *pep_thread_adopt(int tid);
/* Does so for every task of this process, and marks each slot seen. */
void pep_threads_adopt(uint32_t sweep);
/* How many tasks there are, 0 where that is not known, and how many slots are taken. */
uint32_t pep_threads_tasks(void);
uint32_t pep_threads_slots(void);
/* Frees the slot of a thread that is gone: sweep only. */
void pep_thread_forget(struct pep_thread *thread);

/* The identity of a slot's thread, made now if there is none; 0 when identities are full. */
PEP_SIGNAL_SAFE uint32_t pep_thread_identity(struct pep_thread *thread);
/* The same for the thread of another slot: its name comes from /proc. */
uint32_t pep_thread_identity_of_other(struct pep_thread *thread);
const struct pep_identity *pep_identity_get(uint32_t identity);
/* The name, NUL-ended, of an identity into 16 bytes. */
void pep_identity_name(uint32_t identity, char name[16]);
/* Reads the names of live threads from /proc again. */
void pep_identities_refresh(void);
/* In a forked child: only the calling thread exists; keeps identities, drops slots. */
void pep_threads_after_fork(void);

#endif
