/*
 * Since when a thread waits, as the scheduler remembers it.
 *
 * Model:   /proc/self/task/T/sched tells the scheduler's clock when the thread last ran. Each
 *          processor has its own: it leaves out time that a hypervisor took (and interrupts, where
 *          the kernel counts them). How far CLOCK_MONOTONIC is ahead of it, our own thread finds
 *          out there: it goes to the processor, once a looker, and again for a wait that began
 *          behind that. What is taken between the wait's beginning and the measuring makes the wait
 *          told too short; never is it told too long, as what is left of a call's time is reckoned
 *          from it. (What /proc/stat calls stolen is no measure: here the clocks leave out a tenth
 *          less, 2.84 s and 3.00 s of 34 s, and two processors were 157 ms apart by it.)
 * Writers: -
 * Readers: the dump.  [normal]
 * Memory:  the looker's; two numbers a processor.
 * When full: waits on a processor above PEP_LOOK_PROCESSORS, or where we may not go, are unknown.
 *
 * Source: proc(5), kernel/sched/debug.c (se.exec_start, ms with six digits); update_rq_clock_task.
 */
#include <string.h>
#include <sys/syscall.h>

#include "sampler/look_internal.h"
#include "sampler/rt/os.h"

#define UNKNOWN INT64_MAX
#define MEASURES 8
#define GOOD_NS 100000u
#define MASK_BYTES 1024 /* of the processors that Linux may have, 8192 */

static uint64_t take_number(const char **text) {
    uint64_t value = 0;
    while (**text == ' ')
        (*text)++;
    for (; **text >= '0' && **text <= '9'; (*text)++)
        value = value * 10 + (uint64_t)(**text - '0');
    return value;
}

/* "se.exec_start   :   11649441.016776": ns, or 0. */
static uint64_t last_ran(struct pep_looker *looker, int tid) {
    if (pep_look_read(looker, tid, "sched") <= 0)
        return 0;
    const char *at = strstr(looker->text, "se.exec_start");
    at = at != NULL ? strchr(at, ':') : NULL;
    if (at == NULL)
        return 0;
    at++;
    uint64_t ms = take_number(&at);
    if (*at++ != '.')
        return 0;
    return ms * 1000000 + take_number(&at);
}

/* How far CLOCK_MONOTONIC is ahead of the scheduler's clock of the processor that we are bound to.
 * Our own thread's clock is brought up to date by asking for its CPU time; the reading that took
 * least counts, as we may lose the processor in the midst of it; and its end, as no later can that
 * clock have been brought up to date. */
static int64_t measure_ahead(struct pep_looker *looker) {
    uint64_t least = UINT64_MAX;
    int64_t ahead = UNKNOWN;
    int tid = pep_os_gettid();
    for (int i = 0; i < MEASURES && least > GOOD_NS; i++) {
        uint64_t began = pep_os_clock_ns(CLOCK_MONOTONIC);
        (void)pep_os_clock_ns(CLOCK_THREAD_CPUTIME_ID);
        uint64_t ran = last_ran(looker, tid), ended = pep_os_clock_ns(CLOCK_MONOTONIC);
        if (ran == 0 || ended - began >= least)
            continue;
        least = ended - began;
        ahead = (int64_t)(ended - ran);
    }
    return ahead;
}

static long bind_to(const unsigned char *mask, long bytes) {
    return pep_os_call6(SYS_sched_setaffinity, 0, bytes, (long)mask, 0, 0, 0);
}

static bool is_on(int processor) {
    unsigned number = 0;
    return pep_os_call6(SYS_getcpu, (long)&number, 0, 0, 0, 0, 0) == 0 && (int)number == processor;
}

/* Only where the host's threads may run anyway: a processor set apart is not disturbed. */
static void measure(struct pep_looker *looker, int processor) {
    unsigned char allowed[MASK_BYTES] = {0}, one[MASK_BYTES] = {0};
    looker->ahead_ns[processor] = UNKNOWN;
    looker->measured_ns[processor] = pep_os_clock_ns(CLOCK_MONOTONIC);
    long bytes = pep_os_call6(SYS_sched_getaffinity, 0, sizeof allowed, (long)allowed, 0, 0, 0);
    one[processor / 8] = (unsigned char)(1u << processor % 8);
    if (bytes <= 0 || !(allowed[processor / 8] & one[processor / 8]))
        return;
    if (bind_to(one, bytes) == 0 && is_on(processor))
        looker->ahead_ns[processor] = measure_ahead(looker);
    (void)bind_to(allowed, bytes);
}

static uint64_t since_when(const struct pep_looker *looker, int processor, uint64_t ran) {
    int64_t ahead = looker->ahead_ns[processor];
    return ahead == UNKNOWN ? 0 : ran + (uint64_t)ahead;
}

uint64_t pep_look_since(struct pep_looker *looker, const struct pep_look *look) {
    int processor = look->processor;
    if (look->kind == PEP_LOOK_RUNS || look->kind == PEP_LOOK_GONE || processor < 0 ||
        processor >= PEP_LOOK_PROCESSORS)
        return 0;
    uint64_t ran = last_ran(looker, look->tid);
    if (ran == 0)
        return 0;
    if (looker->measured_ns[processor] == 0)
        measure(looker, processor);
    uint64_t since = since_when(looker, processor, ran);
    /* What was taken between the measuring and a wait that began behind it is not in it yet. */
    if (since > looker->measured_ns[processor]) {
        measure(looker, processor);
        since = since_when(looker, processor, ran);
    }
    uint64_t now = pep_os_clock_ns(CLOCK_MONOTONIC);
    return since < now ? since : now;
}
