#include "encoder/calltree.h"

#include <string.h>

#include "encoder/intern.h"
#include "encoder/places.h"
#include "encoder/sort.h"

/* A node and what tells it from its siblings. */
struct entry {
    struct pep_calltree_node node;
    uint32_t parent, name, module; /* number of an entry, two texts */
};

struct builder {
    struct pep_arena *arena;
    const struct pep_calltree_options *options;
    struct pep_places places;
    struct pep_intern texts;
    struct pep_index index;
    struct entry **entries; /* [0] is the root */
    size_t count, capacity;
    uint32_t count_type;
    bool has_threads;
};

/* The path from the root on which a sample is being laid down. */
struct path {
    uint32_t at; /* entry of the node reached so far */
    int64_t weight, samples;
};

/* One step down. */
struct step {
    uint32_t name, module; /* texts */
    const char *file;
    bool is_thread, is_inlined;
};

static uint32_t add_entry(struct builder *builder, const struct entry *key, uint64_t hash) {
    struct entry *entry = pep_arena_alloc(builder->arena, sizeof(*entry));
    if (entry == NULL ||
        !PEP_ARENA_GROW(builder->arena, builder->entries, builder->count, builder->capacity) ||
        !pep_index_add(&builder->index, hash, (uint32_t)builder->count))
        return PEP_INDEX_NONE;
    *entry = *key;
    entry->node.name = builder->texts.items[key->name].text;
    entry->node.module = builder->texts.items[key->module].text;
    if (builder->count > 0) {
        struct pep_calltree_node *parent = &builder->entries[key->parent]->node;
        entry->node.next = parent->children;
        parent->children = &entry->node;
        parent->child_count++;
    }
    builder->entries[builder->count] = entry;
    return (uint32_t)builder->count++;
}

static bool descend(struct builder *builder, struct path *path, const struct step *step) {
    struct entry key = {.parent = path->at, .name = step->name, .module = step->module};
    if (key.name == PEP_INDEX_NONE || key.module == PEP_INDEX_NONE)
        return false;
    key.node.is_thread = step->is_thread;
    key.node.is_inlined = true;
    uint64_t hash = pep_index_mix((uint64_t)key.name << 32 | key.module);
    hash = pep_index_mix(hash ^ path->at) ^ step->is_thread;
    size_t cursor = 0;
    uint32_t found;
    while ((found = pep_index_next(&builder->index, hash, &cursor)) != PEP_INDEX_NONE) {
        const struct entry *entry = builder->entries[found];
        if (entry->parent == key.parent && entry->name == key.name && entry->module == key.module &&
            entry->node.is_thread == step->is_thread)
            break;
    }
    if (found == PEP_INDEX_NONE)
        found = add_entry(builder, &key, hash);
    if (found == PEP_INDEX_NONE)
        return false;
    struct pep_calltree_node *node = &builder->entries[found]->node;
    node->total += path->weight;
    node->count_total += path->samples;
    node->is_inlined = node->is_inlined && step->is_inlined;
    if (node->file == NULL)
        node->file = step->file;
    path->at = found;
    return true;
}

/* The texts of a place's names and, behind them, of its module; entered when it is met first. */
static const uint32_t *texts_of(struct builder *builder, struct pep_place *place) {
    if (place->texts != NULL)
        return place->texts;
    uint32_t *texts =
        pep_arena_array(builder->arena, (size_t)place->frame_count + 1, sizeof(*texts));
    if (texts == NULL)
        return NULL;
    for (uint32_t i = 0; i < place->frame_count; i++)
        texts[i] = pep_intern_add(&builder->texts, place->frames[i].name);
    texts[place->frame_count] = pep_intern_add(&builder->texts, pep_place_module(place));
    return place->texts = texts;
}

/* All frames of one address; the outermost function is the one that is not inlined. */
static bool descend_place(struct builder *builder, struct path *path, uintptr_t pc) {
    struct pep_place *place = pep_places_find(&builder->places, pc);
    const uint32_t *texts = place != NULL ? texts_of(builder, place) : NULL;
    if (texts == NULL)
        return false;
    for (uint32_t at = place->frame_count; at-- > 0 && !place->is_own;) {
        struct step step = {.name = texts[at],
                            .module = texts[place->frame_count],
                            .file = place->frames[at].file,
                            .is_inlined = at + 1 < place->frame_count};
        if (!descend(builder, path, &step))
            return false;
    }
    return true;
}

static bool descend_thread(struct builder *builder, struct path *path,
                           const struct pep_sample *sample) {
    const char *name = "[unknown thread]";
    if (sample->tid != 0)
        name = pep_arena_printf(builder->arena, "%s (%d)",
                                sample->thread != NULL ? sample->thread : "", sample->tid);
    if (name == NULL)
        return false;
    struct step step = {.name = pep_intern_add(&builder->texts, name), .is_thread = true};
    return descend(builder, path, &step);
}

