/*
 * The sigaction, signal and sigprocmask families: our one signal, out of the host's sight.
 *
 * Model:   the kernel holds our handler and an open mask; the host is told what it set itself.
 *          Its action is kept beside ours, its mask's bit in a thread-local byte. ppoll, pselect,
 *          epoll_pwait and sigsuspend are not hooked: where their mask holds our signal, it stays
 *          away until they return, and that is what we want.
 * Writers: any thread, also in the host's handlers: no lock anywhere.  [signal]
 * Readers: the same.
 * Memory:  static; one thread-local byte.
 * When full: -
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

#include "http/record.h"
#include "http/server.h"
#include "preload/init.h"
#include "preload/real.h"
#include "sampler/cpu.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

/* The bit of our signal in the mask as the host set it. */
static PEP_TLS bool is_blocked_by_host;

/* Bit n-1: to the mask of the host's handler for signal n we added our signal, which the host
 * is not told. */
static uint64_t padded_masks;

/* The same for handlers from whose mask we took our signal: kept pending over the handler, it would
 * come when the interrupted call has just returned EINTR, which is the host's (cpu_restart.c). */
static uint64_t opened_masks;

#define pep_or_relaxed(p, v) __atomic_fetch_or((p), (v), __ATOMIC_RELAXED)
#define pep_and_relaxed(p, v) __atomic_fetch_and((p), (v), __ATOMIC_RELAXED)

/* Exported by libc, declared by no header. */
int __sigaction(int n, const struct sigaction *set, struct sigaction *old);
sighandler_t bsd_signal(int n, sighandler_t handler);
sighandler_t sysv_signal(int n, sighandler_t handler);

#define BIT(n) (1UL << ((n)-1))

/* Handlers of these on an alternate stack may have no room below them for another frame of
 * several KiB; our signal waits until they return. */
#define CRASHES (BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGILL) | BIT(SIGFPE) | BIT(SIGABRT))

/* -- masks ---------------------------------------------------------------------------------- */

/* 0 while asleep. */
PEP_SIGNAL_SAFE static uint64_t our_bit(void) {
    int n = pep_init_is_awake() ? pep_cpu_signal() : 0;
    return n > 0 ? BIT(n) : 0;
}

/* libc and the kernel read the first 64 bits of a set; so do we, callers may own no more. */
PEP_SIGNAL_SAFE static uint64_t bits_of(const sigset_t *set) {
    return set->__val[0];
}

PEP_SIGNAL_SAFE static void set_bits(sigset_t *set, uint64_t bits) {
    set->__val[0] = bits;
}

PEP_SIGNAL_SAFE static const sigset_t *without_ours(const sigset_t *set, sigset_t *copy) {
    uint64_t bit = our_bit();
    if (!set || !(bits_of(set) & bit))
        return set;
    pep_zero(copy, sizeof(*copy));
    set_bits(copy, bits_of(set) & ~bit);
    return copy;
}

PEP_SIGNAL_SAFE bool pep_hook_signal_is_blocked_by_host(void) {
    return is_blocked_by_host;
}

PEP_SIGNAL_SAFE void pep_hook_signal_inherit(bool is_blocked) {
    is_blocked_by_host = is_blocked;
}

PEP_SIGNAL_SAFE bool pep_hook_signal_mask(void) {
    uint64_t bit = our_bit(), old = 0;
    return bit && pep_os_sigprocmask(SIG_BLOCK, &bit, &old) == 0 && !(old & bit);
}

PEP_SIGNAL_SAFE void pep_hook_signal_unmask(bool was_unmasked) {
    uint64_t bit = our_bit();
    if (was_unmasked && bit)
        (void)pep_os_sigprocmask(SIG_UNBLOCK, &bit, NULL);
}

typedef int change_mask(int how, const sigset_t *set, sigset_t *old);

PEP_SIGNAL_SAFE static int host_mask(change_mask *real, int how, const sigset_t *set,
                                     sigset_t *old) {
    uint64_t bit = our_bit();
    if (bit == 0)
        return real(how, set, old);
    bool was_blocked = is_blocked_by_host;
    bool has_ours = set && (bits_of(set) & bit);
    sigset_t copy;
    int result = real(how, without_ours(set, &copy), old);
    if (result != 0)
        return result;
    if (set && how == SIG_SETMASK)
        is_blocked_by_host = has_ours;
    else if (has_ours)
        is_blocked_by_host = how == SIG_BLOCK;
    if (old)
        set_bits(old, was_blocked ? bits_of(old) | bit : bits_of(old) & ~bit);
    return 0;
}

PEP_EXPORT PEP_SIGNAL_SAFE int sigprocmask(int how, const sigset_t *set, sigset_t *old) {
    return host_mask(pep_real.sigprocmask, how, set, old);
}

