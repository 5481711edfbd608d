/*
 * The host's masks, and its waits for signals: our signal is in none of them.
 *
 * Model:   the kernel's mask leaves our signal open, its bit as the host set it is a thread-local
 *          byte. ppoll, pselect, epoll_pwait and sigsuspend are not hooked: where their mask holds
 *          our signal, it stays away until they return, and that is what we want.
 * Writers: any thread, also in the host's handlers: no lock anywhere.  [signal]
 * Readers: the same.
 * Memory:  one thread-local byte.
 * When full: -
 */
#include <signal.h>
#include <sys/signalfd.h>

#include "preload/hook_signal.h"
#include "preload/real.h"
#include "sampler/rt/os.h"

/* The bit of our signal in the mask as the host set it. */
static PEP_TLS bool is_blocked_by_host;

PEP_SIGNAL_SAFE static const sigset_t *without_ours(const sigset_t *set, sigset_t *copy) {
    uint64_t bit = pep_hook_signal_our_bit();
    if (!set || !(pep_hook_signal_bits(set) & bit))
        return set;
    pep_zero(copy, sizeof(*copy));
    pep_hook_signal_set_bits(copy, pep_hook_signal_bits(set) & ~bit);
    return copy;
}

PEP_SIGNAL_SAFE bool pep_hook_signal_is_blocked_by_host(void) {
    return is_blocked_by_host;
}

PEP_SIGNAL_SAFE void pep_hook_signal_inherit(bool is_blocked) {
    is_blocked_by_host = is_blocked;
}

PEP_SIGNAL_SAFE bool pep_hook_signal_mask(void) {
    uint64_t bit = pep_hook_signal_our_bit(), old = 0;
    return bit && pep_os_sigprocmask(SIG_BLOCK, &bit, &old) == 0 && !(old & bit);
}

PEP_SIGNAL_SAFE void pep_hook_signal_unmask(bool was_unmasked) {
    uint64_t bit = pep_hook_signal_our_bit();
    if (was_unmasked && bit)
        (void)pep_os_sigprocmask(SIG_UNBLOCK, &bit, NULL);
}

typedef int change_mask(int how, const sigset_t *set, sigset_t *old);

PEP_SIGNAL_SAFE static int host_mask(change_mask *real, int how, const sigset_t *set,
                                     sigset_t *old) {
    uint64_t bit = pep_hook_signal_our_bit();
    if (bit == 0)
        return real(how, set, old);
    bool was_blocked = is_blocked_by_host;
    bool has_ours = set && (pep_hook_signal_bits(set) & bit);
    sigset_t copy;
    int result = real(how, without_ours(set, &copy), old);
    if (result != 0)
        return result;
    if (set && how == SIG_SETMASK)
        is_blocked_by_host = has_ours;
    else if (has_ours)
        is_blocked_by_host = how == SIG_BLOCK;
    if (old)
        pep_hook_signal_set_bits(old, was_blocked ? pep_hook_signal_bits(old) | bit
                                                  : pep_hook_signal_bits(old) & ~bit);
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
        pep_hook_signal_set_bits(set, pep_hook_signal_bits(set) & ~pep_hook_signal_our_bit());
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
