/*
 * Which signal interrupts threads.
 *
 * Model:   a real-time one that the program leaves at its default when we come.
 * Writers: -
 * Readers: pep_cpu_init, in the constructor.  [normal]
 * Memory:  none.
 * When full: -EBUSY: the program has all of them.
 */
#include <errno.h>
#include <signal.h>

#include "sampler/cpu_internal.h"

#define RT_SIGNAL_MIN 35 /* 32 to 34 are libc's own or next to it */
#define RT_SIGNAL_MAX 64

static bool is_free(int sig) {
    struct pep_ksigaction now;
    return pep_os_sigaction(sig, NULL, &now) == 0 && now.handler == (void *)SIG_DFL;
}

/* From the top, but those last that programs take by name without looking: SIGRTMAX is everybody's
 * example, and Java interrupts its threads with SIGRTMAX - 2. */
int pep_cpu_choose_signal(int wanted) {
    if (wanted != 0)
        return wanted;
    for (int sig = RT_SIGNAL_MAX - 1; sig >= RT_SIGNAL_MIN; sig--)
        if (sig != RT_SIGNAL_MAX - 2 && is_free(sig))
            return sig;
    if (is_free(RT_SIGNAL_MAX - 2))
        return RT_SIGNAL_MAX - 2;
    return is_free(RT_SIGNAL_MAX) ? RT_SIGNAL_MAX : -EBUSY;
}
