#include "sampler/profile.h"

#include <time.h>

#include "sampler/cpu.h"
#include "sampler/profile_parts.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/stack_table.h"
#include "sampler/thread.h"

#define NS_PER_SECOND 1000000000u

struct reading {
    uint64_t count, weight;
};

struct pep_cpu_snapshot {
    int64_t time_ns;       /* CLOCK_REALTIME */
    uint64_t monotonic_ns; /* CLOCK_MONOTONIC: how long the window was */
    uint64_t counters[PEP_COUNTER_COUNT];
    uint32_t cell_count;
    struct reading cells[];
};

uint32_t pep_profile_mapping_of(const struct pep_profile *profile, uintptr_t pc) {
    uint32_t low = 0, high = profile->mapping_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (profile->mappings[middle].limit <= pc)
            low = middle + 1;
        else
            high = middle;
    }
    bool is_in = low < profile->mapping_count && profile->mappings[low].start <= pc;
    return is_in ? low : PEP_MAPPING_NONE;
}

const char *pep_profile_pc_note(uintptr_t pc) {
    switch (pc) {
    case PEP_PC_TRUNCATED:
        return "[truncated]";
    case PEP_PC_TABLE_FULL:
        return "[profep: table full]";
    default:
        return pc < PEP_PC_FIRST_REAL ? "[unknown]" : NULL;
    }
}

struct pep_cpu_snapshot *pep_cpu_snapshot_take(struct pep_arena *arena) {
    pep_cpu_settle();
    uint32_t count = pep_stack_table_cell_count();
    struct pep_cpu_snapshot *snapshot =
        pep_arena_alloc(arena, sizeof *snapshot + count * sizeof snapshot->cells[0]);
    if (snapshot == NULL)
        return NULL;
    snapshot->time_ns = (int64_t)pep_os_clock_ns(CLOCK_REALTIME);
    snapshot->monotonic_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    for (uint32_t i = 0; i < PEP_COUNTER_COUNT; i++)
        snapshot->counters[i] = pep_load_relaxed(&pep_counter_values[i]);
    snapshot->cell_count = count;
    for (uint32_t i = 0; i < count; i++) {
        const struct pep_cell *cell = pep_stack_table_cell(i);
        snapshot->cells[i].count = pep_load_relaxed(&cell->count);
        snapshot->cells[i].weight = pep_load_relaxed(&cell->weight);
    }
    return snapshot;
}

static int parse_tid(const char *text) {
    int tid = 0;
    for (; *text >= '0' && *text <= '9' && tid < 100000000; text++)
        tid = tid * 10 + (*text - '0');
    return *text == '\0' ? tid : 0;
}

static bool contains(const char *text, const char *part) {
    for (;; text++) {
        size_t i = 0;
        while (part[i] != '\0' && text[i] == part[i])
            i++;
        if (part[i] == '\0')
            return true;
        if (*text == '\0')
            return false;
    }
}

bool pep_profile_is_wanted(const struct pep_sample *sample,
                           const struct pep_profile_filter *filter) {
    if (filter == NULL || filter->thread == NULL || filter->thread[0] == '\0')
        return true;
    int tid = parse_tid(filter->thread);
    return (tid != 0 && tid == sample->tid) ||
           (sample->thread != NULL && contains(sample->thread, filter->thread));
}

static bool label_thread(struct pep_sample_list *list, uint32_t identity,
                         struct pep_sample *sample) {
    const struct pep_identity *found = pep_identity_get(identity);
    if (found == NULL)
        return true;
    if (list->names == NULL)
        list->names = pep_arena_array(list->arena, PEP_IDENTITIES_MAX, sizeof *list->names);
    if (list->names == NULL)
        return false;
    if (list->names[identity] == NULL) {
        char name[16];
        pep_identity_name(identity, name);
        list->names[identity] = pep_arena_strdup(list->arena, name);
    }
    sample->tid = found->tid;
    sample->thread = list->names[identity];
    return true;
}

bool pep_sample_list_add(struct pep_sample_list *to, uint32_t identity, struct pep_sample *sample) {
    struct pep_profile *profile = to->profile;
    size_t count = profile->sample_count;
    if (!label_thread(to, identity, sample))
        return false;
    if (!pep_profile_is_wanted(sample, to->filter))
        return true;
    if (!PEP_ARENA_GROW(to->arena, profile->samples, count, to->capacity))
        return false;
    profile->samples[count] = *sample;
    profile->sample_count++;
    return true;
}

static bool fill_sample(struct pep_sample *sample, const struct pep_cell *cell,
                        const struct reading *before) {
    uint64_t count = pep_load_relaxed(&cell->count) - before->count;
    uint64_t weight = pep_load_relaxed(&cell->weight) - before->weight;
    const struct pep_stack *stack = pep_stack_table_get((pep_stack_id)(cell->key >> 32));
    if ((count == 0 && weight == 0) || stack == NULL)
        return false;
    *sample = (struct pep_sample){.pcs = stack->pcs, .pc_count = stack->count};
    sample->values[0] = (int64_t)count;
    sample->values[1] = (int64_t)weight;
    return true;
}

