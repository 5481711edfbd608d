/*
 * syscall(2), for the one system call that must not surprise us: execve.
 *
 * Model:   a signal of perf's that comes while execve works outlives the program and ends the next
 *          one (only timers' signals are flushed by it), so the sampler lets go of the thread
 * first, as it does for libc's exec functions. Every other number goes through untouched. Writers:
 * any host thread.  [hook] Readers: - Memory:  none. When full: -
 */
#include <sys/syscall.h>

#include "preload/init.h"
#include "preload/real.h"
#include "sampler/cpu.h"
#include "sampler/rt/attrs.h"
#include "sampler/thread.h"

/* The header declares it with an ellipsis; integer arguments travel alike (System V ABI for x86-64,
 * 3.5.7), so the hook has a name of its own in C and libc's name for the linker. */
PEP_EXPORT long pep_hook_syscall(long nr, long a, long b, long c, long d, long e,
                                 long f) __asm__("syscall");

PEP_EXPORT long pep_hook_syscall(long nr, long a, long b, long c, long d, long e, long f) {
    if (pep_likely(nr != SYS_execve && nr != SYS_execveat))
        return pep_real.syscall(nr, a, b, c, d, e, f);
    bool is_known = pep_init_is_awake() && pep_init_is_this_process() && !pep_thread_is_own();
    if (is_known)
        pep_cpu_exec_begin();
    long result = pep_real.syscall(nr, a, b, c, d, e, f);
    if (is_known)
        pep_cpu_exec_failed();
    return result;
}
