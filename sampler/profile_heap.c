/*
 * From the cells of the heap sampler to a profile: subtract, unbias, label.
 *
 * Model:   a snapshot is every cell's sums at one moment; the newest reading is one too. A sum is
 *          read while the host goes on, so freed may be ahead of allocated by what happened in
 *          between: what lives is never shown below zero.
 * Writers: -
 * Readers: whoever asks for a profile, on profep's threads.  [normal]
 * Memory:  the caller's arena.
 * When full: the arena says so.
 */
#include <time.h>

#include "sampler/heap_internal.h"
#include "sampler/profile_parts.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

/* What a profile can show of a cell; unbiased or raw as the query wants. */
struct shown {
    int64_t alloc_objects, alloc_bytes, inuse_objects, inuse_bytes;
};

struct reading {
    struct pep_heap_sums allocated, freed;
    uint64_t temporary_objects, temporary_bytes;
};

struct pep_heap_snapshot {
    uint64_t monotonic_ns;
    uint32_t cell_count;
    struct reading cells[];
};

static void read_sums(struct pep_heap_sums *to, const struct pep_heap_sums *from) {
    to->exact_objects = pep_load_relaxed(&from->exact_objects);
    to->exact_bytes = pep_load_relaxed(&from->exact_bytes);
    to->raw_objects = pep_load_relaxed(&from->raw_objects);
    to->raw_bytes = pep_load_relaxed(&from->raw_bytes);
    to->unbiased_objects = pep_load_relaxed(&from->unbiased_objects);
    to->unbiased_bytes = pep_load_relaxed(&from->unbiased_bytes);
}

/* Freed first: a block that is freed in between counts as live, never the other way round. */
static void read_cell(struct reading *to, const struct pep_heap_cell *cell) {
    read_sums(&to->freed, &cell->freed);
    to->temporary_objects = pep_load_relaxed(&cell->temporary_objects);
    to->temporary_bytes = pep_load_relaxed(&cell->temporary_bytes);
    pep_fence_acquire();
    read_sums(&to->allocated, &cell->allocated);
}

struct pep_heap_snapshot *pep_heap_snapshot_take(struct pep_arena *arena) {
    uint32_t count = pep_heap_cell_count();
    struct pep_heap_snapshot *snapshot =
        pep_arena_alloc(arena, sizeof *snapshot + count * sizeof snapshot->cells[0]);
    if (snapshot == NULL)
        return NULL;
    snapshot->monotonic_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    snapshot->cell_count = count;
    for (uint32_t i = 0; i < count; i++)
        read_cell(&snapshot->cells[i], pep_heap_cell_at(i));
    return snapshot;
}

static bool has_record(const struct pep_heap_cell *cell, enum pep_heap_view view) {
    if (view == PEP_HEAP_TEMPORARY)
        return pep_load_relaxed(&cell->temporary_objects) != 0;
    return pep_load_relaxed(&cell->allocated.exact_objects) != 0 ||
           pep_load_relaxed(&cell->allocated.raw_objects) != 0;
}

uint32_t pep_heap_record_count(enum pep_heap_view view) {
    uint32_t found = 0;
    for (uint32_t i = 0, count = pep_heap_cell_count(); i < count; i++)
        found += has_record(pep_heap_cell_at(i), view);
    return found;
}

static int64_t objects_of(const struct pep_heap_sums *sums, bool is_raw) {
    uint64_t others =
        is_raw ? sums->raw_objects
               : (sums->unbiased_objects + PEP_HEAP_WEIGHT_ONE / 2) / PEP_HEAP_WEIGHT_ONE;
    return (int64_t)(sums->exact_objects + others);
}

static int64_t bytes_of(const struct pep_heap_sums *sums, bool is_raw) {
    return (int64_t)(sums->exact_bytes + (is_raw ? sums->raw_bytes : sums->unbiased_bytes));
}

static int64_t not_negative(int64_t value) {
    return value < 0 ? 0 : value;
}