static bool add_sample(struct builder *builder, const struct pep_sample *sample) {
    int64_t own[PEP_PROFILE_VALUES_MAX] = {0};
    bool is_empty = true;
    for (uint32_t i = 0; i < builder->places.profile->type_count; i++) {
        own[i] = sample->values[i] > 0 ? sample->values[i] : 0;
        is_empty = is_empty && own[i] == 0;
    }
    if (is_empty)
        return true;
    struct path path = {.weight = own[builder->options->value],
                        .samples = own[builder->count_type]};
    struct pep_calltree_node *root = &builder->entries[0]->node;
    root->total += path.weight;
    root->count_total += path.samples;
    if (builder->has_threads && !descend_thread(builder, &path, sample))
        return false;
    uint32_t start = path.at;
    for (uint32_t i = sample->pc_count; i-- > 0;)
        if (!descend_place(builder, &path, sample->pcs[i]))
            return false;
    if (path.at == start && !descend_place(builder, &path, PEP_PC_UNKNOWN))
        return false;
    struct pep_calltree_node *leaf = &builder->entries[path.at]->node;
    leaf->self += path.weight;
    for (uint32_t i = 0; i < PEP_PROFILE_VALUES_MAX; i++)
        leaf->own[i] += own[i];
    return true;
}

static int by_name(const void *a, const void *b) {
    const struct pep_calltree_node *left = a, *right = b;
    int order = strcmp(left->name, right->name);
    return order != 0 ? order : strcmp(left->module, right->module);
}

static bool sort_children(struct builder *builder, struct pep_calltree_node *parent) {
    const void **nodes = pep_arena_array(builder->arena, parent->child_count, sizeof(*nodes));
    if (nodes == NULL)
        return false;
    size_t count = 0;
    for (struct pep_calltree_node *node = parent->children; node != NULL; node = node->next)
        nodes[count++] = node;
    if (!pep_sort(builder->arena, nodes, count, by_name))
        return false;
    struct pep_calltree_node **link = &parent->children;
    for (size_t i = 0; i < count; i++) {
        *link = (struct pep_calltree_node *)(uintptr_t)nodes[i];
        link = &(*link)->next;
    }
    *link = NULL;
    return true;
}

static bool begin(struct builder *builder, const struct pep_profile *profile) {
    struct entry root = {.parent = PEP_INDEX_NONE};
    if (!pep_intern_init(&builder->texts, builder->arena))
        return false;
    pep_index_init(&builder->index, builder->arena);
    root.name = pep_intern_add(&builder->texts, "all");
    if (root.name == PEP_INDEX_NONE || add_entry(builder, &root, 0) == PEP_INDEX_NONE)
        return false;
    for (uint32_t i = 0; builder->options->by_thread && i < profile->sample_count; i++)
        if (profile->samples[i].tid != 0)
            builder->has_threads = true;
    return true;
}

uint32_t pep_calltree_count_type(const struct pep_profile *profile, uint32_t value) {
    const char *unit = profile->types[value].unit;
    bool is_count = unit != NULL && strcmp(unit, "count") == 0;
    return value > 0 && !is_count ? value - 1 : value;
}

struct pep_calltree_node *pep_calltree_build(struct pep_arena *arena,
                                             const struct pep_profile *profile,
                                             struct pep_symbolizer *symbolizer,
                                             const struct pep_calltree_options *options) {
    struct builder *builder = pep_arena_alloc(arena, sizeof(*builder));
    if (builder == NULL)
        return NULL;
    builder->arena = arena;
    builder->options = options;
    builder->count_type = pep_calltree_count_type(profile, options->value);
    pep_places_init(&builder->places, arena, profile, symbolizer);
    if (!begin(builder, profile))
        return NULL;
    for (uint32_t i = 0; i < profile->sample_count; i++)
        if (!add_sample(builder, &profile->samples[i]))
            return NULL;
    for (size_t i = 0; i < builder->count; i++)
        if (builder->entries[i]->node.child_count > 1 &&
            !sort_children(builder, &builder->entries[i]->node))
            return NULL;
    return &builder->entries[0]->node;
}

bool pep_calltree_walk(struct pep_arena *arena, struct pep_calltree_node *root,
                       const struct pep_calltree_visitor *visitor) {
    struct pep_calltree_node **path = NULL;
    size_t depth = 0, capacity = 0;
    struct pep_calltree_node *node = root;
    while (node != NULL) {
        if (!PEP_ARENA_GROW(arena, path, depth, capacity))
            return false;
        path[depth] = node;
        visitor->enter(visitor->context, path, depth);
        depth++;
        node = node->children;
        while (node == NULL && depth > 0) {
            depth--;
            if (visitor->leave != NULL)
                visitor->leave(visitor->context, path, depth);
            if (depth > 0)
                node = path[depth]->next;
        }
    }
    return true;
}
