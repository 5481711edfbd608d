/*
 * Fatal signals while a recording waits to be written, and the one that asks for a peek: a handler
 * of ours stands where the host left them at their default.
 *
 * Model:   the handler does what is ours and then has the kernel do the default. Of a guard the
 *          host is told that it is the default, with what it said itself when it set that.
 * Writers: the agent, before the host has a second thread or at its end; of the default the host's
 *          calls.  [normal, signal]
 * Readers: the handlers and the hooks of actions.  [signal]
 * Memory:  static.
 * When full: -
 */
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "http/record.h"
#include "http/server.h"
#include "preload/hook_signal.h"
#include "preload/real.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

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
    return info->si_code > 0 &&
           (PEP_SIGNAL_BIT(n) & (PEP_SIGNAL_BIT(SIGSEGV) | PEP_SIGNAL_BIT(SIGBUS) |
                                 PEP_SIGNAL_BIT(SIGILL) | PEP_SIGNAL_BIT(SIGFPE)));
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

PEP_SIGNAL_SAFE bool pep_hook_signal_is_guard(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) &&
           (action->sa_sigaction == on_fatal || action->sa_sigaction == on_peek);
}

PEP_SIGNAL_SAFE uint64_t pep_hook_signal_guarded(void) {
    return guarded | peeked;
}

PEP_SIGNAL_SAFE void pep_hook_signal_make_guard(int n, struct sigaction *action) {
    pep_zero(action, sizeof(*action));
    action->sa_sigaction = (PEP_SIGNAL_BIT(n) & peeked) ? on_peek : on_fatal;
    action->sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    pep_hook_signal_set_bits(&action->sa_mask, ~0UL);
}

/* Where the host left the signal at its default. */
static void guard(int n) {
    struct sigaction action;
    if (pep_real.sigaction(n, NULL, &action) != 0 || action.sa_handler != SIG_DFL)
        return;
    pep_hook_signal_make_guard(n, &action);
    (void)pep_real.sigaction(n, &action, NULL);
}

static void unguard(int n) {
    struct sigaction action;
    if (pep_real.sigaction(n, NULL, &action) != 0 || !pep_hook_signal_is_guard(&action))
        return;
    pep_zero(&action, sizeof(action));
    (void)pep_real.sigaction(n, &action, NULL);
}

void pep_hook_signal_guard(void) {
    for (size_t i = 0; i < PEP_COUNT_OF(fatal_signals); i++)
        guard(fatal_signals[i]);
    for (size_t i = 0; i < PEP_COUNT_OF(fatal_signals); i++)
        guarded |= PEP_SIGNAL_BIT(fatal_signals[i]);
}

void pep_hook_signal_unguard(void) {
    guarded = 0;
    for (size_t i = 0; i < PEP_COUNT_OF(fatal_signals); i++)
        if (!(PEP_SIGNAL_BIT(fatal_signals[i]) & peeked))
            unguard(fatal_signals[i]);
}

/* Before the host has a second thread: nobody sets the action between question and answer. */
void pep_hook_signal_peek(int n) {
    peeked = PEP_SIGNAL_BIT(n);
    guard(n);
}

void pep_hook_signal_unpeek(void) {
    int n = peeked ? __builtin_ctzl(peeked) + 1 : 0;
    peeked = 0;
    if (n && !(guarded & PEP_SIGNAL_BIT(n)))
        unguard(n);
}

int pep_hook_signal_of_peek(void) {
    struct sigaction action;
    int n = __builtin_ffsl((long)peeked);
    return n && pep_real.sigaction(n, NULL, &action) == 0 && action.sa_sigaction == on_peek ? n : 0;
}

/* -- the default as the host set it --------------------------------------------------------- */

PEP_SIGNAL_SAFE void pep_hook_signal_keep_default(int n, const struct sigaction *set) {
    if (!(pep_hook_signal_bit_of(n) & peeked))
        return;
    pep_store_relaxed(&default_mask, pep_hook_signal_bits(&set->sa_mask));
    pep_store_relaxed(&default_flags, set->sa_flags | (int)PEP_SA_RESTORER);
}

PEP_SIGNAL_SAFE void pep_hook_signal_show_default(int n, struct sigaction *old) {
    bool is_peek = pep_hook_signal_bit_of(n) & peeked;
    int flags = is_peek ? pep_load_relaxed(&default_flags) : 0;
    void (*restorer)(void) = flags ? old->sa_restorer : NULL;
    pep_zero(old, sizeof(*old));
    old->sa_flags = flags;
    old->sa_restorer = restorer;
    if (is_peek)
        pep_hook_signal_set_bits(&old->sa_mask, pep_load_relaxed(&default_mask));
}
