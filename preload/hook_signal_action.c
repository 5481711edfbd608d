/*
 * The sigaction and signal families: our one signal and our guards, out of the host's sight.
 *
 * Model:   the host's action for our number is kept beside ours. To the mask of a handler for a
 *          crash our signal is added, from that of any other it is taken; the host is told neither.
 * Writers: any thread, also in the host's handlers: no lock anywhere.  [signal]
 * Readers: the same.
 * Memory:  static.
 * When full: -
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>

#include "preload/hook_signal.h"
#include "preload/real.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

/* Bit n-1: to the mask of the host's handler for signal n we added our signal, which the host
 * is not told. */
static uint64_t padded_masks;

/* The same for handlers from whose mask we took our signal: kept pending over the handler, it would
 * come when the interrupted call has just returned EINTR, which is the host's (cpu_restart.c). */
static uint64_t opened_masks;

/* Exported by libc, declared by no header. */
int __sigaction(int n, const struct sigaction *set, struct sigaction *old);
sighandler_t bsd_signal(int n, sighandler_t handler);
sighandler_t sysv_signal(int n, sighandler_t handler);

/* Handlers of these on an alternate stack may have no room below them for another frame of
 * several KiB; our signal waits until they return. */
#define CRASHES \
    (PEP_SIGNAL_BIT(SIGSEGV) | PEP_SIGNAL_BIT(SIGBUS) | PEP_SIGNAL_BIT(SIGILL) | \
     PEP_SIGNAL_BIT(SIGFPE) | PEP_SIGNAL_BIT(SIGABRT))

/* -- what the kernel gets, what the host is told -------------------------------------------- */

PEP_SIGNAL_SAFE static void show_own(const struct pep_ksigaction *host, struct sigaction *old) {
    pep_zero(old, sizeof(*old));
    old->sa_handler = (sighandler_t)host->handler;
    old->sa_flags = (int)host->flags;
    pep_hook_signal_set_bits(&old->sa_mask, host->mask);
}

/* A child of vfork(2) has our memory and actions of its own, which are the kernel's from the moment
 * that it sets one. */
PEP_SIGNAL_SAFE static int action_apart(int n, const struct sigaction *set, struct sigaction *old) {
    struct pep_ksigaction host;
    int result = pep_real.sigaction(n, set, old);
    if (result != 0 || !old || !pep_cpu_is_handler((void *)old->sa_handler))
        return result;
    pep_cpu_host_action(NULL, &host);
    show_own(&host, old);
    return 0;
}

/* Our own number: kept for foreign signals, never given to the kernel. */
PEP_SIGNAL_SAFE static void own_action(const struct sigaction *set, struct sigaction *old) {
    struct pep_ksigaction in = {.handler = NULL}, out;
    if (set) {
        in.handler = (void *)set->sa_handler;
        in.flags = (unsigned long)set->sa_flags;
        in.mask = pep_hook_signal_bits(&set->sa_mask);
    }
    if (in.handler == (void *)SIG_IGN)
        pep_cpu_forget_pending();
    pep_cpu_host_action(set ? &in : NULL, &out);
    if (old)
        show_own(&out, old);
}

/* What the host is told of an action that the kernel holds. */
PEP_SIGNAL_SAFE static void show_action(int n, struct sigaction *old, uint64_t padded,
                                        uint64_t opened) {
    if (pep_hook_signal_is_guard(old))
        pep_hook_signal_show_default(n, old);
    else if (padded & pep_hook_signal_bit_of(n))
        pep_hook_signal_set_bits(&old->sa_mask,
                                 pep_hook_signal_bits(&old->sa_mask) & ~pep_hook_signal_our_bit());
    else if (opened & pep_hook_signal_bit_of(n))
        pep_hook_signal_set_bits(&old->sa_mask,
                                 pep_hook_signal_bits(&old->sa_mask) | pep_hook_signal_our_bit());
}

/* True for a handler whose mask gets our signal added. */
PEP_SIGNAL_SAFE static bool is_padded(int n, const struct sigaction *set) {
    return (pep_hook_signal_bit_of(n) & CRASHES) && (set->sa_flags & SA_ONSTACK) &&
           set->sa_handler != SIG_DFL && set->sa_handler != SIG_IGN &&
           !(pep_hook_signal_bits(&set->sa_mask) & pep_hook_signal_our_bit());
}

/* True for a handler from whose mask our signal is taken. */
PEP_SIGNAL_SAFE static bool is_opened(int n, const struct sigaction *set) {
    return pep_hook_signal_bit_of(n) && !(pep_hook_signal_bit_of(n) & CRASHES) &&
           set->sa_handler != SIG_DFL && set->sa_handler != SIG_IGN &&
           (pep_hook_signal_bits(&set->sa_mask) & pep_hook_signal_our_bit());
}

