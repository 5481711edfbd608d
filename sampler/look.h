/*
 * A waiting thread, read without waking it: its system call, its registers, its stack.
 *
 * Model:   /proc/self/task/T/syscall (proc(5)) tells call, arguments, SP and PC of a thread that
 *          waits in the kernel; its stack is walked from there, its base pointer recovered from
 *          the stack where a frame needs it. A reading counts only when the thread has not run in
 *          between: its CPU clock, which stands still exactly as long as it does not run, is
 *          compared before and after.
 * Writers: -
 * Readers: the dump and the wall clock, on profep's threads.  [normal]
 * Memory:  struct pep_looker, one for each reading thread, by pep_looker_open.
 * When full: -ENOMEM from open.
 */
#ifndef PEP_SAMPLER_LOOK_H
#define PEP_SAMPLER_LOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/rt/arena.h"
#include "sampler/unwind.h"

struct pep_looker;

enum pep_look_kind {
    PEP_LOOK_WAITS = 0, /* in a system call; or in the kernel for a fault: call is -1 */
    PEP_LOOK_RUNS,      /* on a CPU or about to be */
    PEP_LOOK_STOPPED,   /* by a signal or a debugger: registers are known all the same */
    PEP_LOOK_GONE,      /* no such thread (any more), or a zombie */
    PEP_LOOK_REFUSED    /* the kernel does not tell: no /proc, or no right to it */
};

struct pep_look {
    int tid;
    enum pep_look_kind kind;
    char state;            /* as proc(5) has it: R S D T t Z X I; 0 unknown */
    long call;             /* number; -1: none (a page fault, or unknown) */
    uint64_t arguments[6]; /* of the call */
    uintptr_t sp, pc;      /* in user space; 0 unknown */
    uint64_t cpu_ns;       /* CPU time used so far; 0 unknown */
    char name[16];         /* of the thread; "" unknown */
    int processor;         /* it ran on last */
};

/* Opens what reading needs, from the arena. NULL when memory was refused; without /proc every look
 * is REFUSED. For the calling thread alone; close gives descriptors back. */
struct pep_looker *pep_looker_open(struct pep_arena *arena);
void pep_looker_close(struct pep_looker *looker);

/* Reads what a thread does now. Costs a few system calls, about 10 us. */
void pep_look_at(struct pep_looker *looker, int tid, struct pep_look *look);
/* True when the thread has done nothing between two looks: same call, SP, PC and CPU time. */
bool pep_look_is_same(const struct pep_look *a, const struct pep_look *b);
/* Walks the stack of a thread that waits or is stopped, then looks whether it has run meanwhile.
 * The number of pcs filled (unwind.h), >= 1; -EAGAIN when it ran, or runs; -ESRCH when it is gone.
 */
int pep_look_walk(struct pep_looker *looker, const struct pep_look *look, uintptr_t *pcs, int max);
/* CLOCK_MONOTONIC when a waiting thread began to wait, as the scheduler tells it, good to some 20
 * ms; 0 unknown. About 10 us. */
uint64_t pep_look_since(struct pep_looker *looker, const struct pep_look *look);

/* What a waiting thread waits for, in a few words: "futex wait", "epoll wait", "IO wait", "sleep",
 * "select", "wait for child", "page fault", "stopped", "running". Static text, never NULL. The
 * number of different ones is small: pep_look_state_tag gives each a number from 1 up, and
 * pep_look_state_of the text back (NULL for unknown tags). */
const char *pep_look_state(const struct pep_look *look);
uint16_t pep_look_state_tag(const struct pep_look *look);
const char *pep_look_state_of(uint16_t tag);
/* The name of the system call it waits in; NULL: none, or not one that waits as a rule. */
const char *pep_look_call_name(const struct pep_look *look);

#endif