PEP_EXPORT PEP_SIGNAL_SAFE int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
    return host_mask(pep_real.pthread_sigmask, how, set, old);
}

PEP_EXPORT PEP_SIGNAL_SAFE int sigpending(sigset_t *set) {
    int result = pep_real.sigpending(set);
    if (result == 0)
        set_bits(set, bits_of(set) & ~our_bit());
    return result;
}

/* -- waiting: our signal is nobody's to take ------------------------------------------------ */

PEP_EXPORT int sigwait(const sigset_t *set, int *n) {
    sigset_t copy;
    return pep_real.sigwait(without_ours(set, &copy), n);
}

PEP_EXPORT int sigwaitinfo(const sigset_t *set, siginfo_t *info) {
    sigset_t copy;
    return pep_real.sigwaitinfo(without_ours(set, &copy), info);
}

PEP_EXPORT int sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *limit) {
    sigset_t copy;
    return pep_real.sigtimedwait(without_ours(set, &copy), info, limit);
}

PEP_EXPORT int signalfd(int fd, const sigset_t *set, int flags) {
    sigset_t copy;
    return pep_real.signalfd(fd, without_ours(set, &copy), flags);
}

/* -- fatal signals while a recording waits to be written, and the one that asks for a peek -- */

static const signed char fatal_signals[] = {SIGTERM, SIGINT,  SIGHUP,  SIGQUIT,  SIGPIPE, SIGALRM,
                                            SIGUSR1, SIGUSR2, SIGSEGV, SIGBUS,   SIGILL,  SIGFPE,
                                            SIGABRT, SIGTRAP, SIGSYS,  SIGXCPU,  SIGXFSZ, SIGVTALRM,
                                            SIGPROF, SIGIO,   SIGPWR,  SIGSTKFLT};
static uint64_t guarded; /* bits of the above once the guard stands */
static uint64_t peeked;  /* the bit of the signal that asks for a peek */
/* What the host said together with its default for that one, for when it asks. */
static uint64_t default_mask;
static int default_flags;

/* A fault of the instruction itself comes back by returning to it. */
PEP_SIGNAL_SAFE static bool is_fault(int n, const siginfo_t *info) {
    return info->si_code > 0 && (BIT(n) & (BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGILL) | BIT(SIGFPE)));
}

/* The host left this signal at its default, which ends it. Write, put the default back and let it
 * happen again, so that status and core dump are the kernel's own work. */
PEP_SIGNAL_SAFE static void on_fatal(int n, siginfo_t *info, void *context) {
    (void)context;
    if (pep_init_is_this_process())
        pep_record_finish();
    struct pep_ksigaction by_default = {.handler = NULL};
    (void)pep_os_sigaction(n, &by_default, NULL);
    if (!is_fault(n, info))
        (void)pep_os_tgsigqueueinfo(pep_os_getpid(), pep_os_gettid(), n, info);
}

/* A peek is asked for from outside. What the program sends itself or its descendants, or set a
 * timer for, does what it would have done. */
PEP_SIGNAL_SAFE static bool is_from_outside(const siginfo_t *info) {
    if (info->si_code != SI_USER && info->si_code != SI_TKILL && info->si_code != SI_QUEUE)
        return false;
    return info->si_pid != pep_os_getpid() &&
           !(pep_init_is_descendant() &&
             info->si_pid == pep_os_call6(SYS_getppid, 0, 0, 0, 0, 0, 0));
}

PEP_SIGNAL_SAFE static void on_peek(int n, siginfo_t *info, void *context) {
    if (is_from_outside(info) && pep_init_is_this_process() && pep_server_peek(n))
        (void)pep_cpu_restart_call(context);
    else
        on_fatal(n, info, context);
}

PEP_SIGNAL_SAFE static bool is_guard(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) &&
           (action->sa_sigaction == on_fatal || action->sa_sigaction == on_peek);
}

PEP_SIGNAL_SAFE static void make_guard(int n, struct sigaction *action) {
    pep_zero(action, sizeof(*action));
    action->sa_sigaction = (BIT(n) & peeked) ? on_peek : on_fatal;
    action->sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    set_bits(&action->sa_mask, ~0UL);
}

/* Where the host left the signal at its default. */
static void guard(int n) {
    struct sigaction action;
    if (pep_real.sigaction(n, NULL, &action) != 0 || action.sa_handler != SIG_DFL)
        return;
    make_guard(n, &action);
    (void)pep_real.sigaction(n, &action, NULL);
}

static void unguard(int n) {
    struct sigaction action;
    if (pep_real.sigaction(n, NULL, &action) != 0 || !is_guard(&action))
        return;
    pep_zero(&action, sizeof(action));
    (void)pep_real.sigaction(n, &action, NULL);
}

