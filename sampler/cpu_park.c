/*
 * Signals of our number that are the host's, in threads where the host blocks them.
 *
 * Model:   our number is open in the kernel's mask of every thread, whatever the host wants. A
 *          foreign signal in a thread where the host blocks it is put back where it came from, and
 *          the thread gives way: it really blocks our number and nothing of ours is sent to it any
 *          more, so all that the host may do with a signal that it blocks is the kernel's work. One
 *          to the process goes on to the next thread that has it open: to one where the host has,
 *          or until all block it really. A thread comes back when nothing of our number is pending
 *          and it passes a hook, or the last one was delivered.
 * Writers: each thread, of its own state; in the handler or in a hook.  [signal]
 * Readers: who arms threads or asks them: the slot's gives_way.
 * Memory:  two thread-local bytes; a mapping for a moment where several signals wait.
 * When full: the kernel's queue of signals: one without its value takes the place, counted.
 *
 * Source: rt_sigqueueinfo(2): no si_code is refused from a thread to itself, and a thread's id
 *         stands for its process.
 */
#include <errno.h>

#include "sampler/ask.h"
#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"

#define ASKS_TRIES 20000
#define ASKS_WAIT_NS 50000
#define WAY_TRIES 40000
#define WAY_LOOK 1000
#define WAY_WAIT_NS 50000
#define ROOM 4096 /* signals that wait behind the first */

char pep_cpu_way_cookie;
static PEP_TLS bool is_blocked_by_host; /* our number, as the host set it */
static PEP_TLS bool is_giving_way;

PEP_SIGNAL_SAFE static uint64_t our_bit(void) {
    int sig = pep_load_relaxed(&pep_cpu.signal);
    return sig > 0 ? 1ull << (sig - 1) : 0;
}

/* The calling thread's slot where libc made the thread, so that its thread-local memory is its own;
 * or NULL. */
PEP_SIGNAL_SAFE static struct pep_thread *known_self(void) {
    struct pep_thread *thread = pep_thread_of(pep_os_gettid());
    return thread != NULL && (thread->is_registered || thread->is_own) ? thread : NULL;
}

PEP_SIGNAL_SAFE bool pep_cpu_host_blocks(void) {
    return is_blocked_by_host;
}

PEP_SIGNAL_SAFE void pep_cpu_set_host_blocks(bool is_blocked) {
    struct pep_thread *thread = pep_thread_mine();
    is_blocked_by_host = is_blocked;
    if (thread != NULL)
        pep_store_relaxed(&thread->is_blocked_by_host, is_blocked);
    pep_signal_fence();
}

PEP_SIGNAL_SAFE bool pep_cpu_gives_way(void) {
    return is_giving_way;
}

PEP_SIGNAL_SAFE bool pep_cpu_is_own_signal(const siginfo_t *info) {
    bool is_timer = false;
    if (info->si_code != SI_TIMER)
        return info->si_code >= POLL_IN && info->si_code <= POLL_HUP;
    (void)pep_cpu_timer_thread(info->si_value.sival_ptr, &is_timer);
    const void *value = info->si_value.sival_ptr;
    return is_timer || value == &pep_cpu_way_cookie || pep_ask_is_question(info);
}

/* -- the queue ------------------------------------------------------------------------------ */

PEP_SIGNAL_SAFE static int queue(const siginfo_t *info) {
    int sig = pep_load_relaxed(&pep_cpu.signal), tid = pep_os_gettid();
    return info->si_code == SI_TKILL ? pep_os_tgsigqueueinfo(pep_os_getpid(), tid, sig, info)
                                     : pep_os_sigqueueinfo(tid, sig, info);
}

/* A signal as of kill(2) needs no room in the queue. */
PEP_SIGNAL_SAFE static void put_back(const siginfo_t *info) {
    if (queue(info) == 0)
        return;
    siginfo_t bare;
    PEP_COUNT(signal_unqueued, 1);
    pep_zero(&bare, sizeof bare);
    bare.si_signo = pep_load_relaxed(&pep_cpu.signal);
    bare.si_code = SI_USER;
    bare.si_pid = info->si_pid;
    bare.si_uid = info->si_uid;
    (void)pep_os_sigqueueinfo(pep_os_gettid(), bare.si_signo, &bare);
}

/* Those of the host's that are pending, into room: how many. Ours end here; a question is answered
 * where there is a context to answer it from. */
PEP_SIGNAL_SAFE static int take_pending(siginfo_t *room, ucontext_t *context) {
    int count = 0;
    siginfo_t info;
    for (int i = 0; i < 2 * ROOM && count < ROOM && pep_os_sigtake(our_bit(), &info) > 0; i++) {
        if (!pep_cpu_is_own_signal(&info))
            room[count++] = info;
        else if (context != NULL)
            (void)pep_ask_answer(&info, context);
    }
    return count;
}

