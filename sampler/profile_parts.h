/*
 * What the makers of profiles share: mappings, labels of threads, and losses told as comments.
 *
 * Model:   modules.h knows the loaded objects, also unloaded ones; /proc/self/maps has executable
 *          memory that no object owns (JIT). Mappings are sorted by start and never overlap: what
 *          is loaded wins over what was.
 * Writers: pep_profile_cpu and its like.  [normal]
 * Readers: the encoders.
 * Memory:  the profile's arena.
 * When full: the arena says so.
 */
#ifndef PEP_SAMPLER_PROFILE_PARTS_H
#define PEP_SAMPLER_PROFILE_PARTS_H

#include "sampler/profile.h"
#include "sampler/rt/counters.h"

/* Refreshes the module table, then fills mappings, mapping_count and main_mapping. Ranges without
 * a module are listed only where a sample has an address in them. */
void pep_profile_fill_mappings(struct pep_arena *arena, struct pep_profile *profile);

/* Gives a sample the tid and name of its thread. names has PEP_IDENTITIES_MAX places, NULL at
 * first: cells of one thread share a copy. */
void pep_profile_label_thread(struct pep_arena *arena, const char **names, uint32_t identity,
                              struct pep_sample *sample);
/* filter NULL: always. */
bool pep_profile_is_wanted(const struct pep_sample *sample,
                           const struct pep_profile_filter *filter);

/* A comment for each of these counters that rose: since `before`, the values of all counters at the
 * start of a window, or, where that is NULL, since the start of the process. */
void pep_profile_tell_losses(struct pep_arena *arena, struct pep_profile *profile,
                             const enum pep_counter *losses, size_t count, const uint64_t *before);

/* One line of /proc/PID/maps (proc(5)) that is executable: its range and its name ("" when it has
 * none, ended at the line's end). False for others and for what cannot be read. */
struct pep_maps_range {
    uint64_t start, limit, offset;
    const char *name;
    uint32_t name_bytes;
};
bool pep_maps_parse_executable(const char *line, size_t bytes, struct pep_maps_range *range);

#endif
