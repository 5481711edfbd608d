#include "http/peek.h"

#include <limits.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/log.h"
#include "sampler/rt/os.h"
#include "sampler/rt/spawn.h"
#include "sampler/rt/table.h"
#include "sampler/thread.h"

enum state { CLOSED = 0, OPEN, ASKED, RUNNING, AWAY };

static struct {
    struct pep_peek_options options;
    int state;       /* enum state; a futex word */
    int sig, tid;    /* who asked: written before ASKED */
    int is_stopping; /* a futex word */
    bool is_apart;
} peek;

PEP_SIGNAL_SAFE static bool change(enum state from, enum state to) {
    int expected = (int)from;
    return pep_cas_acq_rel(&peek.state, &expected, (int)to);
}

PEP_SIGNAL_SAFE enum pep_peek_answer pep_peek_ask(int sig, int tid) {
    int state = pep_load_acquire(&peek.state);
    if (state == CLOSED)
        return PEP_PEEK_NOBODY;
    if (state != OPEN)
        return PEP_PEEK_BUSY;
    /* Two that come at once are both threads of the host's, with the same signal. */
    pep_store_relaxed(&peek.sig, sig);
    pep_store_relaxed(&peek.tid, tid);
    return change(OPEN, ASKED) ? PEP_PEEK_TAKEN : PEP_PEEK_BUSY;
}

/* -- the report's thread -------------------------------------------------------------------- */

static bool wait_until_stopped(struct pep_client *client PEP_UNUSED, uint64_t ns) {
    if (!pep_load_acquire(&peek.is_stopping) && ns > 0)
        pep_os_futex_wait(&peek.is_stopping, 0, ns);
    return !pep_load_acquire(&peek.is_stopping);
}

static void report(void) {
    struct pep_client client = {.wait = wait_until_stopped};
    struct pep_stderr to;
    const struct pep_peek_job job = {
        .sig = pep_load_relaxed(&peek.sig),
        .tid = pep_load_relaxed(&peek.tid),
        .options = peek.options,
        .client = &client,
        .to = &to,
    };
    int error = pep_stderr_open(&to, job.tid);
    if (!error)
        error = pep_peek_report(&job);
    pep_stderr_close(&to);
    if (error)
        pep_log("the peek was not printed whole: %s", strerrordesc_np(-error));
}

static void *run(void *argument) {
    pep_thread_become_own();
    pep_os_prctl(PR_SET_NAME, (unsigned long)"profep-peek", 0, 0, 0);
    if (peek.is_apart)
        pep_table_inherit();
    PEP_COUNT(peeks, 1);
    report();
    pep_store_release(&peek.state, AWAY);
    pep_fence_seq_cst(); /* pairs with pep_peek_open: it sees AWAY, or we that it was */
    if (!pep_load_acquire(&peek.is_stopping))
        (void)change(AWAY, OPEN);
    pep_os_futex_wake(&peek.state, INT_MAX);
    return argument;
}

/* -- the listening thread ------------------------------------------------------------------- */

void pep_peek_open(const struct pep_peek_options *options) {
    peek.options = *options;
    pep_store_release(&peek.is_stopping, 0);
    pep_fence_seq_cst();
    if (!change(CLOSED, OPEN))
        (void)change(AWAY, OPEN);
}

void pep_peek_serve(void) {
    if (!change(ASKED, RUNNING))
        return;
    peek.is_apart = pep_table_is_apart();
    int error = pep_spawn(run, NULL, NULL);
    if (!error)
        return;
    pep_log("there is no thread for a peek: %s", strerrordesc_np(-error));
    pep_store_release(&peek.state, OPEN);
}

void pep_peek_stop(uint64_t ns) {
    uint64_t deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + ns, now_ns;
    pep_store_release(&peek.is_stopping, 1);
    pep_os_futex_wake(&peek.is_stopping, INT_MAX);
    if (!change(OPEN, AWAY))
        (void)change(ASKED, AWAY);
    while (pep_load_acquire(&peek.state) == RUNNING &&
           (now_ns = pep_os_clock_ns(CLOCK_MONOTONIC)) < deadline_ns)
        pep_os_futex_wait(&peek.state, RUNNING, deadline_ns - now_ns);
}

void pep_peek_after_fork_child(void) {
    peek.state = CLOSED;
    peek.is_stopping = 0;
}