/* first, if there is one, in front of what is pending. */
PEP_SIGNAL_SAFE static void put_back_before_pending(const siginfo_t *first, ucontext_t *context) {
    int count = 0;
    siginfo_t *room = NULL;
    if (pep_os_sigpending() & our_bit())
        room = pep_os_map(ROOM * sizeof *room);
    if (room != NULL)
        count = take_pending(room, context);
    if (first != NULL)
        put_back(first);
    for (int i = 0; i < count; i++)
        put_back(&room[i]);
    if (room != NULL)
        pep_os_unmap(room, ROOM * sizeof *room);
}

PEP_SIGNAL_SAFE void pep_cpu_drop_pending(ucontext_t *context) {
    put_back_before_pending(NULL, context);
}

/* For a moment it is so in the kernel, which then drops them, those of all threads. */
PEP_SIGNAL_SAFE void pep_cpu_forget_pending(void) {
    const struct pep_ksigaction ignored = {.handler = (void *)SIG_IGN};
    struct pep_ksigaction before;
    int sig = pep_load_relaxed(&pep_cpu.signal);
    if (pep_load_relaxed(&pep_cpu.ways) != 0 && pep_os_sigaction(sig, &ignored, &before) == 0)
        (void)pep_os_sigaction(sig, &before, NULL);
}

/* -- to give way, and to come back ---------------------------------------------------------- */

/* Nothing of ours is sent to it from here on, and what was on its way is there. */
PEP_SIGNAL_SAFE static void give_way(struct pep_thread *thread) {
    if (is_giving_way)
        return;
    is_giving_way = true;
    PEP_COUNT(signal_parked, 1);
    (void)pep_add_acq_rel(&pep_cpu.ways, 1);
    (void)pep_swap_acq_rel(&thread->gives_way, true);
    pep_fence_seq_cst(); /* pairs with send_to in ask.c */
    for (int i = 0; i < ASKS_TRIES && pep_load_acquire(&thread->asks) != 0; i++)
        pep_os_sleep_ns(ASKS_WAIT_NS);
    (void)pep_cpu_disarm_self(thread);
    pep_cpu_signalfd_show(true);
}

PEP_SIGNAL_SAFE static bool is_to_give_way(const struct pep_thread *thread) {
    return pep_load_acquire(&thread->tid) != 0 && thread->is_registered && !thread->is_own &&
           pep_load_relaxed(&thread->is_blocked_by_host);
}

/* False: it does already, or is not to. Like a question: none is on its way to a thread that has
 * begun to give way (give_way). */
PEP_SIGNAL_SAFE static bool ask_for_way(struct pep_thread *thread) {
    siginfo_t info;
    if (!is_to_give_way(thread))
        return false;
    pep_zero(&info, sizeof info);
    info.si_signo = pep_load_relaxed(&pep_cpu.signal);
    info.si_code = SI_TIMER; /* as a timer's, so that an exec flushes it */
    info.si_value.sival_ptr = &pep_cpu_way_cookie;
    (void)pep_add_acq_rel(&thread->asks, 1);
    pep_fence_seq_cst(); /* pairs with give_way: it sees ours, or we see that it gives way */
    bool is_asked = !pep_load_relaxed(&thread->gives_way) &&
                    pep_os_tgsigqueueinfo(pep_os_getpid(), thread->tid, info.si_signo, &info) == 0;
    (void)pep_sub_acq_rel(&thread->asks, 1);
    return is_asked;
}

/* On a machine with much to do that may take it some time; not for ever. One that was born, or came
 * back, since all were asked is asked now. */
PEP_SIGNAL_SAFE static void await_way(struct pep_thread *thread) {
    for (int i = 1;
         i <= WAY_TRIES && is_to_give_way(thread) && !pep_load_acquire(&thread->is_out_of_way);
         i++) {
        pep_os_sleep_ns(WAY_WAIT_NS);
        if (i % WAY_LOOK == 0 && !pep_load_acquire(&thread->gives_way) &&
            (!pep_cpu_is_in_reach(thread->tid) || !ask_for_way(thread)))
            return;
    }
}

/* All threads where the host blocks our number, before a signal to the process is put back: one
 * that they passed to each other, one taking it as the next is sent, would lose its place. A thread
 * that does not answer will pass it on. */
PEP_SIGNAL_SAFE static void clear_the_way(void) {
    const uint32_t end = pep_threads_limit();
    for (uint32_t i = 0; i < end; i++)
        (void)ask_for_way(pep_thread_at(i));
    for (uint32_t i = 0; i < end; i++)
        await_way(pep_thread_at(i));
}