static struct shown show(const struct reading *reading, const struct pep_heap_query *query) {
    struct shown shown = {.alloc_objects = objects_of(&reading->allocated, query->is_raw),
                          .alloc_bytes = bytes_of(&reading->allocated, query->is_raw)};
    shown.inuse_objects =
        not_negative(shown.alloc_objects - objects_of(&reading->freed, query->is_raw));
    shown.inuse_bytes = not_negative(shown.alloc_bytes - bytes_of(&reading->freed, query->is_raw));
    if (query->view == PEP_HEAP_TEMPORARY) {
        shown.alloc_objects =
            (int64_t)((reading->temporary_objects + PEP_HEAP_WEIGHT_ONE / 2) / PEP_HEAP_WEIGHT_ONE);
        shown.alloc_bytes = (int64_t)reading->temporary_bytes;
        shown.inuse_objects = shown.inuse_bytes = 0;
    }
    return shown;
}

/* What lived in a cell at the last peak: kept in the cell if it changed since. */
static void show_peak(struct shown *shown, const struct pep_heap_cell *cell) {
    if (pep_load_acquire(&cell->peak_number) != pep_heap_peak_number())
        return;
    shown->inuse_objects =
        (int64_t)((pep_load_relaxed(&cell->peak_objects) + PEP_HEAP_WEIGHT_ONE / 2) /
                  PEP_HEAP_WEIGHT_ONE);
    shown->inuse_bytes = (int64_t)pep_load_relaxed(&cell->peak_bytes);
}

static struct shown difference(const struct shown *now, const struct shown *before,
                               bool has_absolute_inuse) {
    struct shown d = {.alloc_objects = now->alloc_objects - before->alloc_objects,
                      .alloc_bytes = now->alloc_bytes - before->alloc_bytes,
                      .inuse_objects = now->inuse_objects,
                      .inuse_bytes = now->inuse_bytes};
    if (!has_absolute_inuse) {
        d.inuse_objects -= before->inuse_objects;
        d.inuse_bytes -= before->inuse_bytes;
    }
    return d;
}

/* The average block of a cell since the start. Readers that keep differences take a changed label
 * for another stack, so where sizes differ it is told in steps of a quarter of a power of two. */
static uint64_t average_block(const struct reading *reading) {
    uint64_t objects = (uint64_t)objects_of(&reading->allocated, true);
    uint64_t bytes = (uint64_t)bytes_of(&reading->allocated, true);
    if (objects == 0)
        return 0;
    uint64_t average = bytes / objects, step = 1;
    if (bytes % objects == 0)
        return average;
    while (average / step >= 8)
        step *= 2;
    return average / step * step;
}

static bool fill_sample(struct pep_sample *sample, uint32_t number,
                        const struct pep_heap_snapshot *before,
                        const struct pep_heap_query *query) {
    const struct pep_heap_cell *cell = pep_heap_cell_at(number);
    uint64_t key = pep_load_acquire(&cell->key);
    const struct pep_stack *stack = pep_stack_table_get((pep_stack_id)(key >> 32));
    if (stack == NULL)
        return false;
    struct reading reading;
    read_cell(&reading, cell);
    struct shown now = show(&reading, query);
    if (query->view == PEP_HEAP_PEAK)
        show_peak(&now, cell);
    if (before != NULL && number < before->cell_count) {
        struct shown then = show(&before->cells[number], query);
        now = difference(&now, &then, query->has_absolute_inuse);
    }
    *sample = (struct pep_sample){
        .pcs = stack->pcs,
        .pc_count = stack->count,
        .values = {now.alloc_objects, now.alloc_bytes, now.inuse_objects, now.inuse_bytes}};
    sample->bytes_label = average_block(&reading);
    return now.alloc_objects != 0 || now.alloc_bytes != 0 || now.inuse_objects != 0 ||
           now.inuse_bytes != 0;
}

static void fill_samples(struct pep_arena *arena, struct pep_profile *profile,
                         const struct pep_heap_snapshot *before,
                         const struct pep_heap_query *query) {
    struct pep_sample_list list = {.arena = arena, .profile = profile, .filter = &query->filter};
    uint32_t cells = pep_heap_cell_count();
    for (uint32_t i = 0; i < cells; i++) {
        struct pep_sample sample;
        if (fill_sample(&sample, i, before, query) &&
            !pep_sample_list_add(&list, (uint32_t)pep_heap_cell_at(i)->key, &sample))
            return;
    }
}

