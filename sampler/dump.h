/*
 * Every thread of the process at one moment: what it does, where it stands, whom it waits for.
 *
 * Model:   plain data, complete in itself. tasks[i] and profile->samples[i] are the same thread;
 *          the profile makes the addresses readable and is what tools get. Threads of profep are
 *          not listed.
 * Writers: pep_dump_take.  [normal]
 * Readers: the encoders.
 * Memory:  the caller's arena; about 1 KiB a thread.
 * When full: NULL.
 */
#ifndef PEP_SAMPLER_DUMP_H
#define PEP_SAMPLER_DUMP_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/profile.h"

struct pep_task {
    int tid;
    const char *name;       /* never NULL */
    char state;             /* as proc(5) */
    const char *doing;      /* "running", "futex wait", "mutex of thread 12 (worker)" ... */
    const char *call;       /* name of the system call it waits in, NULL: none or unknown */
    uint64_t waited_ns;     /* 0: not known, or running */
    const char *note;       /* why there is no stack, a phrase; NULL: there is one */
    bool is_blocked;        /* does not run now */
    uint64_t lock;          /* address of what it waits for; 0: no lock */
    const char *lock_kind;  /* "mutex", "rwlock", "condition variable", "futex" ...; NULL: none */
    int owner_tid;          /* who holds it, as far as the lock tells; 0 unknown */
    const char *owner;      /* its name, NULL */
    int created_by_tid;     /* 0 unknown, as for the main thread */
    const char *created_by; /* its name then, NULL */
    const uintptr_t *birth_pcs; /* of the creator, innermost first; NULL unknown */
    uint32_t birth_count;
};

/* Threads that wait for each other in a circle: tids[0] waits for tids[1] ... for tids[0]. */
struct pep_cycle {
    const int *tids;
    uint32_t count;
};

struct pep_dump {
    struct pep_task *tasks; /* by tid; the main thread first */
    uint32_t task_count;
    uint32_t unread; /* of these: without a stack */
    const struct pep_cycle *cycles;
    uint32_t cycle_count;
    struct pep_profile *profile; /* kind "goroutine", one value goroutine/count */
    int64_t time_ns;             /* CLOCK_REALTIME */
    uint64_t took_ns;
};

struct pep_dump_options {
    uint64_t deadline_ns; /* from now; for threads that must answer. 0: 500 ms */
    struct pep_profile_filter filter;
    /* A thread in a handler of ours that blocks our signal until it is left: it is asked all the
     * same, and answers then. 0: nobody. */
    int leaving_tid;
};

/* Never waits for a lock of the host: works while the host is stuck in malloc or in the loader.
 * NULL when memory was refused. */
struct pep_dump *pep_dump_take(struct pep_arena *arena, const struct pep_dump_options *options);
/* Threads of the host alive now, without reading them. */
uint32_t pep_dump_count(void);

#endif