/* The last one hides our number from descriptors; another that begins meanwhile shows it again. */
PEP_SIGNAL_SAFE void pep_cpu_park_leave(struct pep_thread *thread) {
    if (!pep_load_relaxed(&thread->gives_way) || !pep_swap_acq_rel(&thread->gives_way, false))
        return;
    pep_store_release(&thread->is_out_of_way, false);
    pep_store_release(&pep_cpu.is_visit_wanted, 1);
    if (pep_sub_acq_rel(&pep_cpu.ways, 1) != 1)
        return;
    pep_cpu_signalfd_show(false);
    pep_fence_seq_cst();
    if (pep_load_acquire(&pep_cpu.ways) != 0)
        pep_cpu_signalfd_show(true);
}

PEP_SIGNAL_SAFE void pep_cpu_opened(void) {
    struct pep_thread *thread = is_giving_way ? known_self() : NULL;
    is_giving_way = false;
    if (thread != NULL)
        pep_cpu_park_leave(thread);
}

/* A signal is in the hands of who clears the way until it is pending again. */
PEP_SIGNAL_SAFE static bool is_any_kept(void) {
    return pep_load_acquire(&pep_cpu.clears) != 0 || (pep_os_sigpending() & our_bit()) != 0;
}

PEP_SIGNAL_SAFE void pep_cpu_come_back(void) {
    uint64_t ours = our_bit();
    if (!is_giving_way || is_any_kept())
        return;
    pep_cpu_opened();
    (void)pep_os_sigprocmask(SIG_UNBLOCK, &ours, NULL);
}

PEP_SIGNAL_SAFE void pep_cpu_keep(const siginfo_t *info) {
    uint64_t ours = our_bit();
    if (is_giving_way)
        return; /* late: nobody waits for it any more */
    (void)pep_os_tgsigqueueinfo(pep_os_getpid(), pep_os_gettid(), info->si_signo, info);
    (void)pep_os_sigprocmask(SIG_UNBLOCK, &ours, NULL);
}

/* -- in the handler ------------------------------------------------------------------------- */

PEP_SIGNAL_SAFE static uint64_t mask_of(const ucontext_t *context) {
    uint64_t mask;
    pep_copy(&mask, &context->uc_sigmask, sizeof mask);
    return mask;
}

PEP_SIGNAL_SAFE static void set_mask(ucontext_t *context, uint64_t mask) {
    pep_copy(&context->uc_sigmask, &mask, sizeof mask);
}

/* Where the mask to return to blocks it, and it came all the same, the thread is in a call with a
 * mask of its own, such as sigsuspend(2), in which the host has it open. */
PEP_SIGNAL_SAFE bool pep_cpu_is_to_park(const ucontext_t *context) {
    const struct pep_thread *thread = known_self();
    if (thread == NULL)
        return false;
    return thread->is_own || (is_blocked_by_host && (mask_of(context) & our_bit()) == 0);
}

PEP_SIGNAL_SAFE bool pep_cpu_is_host_thread(void) {
    return known_self() != NULL || pep_os_gettid() == pep_os_getpid();
}

/* A call that was cut short is made again: it finds the signal as one that was pending before. */
PEP_SIGNAL_SAFE void pep_cpu_park(const siginfo_t *info, ucontext_t *context) {
    struct pep_thread *thread = known_self();
    set_mask(context, mask_of(context) | our_bit());
    bool is_known = thread != NULL && !thread->is_own;
    bool clears = is_known && info->si_code != SI_TKILL;
    if (is_known)
        give_way(thread);
    if (clears) {
        pep_store_release(&thread->is_out_of_way, true); /* two may wait for each other */
        (void)pep_add_acq_rel(&pep_cpu.clears, 1);
        clear_the_way();
    }
    put_back_before_pending(info, context);
    if (clears)
        (void)pep_sub_acq_rel(&pep_cpu.clears, 1);
    else if (is_known)
        pep_store_release(&thread->is_out_of_way, true);
    (void)pep_cpu_restart_call(context);
}

PEP_SIGNAL_SAFE void pep_cpu_park_asked(ucontext_t *context) {
    struct pep_thread *thread = known_self();
    if (thread != NULL && !thread->is_own && is_blocked_by_host && !is_giving_way) {
        give_way(thread);
        set_mask(context, mask_of(context) | our_bit());
        pep_cpu_drop_pending(context);
        pep_store_release(&thread->is_out_of_way, true);
    }
    (void)pep_cpu_restart_call(context);
}

PEP_SIGNAL_SAFE void pep_cpu_park_passed(ucontext_t *context) {
    if (known_self() == NULL || !is_giving_way || is_any_kept())
        return;
    pep_cpu_opened();
    set_mask(context, mask_of(context) & ~our_bit());
}

/* Pending signals are the parent's. */
void pep_cpu_park_after_fork_child(void) {
    uint64_t ours = our_bit();
    pep_store_relaxed(&pep_cpu.ways, 0);
    pep_store_relaxed(&pep_cpu.clears, 0);
    if (!is_giving_way)
        return;
    is_giving_way = false;
    (void)pep_os_sigprocmask(SIG_UNBLOCK, &ours, NULL);
}