static void fill_samples(struct pep_arena *arena, struct pep_profile *profile,
                         const struct pep_cpu_snapshot *before,
                         const struct pep_profile_filter *filter) {
    uint32_t cells = pep_stack_table_cell_count();
    struct pep_sample_list list = {.arena = arena, .profile = profile, .filter = filter};
    for (uint32_t i = 0; i < cells; i++) {
        static const struct reading zero;
        const struct pep_cell *cell = pep_stack_table_cell(i);
        struct pep_sample sample;
        if (fill_sample(&sample, cell, i < before->cell_count ? &before->cells[i] : &zero) &&
            !pep_sample_list_add(&list, (uint32_t)cell->key, &sample))
            return;
    }
}

/* Samples a CPU second: of this window, whatever was filtered out of the profile. */
static void tell_rate(struct pep_arena *arena, struct pep_profile *profile,
                      const struct pep_cpu_snapshot *before, uint32_t hz) {
    uint64_t signals = PEP_COUNTED(samples) - before->counters[PEP_COUNTER_samples];
    uint64_t weight = 0;
    uint32_t cells = pep_stack_table_cell_count();
    for (uint32_t i = 0; i < cells; i++) {
        uint64_t old = i < before->cell_count ? before->cells[i].weight : 0;
        weight += pep_load_relaxed(&pep_stack_table_cell(i)->weight) - old;
    }
    if (signals == 0 || weight == 0) {
        pep_profile_tell(arena, profile, "No thread used enough CPU time for a sample at %u Hz.",
                         (unsigned)hz);
        return;
    }
    uint64_t tenths = (uint64_t)((double)signals * 1e10 / (double)weight + 0.5);
    pep_profile_tell(arena, profile, "Rate asked: %u Hz; reached: %llu.%llu samples a CPU second.",
                     (unsigned)hz, (unsigned long long)(tenths / 10),
                     (unsigned long long)(tenths % 10));
}

/* The rest of the counters tell of work done, or of what other profiles lost. */
static const enum pep_counter losses[] = {
    PEP_COUNTER_sample_nested,     PEP_COUNTER_sample_no_scratch,
    PEP_COUNTER_sample_in_crash,   PEP_COUNTER_sample_small_stack,
    PEP_COUNTER_sample_crowded,    PEP_COUNTER_sample_stale,
    PEP_COUNTER_unwind_truncated,  PEP_COUNTER_unwind_partial,
    PEP_COUNTER_rule_table_full,   PEP_COUNTER_stack_table_full,
    PEP_COUNTER_cell_table_full,   PEP_COUNTER_cells_lost,
    PEP_COUNTER_thread_slots_full, PEP_COUNTER_thread_identities_full,
    PEP_COUNTER_timer_refused,     PEP_COUNTER_perf_refused,
    PEP_COUNTER_modules_full,      PEP_COUNTER_signal_foreign,
    PEP_COUNTER_signal_parked,     PEP_COUNTER_signal_unqueued,
    PEP_COUNTER_signal_lost,       PEP_COUNTER_fd_lost,
    PEP_COUNTER_self_alloc_failed,
};

static void fill_comments(struct pep_arena *arena, struct pep_profile *profile,
                          const struct pep_cpu_snapshot *before, uint32_t hz) {
    struct pep_cpu_state state;
    pep_cpu_state(&state);
    pep_profile_tell(
        arena, profile, "CPU sampler: %u threads by perf events, %u by POSIX timers, %u not armed.",
        (unsigned)state.threads_perf, (unsigned)state.threads_timer, (unsigned)state.threads_none);
    if (state.note != NULL)
        pep_profile_tell(arena, profile, "Perf events are not used: %s.", state.note);
    if (state.threads_timer != 0)
        pep_profile_tell(arena, profile,
                         "Timers expire with the kernel's clock tick: work that follows the same "
                         "beat is seen more or less often than it runs.");
    tell_rate(arena, profile, before, hz);
    if (state.hz != hz && state.hz != 0)
        pep_profile_tell(arena, profile,
                         "Another window runs at %u Hz; both are served by one sampler.",
                         (unsigned)state.hz);
    pep_profile_tell_losses(arena, profile, losses, PEP_COUNT_OF(losses), before->counters);
}

struct pep_profile *pep_profile_cpu(struct pep_arena *arena, const struct pep_cpu_snapshot *before,
                                    uint32_t hz, const struct pep_profile_filter *filter) {
    struct pep_profile *profile = pep_arena_alloc(arena, sizeof *profile);
    if (profile == NULL || before == NULL || hz == 0)
        return NULL;
    *profile = (struct pep_profile){
        .kind = "cpu",
        .types = {{"samples", "count"}, {"cpu", "nanoseconds"}},
        .type_count = 2,
        .default_type = 1,
        .period_type = {"cpu", "nanoseconds"},
        .period = NS_PER_SECOND / hz,
        .time_ns = before->time_ns,
        .duration_ns = (int64_t)(pep_os_clock_ns(CLOCK_MONOTONIC) - before->monotonic_ns),
        .main_mapping = PEP_MAPPING_NONE,
        .pid = pep_os_getpid(),
    };
    pep_cpu_settle();
    pep_identities_refresh();
    fill_samples(arena, profile, before, filter);
    pep_profile_fill_mappings(arena, profile);
    fill_comments(arena, profile, before, hz);
    return arena->is_failed ? NULL : profile;
}
