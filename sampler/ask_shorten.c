/*
 * A call of limited time that is made again waits for what is left of it.
 *
 * Model:   who asks a waiting thread tells since when it waits. Milliseconds in a register are
 *          shortened there; where a register points to the time, it is made to point to a shortened
 *          copy, which stays until the thread's next question. nanosleep(2) has told what is left
 *          by itself where it was given a place; ppoll(2) and pselect(2) always have.
 * Writers: the handler, on the thread that was asked.  [signal]
 * Readers: the kernel, when the call is made again.
 * Memory:  a time for each slot of a thread, touched as it is used.
 * When full: a thread without a slot waits for the whole time anew.
 *
 * Source: the manual page of each call; the kernel leaves the registers of arguments as they were.
 */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>

#include "sampler/cpu_internal.h"

#define NS_PER_SECOND 1000000000ll

static struct timespec left[PEP_THREADS_MAX] PEP_LARGE;

PEP_SIGNAL_SAFE static void shorten_ms(greg_t *ms, int64_t waited_ns) {
    int limit = (int)*ms;
    if (limit <= 0)
        return;
    int64_t rest = limit - waited_ns / 1000000;
    *ms = rest > 0 ? rest : 0;
}

PEP_SIGNAL_SAFE static void shorten_time(greg_t *pointer, int64_t waited_ns) {
    struct timespec time;
    const struct pep_thread *thread = pep_thread_self();
    if (*pointer == 0 || thread == NULL ||
        pep_os_peek(&time, (uintptr_t)*pointer, sizeof time) != (long)sizeof time)
        return;
    struct timespec *mine = &left[pep_thread_index(thread)];
    int64_t seconds = time.tv_sec - waited_ns / NS_PER_SECOND;
    int64_t ns = time.tv_nsec - waited_ns % NS_PER_SECOND;
    if (ns < 0) {
        ns += NS_PER_SECOND;
        seconds--;
    }
    *mine = seconds < 0 ? (struct timespec){0, 0} : (struct timespec){seconds, ns};
    *pointer = (greg_t)(uintptr_t)mine;
}

/* The kernel has written what is left to a place of the caller's, when there is one. */
PEP_SIGNAL_SAFE static void shorten_sleep(greg_t *wanted, greg_t rest, int64_t waited_ns) {
    if (rest != 0)
        *wanted = rest;
    else
        shorten_time(wanted, waited_ns);
}

PEP_SIGNAL_SAFE void pep_ask_shorten(ucontext_t *context, uint64_t since_ns) {
    greg_t *registers = context->uc_mcontext.gregs;
    uint64_t now = pep_os_clock_ns(CLOCK_MONOTONIC);
    int64_t waited_ns = now > since_ns ? (int64_t)(now - since_ns) : 0;
    switch (registers[REG_RAX]) {
    case SYS_poll:
        shorten_ms(&registers[REG_RDX], waited_ns);
        break;
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
        shorten_ms(&registers[REG_R10], waited_ns);
        break;
    case SYS_nanosleep:
        shorten_sleep(&registers[REG_RDI], registers[REG_RSI], waited_ns);
        break;
    case SYS_clock_nanosleep:
        if (!(registers[REG_RSI] & TIMER_ABSTIME))
            shorten_sleep(&registers[REG_RDX], registers[REG_R10], waited_ns);
        break;
    case SYS_futex:
        if ((registers[REG_RSI] & FUTEX_CMD_MASK) == FUTEX_WAIT) /* all others: until when */
            shorten_time(&registers[REG_R10], waited_ns);
        break;
    case SYS_rt_sigtimedwait:
        shorten_time(&registers[REG_RDX], waited_ns);
        break;
    case SYS_semtimedop:
    case SYS_epoll_pwait2:
        shorten_time(&registers[REG_R10], waited_ns);
        break;
    case SYS_io_getevents:
        shorten_time(&registers[REG_R8], waited_ns);
        break;
    default:
        break;
    }
}
