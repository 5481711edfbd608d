/*
 * Which engine serves a thread, where both could.
 *
 * Model:   the kernel starts and stops the timer of a perf event whenever the thread gets and gives
 *          up a processor: 0.6 us each in a virtual machine, a third of what a thread costs that
 *          only passes messages on. A CPU timer is looked at in ticks that come anyway. So at rates
 *          that ticks can serve, threads that have run in short pieces so far get a timer. They are
 *          in no step with the ticks; one that computes may be, and has its event.
 * Writers: whoever arms a thread.  [hook]
 * Readers: -
 * Memory:  none.
 * When full: -
 *
 * Source: proc(5), /proc/PID/schedstat: time run, time waited, times it was given a processor.
 */
#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/files.h"

#define PIECE_NS 200000 /* on average: an event then costs up to 0.6 % */
#define PIECES_MIN 64   /* fewer tell nothing */
#define NS_PER_SECOND 1000000000u

PEP_HOOK_SAFE static uint64_t read_number(const char **at) {
    uint64_t value = 0;
    while (**at == ' ')
        ++*at;
    for (; **at >= '0' && **at <= '9'; ++*at)
        value = value * 10 + (uint64_t)(**at - '0');
    return value;
}

PEP_HOOK_SAFE bool pep_cpu_prefers_timer(int tid, uint32_t hz) {
    char text[96];
    uint64_t tick = pep_load_relaxed(&pep_cpu.tick_ns);
    if (tick == 0 || NS_PER_SECOND / hz < 2 * tick ||
        pep_files_read_of_task(tid, "schedstat", text, sizeof(text)) < 0)
        return false;
    const char *at = text;
    uint64_t run_ns = read_number(&at);
    (void)read_number(&at);
    uint64_t pieces = read_number(&at);
    return pieces >= PIECES_MIN && run_ns / pieces < PIECE_NS;
}

PEP_HOOK_SAFE bool pep_cpu_is_for_timer(struct pep_thread *thread) {
    uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
    if (pep_load_relaxed(&thread->engine) != PEP_ENGINE_PERF || hz == 0)
        return false;
    /* A life that may still be a short one is left to pep_cpu_thread_leave. */
    bool is_young = thread->is_newborn &&
                    thread->last_cpu_ns - thread->armed_cpu_ns < pep_cpu_interval_ns(thread, hz);
    if (is_young || !pep_cpu_prefers_timer(thread->tid, hz))
        return false;
    thread->is_newborn = false;
    return true;
}
