/*
 * The profiles of waiting: block and mutex.
 *
 * Model:   cells are subtracted and labelled as profile_cells.h has it; what was not seen or lost
 *          is told in the comments.
 * Writers: -
 * Readers: whoever asks, on profep's threads.  [normal]
 * Memory:  the caller's arena.
 * When full: the arena says so (is_failed).
 */
#include <time.h>

#include "sampler/lock_internal.h"
#include "sampler/profile_parts.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

struct pep_cells_snapshot *pep_lock_snapshot_take(struct pep_arena *arena,
                                                  enum pep_lock_side side) {
    return pep_cells_snapshot_take(arena, pep_lock_cells(side));
}

static void tell_rate(struct pep_arena *arena, struct pep_profile *profile) {
    uint64_t rate_ns = pep_lock_rate();
    if (rate_ns == 0)
        pep_profile_tell(arena, profile, "Waiting is not recorded: the rate is 0.");
    else if (rate_ns == 1)
        pep_profile_tell(arena, profile, "Every contended wait is recorded.");
    else
        pep_profile_tell(arena, profile,
                         "Waits of %llu ns and more are all recorded, shorter ones by chance and "
                         "scaled up.",
                         (unsigned long long)rate_ns);
}

static void fill_comments(struct pep_arena *arena, struct pep_profile *profile,
                          enum pep_lock_side side) {
    static const enum pep_counter losses[] = {
        PEP_COUNTER_lock_places_full, PEP_COUNTER_lock_unknown_holder, PEP_COUNTER_cell_table_full,
        PEP_COUNTER_cells_lost, PEP_COUNTER_stack_table_full};
    pep_profile_tell(arena, profile,
                     side == PEP_LOCK_BLOCK
                         ? "Stacks of those who waited, with how long."
                         : "Stacks of those who let go what others waited for, with how long "
                           "these had waited since it was let go before.");
    pep_profile_tell(arena, profile,
                     "Seen: mutexes, read-write locks, condition variables, semaphores, "
                     "barriers, spinlocks and ends of threads, of pthread and C11, and futexes "
                     "by way of syscall(). Not seen: locks inside libc, and locks of programs "
                     "that make their own system calls, as Go's do.");
    tell_rate(arena, profile);
    pep_profile_tell_losses(arena, profile, losses, PEP_COUNT_OF(losses), NULL);
}

struct pep_profile *pep_profile_lock(struct pep_arena *arena, enum pep_lock_side side,
                                     const struct pep_cells_snapshot *before,
                                     const struct pep_profile_filter *filter) {
    struct pep_profile *profile = pep_arena_alloc(arena, sizeof *profile);
    if (profile == NULL)
        return NULL;
    *profile = (struct pep_profile){
        .kind = side == PEP_LOCK_BLOCK ? "block" : "mutex",
        .types = {{"contentions", "count"}, {"delay", "nanoseconds"}},
        .type_count = 2,
        .default_type = 1,
        .period_type = {"contentions", "count"},
        .period = 1,
        .is_exact = true,
        .time_ns = (int64_t)pep_os_clock_ns(CLOCK_REALTIME),
        .main_mapping = PEP_MAPPING_NONE,
        .pid = pep_os_getpid(),
    };
    struct pep_cells_view view = {
        .set = pep_lock_cells(side), .before = before, .state_of = pep_lock_kind_name};
    if (filter != NULL)
        view.filter = *filter;
    pep_profile_fill_cells(arena, profile, &view);
    fill_comments(arena, profile, side);
    return arena->is_failed ? NULL : profile;
}