void pep_hook_signal_guard(void) {
    for (size_t i = 0; i < PEP_COUNT_OF(fatal_signals); i++)
        guard(fatal_signals[i]);
    for (size_t i = 0; i < PEP_COUNT_OF(fatal_signals); i++)
        guarded |= BIT(fatal_signals[i]);
}

void pep_hook_signal_unguard(void) {
    guarded = 0;
    for (size_t i = 0; i < PEP_COUNT_OF(fatal_signals); i++)
        if (!(BIT(fatal_signals[i]) & peeked))
            unguard(fatal_signals[i]);
}

/* Before the host has a second thread: nobody sets the action between question and answer. */
void pep_hook_signal_peek(int n) {
    peeked = BIT(n);
    guard(n);
}

void pep_hook_signal_unpeek(void) {
    int n = peeked ? __builtin_ctzl(peeked) + 1 : 0;
    peeked = 0;
    if (n && !(guarded & BIT(n)))
        unguard(n);
}

int pep_hook_signal_of_peek(void) {
    struct sigaction action;
    int n = __builtin_ffsl((long)peeked);
    return n && pep_real.sigaction(n, NULL, &action) == 0 && action.sa_sigaction == on_peek ? n : 0;
}

/* -- actions -------------------------------------------------------------------------------- */

PEP_SIGNAL_SAFE static uint64_t bit_of(int n) {
    return n >= 1 && n <= 64 ? BIT(n) : 0;
}

/* Our own number: kept for foreign signals, never given to the kernel. */
PEP_SIGNAL_SAFE static void own_action(const struct sigaction *set, struct sigaction *old) {
    struct pep_ksigaction in = {.handler = NULL}, out;
    if (set) {
        in.handler = (void *)set->sa_handler;
        in.flags = (unsigned long)set->sa_flags;
        in.mask = bits_of(&set->sa_mask);
    }
    pep_cpu_host_action(set ? &in : NULL, &out);
    if (old) {
        pep_zero(old, sizeof(*old));
        old->sa_handler = (sighandler_t)out.handler;
        old->sa_flags = (int)out.flags;
        set_bits(&old->sa_mask, out.mask);
    }
}

PEP_SIGNAL_SAFE static void show_default(struct sigaction *old) {
    int flags = pep_load_relaxed(&default_flags);
    void (*restorer)(void) = flags ? old->sa_restorer : NULL;
    pep_zero(old, sizeof(*old));
    old->sa_flags = flags;
    old->sa_restorer = restorer;
    set_bits(&old->sa_mask, pep_load_relaxed(&default_mask));
}

/* What the host is told of an action that the kernel holds. */
PEP_SIGNAL_SAFE static void show_action(int n, struct sigaction *old, uint64_t padded,
                                        uint64_t opened) {
    if (is_guard(old) && (bit_of(n) & peeked))
        show_default(old);
    else if (is_guard(old))
        pep_zero(old, sizeof(*old));
    else if (padded & bit_of(n))
        set_bits(&old->sa_mask, bits_of(&old->sa_mask) & ~our_bit());
    else if (opened & bit_of(n))
        set_bits(&old->sa_mask, bits_of(&old->sa_mask) | our_bit());
}

/* True for a handler whose mask gets our signal added. */
PEP_SIGNAL_SAFE static bool is_padded(int n, const struct sigaction *set) {
    return (bit_of(n) & CRASHES) && (set->sa_flags & SA_ONSTACK) && set->sa_handler != SIG_DFL &&
           set->sa_handler != SIG_IGN && !(bits_of(&set->sa_mask) & our_bit());
}

/* True for a handler from whose mask our signal is taken. */
PEP_SIGNAL_SAFE static bool is_opened(int n, const struct sigaction *set) {
    return bit_of(n) && !(bit_of(n) & CRASHES) && set->sa_handler != SIG_DFL &&
           set->sa_handler != SIG_IGN && (bits_of(&set->sa_mask) & our_bit());
}

/* What the kernel gets for what the host sets; copy is room for it. */
PEP_SIGNAL_SAFE static const struct sigaction *action_for(int n, const struct sigaction *set,
                                                          struct sigaction *copy) {
    if (set->sa_handler == SIG_DFL && (bit_of(n) & (guarded | peeked))) {
        make_guard(n, copy);
        return copy;
    }
    bool opens = is_opened(n, set);
    if (!opens && !is_padded(n, set))
        return set;
    pep_zero(copy, sizeof(*copy));
    copy->sa_handler = set->sa_handler;
    copy->sa_flags = set->sa_flags;
    uint64_t mask = bits_of(&set->sa_mask);
    set_bits(&copy->sa_mask, opens ? mask & ~our_bit() : mask | our_bit());
    return copy;
}

#define KERNEL_SA_RESTORER 0x04000000ul