/* -- comments ------------------------------------------------------------------------------- */

static const enum pep_counter losses[] = {
    PEP_COUNTER_heap_cells_full, PEP_COUNTER_heap_live_full,    PEP_COUNTER_heap_no_stack,
    PEP_COUNTER_live_map_full,   PEP_COUNTER_stack_table_full,  PEP_COUNTER_unwind_truncated,
    PEP_COUNTER_rule_table_full, PEP_COUNTER_thread_slots_full, PEP_COUNTER_modules_full};

static void tell_rate(struct pep_arena *arena, struct pep_profile *profile, uint32_t rate) {
    unsigned long long samples = PEP_COUNTED(heap_samples);
    if (rate == 0)
        pep_profile_tell(arena, profile, "Allocations are not sampled: the rate is 0.");
    else if (rate == 1)
        pep_profile_tell(arena, profile, "Every allocation is recorded; %llu so far.", samples);
    else
        pep_profile_tell(arena, profile,
                         "Sampled every %u bytes in the mean, values are estimates of the whole; "
                         "%llu samples so far.",
                         (unsigned)rate, samples);
}

static void fill_comments(struct pep_arena *arena, struct pep_profile *profile,
                          const struct pep_heap_query *query) {
    struct pep_heap_state state;
    pep_heap_state(&state);
    tell_rate(arena, profile, state.rate_bytes);
    if (state.unreachable != NULL)
        pep_profile_tell(arena, profile, "%s.", state.unreachable);
    if (query->view == PEP_HEAP_TEMPORARY)
        pep_profile_tell(arena, profile, "Blocks freed within about %u ms.",
                         (unsigned)PEP_HEAP_TEMPORARY_MS);
    if (state.has_live_map)
        pep_profile_tell(
            arena, profile, "Live map: %llu blocks; %llu were allocated beyond its bound.",
            (unsigned long long)state.live_blocks, (unsigned long long)state.uncovered_blocks);
    pep_profile_tell_losses(arena, profile, losses, PEP_COUNT_OF(losses), NULL);
}

/* -- the profile ---------------------------------------------------------------------------- */

struct pep_profile *pep_profile_heap(struct pep_arena *arena,
                                     const struct pep_heap_snapshot *before,
                                     const struct pep_heap_query *query) {
    bool has_inuse = query->view != PEP_HEAP_TEMPORARY;
    bool is_inuse_shown = query->view == PEP_HEAP_INUSE || query->view == PEP_HEAP_PEAK;
    struct pep_profile *profile = pep_arena_alloc(arena, sizeof *profile);
    if (profile == NULL)
        return NULL;
    uint32_t rate = pep_load_relaxed(&pep_heap_settings.rate_bytes);
    int64_t now_ns = (int64_t)pep_os_clock_ns(CLOCK_REALTIME);
    *profile = (struct pep_profile){
        .kind = is_inuse_shown ? "heap"
                : has_inuse    ? "allocs"
                               : "temporary",
        .types = {{"alloc_objects", "count"},
                  {"alloc_space", "bytes"},
                  {"inuse_objects", "count"},
                  {"inuse_space", "bytes"}},
        .type_count = has_inuse ? 4 : 2,
        .default_type = is_inuse_shown ? 3 : 1,
        .period_type = {"space", "bytes"},
        .period = rate != 0 ? rate : 1,
        .time_ns = now_ns,
        .main_mapping = PEP_MAPPING_NONE,
        .pid = pep_os_getpid(),
    };
    /* As in Go, a difference bears the time of its end. */
    if (before != NULL)
        profile->duration_ns = (int64_t)(pep_os_clock_ns(CLOCK_MONOTONIC) - before->monotonic_ns);
    pep_identities_refresh();
    fill_samples(arena, profile, before, query);
    pep_profile_fill_mappings(arena, profile);
    fill_comments(arena, profile, query);
    return arena->is_failed ? NULL : profile;
}
