/*
 * From a set of cells to a profile: subtract, label, filter.
 *
 * Model:   a snapshot is every cell's sums at one moment; the newest reading is one too.
 * Writers: -
 * Readers: whoever asks for a profile, on profep's threads.  [normal]
 * Memory:  the caller's arena.
 * When full: the arena says so (is_failed).
 */
#ifndef PEP_SAMPLER_PROFILE_CELLS_H
#define PEP_SAMPLER_PROFILE_CELLS_H

#include "sampler/cells.h"
#include "sampler/profile.h"

struct pep_cells_snapshot {
    uint64_t monotonic_ns, realtime_ns;
    uint64_t marks[4]; /* for whoever owns the set; 0 at first */
    uint32_t cell_count;
    struct {
        uint64_t count, weight;
    } cells[];
};

/* NULL when memory was refused. */
struct pep_cells_snapshot *pep_cells_snapshot_take(struct pep_arena *arena,
                                                   const struct pep_cells *set);

struct pep_cells_view {
    const struct pep_cells *set;
    const struct pep_cells_snapshot *before; /* NULL: since the start of the process */
    struct pep_profile_filter filter;
    /* The label "state" of a tag, or NULL for none; NULL: no such labels. Kept for ever. */
    const char *(*state_of)(uint16_t tag);
    /* False leaves cells of that tag out; NULL: all are wanted. */
    bool (*is_wanted)(uint16_t tag);
};

/* Appends a sample (values: count, weight) for each cell that rose; sets time_ns and duration_ns
 * where before is given, fills mappings. The caller has set kind, types and the rest. */
void pep_profile_fill_cells(struct pep_arena *arena, struct pep_profile *profile,
                            const struct pep_cells_view *view);

#endif
