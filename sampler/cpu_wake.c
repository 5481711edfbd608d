/*
 * One of profep's threads is woken out of its ppoll(2).
 *
 * Model:   by the signal with which libc has all threads take part in setuid(2): a thread of ours
 *          has it open, and nobody sends it to a process, so whoever wakes takes nothing that is
 *          the host's. libc's handler returns at once unless libc itself sent it. It is closed from
 *          the look at what is to be done to the call that waits for more.
 * Writers: whoever stops the listener, or has work for it.  [signal]
 * Readers: the listener.
 * Memory:  -
 * When full: the thread stays asleep; shutting its socket down is the second way.
 */
#include <signal.h>

#include "sampler/cpu.h"

#define SETXID 33 /* libc's SIGSETXID; its handler is there from the first thread on */
#define SETXID_BIT (1ull << (SETXID - 1))
#define LIBCS_OWN (3ull << 31)

uint64_t pep_cpu_wake_begin(void) {
    const uint64_t closed = SETXID_BIT;
    (void)pep_os_sigprocmask(SIG_BLOCK, &closed, NULL);
    return ~LIBCS_OWN;
}

void pep_cpu_wake_end(void) {
    const uint64_t closed = SETXID_BIT;
    (void)pep_os_sigprocmask(SIG_UNBLOCK, &closed, NULL);
}

PEP_SIGNAL_SAFE void pep_cpu_wake(int tid) {
    struct pep_ksigaction libcs;
    siginfo_t info;
    if (pep_os_sigaction(SETXID, NULL, &libcs) < 0 || libcs.handler == (void *)SIG_DFL)
        return;
    pep_zero(&info, sizeof info);
    info.si_signo = SETXID;
    info.si_code = SI_TIMER; /* as a timer's, so that an exec would flush it */
    (void)pep_os_tgsigqueueinfo(pep_os_getpid(), tid, SETXID, &info);
}