/* What the kernel gets for what the host sets; copy is room for it. */
PEP_SIGNAL_SAFE static const struct sigaction *action_for(int n, const struct sigaction *set,
                                                          struct sigaction *copy) {
    if (set->sa_handler == SIG_DFL && (pep_hook_signal_bit_of(n) & pep_hook_signal_guarded())) {
        pep_hook_signal_make_guard(n, copy);
        return copy;
    }
    bool opens = is_opened(n, set);
    if (!opens && !is_padded(n, set))
        return set;
    pep_zero(copy, sizeof(*copy));
    copy->sa_handler = set->sa_handler;
    copy->sa_flags = set->sa_flags;
    uint64_t mask = pep_hook_signal_bits(&set->sa_mask);
    pep_hook_signal_set_bits(&copy->sa_mask, opens ? mask & ~pep_hook_signal_our_bit()
                                                   : mask | pep_hook_signal_our_bit());
    return copy;
}

/* 32 and 33 are libc's own, and around SIGABRT it holds a lock. */
PEP_SIGNAL_SAFE static bool is_host_handler(int n, const void *handler) {
    return pep_hook_signal_bit_of(n) && n != 32 && n != 33 && n != SIGABRT &&
           handler != (void *)SIG_DFL && handler != (void *)SIG_IGN;
}

/* sigaction(2) as libc makes it, but for where a handler returns to. */
PEP_SIGNAL_SAFE static int install(int n, const struct sigaction *set, struct sigaction *old) {
    if (!set || !is_host_handler(n, (void *)set->sa_handler))
        return pep_real.sigaction(n, set, old);
    const struct pep_ksigaction in = {.handler = (void *)set->sa_handler,
                                      .flags = (unsigned long)set->sa_flags | PEP_SA_RESTORER,
                                      .restorer = set->sa_flags & SA_RESTART
                                                      ? (void *)pep_cpu_host_restorer
                                                      : (void *)pep_cpu_host_restorer_ending,
                                      .mask = pep_hook_signal_bits(&set->sa_mask)};
    struct pep_ksigaction out;
    int error = pep_os_sigaction(n, &in, &out);
    if (error) {
        errno = -error;
        return -1;
    }
    if (old) {
        pep_zero(old, sizeof(*old));
        old->sa_handler = (sighandler_t)out.handler;
        old->sa_flags = (int)out.flags;
        old->sa_restorer = (void (*)(void))out.restorer;
        pep_hook_signal_set_bits(&old->sa_mask, out.mask);
    }
    return 0;
}

PEP_SIGNAL_SAFE static int host_action(int n, const struct sigaction *set, struct sigaction *old) {
    uint64_t bit = pep_hook_signal_our_bit(),
             special = pep_hook_signal_bit_of(n) & (CRASHES | pep_hook_signal_guarded());
    if (bit == 0)
        return pep_real.sigaction(n, set, old);
    if (pep_hook_signal_bit_of(n) == bit && !pep_init_is_this_process())
        return action_apart(n, set, old);
    if (pep_hook_signal_bit_of(n) == bit) {
        own_action(set, old);
        return 0;
    }
    uint64_t padded = pep_load_relaxed(&padded_masks), opened = pep_load_relaxed(&opened_masks);
    bool pads = set && is_padded(n, set), opens = set && is_opened(n, set);
    if (special == 0 && !opens && !(opened & pep_hook_signal_bit_of(n)))
        return install(n, set, old);
    struct sigaction copy;
    int result = install(n, set ? action_for(n, set, &copy) : NULL, old);
    if (result != 0)
        return result;
    /* Two threads that set the same signal at once may be told the other's padding: one bit of a
     * mask, and only when it is read back. */
    if (pads)
        (void)pep_or_relaxed(&padded_masks, special);
    else if (set)
        (void)pep_and_relaxed(&padded_masks, ~special);
    if (opens)
        (void)pep_or_relaxed(&opened_masks, pep_hook_signal_bit_of(n));
    else if (set)
        (void)pep_and_relaxed(&opened_masks, ~pep_hook_signal_bit_of(n));
    if (old)
        show_action(n, old, padded, opened);
    if (set && set->sa_handler == SIG_DFL)
        pep_hook_signal_keep_default(n, set);
    return 0;
}

PEP_EXPORT PEP_SIGNAL_SAFE int sigaction(int n, const struct sigaction *set,
                                         struct sigaction *old) {
    return host_action(n, set, old);
}

