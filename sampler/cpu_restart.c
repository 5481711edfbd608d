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
 *          handler and shows that handler's first instruction (preload/hook_signal_action.c keeps
 *          our signal open in it); and once that handler has returned, rcx is another.
 * Writers: the handler.  [signal]
 * Readers: -
 * Memory:  the stack.
 * When full: -
 *
 * Source: signal(7), "Interruption of system calls"; libc's wrappers: mov $nr,%eax (or
 * xor %eax,%eax), a few arguments, syscall.
 */
#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/counters.h"

#define CODE_BYTES 32 /* far enough back for the instruction that loads the number */

/* What stands between that and syscall loads arguments: a few kinds of instructions. Their length,
 * or 0 for any other, and for those that touch eax. */
PEP_SIGNAL_SAFE static int length_of(const unsigned char *code) {
    const unsigned char *at = code;
    unsigned rex = (*at & 0xf0) == 0x40 ? *at++ : 0;
    if (*at >= ((rex & 1) ? 0xb8 : 0xb9) && *at <= 0xbf && !(rex & 8))
        return (int)(at - code) + 5; /* mov $imm32 */
    if (at[0] == 0x0f && (at[1] & 0xf0) == 0x40)
        at++; /* cmov */
    else if ((*at & 0xfd) != 0x89 && *at != 0x8d && *at != 0x31 && *at != 0x80 && *at != 0x83)
        return 0; /* mov, lea, xor, op $imm8 */
    int immediate = *at == 0x80 || *at == 0x83;
    unsigned modrm = *++at, mod = modrm >> 6, reg = modrm >> 3 & 7, rm = modrm & 7;
    if ((reg == 0 && !(rex & 4) && !immediate) || (mod == 3 && rm == 0 && !(rex & 1)))
        return 0;
    int wide = mod == 2 || (mod == 0 && rm == 5) ? 4 : mod == 1 ? 1 : 0;
    if (mod != 3 && rm == 4) {
        wide = mod == 0 && (at[1] & 7) == 5 ? 4 : wide;
        at++;
    }
    return (int)(at - code) + 1 + wide + immediate;
}

/* Behind such a byte the next may be the middle of an instruction: a prefix for other registers,
 * or an opcode with operands. */
PEP_SIGNAL_SAFE static bool is_inside(unsigned char before) {
    return (before & 0xf0) == 0x40 || (before & 0xfc) == 0x88 || before == 0x8d || before == 0x80 ||
           before == 0x83 || before == 0x31 || before == 0x0f;
}

/* The number that is loaded at code, count bytes before the end of syscall; -1: none is. */
PEP_SIGNAL_SAFE static long number_at(const unsigned char *code, int count) {
    int nr = 0, at = 2; /* xor %eax,%eax */
    if (is_inside(code[-1]))
        return -1;
    if (code[0] == 0xb8) {
        pep_copy(&nr, code + 1, sizeof nr);
        at = 5;
    } else if (code[0] != 0x31 || code[1] != 0xc0) {
        return -1;
    }
    while (at < count - 2) {
        int length = length_of(code + at);
        if (length == 0)
            return -1;
        at += length;
    }
    return at == count - 2 && nr >= 0 && nr < 512 ? nr : -1;
}

/* The number of the call that returned to pc, or -1: also when the bytes can be read in two ways.
 */
PEP_SIGNAL_SAFE static long call_before(uintptr_t pc) {
    unsigned char code[CODE_BYTES + 16] = {0}; /* an instruction is at most 16 bytes long */
    if (pep_os_peek(code, pc - CODE_BYTES, CODE_BYTES) != CODE_BYTES ||
        code[CODE_BYTES - 2] != 0x0f || code[CODE_BYTES - 1] != 0x05)
        return -1;
    long found = -1;
    for (int count = 4; count < CODE_BYTES; count++) {
        long nr = number_at(code + CODE_BYTES - count, count);
        if (nr >= 0 && found >= 0 && nr != found)
            return -1;
        found = nr >= 0 ? nr : found;
    }
    return found;
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
    case SYS_pause:
    case SYS_rt_sigsuspend:
    case SYS_poll:
    case SYS_ppoll:
    case SYS_select:
    case SYS_pselect6:
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2:
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
    case SYS_read:
    case SYS_readv:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_accept:
    case SYS_accept4:
        return has_limit(first, SO_RCVTIMEO);
    case SYS_write:
    case SYS_writev:
    case SYS_sendto:
    case SYS_sendmsg:
        return has_limit(first, SO_SNDTIMEO);
    default:
        return false;
    }
}

/* The kernel lets other calls begin again after our handler: the thread stands at syscall, and rcx
 * behind it. */
PEP_SIGNAL_SAFE static bool begins_again(const greg_t *registers) {
    unsigned char code[2];
    return registers[REG_RCX] == registers[REG_RIP] + 2 && registers[REG_RAX] >= 0 &&
           registers[REG_RAX] < 512 && pep_os_peek(code, (uintptr_t)registers[REG_RIP], 2) == 2 &&
           code[0] == 0x0f && code[1] == 0x05;
}

/* What rcx says until the call is made, which is at once: a signal of the host's that comes before
 * that would have ended the call, had it come alone, and so ends it (cpu_entry_x86_64.c). */
PEP_SIGNAL_SAFE bool pep_cpu_restart_call(ucontext_t *context) {
    greg_t *registers = context->uc_mcontext.gregs;
    if (begins_again(registers)) {
        registers[REG_RCX] = -registers[REG_RIP];
        return false;
    }
    /* syscall leaves its return address in rcx. */
    if (registers[REG_RAX] != -EINTR || registers[REG_RCX] != registers[REG_RIP])
        return false;
    long nr = call_before((uintptr_t)registers[REG_RIP]);
    if (nr < 0 || !is_repeatable(nr, (long)registers[REG_RDI]))
        return false;
    registers[REG_RAX] = nr;
    registers[REG_RIP] -= 2;
    registers[REG_RCX] = ~registers[REG_RIP];
    PEP_COUNT(calls_restarted, 1);
    return true;
}
