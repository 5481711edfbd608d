/*
 * Threads that change their own rights: capset, some of prctl, seccomp.
 *
 * Model:   these work on the calling thread alone. An agent that keeps the old rights makes libc
 *          abort the program at its next setuid(3), which has to have one result in all threads;
 *          so where the host has one thread, the agent ends before and is born again after, with
 *          the same rights. A filter of system calls kills for calls like ours: before it is set
 *          the recording is written and the process left alone, for good.
 * Writers: any thread.  [hook]
 * Readers: -
 * Memory:  the stack.
 * When full: -
 *
 * Source: capabilities(7), prctl(2), seccomp(2), nptl(7) on credentials.
 */
#include <errno.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <sys/prctl.h>

#include "preload/init.h"
#include "preload/real.h"
#include "sampler/cpu.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

/* libc's prototype has an ellipsis. Arguments not given are whatever the registers hold, for the
 * real function as well. */
PEP_EXPORT int hook_prctl(int option, long a, long b, long c, long d) __asm__("prctl");
PEP_EXPORT int capset(void *header, const void *data);

static bool is_of_rights(int option) {
    switch (option) {
    case PR_SET_KEEPCAPS:
    case PR_SET_SECUREBITS:
    case PR_CAPBSET_DROP:
    case PR_CAP_AMBIENT:
    case PR_SET_NO_NEW_PRIVS:
        return true;
    default:
        return false;
    }
}

/* A call with no program is a question whether filters exist. */
static bool is_filter(int option, long mode, long program) {
    return option == PR_SET_SECCOMP &&
           (mode == SECCOMP_MODE_STRICT || (mode == SECCOMP_MODE_FILTER && program != 0));
}

bool pep_hook_rights_filter(long operation, long program) {
    bool is_set = operation == SECCOMP_SET_MODE_STRICT ||
                  (operation == SECCOMP_SET_MODE_FILTER && program != 0);
    return is_set && pep_init_retire();
}

/* As in hook_syscall.c: no look-up inside of an allocator that is starting. */
static int before_start(int option, long a, long b, long c, long d) {
    int result = pep_os_prctl(option, (unsigned long)a, (unsigned long)b, (unsigned long)c,
                              (unsigned long)d);
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return result;
}

static int (*next)(int, long, long, long, long) = before_start;

void pep_hook_rights_init(void) {
    pep_store_release((void **)(void *)&next, (void *)pep_real.prctl);
}

int hook_prctl(int option, long a, long b, long c, long d) {
    if (is_filter(option, a, b) && pep_init_retire()) {
        int result = next(option, a, b, c, d);
        if (result == -1)
            pep_init_unretire();
        return result;
    }
    if (option == PR_SET_TSC && a == PR_TSC_SIGSEGV)
        pep_cpu_forbid_tsc();
    if (!is_of_rights(option) || !pep_init_agent_steps_out())
        return next(option, a, b, c, d);
    int result = next(option, a, b, c, d);
    pep_init_agent_steps_in();
    return result;
}

int capset(void *header, const void *data) {
    if (!pep_init_agent_steps_out())
        return pep_real.capset(header, data);
    int result = pep_real.capset(header, data);
    pep_init_agent_steps_in();
    return result;
}
