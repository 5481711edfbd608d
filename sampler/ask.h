/*
 * A running thread is asked for its own stack, by one signal.
 *
 * Model:   an answer has a place in a pool; the signal carries the place's number and serial, the
 *          handler fills it and says so. Who asked waits with a deadline and takes the place back;
 *          a late answer finds another serial and is dropped. A thread that was waiting after all
 *          has its call made again as for every signal of ours.
 * Writers: the handler, on the thread that was asked.  [signal]
 * Readers: the dump and the wall clock, on profep's threads.  [normal]
 * Memory:  a pool made by the first pep_ask_init, touched as it is used.
 * When full: -EBUSY: ask again when answers are in.
 */
#ifndef PEP_SAMPLER_ASK_H
#define PEP_SAMPLER_ASK_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

#include "sampler/look.h"
#include "sampler/rt/attrs.h"
#include "sampler/unwind.h"

#define PEP_ASK_PLACES 256

/* Idempotent. 0 or -errno. */
int pep_ask_init(void);
/* Sends the question. The ticket (>= 0), -EBUSY when every place is taken, -ESRCH when there is no
 * such thread, -EAGAIN when the kernel's queue of signals is full, -ENOSYS when the host took our
 * signal, -ENOTSUP when the thread gives way to a signal of the host's (cpu_park.c). */
int pep_ask_send(int tid);
/* The same for a thread that waits since since_ns (CLOCK_MONOTONIC) and cannot be looked at: of a
 * call that waits for a limited time, what was waited for already is taken off. */
int pep_ask_send_since(int tid, uint64_t since_ns);
/* True when the answer is there: pep_ask_take will not wait. */
bool pep_ask_is_answered(int ticket);
/* Waits until the answer is there or the deadline (CLOCK_MONOTONIC, ns) is past: the number of
 * pcs; -ETIMEDOUT; -EBUSY when it had nowhere to walk, as one may ask it again; -EFAULT when it
 * handles a fault. Gives the place back in every case. */
int pep_ask_take(int ticket, uint64_t deadline_ns, uintptr_t *pcs, int max);

/* Of an answer that is there, before it is taken: the system call that the thread was found in, if
 * it was sent with since_ns, or a signal of ours has cut the call short: call, arguments, sp and pc
 * as in a look. False: in none, or unknown. */
bool pep_ask_call_of(int ticket, struct pep_look *look);

/* The handler: true when the signal was a question. Answers it, and makes a call go on that it cut
 * short. */
PEP_SIGNAL_SAFE bool pep_ask_answer(const siginfo_t *info, ucontext_t *context);
/* A forked child: nobody waits for answers. */
void pep_ask_after_fork_child(void);

#endif
