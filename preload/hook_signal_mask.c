/*
 * The host's masks, and its waits for signals.
 *
 * Model:   the kernel's mask leaves our signal open, its bit as the host set it is a thread-local
 *          byte (sampler/cpu_park.c). A thread that gives way to a signal of the host's with our
 *          number has the host's own mask in the kernel. ppoll, pselect, epoll_pwait and sigsuspend
 *          are not hooked: where their mask holds our signal, it stays away until they return, and
 *          that is what we want. A wait for our number blocks it for as long, and goes on when it
 *          got one of ours.
 * Writers: any thread, also in the host's handlers: no lock anywhere.  [signal]
 * Readers: the same.
 * Memory:  -
 * When full: -
 */
#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

#include "preload/hook_signal.h"
#include "preload/real.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

#define NS_PER_SECOND 1000000000u

PEP_SIGNAL_SAFE static const sigset_t *without_ours(const sigset_t *set, sigset_t *copy) {
    uint64_t bit = pep_hook_signal_our_bit();
    if (!set || !(pep_hook_signal_bits(set) & bit))
        return set;
    pep_zero(copy, sizeof(*copy));
    pep_hook_signal_set_bits(copy, pep_hook_signal_bits(set) & ~bit);
    return copy;
}

PEP_SIGNAL_SAFE bool pep_hook_signal_is_blocked_by_host(void) {
    return pep_cpu_host_blocks();
}

PEP_SIGNAL_SAFE void pep_hook_signal_inherit(bool is_blocked) {
    pep_cpu_set_host_blocks(is_blocked);
}

