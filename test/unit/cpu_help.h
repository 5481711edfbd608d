/*
 * What the tests of the CPU sampler share: work measured by the thread's own clock, refusals
 * injected at the kernel's border, and readings of what was charged.
 *
 * Model:   plain helpers; the wraps answer with what the injected_ variables say.
 * Writers: the tests.
 * Readers: -
 * Memory:  static.
 * When full: -
 */
#ifndef PEP_TEST_CPU_HELP_H
#define PEP_TEST_CPU_HELP_H

#include <stdbool.h>
#include <stdint.h>

/* CPU time of the calling thread. */
uint64_t help_cpu_ns(void);

/* At most so far is the time charged ahead of the thread's clock, which is read at every 16th
 * sample (pep_cpu_now): in between each interval may seem longer by 15 us and a 64th of it. */
#define HELP_AHEAD_NS (16 * (15000 + 1600000 / 64))
/* Uses that much CPU time; stretches in which it did not really run do not count. */
void help_burn_ms(unsigned ms);
/* Uses CPU time until the condition holds; false when ten seconds were not enough. */
#define HELP_BURN_UNTIL(condition) \
    ({ \
        for (int left_ = 10000; !(condition) && left_ > 0; left_--) \
            help_burn_ms(1); \
        (condition); \
    })
/* Whether the kernel lets us have an event like the sampler's. */
bool help_has_perf(void);
/* All weight charged so far, and all counts. */
uint64_t help_weight(void);
uint64_t help_count(void);
/* POSIX timers of this process, by /proc/self/timers; descriptors that are perf events, in
 * whatever table; those in the program's own. */
int help_timers(void);
int help_perf_fds(void);
int help_perf_fds_here(void);

#endif
