/*
 * What the hooks of signals share: sets as numbers, our signal's bit, and who guards a default.
 *
 * Model:   the kernel holds our handler and an open mask; the host is told what it set itself.
 *          hook_signal_mask.c has the host's masks and waits, hook_signal_action.c its actions,
 *          hook_signal_guard.c stands where the host left a fatal signal at its default.
 * Writers: any thread, also in the host's handlers: no lock anywhere.  [signal]
 * Readers: the same.
 * Memory:  static; one thread-local byte.
 * When full: -
 */
#ifndef PEP_PRELOAD_HOOK_SIGNAL_H
#define PEP_PRELOAD_HOOK_SIGNAL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "preload/init.h"
#include "sampler/cpu.h"
#include "sampler/rt/attrs.h"

#define PEP_SIGNAL_BIT(n) (1UL << ((n)-1))
#define PEP_SA_RESTORER \
    0x04000000ul /* the kernel's SA_RESTORER, which libc's headers leave out \
                  */

/* Signal n's bit, n as a program may give it; 0: there is no such signal. */
PEP_SIGNAL_SAFE static inline uint64_t pep_hook_signal_bit_of(int n) {
    return n >= 1 && n <= 64 ? PEP_SIGNAL_BIT(n) : 0;
}

/* Our signal's; 0 while asleep. */
PEP_SIGNAL_SAFE static inline uint64_t pep_hook_signal_our_bit(void) {
    int n = pep_init_is_awake() ? pep_cpu_signal() : 0;
    return n > 0 ? PEP_SIGNAL_BIT(n) : 0;
}

/* libc and the kernel read the first 64 bits of a set; so do we, callers may own no more. */
PEP_SIGNAL_SAFE static inline uint64_t pep_hook_signal_bits(const sigset_t *set) {
    return set->__val[0];
}

PEP_SIGNAL_SAFE static inline void pep_hook_signal_set_bits(sigset_t *set, uint64_t bits) {
    set->__val[0] = bits;
}

/* hook_signal_guard.c: the bits of signals where a guard stands for the host's default. */
PEP_SIGNAL_SAFE uint64_t pep_hook_signal_guarded(void);
PEP_SIGNAL_SAFE bool pep_hook_signal_is_guard(const struct sigaction *action);
/* The action that stands for the default of a guarded signal. */
PEP_SIGNAL_SAFE void pep_hook_signal_make_guard(int n, struct sigaction *action);
/* The host set signal n to its default with these flags and this mask. */
PEP_SIGNAL_SAFE void pep_hook_signal_keep_default(int n, const struct sigaction *set);
/* What the host is told of a guard: its default. */
PEP_SIGNAL_SAFE void pep_hook_signal_show_default(int n, struct sigaction *old);

#endif
