#include "sampler/profile_cells.h"

#include <time.h>

#include "sampler/profile_parts.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

struct pep_cells_snapshot *pep_cells_snapshot_take(struct pep_arena *arena,
                                                   const struct pep_cells *set) {
    uint32_t count = pep_cells_count(set);
    struct pep_cells_snapshot *snapshot =
        pep_arena_alloc(arena, sizeof *snapshot + count * sizeof snapshot->cells[0]);
    if (snapshot == NULL)
        return NULL;
    snapshot->monotonic_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    snapshot->realtime_ns = pep_os_clock_ns(CLOCK_REALTIME);
    snapshot->cell_count = count;
    for (uint32_t i = 0; i < count; i++) {
        snapshot->cells[i].count = pep_load_relaxed(&set->cells[i].count);
        snapshot->cells[i].weight = pep_load_relaxed(&set->cells[i].weight);
    }
    return snapshot;
}

static bool fill_sample(struct pep_sample *sample, const struct pep_cells_view *view, uint32_t i) {
    const struct pep_tagged_cell *cell = &view->set->cells[i];
    uint64_t key = pep_load_acquire(&cell->key);
    uint64_t count = pep_load_relaxed(&cell->count), weight = pep_load_relaxed(&cell->weight);
    const struct pep_stack *stack = pep_stack_table_get(pep_cell_stack(key));
    if (view->before != NULL && i < view->before->cell_count) {
        count -= view->before->cells[i].count;
        weight -= view->before->cells[i].weight;
    }
    if (key == 0 || stack == NULL || (count == 0 && weight == 0) ||
        (view->is_wanted != NULL && !view->is_wanted(pep_cell_tag(key))))
        return false;
    *sample = (struct pep_sample){.pcs = stack->pcs, .pc_count = stack->count};
    if (view->state_of != NULL)
        sample->state = view->state_of(pep_cell_tag(key));
    sample->values[0] = (int64_t)count;
    sample->values[1] = (int64_t)weight;
    return true;
}

void pep_profile_fill_cells(struct pep_arena *arena, struct pep_profile *profile,
                            const struct pep_cells_view *view) {
    struct pep_sample_list list = {.arena = arena,
                                   .profile = profile,
                                   .filter = &view->filter,
                                   .capacity = profile->sample_count};
    uint32_t cells = pep_cells_count(view->set);
    if (view->before != NULL) {
        profile->time_ns = (int64_t)view->before->realtime_ns;
        profile->duration_ns =
            (int64_t)(pep_os_clock_ns(CLOCK_MONOTONIC) - view->before->monotonic_ns);
    }
    pep_identities_refresh();
    for (uint32_t i = 0; i < cells; i++) {
        struct pep_sample sample;
        if (fill_sample(&sample, view, i) &&
            !pep_sample_list_add(&list, pep_cell_identity(view->set->cells[i].key), &sample))
            return;
    }
    pep_profile_fill_mappings(arena, profile);
}
