#include "sampler/rt/table.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/syscall.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/log.h"
#include "sampler/rt/os.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define UNSHARE 2u /* CLOSE_RANGE_UNSHARE, which linux/close_range.h hides from older headers */
#define STANDARD_COUNT 3
#define LONG_NS 3600000000000ull

/* What word may hold. ENDED is a bit of its own: work that was asked for is done all the same. */
enum { IDLE = 0, ASKED = 1, DONE = 2, ENDED = 4 };

static PEP_TLS bool is_apart;
static int word = ENDED; /* a futex */
static struct {
    void (*work)(void *argument);
    void *argument;
} request; /* written before ASKED, read after it */

PEP_SIGNAL_SAFE bool pep_table_is_apart(void) {
    return is_apart;
}

/* A pipe of the host's must not be kept open, and no file of ours may stand where libc writes its
 * last words. */
static void replace_standard(void) {
    for (int number = 0; number < STANDARD_COUNT; number++)
        if (number != 2 || !pep_log_is_stderr())
            (void)pep_os_close(number);
    while (true) {
        int number = pep_os_open("/dev/null", O_RDWR | O_CLOEXEC, 0);
        if (number >= STANDARD_COUNT)
            (void)pep_os_close(number);
        if (number < 0 || number >= STANDARD_COUNT)
            return;
    }
}

bool pep_table_leave(void) {
    if (is_apart)
        return true;
    if (pep_os_call6(SYS_close_range, STANDARD_COUNT, UINT_MAX, UNSHARE, 0, 0, 0) < 0)
        return false;
    is_apart = true;
    replace_standard();
    return true;
}

void pep_table_inherit(void) {
    is_apart = true;
}

bool pep_table_run(void (*work)(void *argument), void *argument) {
    if (!is_apart) {
        work(argument);
        return true;
    }
    if (pep_load_acquire(&word) != IDLE)
        return false;
    request.work = work;
    request.argument = argument;
    int idle = IDLE;
    /* release: pairs with the acquire in pep_table_serve */
    if (!pep_cas_acq_rel(&word, &idle, ASKED))
        return false;
    (void)pep_os_futex_wake(&word, INT_MAX);
    for (;;) {
        int now = pep_load_acquire(&word);
        if (now & DONE)
            break;
        (void)pep_os_futex_wait(&word, now, LONG_NS);
    }
    (void)__atomic_fetch_and(&word, ~DONE, __ATOMIC_ACQ_REL);
    return true;
}

void pep_table_serve(uint64_t deadline_ns) {
    for (;;) {
        int now = pep_load_acquire(&word);
        if (now & ASKED) {
            request.work(request.argument);
            /* DONE instead of ASKED, whatever came meanwhile */
            (void)__atomic_fetch_xor(&word, ASKED | DONE, __ATOMIC_ACQ_REL);
            (void)pep_os_futex_wake(&word, INT_MAX);
            continue;
        }
        if (now & ENDED)
            return;
        uint64_t now_ns = deadline_ns != 0 ? pep_os_clock_ns(CLOCK_MONOTONIC) : 0;
        if (deadline_ns != 0 && now_ns >= deadline_ns)
            return;
        (void)pep_os_futex_wait(&word, now, deadline_ns != 0 ? deadline_ns - now_ns : LONG_NS);
    }
}

void pep_table_serve_end(void) {
    (void)__atomic_fetch_or(&word, ENDED, __ATOMIC_ACQ_REL);
    (void)pep_os_futex_wake(&word, INT_MAX);
}

void pep_table_serve_anew(void) {
    pep_store_release(&word, IDLE);
}
