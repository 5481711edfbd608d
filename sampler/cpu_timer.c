/*
 * The timer engine: a POSIX timer on each thread's CPU clock.
 *
 * Model:   SIGEV_THREAD_ID; each handler sets the next moment. The interval behind it is only a
 *          safety net for a handler that could not. POSIX CPU timers run from the kernel's tick:
 *          more than CONFIG_HZ signals a second never come, the weight makes up for it.
 * Writers: arm and disarm under the slot's lock; next in the handler.  [signal, hook]
 * Readers: the handler, by the signal's value.
 * Memory:  one kernel timer a thread, at most a quarter of RLIMIT_SIGPENDING, which they count
 *          against and which the host's own sigqueue(3) and timers need.
 * When full: timer_refused; nothing more is created until a window opens anew.
 *
 * Source: timer_create(2), timer_settime(2).
 */
#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"

#define NS_PER_SECOND 1000000000u

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* A timer's value: cookie << 48 | serial << 16 | slot. The cookie is no canonical address, so no
 * pointer of the host's looks like it. */
#define COOKIE 0x70f5ull
#define SERIAL_MASK 0xffffffffull

void pep_cpu_timer_limits(void) {
    struct timespec tick = {0, 0};
    pep_os_call6(SYS_clock_getres, CLOCK_MONOTONIC_COARSE, (long)&tick, 0, 0, 0, 0);
    pep_store_relaxed(&pep_cpu.tick_ns, (uint64_t)tick.tv_nsec);
    uint64_t rlimit[2] = {4096, 0};
    pep_os_call6(SYS_prlimit64, 0, RLIMIT_SIGPENDING, 0, (long)rlimit, 0, 0);
    uint64_t quarter = rlimit[0] / 4;
    pep_store_relaxed(&pep_cpu.timers_max,
                      quarter < PEP_THREADS_MAX ? (uint32_t)quarter : PEP_THREADS_MAX);
}

PEP_SIGNAL_SAFE static void set(int timer, uint64_t delay_ns, uint64_t interval_ns) {
    struct itimerspec value = {
        .it_value = {.tv_sec = (time_t)(delay_ns / NS_PER_SECOND),
                     .tv_nsec = (long)(delay_ns % NS_PER_SECOND)},
        .it_interval = {.tv_sec = (time_t)(interval_ns / NS_PER_SECOND),
                        .tv_nsec = (long)(interval_ns % NS_PER_SECOND)},
    };
    pep_os_timer_settime(timer, 0, &value);
}

PEP_SIGNAL_SAFE void pep_cpu_timer_next(struct pep_thread *thread, uint64_t delay_ns) {
    uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
    if (delay_ns == 0 || hz == 0)
        set(thread->timer_id, 0, 0);
    else if (NS_PER_SECOND / hz <= pep_load_relaxed(&pep_cpu.tick_ns))
        set(thread->timer_id, 1, NS_PER_SECOND / hz); /* with every tick: as often as there is */
    else
        set(thread->timer_id, delay_ns, NS_PER_SECOND / hz);
}

PEP_HOOK_SAFE static void *value_of(const struct pep_thread *thread) {
    return (void *)(COOKIE << 48 | (uint64_t)thread->armed_serial << 16 | pep_thread_index(thread));
}

PEP_HOOK_SAFE int pep_cpu_timer_arm(struct pep_thread *thread, uint64_t delay_ns) {
    uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
    if (hz == 0 || pep_load_relaxed(&pep_cpu.is_timer_refused)) {
        PEP_COUNT(timer_refused, 1);
        return -EAGAIN;
    }
    int r = -EAGAIN, id = -1;
    thread->armed_serial++;
    if (pep_add_relaxed(&pep_cpu.timers, 1) < pep_load_relaxed(&pep_cpu.timers_max)) {
        struct sigevent event;
        pep_zero(&event, sizeof event);
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = pep_cpu.signal;
        event.sigev_notify_thread_id = thread->tid;
        event.sigev_value.sival_ptr = value_of(thread);
        r = pep_os_timer_create(pep_os_thread_cpu_clock(thread->tid), &event, &id);
    }
    if (r < 0) {
        pep_sub_relaxed(&pep_cpu.timers, 1);
        if (r == -EAGAIN || r == -ENOSYS || r == -EPERM)
            pep_store_relaxed(&pep_cpu.is_timer_refused, 1);
        if (r != -EINVAL && r != -ESRCH) /* these say that the thread has ended */
            PEP_COUNT(timer_refused, 1);
        return r;
    }
    thread->timer_id = id;
    pep_store_release(&thread->engine, PEP_ENGINE_TIMER);
    /* delay_ns is drawn from a period, and the signal comes with the tick behind the moment: the
     * first tick gets its share of a period, later ones are half a tick early on average. */
    uint64_t tick = pep_load_relaxed(&pep_cpu.tick_ns);
    pep_cpu_timer_next(thread, delay_ns > tick ? delay_ns - tick / 2 : 1);
    return 0;
}

PEP_SIGNAL_SAFE void pep_cpu_timer_drop(struct pep_thread *thread) {
    int id = thread->timer_id;
    thread->timer_id = -1;
    thread->armed_serial++;
    pep_sub_relaxed(&pep_cpu.timers, 1);
    pep_os_timer_delete(id);
}

PEP_SIGNAL_SAFE void pep_cpu_timer_disarm(struct pep_thread *thread) {
    pep_store_release(&thread->engine, PEP_ENGINE_NONE);
    pep_cpu_timer_drop(thread);
}

PEP_SIGNAL_SAFE struct pep_thread *pep_cpu_timer_thread(const void *value, bool *is_ours) {
    uint64_t word = (uint64_t)value;
    *is_ours = word >> 48 == COOKIE;
    uint32_t index = (uint32_t)(word & 0xffff);
    if (!*is_ours || index >= pep_threads_limit())
        return NULL;
    struct pep_thread *thread = pep_thread_at(index);
    uint32_t serial = (uint32_t)(word >> 16 & SERIAL_MASK);
    bool is_current = pep_load_acquire(&thread->engine) == PEP_ENGINE_TIMER &&
                      pep_load_relaxed(&thread->armed_serial) == serial;
    return is_current ? thread : NULL;
}
