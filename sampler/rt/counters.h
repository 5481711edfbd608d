/*
 * Every loss and every refusal, by name.
 *
 * Model:   one rising number a name; nothing is ever reset. Served at /debug/profep and told
 *          in the comments of the profiles they touch.
 * Writers: anybody, any room; relaxed adds.  [signal]
 * Readers: anybody.
 * Memory:  one static array.
 * When full: 64 bits do not fill.
 */
#ifndef PEP_SAMPLER_RT_COUNTERS_H
#define PEP_SAMPLER_RT_COUNTERS_H

#include <stdint.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"

/* X(name, what it means to the person who reads it) */
#define PEP_COUNTERS(X) \
    X(samples, "CPU samples recorded") \
    X(sample_nested, "samples refused because the thread was inside another one") \
    X(sample_no_scratch, "samples refused because every scratch stack was in use") \
    X(sample_in_crash, "samples refused because the thread was handling a fault") \
    X(sample_small_stack, "samples refused because the signal stack was nearly used up") \
    X(calls_restarted, "system calls that a sampling signal cut short and that were made again") \
    X(sample_crowded, "signals left out so that a thread keeps half of its time for itself") \
    X(sample_stale, "timer signals that arrived for a thread no longer profiled") \
    X(unwind_truncated, "stacks cut at the depth limit") \
    X(unwind_partial, "stacks that end before a thread's first frame") \
    X(unwind_slow, "frames that took the careful way through libunwind") \
    X(rule_table_full, "frame rules not kept because the table was full") \
    X(stack_table_full, "stacks charged to [profep: table full]") \
    X(cell_table_full, "samples charged without their thread because the table was full") \
    X(cells_lost, "events lost because no table had room for them") \
    X(thread_slots_full, "threads not profiled because every slot was taken") \
    X(thread_identities_full, "threads whose samples carry no thread label") \
    X(timer_refused, "threads without a timer because the kernel refused one") \
    X(perf_refused, "threads moved to the timer engine because the kernel refused a perf event") \
    X(heap_samples, "allocations recorded with their stack") \
    X(heap_cells_full, "allocations charged to [profep: table full]") \
    X(heap_live_full, "allocations not followed to their free because the table was full") \
    X(heap_no_stack, "allocations recorded without their stack") \
    X(live_map_full, "stretches of 4 MiB that the live map has no room for") \
    X(mmap_full, "mappings not recorded or not followed to their end because a table was full") \
    X(mmap_missed, "calls that map or unmap not recorded because the record was busy") \
    X(looks, "waiting threads read without a signal") \
    X(look_raced, "threads that moved while they were read") \
    X(asks, "running threads asked for their stack") \
    X(ask_late, "threads that did not answer in time") \
    X(wall_late, "beats of the wall clock profile that came too late and were merged") \
    X(lock_events, "contended waits recorded") \
    X(lock_unknown_holder, "contended waits whose end nobody was seen to bring about") \
    X(lock_places_full, "contended waits not matched with an unlock because the table was full") \
    X(modules_full, "loaded objects not listed because the table was full") \
    X(signal_foreign, "signals with our number that were not ours, passed on") \
    X(signal_parked, \
      "times a thread was not sampled because the program blocks and gets our number") \
    X(signal_unqueued, \
      "signals with our number without their value: the queue of signals is full") \
    X(signal_lost, "times the host took our signal's handler away") \
    X(fd_lost, "own descriptors found closed or replaced by the host") \
    X(peeks, "reports to standard error begun because of a signal") \
    X(peek_cut, "of these, cut short because standard error took no more") \
    X(lines_refused, "reads of source lines that could not begin") \
    X(lines_late, "reads of source lines cut short because their time was over") \
    X(lines_ended, "reads of source lines whose process was ended by somebody else") \
    X(lines_damaged, "files whose source lines could not be read") \
    X(http_refused, "requests refused") \
    X(self_alloc_failed, "own allocations that could not be served")

enum pep_counter {
#define PEP_COUNTER_ENUM(name, help) PEP_COUNTER_##name,
    PEP_COUNTERS(PEP_COUNTER_ENUM)
#undef PEP_COUNTER_ENUM
        PEP_COUNTER_COUNT
};

extern uint64_t pep_counter_values[PEP_COUNTER_COUNT];

/* Adds n to a counter: PEP_COUNT(samples, 1). Any room. */
#define PEP_COUNT(name, n) \
    ((void)pep_add_relaxed(&pep_counter_values[PEP_COUNTER_##name], (uint64_t)(n)))
#define PEP_COUNTED(name) pep_load_relaxed(&pep_counter_values[PEP_COUNTER_##name])

/* The name and the help sentence of a counter; static storage, never NULL. */
const char *pep_counter_name(enum pep_counter c);
const char *pep_counter_help(enum pep_counter c);

#endif