PEP_EXPORT PEP_SIGNAL_SAFE int __sigaction(int n, const struct sigaction *set,
                                           struct sigaction *old) {
    return host_action(n, set, old);
}

/* Bit n-1: siginterrupt(3) asked that handlers of n, set by signal(3), interrupt calls. */
static uint64_t interrupting;

/* True when signal n goes another way than straight to libc: all that are the host's. signal(3)
 * sets no SA_ONSTACK, so nothing is padded there. */
PEP_SIGNAL_SAFE static bool is_special(int n) {
    return pep_hook_signal_our_bit() && pep_hook_signal_bit_of(n) && n != 32 && n != 33;
}

/* signal(3) in all of its meanings, for the numbers that are special. */
PEP_SIGNAL_SAFE static sighandler_t host_signal(int n, sighandler_t handler, int flags,
                                                uint64_t mask) {
    struct sigaction set, old;
    pep_zero(&set, sizeof(set));
    set.sa_handler = handler;
    set.sa_flags = flags;
    pep_hook_signal_set_bits(&set.sa_mask, mask);
    return host_action(n, &set, &old) == 0 ? old.sa_handler : SIG_ERR;
}

PEP_EXPORT PEP_SIGNAL_SAFE sighandler_t signal(int n, sighandler_t handler) {
    if (!is_special(n) || handler == SIG_ERR)
        return pep_real.signal(n, handler);
    bool interrupts = pep_load_relaxed(&interrupting) & pep_hook_signal_bit_of(n);
    return host_signal(n, handler, interrupts ? 0 : SA_RESTART, pep_hook_signal_bit_of(n));
}

PEP_EXPORT PEP_SIGNAL_SAFE sighandler_t ssignal(int n, sighandler_t handler) {
    return signal(n, handler);
}

PEP_EXPORT PEP_SIGNAL_SAFE sighandler_t bsd_signal(int n, sighandler_t handler) {
    return signal(n, handler);
}

PEP_EXPORT PEP_SIGNAL_SAFE sighandler_t sysv_signal(int n, sighandler_t handler) {
    if (!is_special(n) || handler == SIG_ERR)
        return pep_real.sysv_signal(n, handler);
    return host_signal(n, handler, (int)(SA_RESETHAND | SA_NODEFER), 0);
}

PEP_EXPORT PEP_SIGNAL_SAFE sighandler_t __sysv_signal(int n, sighandler_t handler) {
    return sysv_signal(n, handler);
}

/* sigset(3) also blocks (SIG_HOLD) and unblocks the signal. */
PEP_EXPORT PEP_SIGNAL_SAFE sighandler_t sigset(int n, sighandler_t handler) {
    if (!is_special(n) || handler == SIG_ERR)
        return pep_real.sigset(n, handler);
    struct sigaction action;
    sigset_t set, old;
    pep_zero(&set, sizeof(set));
    pep_hook_signal_set_bits(&set, pep_hook_signal_bit_of(n));
    bool holds = handler == SIG_HOLD;
    if (sigprocmask(holds ? SIG_BLOCK : SIG_UNBLOCK, &set, &old) != 0)
        return SIG_ERR;
    sighandler_t before = SIG_ERR;
    if (!holds)
        before = host_signal(n, handler, 0, 0);
    else if (host_action(n, NULL, &action) == 0)
        before = action.sa_handler;
    return before != SIG_ERR && (pep_hook_signal_bits(&old) & pep_hook_signal_bit_of(n)) ? SIG_HOLD
                                                                                         : before;
}

PEP_EXPORT PEP_SIGNAL_SAFE int sigignore(int n) {
    if (!is_special(n))
        return pep_real.sigignore(n);
    return host_signal(n, SIG_IGN, 0, 0) == SIG_ERR ? -1 : 0;
}

PEP_EXPORT PEP_SIGNAL_SAFE int siginterrupt(int n, int flag) {
    /* libc's reads the kernel's action, changes the flag and writes it back: right for all but
     * our own. */
    int result = pep_hook_signal_our_bit() && pep_hook_signal_bit_of(n) == pep_hook_signal_our_bit()
                     ? 0
                     : pep_real.siginterrupt(n, flag);
    struct sigaction now;
    if (result == 0 && pep_hook_signal_our_bit() && host_action(n, NULL, &now) == 0)
        (void)host_action(n, &now, NULL);
    if (result == 0 && flag)
        (void)pep_or_relaxed(&interrupting, pep_hook_signal_bit_of(n));
    else if (result == 0)
        (void)pep_and_relaxed(&interrupting, ~pep_hook_signal_bit_of(n));
    return result;
}
