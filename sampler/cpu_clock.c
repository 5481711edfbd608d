/*
 * When the next sample is due, and how much CPU time passed since the last.
 *
 * Model:   intervals are drawn at random around an even beat. The thread's CPU clock is a system
 *          call; where the time stamp counter shows that the thread ran through from one sample to
 *          the next, it is advanced by that instead, and read at least every 16th time: what the
 *          estimate was off by is charged then, so sums stay exact.
 * Writers: the thread's handler; whoever arms it, under its lock.  [signal, hook]
 * Readers: the same.
 * Memory:  fields of the slot.
 * When full: -
 */
#include <time.h>
#include <x86intrin.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"

#define NS_PER_SECOND 1000000000u
#define SOON_NS 10000
#define CALIBRATE_NS 2000000
#define CLOCK_EVERY 16 /* samples at most between two readings of the clock */
#define SLACK_NS 15000 /* between event and handler, when nobody else ran */
/* To change an event's period cancels and starts the kernel's timer: 0.6 us, in some virtual
 * machines 11. So it is not done more than every 4 ms. */
#define REDRAW_HZ 250
#define REPEATS_MAX 32

static uint64_t ns_per_tick; /* 32.32 fixed point; 0: unknown, the clock is always read */

PEP_SIGNAL_SAFE uint64_t pep_cpu_interval_ns(const struct pep_thread *thread, uint32_t hz) {
    uint64_t period = NS_PER_SECOND / hz, tick = pep_load_relaxed(&pep_cpu.tick_ns);
    return thread->engine == PEP_ENGINE_TIMER && tick > period ? tick : period;
}

static int is_forbidden; /* relaxed; for good */

PEP_SIGNAL_SAFE void pep_cpu_forbid_tsc(void) {
    pep_store_relaxed(&is_forbidden, 1);
}

void pep_cpu_clock_calibrate(void) {
    if (ns_per_tick != 0 || pep_load_relaxed(&is_forbidden))
        return;
    uint64_t start = pep_os_clock_ns(CLOCK_MONOTONIC_RAW), ticks = __rdtsc();
    pep_os_sleep_ns(CALIBRATE_NS);
    uint64_t passed = pep_os_clock_ns(CLOCK_MONOTONIC_RAW) - start;
    ticks = __rdtsc() - ticks;
    /* 0.1 to 10 GHz; else there is no counter worth the name. */
    if (start != 0 && ticks > passed / 10 && ticks < passed * 10)
        pep_store_relaxed(&ns_per_tick, (uint64_t)((double)passed * 4294967296.0 / (double)ticks));
}

