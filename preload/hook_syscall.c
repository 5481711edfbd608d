/*
 * syscall(2), for the few calls that must not surprise us: exec, rights and filters.
 *
 * Model:   a signal of perf's that comes while execve works outlives the program and ends the next
 *          one (only timers' signals are flushed by it), so the sampler lets go of the thread
 *          first, as it does for libc's exec functions. Rights and filters: hook_rights.c. Futexes:
 *          hook_lock_futex.c. Children are noted. Every other number goes through untouched.
 * Writers: any host thread.  [hook]
 * Readers: -
 * Memory:  none.
 * When full: -
 */
#include <errno.h>
#include <sys/syscall.h>

#include "http/server.h"
#include "preload/init.h"
#include "preload/real.h"
#include "sampler/cpu.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

/* hook_rights.c, under libc's names. */
int hook_prctl(int option, long a, long b, long c, long d) __asm__("prctl");
int capset(void *header, const void *data);

/* The header declares it with an ellipsis; integer arguments travel alike (System V ABI for x86-64,
 * 3.5.7), so the hook has a name of its own in C and libc's name for the linker. */
PEP_EXPORT long pep_hook_syscall(long nr, long a, long b, long c, long d, long e,
                                 long f) __asm__("syscall");

/* Until the originals are known: to look one up allocates, and an allocator that is starting makes
 * system calls this way (jemalloc), so there is no way to ask. */
static long before_start(long nr, long a, long b, long c, long d, long e, long f) {
    long result = pep_os_call6(nr, a, b, c, d, e, f);
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

static long (*next)(long, long, long, long, long, long, long) = before_start;

void pep_hook_syscall_init(void) {
    pep_store_release((void **)(void *)&next, (void *)pep_real_map.syscall);
}

static __attribute__((noinline)) long special(long nr, long a, long b, long c, long d, long e,
                                              long f) {
    if (nr == SYS_prctl)
        return hook_prctl((int)a, b, c, d, e);
    if (nr == SYS_capset)
        return capset((void *)a, (const void *)b);
    if (nr == SYS_seccomp) {
        bool is_left = pep_hook_rights_filter(a, c);
        long result = next(nr, a, b, c, d, e, f);
        if (is_left && result == -1)
            pep_init_unretire();
        return result;
    }
    bool is_known = pep_init_is_awake() && pep_init_is_this_process() && !pep_thread_is_own();
    if (is_known) {
        pep_server_lines_recall();
        pep_cpu_exec_begin();
    }
    long result = next(nr, a, b, c, d, e, f);
    if (is_known) {
        pep_cpu_exec_failed();
        pep_server_lines_recall_end();
    }
    return result;
}

/* Jumps, not calls: after vfork a child returns from here first, on its parent's stack. */
PEP_EXPORT long pep_hook_syscall(long nr, long a, long b, long c, long d, long e, long f) {
    switch (nr) {
    case SYS_execve:
    case SYS_execveat:
    case SYS_prctl:
    case SYS_capset:
    case SYS_seccomp:
        return special(nr, a, b, c, d, e, f);
    case SYS_fork:
    case SYS_vfork:
    case SYS_clone:
    case SYS_clone3:
        pep_hook_vfork_note(nr == SYS_vfork);
        return next(nr, a, b, c, d, e, f);
    case SYS_futex:
        if (pep_hook_lock_is_futex_noted((const void *)a, b))
            return pep_hook_lock_futex((const long[7]){nr, a, b, c, d, e, f});
        return next(nr, a, b, c, d, e, f);
    default:
        return next(nr, a, b, c, d, e, f);
    }
}
