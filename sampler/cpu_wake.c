/*
 * One of profep's threads is woken out of its ppoll(2) by our own signal.
 *
 * Model:   the signal is as a timer's, with a value of its own; that the call was cut short is all
 *          there is to it.
 * Writers: whoever stops the listener, or has work for it.  [signal]
 * Readers: the handler.  [signal]
 * Memory:  -
 * When full: the thread stays asleep; shutting its socket down is the second way.
 */
#include <signal.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"

uint64_t pep_cpu_wake_mask(void) {
    int sig = pep_load_relaxed(&pep_cpu.signal);
    uint64_t open = 3ull << 31; /* 32 and 33 are libc's own: setuid(2) of the host waits for them */
    return ~(sig != 0 ? open | 1ull << (sig - 1) : open);
}

PEP_SIGNAL_SAFE void pep_cpu_wake(int tid) {
    siginfo_t info;
    int sig = pep_load_relaxed(&pep_cpu.signal);
    if (sig == 0 || pep_cpu_handler_check() < 0)
        return;
    pep_zero(&info, sizeof info);
    info.si_signo = sig;
    info.si_code = SI_TIMER; /* as a timer's, so that an exec would flush it */
    info.si_value.sival_ptr = &pep_cpu_wake_cookie;
    (void)pep_os_tgsigqueueinfo(pep_os_getpid(), tid, sig, &info);
}