PEP_SIGNAL_SAFE uint64_t pep_cpu_now(struct pep_thread *thread) {
    if (pep_load_relaxed(&is_forbidden))
        return pep_os_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    uint64_t tsc = __rdtsc(), ticks = tsc - thread->last_tsc;
    bool is_known = thread->last_tsc != 0 && ticks >> 32 == 0;
    thread->last_tsc = tsc;
    if (is_known && thread->engine == PEP_ENGINE_PERF && thread->unread < CLOCK_EVERY) {
        uint64_t passed = ticks * pep_load_relaxed(&ns_per_tick) >> 32;
        uint64_t slack = SLACK_NS + thread->delay_ns / 64;
        if (passed - thread->delay_ns + slack < 2 * slack) {
            thread->unread++;
            return thread->last_cpu_ns + passed;
        }
    }
    thread->unread = 0;
    return pep_os_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

PEP_SIGNAL_SAFE static int64_t random_below(struct pep_thread *thread, int64_t limit) {
    uint64_t x = thread->rng += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (int64_t)((x >> 32) * (uint64_t)limit >> 32);
}

/* A sample is charged the time since the one before. Were that longer at one phase of the host's
 * rhythm than at another, the shares would be wrong (one random moment in each period has this
 * fault: 60/30/10 became 47/37/16), so intervals are drawn anew: uniform in half to one and a half
 * periods, after which every phase of a rhythm of that period is equally likely. Each starts where
 * the last was due, so late handlers do not lower the rate. A little of the distance from an even
 * beat is taken back each time: the count of samples then stays within some of the ideal, and the
 * distance itself, about a period, is wide enough to carry no phase. */
PEP_SIGNAL_SAFE static void draw(struct pep_thread *thread, uint64_t now_ns, uint32_t hz) {
    int64_t period = NS_PER_SECOND / hz, samples = hz / REDRAW_HZ;
    samples = samples < 1 ? 1 : samples > REPEATS_MAX ? REPEATS_MAX : samples;
    int64_t take_back = thread->ahead_ns / (samples > 4 ? 4 * samples : 16);
    thread->interval_ns = period / 2 + random_below(thread, period) - take_back;
    thread->repeats = (uint32_t)samples;
    int64_t late = (int64_t)(now_ns - thread->due_ns);
    int64_t delay = thread->interval_ns - late / samples;
    /* A short period of an event that runs on is a burst of signals. */
    int64_t soonest = period / 4 > SOON_NS ? period / 4 : SOON_NS;
    thread->delay_ns = (uint64_t)(delay > soonest ? delay : soonest);
    thread->ahead_ns += samples * (thread->interval_ns - period);
    int64_t limit = (4 * samples + 8) * period;
    if (thread->ahead_ns > limit || thread->ahead_ns < -limit)
        thread->ahead_ns = 0; /* the rate was changed */
}

PEP_SIGNAL_SAFE uint64_t pep_cpu_schedule(struct pep_thread *thread, uint64_t now_ns, uint32_t hz) {
    int64_t period = NS_PER_SECOND / hz;
    int64_t late = (int64_t)(now_ns - thread->due_ns);
    if (late > period) { /* signals that never came are not made up for */
        thread->due_ns += (uint64_t)(late / period * period);
        thread->repeats = 0;
    }
    if (thread->repeats == 0)
        draw(thread, now_ns, hz);
    thread->repeats--;
    thread->due_ns += (uint64_t)thread->interval_ns;
    return thread->delay_ns;
}

PEP_HOOK_SAFE uint64_t pep_cpu_schedule_start(struct pep_thread *thread, uint64_t now_ns,
                                              uint32_t hz) {
    if (thread->rng == 0)
        thread->rng = (pep_load_relaxed(&is_forbidden) ? now_ns : __rdtsc()) * 0x2545f4914f6cdd1du ^
                      (uint64_t)thread->tid << 32;
    thread->last_tsc = 0;
    thread->ahead_ns = 0;
    thread->repeats = 0;
    /* The first moment is anywhere in a period: short threads get their share of samples. */
    thread->due_ns = now_ns - NS_PER_SECOND / hz / 2;
    return pep_cpu_schedule(thread, now_ns, hz);
}

/* One period serves for some dozens of samples: a change restarts the kernel's timer, from another
 * processor 20 us, and what had passed of the period is lost. Each is uniform in two to four thirds
 * of the rate's, after some of which all phases of a rhythm of the host's are equally likely; what
 * was lost, or came too often, is made good in the next. (Wider, and the count of a short window
 * would stray further; narrower, and a rhythm of just this period would be met in fewer phases.) */
PEP_HOOK_SAFE uint64_t pep_cpu_redraw(struct pep_thread *thread, uint64_t now_ns, uint32_t hz) {
    uint32_t fired = pep_load_relaxed(&thread->perf_fired);
    int64_t period = NS_PER_SECOND / hz;
    int64_t ahead =
        (int64_t)(fired - thread->beat_fired) * period - (int64_t)(now_ns - thread->beat_ns);
    int64_t samples = hz / PEP_CPU_LOOK_HZ > REPEATS_MAX ? hz / PEP_CPU_LOOK_HZ : REPEATS_MAX;
    bool is_first = fired <= 1;
    if (is_first || ahead > samples * period || ahead < -samples * period) { /* not made good */
        thread->beat_ns = now_ns;
        thread->beat_fired = fired;
        ahead = 0;
    }
    int64_t make_good = ahead / samples, most = period / 4;
    make_good = make_good < -most ? -most : make_good > most ? most : make_good;
    /* Behind a first sample that came soon the event stood still until now, most likely until its
     * thread lost the processor: at a tick, which rhythms keep step with. */
    int64_t least = is_first ? period / 2 : period * 2 / 3;
    int64_t interval = least + random_below(thread, 2 * (period - least)) + make_good;
    pep_store_relaxed(&thread->delay_ns, (uint64_t)interval);
    return (uint64_t)interval;
}

/* What took at least an eighth of a period is remembered, as two periods at most: a walk that lost
 * its processor says nothing. */
PEP_SIGNAL_SAFE void pep_cpu_walked(struct pep_thread *thread, uint32_t hz) {
    thread->walk_ns = 0;
    if (pep_load_relaxed(&is_forbidden) || thread->last_tsc == 0)
        return;
    uint64_t period = NS_PER_SECOND / hz;
    thread->walk_tsc = __rdtsc();
    uint64_t ns = (thread->walk_tsc - thread->last_tsc) * pep_load_relaxed(&ns_per_tick) >> 32;
    if (ns > period / 8)
        thread->walk_ns = ns < 2 * period ? ns : 2 * period;
}

PEP_SIGNAL_SAFE bool pep_cpu_is_crowded(const struct pep_thread *thread) {
    if (thread->walk_ns == 0 || pep_load_relaxed(&is_forbidden))
        return false;
    uint64_t passed = (__rdtsc() - thread->walk_tsc) * pep_load_relaxed(&ns_per_tick) >> 32;
    return passed < thread->walk_ns;
}