void pep_hook_signal_adopt(void) {
    uint64_t bit = pep_hook_signal_our_bit(), mask = 0;
    if (pep_os_sigprocmask(SIG_BLOCK, NULL, &mask) < 0 || !(mask & bit))
        return;
    pep_cpu_set_host_blocks(true);
    (void)pep_os_sigprocmask(SIG_UNBLOCK, &bit, NULL);
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

/* -- masks ---------------------------------------------------------------------------------- */

typedef int change_mask(int how, const sigset_t *set, sigset_t *old);

/* A child of vfork(2), whose memory is its parent's, or of clone(2): its pid, once its mask in the
 * kernel is what the host wants. Other threads may have such children at the same time. */
static PEP_TLS int apart;

PEP_SIGNAL_SAFE static void stand_apart(void) {
    uint64_t bit = pep_hook_signal_our_bit();
    int pid = pep_os_getpid(), known = pep_load_relaxed(&apart);
    /* The child of one that stands apart began with its mask. */
    if (known == pid || (known != 0 && known == (int)pep_os_call6(SYS_getppid, 0, 0, 0, 0, 0, 0)))
        return;
    pep_store_relaxed(&apart, pid);
    if (pep_cpu_host_blocks())
        (void)pep_os_sigprocmask(SIG_BLOCK, &bit, NULL);
}

/* To know for certain costs a system call, where there may be such a child at all. */
PEP_SIGNAL_SAFE static bool is_apart(void) {
    if (!pep_hook_vfork_may_be_child())
        return false;
    if (!pep_init_is_this_process())
        return true;
    pep_hook_vfork_is_parent();
    pep_store_relaxed(&apart, 0);
    return false;
}

PEP_SIGNAL_SAFE void pep_hook_signal_before_exec_apart(void) {
    if (pep_hook_signal_our_bit() == 0)
        return;
    stand_apart();
    pep_cpu_exec_ignored();
}

/* Whether the host has our number blocked afterwards. */
PEP_SIGNAL_SAFE static bool is_blocked_after(bool was_blocked, int how, const sigset_t *set) {
    bool has_ours = set && (pep_hook_signal_bits(set) & pep_hook_signal_our_bit());
    if (set && how == SIG_SETMASK)
        return has_ours;
    return has_ours && (how == SIG_BLOCK || how == SIG_UNBLOCK) ? how == SIG_BLOCK : was_blocked;
}

/* What the host wants is noted first: what is pending is delivered before the real call returns,
 * and the handler must know that it is wanted. */
PEP_SIGNAL_SAFE static int host_mask(change_mask *real, int how, const sigset_t *set,
                                     sigset_t *old) {
    uint64_t bit = pep_hook_signal_our_bit();
    if (bit == 0)
        return real(how, set, old);
    bool was_blocked = pep_cpu_host_blocks();
    bool is_blocked = is_blocked_after(was_blocked, how, set);
    sigset_t copy;
    /* It matters where something changes. */
    if ((is_blocked != was_blocked || pep_cpu_gives_way() || pep_load_relaxed(&apart) != 0) &&
        is_apart()) {
        stand_apart();
        return real(how, set, old);
    }
    pep_cpu_set_host_blocks(is_blocked);
    int result = real(how, pep_cpu_gives_way() ? set : without_ours(set, &copy), old);
    if (result != 0) {
        pep_cpu_set_host_blocks(was_blocked);
        return result;
    }
    if (pep_cpu_gives_way() && !is_blocked)
        pep_cpu_opened();
    else if (pep_cpu_gives_way())
        pep_cpu_come_back();
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

/* Where our number is open, what is pending of it is ours. */
PEP_EXPORT PEP_SIGNAL_SAFE int sigpending(sigset_t *set) {
    uint64_t bit = pep_hook_signal_our_bit();
    bool gives_way = bit && pep_cpu_gives_way();
    int result = pep_real.sigpending(set);
    if (result == 0 && !gives_way)
        pep_hook_signal_set_bits(set, pep_hook_signal_bits(set) & ~bit);
    if (gives_way)
        pep_cpu_come_back();
    return result;
}

/* -- waits ---------------------------------------------------------------------------------- */

/* Our number is blocked from here to end_wait, as the host must have it. */
static void begin_wait(void) {
    uint64_t bit = pep_hook_signal_our_bit();
    if (!pep_cpu_gives_way())
        (void)pep_os_sigprocmask(SIG_BLOCK, &bit, NULL);
}

static void end_wait(void) {
    uint64_t bit = pep_hook_signal_our_bit();
    if (pep_cpu_gives_way())
        pep_cpu_come_back();
    else
        (void)pep_os_sigprocmask(SIG_UNBLOCK, &bit, NULL);
}

static uint64_t ns_of(const struct timespec *time) {
    return (uint64_t)time->tv_sec * NS_PER_SECOND + (uint64_t)time->tv_nsec;
}

static struct timespec time_until(uint64_t end_ns) {
    uint64_t now = pep_os_clock_ns(CLOCK_MONOTONIC);
    uint64_t left = end_ns > now ? end_ns - now : 0;
    return (struct timespec){(time_t)(left / NS_PER_SECOND), (long)(left % NS_PER_SECOND)};
}

/* A time that the kernel would refuse, or that would overflow, is passed on as it is. */
static bool is_finite(const struct timespec *limit) {
    return limit && limit->tv_sec >= 0 && limit->tv_sec < INT32_MAX && limit->tv_nsec >= 0 &&
           limit->tv_nsec < NS_PER_SECOND;
}

/* sigtimedwait(2) for a set with our number in it. */
static int wait_with_ours(const sigset_t *set, siginfo_t *info, const struct timespec *limit) {
    siginfo_t room;
    bool has_end = is_finite(limit);
    uint64_t end_ns = has_end ? pep_os_clock_ns(CLOCK_MONOTONIC) + ns_of(limit) : 0;
    struct timespec left;
    info = info ? info : &room;
    for (;;) {
        begin_wait();
        int n = pep_real.sigtimedwait(set, info, limit);
        if (n != pep_cpu_signal() || !pep_cpu_is_own_signal(info)) {
            int saved_errno = errno;
            end_wait();
            errno = saved_errno;
            return n;
        }
        pep_cpu_keep(info);
        left = time_until(end_ns);
        limit = has_end ? &left : limit;
    }
}

static bool has_ours(const sigset_t *set) {
    return set && (pep_hook_signal_bits(set) & pep_hook_signal_our_bit());
}

/* As in libc, a signal with a handler does not end it. */
PEP_EXPORT int sigwait(const sigset_t *set, int *n) {
    if (!has_ours(set))
        return pep_real.sigwait(set, n);
    int result, saved_errno = errno;
    do
        result = wait_with_ours(set, NULL, NULL);
    while (result < 0 && errno == EINTR);
    int error = result < 0 ? errno : 0;
    errno = result < 0 ? error : saved_errno;
    if (result >= 0)
        *n = result;
    return error;
}

PEP_EXPORT int sigwaitinfo(const sigset_t *set, siginfo_t *info) {
    return has_ours(set) ? wait_with_ours(set, info, NULL) : pep_real.sigwaitinfo(set, info);
}

PEP_EXPORT int sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *limit) {
    return has_ours(set) ? wait_with_ours(set, info, limit)
                         : pep_real.sigtimedwait(set, info, limit);
}

PEP_EXPORT int signalfd(int fd, const sigset_t *set, int flags) {
    sigset_t copy;
    int result = pep_real.signalfd(fd, without_ours(set, &copy), flags);
    if (result >= 0 && pep_hook_signal_our_bit())
        pep_cpu_signalfd_note(result, pep_hook_signal_bits(set));
    return result;
}
