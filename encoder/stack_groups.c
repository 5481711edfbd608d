#include "encoder/stack_groups.h"

#include <string.h>

#include "encoder/index.h"
#include "encoder/sort.h"

struct work {
    struct pep_stack_groups *groups;
    struct pep_arena *arena;
    struct pep_index index;
};

static uint64_t hash_of(const struct pep_sample *sample) {
    uint64_t hash = sample->pc_count;
    for (uint32_t i = 0; i < sample->pc_count; i++)
        hash = pep_index_mix(hash ^ sample->pcs[i]);
    if (sample->state != NULL)
        hash ^= pep_index_hash(sample->state, strlen(sample->state));
    return hash;
}

static int compare_pcs(const struct pep_sample *a, const struct pep_sample *b) {
    uint32_t common = a->pc_count < b->pc_count ? a->pc_count : b->pc_count;
    for (uint32_t i = 0; i < common; i++)
        if (a->pcs[i] != b->pcs[i])
            return a->pcs[i] < b->pcs[i] ? -1 : 1;
    return a->pc_count < b->pc_count ? -1 : a->pc_count > b->pc_count;
}

static int compare_states(const struct pep_sample *a, const struct pep_sample *b) {
    return strcmp(a->state != NULL ? a->state : "", b->state != NULL ? b->state : "");
}

static struct pep_stack_group *group_of(struct work *work, const struct pep_sample *sample) {
    struct pep_stack_groups *groups = work->groups;
    uint64_t hash = hash_of(sample);
    size_t cursor = 0;
    uint32_t found;
    while ((found = pep_index_next(&work->index, hash, &cursor)) != PEP_INDEX_NONE) {
        struct pep_stack_group *group = groups->items[found];
        if (compare_pcs(group->first, sample) == 0 && compare_states(group->first, sample) == 0)
            return group;
    }
    struct pep_stack_group *group = pep_arena_alloc(work->arena, sizeof(*group));
    if (group == NULL ||
        !PEP_ARENA_GROW(work->arena, groups->items, groups->count, groups->capacity) ||
        !pep_index_add(&work->index, hash, (uint32_t)groups->count))
        return NULL;
    group->first = sample;
    groups->items[groups->count++] = group;
    return group;
}

static int by_weight(const void *a, const void *b) {
    const struct pep_stack_group *left = a, *right = b;
    if (left->total != right->total)
        return left->total > right->total ? -1 : 1;
    int order = compare_pcs(left->first, right->first);
    return order != 0 ? order : compare_states(left->first, right->first);
}

bool pep_stack_groups_make(struct pep_stack_groups *groups, struct pep_arena *arena,
                           const struct pep_profile *profile) {
    struct work work = {.groups = groups, .arena = arena};
    *groups = (struct pep_stack_groups){.items = NULL};
    pep_index_init(&work.index, arena);
    for (uint32_t i = 0; i < profile->sample_count; i++) {
        const struct pep_sample *sample = &profile->samples[i];
        int64_t value = sample->values[profile->default_type];
        if (value <= 0)
            continue;
        struct pep_stack_group *group = group_of(&work, sample);
        if (group == NULL || !PEP_ARENA_GROW(arena, group->members, group->count, group->capacity))
            return false;
        group->members[group->count++] = i;
        group->total += value;
        groups->total += value;
    }
    return pep_sort(arena, (const void **)groups->items, groups->count, by_weight);
}
