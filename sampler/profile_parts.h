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

/* filter NULL: always. */
bool pep_profile_is_wanted(const struct pep_sample *sample,
                           const struct pep_profile_filter *filter);

/* The samples of a profile while they are added. */
struct pep_sample_list {
    struct pep_arena *arena;
    struct pep_profile *profile;
    const struct pep_profile_filter *filter; /* NULL: all are wanted */
    size_t capacity;                         /* of profile->samples; 0 at first */
    const char **names; /* by identity, NULL at first: samples of one thread share a copy */
};
/* Gives the sample the tid and name of its thread (identity 0: it has its own) and appends it if it
 * is wanted. False when memory was refused. */
bool pep_sample_list_add(struct pep_sample_list *to, uint32_t identity, struct pep_sample *sample);

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
