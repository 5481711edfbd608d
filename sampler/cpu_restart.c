/*
 * A system call that our signal cut short is made again, so that the host never sees EINTR of
 * ours.
 *
 * Model:   SA_RESTART leaves out calls that wait for a limited time. Where the context of our
 *          signal shows one that has just returned EINTR, its number is read from the code in
 *          front of it and the thread goes back to the call; the arguments are still in their
 *          registers. A signal of CPU time hits a thread that runs, thus at the entry of the call,
 *          before it waits, and nothing is waited for twice. EINTR of the host's own signal is
 *          not touched: standard signals are delivered first, so ours is on top of the host's
 *          handler and shows that handler's first instruction (preload/hook_signal.c keeps our
 *          signal open in it).
 * Writers: the handler.  [signal]
 * Readers: -
 * Memory:  the stack.
 * When full: -
 *
 * Source: signal(7), "Interruption of system calls"; libc's wrappers: mov $nr,%eax; syscall.
 */
#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/counters.h"

#define CODE_BYTES 7 /* b8 nr nr nr nr 0f 05 */

/* The number of the call that returned to pc, or -1. */
PEP_SIGNAL_SAFE static long call_before(uintptr_t pc) {
    unsigned char code[CODE_BYTES];
    int nr;
    if (pep_os_peek(code, pc - CODE_BYTES, CODE_BYTES) != CODE_BYTES)
        return -1;
    if (code[0] != 0xb8 || code[5] != 0x0f || code[6] != 0x05)
        return -1;
    pep_copy(&nr, code + 1, sizeof nr);
    return nr;
}

/* Without a limit the kernel would have gone on by itself: the EINTR is another signal's. */
PEP_SIGNAL_SAFE static bool has_limit(long fd, int option) {
    long limit[2] = {0, 0};
    int size = sizeof limit;
    long r = pep_os_call6(SYS_getsockopt, fd, SOL_SOCKET, option, (long)limit, (long)&size, 0);
    return r == 0 && (limit[0] != 0 || limit[1] != 0);
}

/* Calls that did nothing yet when they return EINTR. connect(2) is none: it goes on. */
PEP_SIGNAL_SAFE static bool is_repeatable(long nr, long first) {
    switch (nr) {
    case SYS_poll:
    case SYS_ppoll:
    case SYS_select:
    case SYS_pselect6:
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_futex:
    case SYS_rt_sigtimedwait:
    case SYS_semop:
    case SYS_semtimedop:
    case SYS_msgsnd:
    case SYS_msgrcv:
    case SYS_io_getevents:
        return true;
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_accept:
    case SYS_accept4:
        return has_limit(first, SO_RCVTIMEO);
    case SYS_sendto:
    case SYS_sendmsg:
        return has_limit(first, SO_SNDTIMEO);
    default:
        return false;
    }
}

PEP_SIGNAL_SAFE void pep_cpu_restart_call(ucontext_t *context) {
    greg_t *registers = context->uc_mcontext.gregs;
    if (registers[REG_RAX] != -EINTR)
        return;
    /* syscall leaves its return address in rcx. */
    if (registers[REG_RCX] != registers[REG_RIP])
        return;
    long nr = call_before((uintptr_t)registers[REG_RIP]);
    if (nr < 0 || !is_repeatable(nr, (long)registers[REG_RDI]))
        return;
    registers[REG_RAX] = nr;
    registers[REG_RIP] -= 2;
    PEP_COUNT(calls_restarted, 1);
}
