/*
 * The armer: the thread that holds the events of perf while a window is open.
 *
 * Model:   it has a table of descriptors of its own, with nothing but events in it, so the host can
 *          neither see nor close them, and whoever has one to arm, to tend or to close asks here.
 *          Slots to look at are bits: a handler sets one and is not waited for. It ends with the
 *          last window.
 * Writers: attention, word: anybody.  [signal]
 * Readers: the armer.
 * Memory:  static; a stack while it runs.
 * When full: without it the threads are sampled by timers.
 */
#include <errno.h>
#include <limits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/spawn.h"
#include "sampler/rt/table.h"

#define LOOK_PERIODS 32 /* the time between two looks at slots that were noted */
#define LOOK_NS_MIN (1000000000u / PEP_CPU_LOOK_HZ)
#define LOOK_NS_MAX 100000000u
#define CLOSED_TRIES 100
/* A host's thread waits here as it comes back from fork(2). Parents look in /proc whether a child
 * sleeps already, as it will where it is ready for their signal: it must not before. */
#define YIELDS_MAX 10000
#define CLOSED_WAIT_NS 10000000u

/* What word may hold. */
enum { ASKED = 1, DONE = 2, ENDED = 4, CALLED = 8 };

static int word; /* a futex */
static struct {
    void (*work)(void *argument);
    void *argument;
} request; /* written before ASKED, read after it */
static uint64_t attention[PEP_THREADS_MAX / 64] PEP_LARGE;
static int rounds; /* a futex: rises after each closing of orphans */
static int is_running;
static pthread_t armer;
static PEP_TLS bool is_here;

PEP_SIGNAL_SAFE bool pep_cpu_armer_is_running(void) {
    return pep_load_acquire(&is_running) != 0;
}

PEP_SIGNAL_SAFE bool pep_cpu_armer_is_here(void) {
    return is_here;
}

PEP_SIGNAL_SAFE void pep_cpu_armer_note(struct pep_thread *thread) {
    uint32_t index = pep_thread_index(thread);
    (void)pep_or_release(&attention[index / 64], 1ull << index % 64);
}

PEP_SIGNAL_SAFE static void call(void) {
    if (!(pep_or_acq_rel(&word, CALLED) & CALLED))
        (void)pep_os_futex_wake(&word, INT_MAX);
}

PEP_SIGNAL_SAFE void pep_cpu_armer_call(struct pep_thread *thread) {
    pep_cpu_armer_note(thread);
    call();
}

PEP_SIGNAL_SAFE void pep_cpu_armer_await_closed(int fd) {
    for (int i = 0; i < CLOSED_TRIES && pep_cpu_armer_is_running(); i++) {
        int round = pep_load_acquire(&rounds);
        if (pep_cpu_perf_is_closed(fd))
            return;
        call();
        (void)pep_os_futex_wait(&rounds, round, CLOSED_WAIT_NS);
    }
}

/* -- the thread ----------------------------------------------------------------------------- */

static void close_orphans(void) {
    pep_cpu_perf_close_orphans();
    (void)pep_add_acq_rel(&rounds, 1);
    (void)pep_os_futex_wake(&rounds, INT_MAX);
}

/* True when there was something to look at. */
static bool attend(void) {
    bool is_any = false;
    for (uint32_t i = 0; i * 64 < pep_threads_limit(); i++) {
        if (pep_load_relaxed(&attention[i]) == 0)
            continue;
        is_any = true;
        /* acquire: pairs with the release in pep_cpu_armer_note */
        for (uint64_t bits = pep_swap_acq_rel(&attention[i], 0); bits != 0; bits &= bits - 1)
            pep_cpu_attend(pep_thread_at(i * 64 + (uint32_t)__builtin_ctzll(bits)));
    }
    close_orphans();
    return is_any;
}

static uint64_t look_ns(void) {
    uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
    uint64_t ns = hz != 0 ? LOOK_PERIODS * 1000000000ull / hz : LOOK_NS_MAX;
    return ns < LOOK_NS_MIN ? LOOK_NS_MIN : ns > LOOK_NS_MAX ? LOOK_NS_MAX : ns;
}

static void serve(void) {
    uint64_t pause_ns = LOOK_NS_MIN;
    for (;;) {
        int now = pep_load_acquire(&word);
        if (now & ASKED) {
            request.work(request.argument);
            close_orphans();
            /* DONE instead of ASKED, whatever came meanwhile */
            (void)pep_xor_acq_rel(&word, ASKED | DONE);
            (void)pep_os_futex_wake(&word, INT_MAX);
            pause_ns = LOOK_NS_MIN;
            continue;
        }
        if (now & ENDED)
            return;
        now = pep_and_acq_rel(&word, ~CALLED) & ~CALLED;
        if (now & (ASKED | ENDED)) /* came just now: nobody would wake us for it again */
            continue;
        bool is_any = attend();
        uint64_t next_ns = is_any ? look_ns() : 2 * pause_ns;
        pause_ns = next_ns < LOOK_NS_MAX ? next_ns : LOOK_NS_MAX;
        bool is_idle = pep_load_relaxed(&pep_cpu.perfs) == 0;
        (void)pep_os_futex_wait(&word, now, is_idle ? UINT64_MAX : pause_ns);
    }
}

static void *run(void *unused) {
    pep_thread_become_own();
    pep_os_prctl(PR_SET_NAME, (unsigned long)"profep-cpu", 0, 0, 0);
    is_here = true;
    (void)pep_table_leave();
    pep_cpu_perf_limits();
    serve();
    close_orphans();
    return unused;
}

/* -- who asks ------------------------------------------------------------------------------- */

int pep_cpu_armer_start(void) {
    if (pep_cpu_armer_is_running())
        return 0;
    pep_store_release(&word, 0);
    int r = pep_spawn(run, NULL, &armer);
    if (r == 0)
        pep_store_release(&is_running, 1);
    return r;
}

void pep_cpu_armer_stop(void) {
    if (!pep_cpu_armer_is_running())
        return;
    (void)pep_or_acq_rel(&word, ENDED);
    (void)pep_os_futex_wake(&word, INT_MAX);
    (void)pthread_join(armer, NULL);
    pep_store_release(&is_running, 0);
}

void pep_cpu_armer_run(void (*work)(void *argument), void *argument) {
    if (!pep_cpu_armer_is_running()) {
        work(argument);
        return;
    }
    request.work = work;
    request.argument = argument;
    (void)pep_or_acq_rel(&word, ASKED);
    (void)pep_os_futex_wake(&word, INT_MAX);
    int yields = pep_thread_is_own() ? 0 : YIELDS_MAX;
    for (;;) {
        int now = pep_load_acquire(&word);
        if (now & DONE)
            break;
        if (yields-- > 0)
            pep_os_call6(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
        else
            (void)pep_os_futex_wait(&word, now, UINT64_MAX);
    }
    (void)pep_and_acq_rel(&word, ~DONE);
}

void pep_cpu_armer_after_fork_child(void) {
    is_running = 0;
    pep_zero(attention, sizeof attention);
}
