/*
 * Windows over threads: which came and went between two dumps, and who was made.
 *
 * Model:   a dump counts each thread once, so the difference of two of them has +1 for a stack
 *          that stands at the end alone, -1 for one that stood at the start alone, and nothing for
 *          a thread that did not move; as Go merges two profiles.
 * Writers: the connection's thread.  [normal]
 * Readers: the same.
 * Memory:  the request's arena.
 * When full: -ENOMEM.
 */
#include <errno.h>
#include <string.h>

#include "encoder/index.h"
#include "http/window.h"

struct merge {
    struct pep_arena *arena;
    struct pep_index index;
    struct pep_sample *samples;
    size_t count, capacity;
};

static uint64_t hash_of(const struct pep_sample *sample) {
    uint64_t hash = pep_index_mix((uint64_t)sample->tid << 32 | sample->pc_count);
    for (uint32_t i = 0; i < sample->pc_count; i++)
        hash = pep_index_mix(hash ^ sample->pcs[i]);
    return hash;
}

static bool is_same_text(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool is_same(const struct pep_sample *a, const struct pep_sample *b) {
    return a->tid == b->tid && a->pc_count == b->pc_count &&
           memcmp(a->pcs, b->pcs, a->pc_count * sizeof(*a->pcs)) == 0 &&
           is_same_text(a->thread, b->thread) && is_same_text(a->state, b->state);
}

static bool add(struct merge *merge, const struct pep_sample *sample, int64_t sign) {
    uint64_t hash = hash_of(sample);
    size_t cursor = 0;
    uint32_t found;
    while ((found = pep_index_next(&merge->index, hash, &cursor)) != PEP_INDEX_NONE) {
        if (is_same(&merge->samples[found], sample)) {
            merge->samples[found].values[0] += sign * sample->values[0];
            return true;
        }
    }
    if (!PEP_ARENA_GROW(merge->arena, merge->samples, merge->count, merge->capacity) ||
        !pep_index_add(&merge->index, hash, (uint32_t)merge->count))
        return false;
    merge->samples[merge->count] = *sample;
    merge->samples[merge->count++].values[0] = sign * sample->values[0];
    return true;
}

/* after becomes after - before. */
static bool subtract(struct pep_arena *arena, struct pep_profile *after,
                     const struct pep_profile *before) {
    struct merge merge = {.arena = arena};
    pep_index_init(&merge.index, arena);
    for (uint32_t i = 0; i < before->sample_count; i++)
        if (!add(&merge, &before->samples[i], -1))
            return false;
    for (uint32_t i = 0; i < after->sample_count; i++)
        if (!add(&merge, &after->samples[i], 1))
            return false;
    uint32_t kept = 0;
    for (size_t i = 0; i < merge.count; i++)
        if (merge.samples[i].values[0] != 0)
            merge.samples[kept++] = merge.samples[i];
    after->samples = merge.samples;
    after->sample_count = kept;
    after->is_signed = true;
    return true;
}

int pep_window_threads(struct pep_arena *arena, const struct pep_threads_window *window,
                       struct pep_profile **profile) {
    const struct pep_dump_options options = {.filter = window->filter};
    *profile = NULL;
    const struct pep_dump *before = pep_dump_take(arena, &options);
    int error = before ? pep_window_wait(window->client, window->duration_ns) : -ENOMEM;
    if (error)
        return error;
    const struct pep_dump *after = pep_dump_take(arena, &options);
    if (!after || !subtract(arena, after->profile, before->profile))
        return -ENOMEM;
    after->profile->duration_ns = after->time_ns - before->time_ns;
    *profile = after->profile;
    return 0;
}

int pep_window_births(struct pep_arena *arena, const struct pep_threads_window *window,
                      struct pep_profile **profile) {
    struct pep_cells_snapshot *before = NULL;
    *profile = NULL;
    if (window->duration_ns) {
        before = pep_birth_snapshot_take(arena);
        int error = before ? pep_window_wait(window->client, window->duration_ns) : -ENOMEM;
        if (error)
            return error;
    }
    *profile = pep_profile_threadcreate(arena, window->is_live, before, &window->filter);
    return *profile ? 0 : -ENOMEM;
}