/* 32 and 33 are libc's own, and around SIGABRT it holds a lock. */
PEP_SIGNAL_SAFE static bool is_host_handler(int n, const void *handler) {
    return bit_of(n) && n != 32 && n != 33 && n != SIGABRT && handler != (void *)SIG_DFL &&
           handler != (void *)SIG_IGN;
}

/* sigaction(2) as libc makes it, but for where a handler returns to. */
PEP_SIGNAL_SAFE static int install(int n, const struct sigaction *set, struct sigaction *old) {
    if (!set || !is_host_handler(n, (void *)set->sa_handler))
        return pep_real.sigaction(n, set, old);
    const struct pep_ksigaction in = {.handler = (void *)set->sa_handler,
                                      .flags = (unsigned long)set->sa_flags | KERNEL_SA_RESTORER,
                                      .restorer = set->sa_flags & SA_RESTART
                                                      ? (void *)pep_cpu_host_restorer
                                                      : (void *)pep_cpu_host_restorer_ending,
                                      .mask = bits_of(&set->sa_mask)};
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
        set_bits(&old->sa_mask, out.mask);
    }
    return 0;
}

PEP_SIGNAL_SAFE static int host_action(int n, const struct sigaction *set, struct sigaction *old) {
    uint64_t bit = our_bit(), special = bit_of(n) & (CRASHES | guarded | peeked);
    if (bit == 0)
        return pep_real.sigaction(n, set, old);
    if (bit_of(n) == bit) {
        own_action(set, old);
        return 0;
    }
    uint64_t padded = pep_load_relaxed(&padded_masks), opened = pep_load_relaxed(&opened_masks);
    bool pads = set && is_padded(n, set), opens = set && is_opened(n, set);
    if (special == 0 && !opens && !(opened & bit_of(n)))
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
        (void)pep_or_relaxed(&opened_masks, bit_of(n));
    else if (set)
        (void)pep_and_relaxed(&opened_masks, ~bit_of(n));
    if (old)
        show_action(n, old, padded, opened);
    if (set && set->sa_handler == SIG_DFL && (bit_of(n) & peeked)) {
        pep_store_relaxed(&default_mask, bits_of(&set->sa_mask));
        pep_store_relaxed(&default_flags, set->sa_flags | (int)KERNEL_SA_RESTORER);
    }
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
    return our_bit() && bit_of(n) && n != 32 && n != 33;
}

/* signal(3) in all of its meanings, for the numbers that are special. */
PEP_SIGNAL_SAFE static sighandler_t host_signal(int n, sighandler_t handler, int flags,
                                                uint64_t mask) {
    struct sigaction set, old;
    pep_zero(&set, sizeof(set));
    set.sa_handler = handler;
    set.sa_flags = flags;
    set_bits(&set.sa_mask, mask);
    return host_action(n, &set, &old) == 0 ? old.sa_handler : SIG_ERR;
}

PEP_EXPORT PEP_SIGNAL_SAFE sighandler_t signal(int n, sighandler_t handler) {
    if (!is_special(n) || handler == SIG_ERR)
        return pep_real.signal(n, handler);
    bool interrupts = pep_load_relaxed(&interrupting) & bit_of(n);
    return host_signal(n, handler, interrupts ? 0 : SA_RESTART, bit_of(n));
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
    set_bits(&set, bit_of(n));
    bool holds = handler == SIG_HOLD;
    if (sigprocmask(holds ? SIG_BLOCK : SIG_UNBLOCK, &set, &old) != 0)
        return SIG_ERR;
    sighandler_t before = SIG_ERR;
    if (!holds)
        before = host_signal(n, handler, 0, 0);
    else if (host_action(n, NULL, &action) == 0)
        before = action.sa_handler;
    return before != SIG_ERR && (bits_of(&old) & bit_of(n)) ? SIG_HOLD : before;
}

PEP_EXPORT PEP_SIGNAL_SAFE int sigignore(int n) {
    if (!is_special(n))
        return pep_real.sigignore(n);
    return host_signal(n, SIG_IGN, 0, 0) == SIG_ERR ? -1 : 0;
}

PEP_EXPORT PEP_SIGNAL_SAFE int siginterrupt(int n, int flag) {
    /* libc's reads the kernel's action, changes the flag and writes it back: right for all but
     * our own. */
    int result = our_bit() && bit_of(n) == our_bit() ? 0 : pep_real.siginterrupt(n, flag);
    struct sigaction now;
    if (result == 0 && our_bit() && host_action(n, NULL, &now) == 0)
        (void)host_action(n, &now, NULL);
    if (result == 0 && flag)
        (void)pep_or_relaxed(&interrupting, bit_of(n));
    else if (result == 0)
        (void)pep_and_relaxed(&interrupting, ~bit_of(n));
    return result;
}
