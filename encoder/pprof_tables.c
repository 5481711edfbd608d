#include "encoder/pprof_tables.h"

#include <string.h>

#include "encoder/sort.h"

/* Most that a part takes on the wire beside its text, with tags and lengths: ids and texts are
 * below 2^21 here (3 bytes a varint), an address takes 10 at most. */
#define FUNCTION_COST 24
#define LOCATION_COST 22
#define LINE_COST 12
#define MAPPING_COST 60
#define SAMPLE_COST 12
#define TEXT_COST 4
/* A location's id as a varint: 32 bits. */
#define ID_BYTES 5
/* Held back for the comments on what was merged and for the file's own fields. */
#define RESERVE_COST 4096
/* The address of "[other]": not one of enum pep_pc, and below every real one. */
#define OTHER_ADDRESS (PEP_PC_FIRST_REAL - 1)

size_t pep_varint(uint8_t *to, uint64_t value) {
    size_t count = 0;
    for (; value >= 0x80; value >>= 7)
        to[count++] = (uint8_t)(value | 0x80);
    to[count++] = (uint8_t)value;
    return count;
}

static uint32_t function_id(struct pep_pprof_tables *tables, const struct pep_frame *frame) {
    struct pep_pprof_function function = {.start_line = frame->start_line};
    function.name = pep_intern_add(&tables->texts, frame->name);
    function.system_name = frame->system_name == frame->name
                               ? function.name
                               : pep_intern_add(&tables->texts, frame->system_name);
    function.file = pep_intern_add(&tables->texts, frame->file);
    if (function.name == PEP_INDEX_NONE || function.system_name == PEP_INDEX_NONE ||
        function.file == PEP_INDEX_NONE)
        return 0;
    uint64_t hash = pep_index_mix((uint64_t)function.name << 32 | function.system_name);
    hash = pep_index_mix(hash ^ ((uint64_t)function.file << 32 | function.start_line));
    size_t cursor = 0;
    uint32_t found;
    while ((found = pep_index_next(&tables->function_index, hash, &cursor)) != PEP_INDEX_NONE)
        if (memcmp(&tables->functions[found], &function, sizeof(function)) == 0)
            return found + 1;
    if (!PEP_ARENA_GROW(tables->arena, tables->functions, tables->function_count,
                        tables->function_capacity) ||
        !pep_index_add(&tables->function_index, hash, (uint32_t)tables->function_count))
        return 0;
    tables->functions[tables->function_count++] = function;
    tables->size_bytes += FUNCTION_COST;
    return (uint32_t)tables->function_count;
}

static uint64_t texts_cost(const struct pep_pprof_tables *tables) {
    return tables->texts.text_bytes + TEXT_COST * tables->texts.count;
}

/* What a place not yet in the file may add to it at most. */
static uint64_t place_cost(const struct pep_place *place) {
    uint64_t cost = LOCATION_COST;
    for (uint32_t i = 0; i < place->frame_count; i++) {
        const struct pep_frame *frame = &place->frames[i];
        cost += LINE_COST + FUNCTION_COST + 3 * TEXT_COST + pep_intern_bound(frame->name);
        if (frame->system_name != frame->name)
            cost += pep_intern_bound(frame->system_name);
        if (frame->file != NULL)
            cost += pep_intern_bound(frame->file);
    }
    return cost;
}

/* Nobody looks for such a file, so its unnamed addresses may as well say what we know. */
static bool is_without_file(const struct pep_mapping *mapping) {
    return mapping == NULL || mapping->is_jit || mapping->is_vdso || mapping->path == NULL ||
           mapping->path[0] == '\0' || mapping->path[0] == '[' ||
           strncmp(mapping->path, "//anon", 6) == 0;
}

/* Enters the functions of a location's lines. */
static bool name_lines(struct pep_pprof_tables *tables, struct pep_pprof_location *location) {
    const struct pep_place *place = location->place;
    uint64_t texts_before = texts_cost(tables);
    for (uint32_t i = 0; i < place->frame_count; i++) {
        location->lines[i].function = function_id(tables, &place->frames[i]);
        location->lines[i].line = place->frames[i].line;
        if (location->lines[i].function == 0)
            return false;
    }
    tables->size_bytes += LINE_COST * place->frame_count + texts_cost(tables) - texts_before;
    location->line_count = place->frame_count;
    return true;
}

static bool add_location(struct pep_pprof_tables *tables, struct pep_place *place) {
    if (!PEP_ARENA_GROW(tables->arena, tables->locations, tables->location_count,
                        tables->location_capacity))
        return false;
    struct pep_pprof_location *location = &tables->locations[tables->location_count];
    *location = (struct pep_pprof_location){.place = place};
    location->lines = pep_arena_array(tables->arena, place->frame_count, sizeof(*location->lines));
    if (location->lines == NULL)
        return false;
    place->number = (uint32_t)++tables->location_count;
    tables->size_bytes += LOCATION_COST;
    if (place->frames[0].is_known || is_without_file(place->mapping))
        return name_lines(tables, location);
    /* Whether an address without a name gets a line is known at the end (write_mappings). */
    tables->size_bytes += place_cost(place);
    return true;
}

/* Below 0 only where the profile says that its values are differences. */
static int64_t value_of(const struct pep_pprof_tables *tables, const struct pep_sample *sample,
                        uint32_t type) {
    int64_t value = sample->values[type];
    return value > 0 || tables->profile->is_signed ? value : 0;
}

static void merge_into_other(struct pep_pprof_tables *tables, const struct pep_sample *sample) {
    tables->other_count++;
    for (uint32_t i = 0; i < tables->profile->type_count; i++)
        tables->other_values[i] += value_of(tables, sample, i);
}

/* How many frames, from the root, a sample shares with the one packed last. */
static uint32_t shared_frames(const struct pep_pprof_tables *tables,
                              const struct pep_sample *sample) {
    uint32_t shared = 0;
    while (shared < tables->scratch_count && shared < sample->pc_count &&
           tables->scratch[shared].pc == sample->pcs[sample->pc_count - 1 - shared])
        shared++;
    return shared;
}

/* Puts the places of a sample into the scratch, root first, from the first one that is not there
 * already, and what they may cost at most into *cost. */
static bool find_places(struct pep_pprof_tables *tables, const struct pep_sample *sample,
                        uint64_t *cost) {
    uint32_t shared = shared_frames(tables, sample);
    tables->scratch_count = shared;
    *cost = (uint64_t)ID_BYTES * sample->pc_count;
    for (uint32_t i = shared; i < sample->pc_count; i++) {
        struct pep_pprof_scratch *scratch = &tables->scratch[i];
        scratch->pc = sample->pcs[sample->pc_count - 1 - i];
        scratch->place = pep_places_find(&tables->places, scratch->pc);
        if (scratch->place == NULL)
            return false;
        *cost += scratch->place->number == 0 ? place_cost(scratch->place) : 0;
    }
    return true;
}

/* The ids of the places that are shown, innermost first; those of the root stand at the end of
 * the scratch bytes and stay there for the next sample. False when memory was refused. */
static bool pack_locations(struct pep_pprof_tables *tables, uint32_t count,
                           struct pep_packed *packed) {
    const uint8_t *limit = tables->scratch_ids + (size_t)ID_BYTES * tables->depth;
    uint8_t unknown_id[ID_BYTES], *start = (uint8_t *)(uintptr_t)limit;
    if (tables->scratch_count > 0)
        start = tables->scratch[tables->scratch_count - 1].ids;
    for (; tables->scratch_count < count; tables->scratch_count++) {
        struct pep_pprof_scratch *scratch = &tables->scratch[tables->scratch_count];
        struct pep_place *place = scratch->place;
        if (!place->is_own) {
            uint8_t id[10];
            if (place->number == 0 && !add_location(tables, place))
                return false;
            size_t bytes = pep_varint(id, place->number);
            start -= bytes;
            memcpy(start, id, bytes);
        }
        scratch->ids = start;
    }
    packed->count = (size_t)(limit - start);
    if (packed->count == 0) {
        struct pep_place *unknown = pep_places_find(&tables->places, PEP_PC_UNKNOWN);
        if (unknown == NULL || (unknown->number == 0 && !add_location(tables, unknown)))
            return false;
        packed->count = pep_varint(unknown_id, unknown->number);
        start = unknown_id;
    }
    packed->bytes = (uint8_t *)pep_arena_strndup(tables->arena, (const char *)start, packed->count);
    return packed->bytes != NULL;
}

static uint64_t values_cost(const struct pep_pprof_tables *tables,
                            const struct pep_sample *sample) {
    uint8_t bytes[10];
    uint64_t cost = 0;
    for (uint32_t i = 0; i < tables->profile->type_count; i++)
        cost += pep_varint(bytes, (uint64_t)value_of(tables, sample, i));
    return cost;
}

static bool add_sample(struct pep_pprof_tables *tables, const struct pep_sample *sample) {
    struct pep_packed labels;
    uint64_t cost;
    if (tables->sample_count >= tables->sample_limit) {
        merge_into_other(tables, sample);
        return true;
    }
    uint64_t texts_before = texts_cost(tables);
    if (!find_places(tables, sample, &cost) || !pep_pprof_labels(tables, sample, &labels))
        return false;
    tables->size_bytes += texts_cost(tables) - texts_before;
    uint64_t own_cost = SAMPLE_COST + labels.count + values_cost(tables, sample);
    cost += own_cost;
    if (tables->size_bytes + cost > PEP_PPROF_BYTES_MAX) {
        merge_into_other(tables, sample);
        return true;
    }
    struct pep_pprof_sample *packed = &tables->samples[tables->sample_count++];
    *packed = (struct pep_pprof_sample){.labels = labels};
    if (!pack_locations(tables, sample->pc_count, &packed->locations))
        return false;
    for (uint32_t i = 0; i < tables->profile->type_count; i++)
        packed->values[i] = value_of(tables, sample, i);
    tables->size_bytes += own_cost + packed->locations.count;
    return true;
}

static bool add_other(struct pep_pprof_tables *tables) {
    static const struct pep_frame frame = {.name = "[other]", .system_name = "[other]"};
    struct pep_place *place = pep_arena_alloc(tables->arena, sizeof(*place));
    uint8_t *id = pep_arena_alloc(tables->arena, ID_BYTES);
    if (place == NULL || id == NULL)
        return false;
    place->pc = OTHER_ADDRESS;
    place->frames = &frame;
    place->frame_count = 1;
    if (!add_location(tables, place))
        return false;
    struct pep_pprof_sample *packed = &tables->samples[tables->sample_count++];
    packed->locations.bytes = id;
    packed->locations.count = pep_varint(id, place->number);
    memcpy(packed->values, tables->other_values, sizeof(packed->values));
    return true;
}

/* A sample and the weight it is ranked by. */
struct ranked {
    const struct pep_sample *sample;
    int64_t weight;
    uint64_t roots; /* 16 bits each for the outermost 6, 12, 20 and 32 frames */
};

static int heavier_first(const void *a, const void *b) {
    int64_t left = ((const struct ranked *)a)->weight;
    int64_t right = ((const struct ranked *)b)->weight;
    return left > right ? -1 : left < right;
}

static uint64_t hash_roots(const struct pep_sample *sample) {
    static const uint32_t depths[] = {6, 12, 20, 32};
    uint64_t hash = 1, roots = 0;
    uint32_t done = 0;
    for (size_t i = 0; i < PEP_COUNT_OF(depths); i++) {
        for (; done < depths[i] && done < sample->pc_count; done++)
            hash = pep_index_mix(hash ^ sample->pcs[sample->pc_count - 1 - done]);
        roots = roots << 16 | hash >> 48;
    }
    return roots;
}

/* Stacks that begin alike stand together: their bytes repeat, which gzip likes. Most pairs are
 * told apart without a look at the stacks. */
static int root_first(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->roots != y->roots)
        return x->roots < y->roots ? -1 : 1;
    const struct pep_sample *left = x->sample, *right = y->sample;
    uint32_t shared = left->pc_count < right->pc_count ? left->pc_count : right->pc_count;
    for (uint32_t i = 1; i <= shared; i++) {
        uintptr_t from = left->pcs[left->pc_count - i], to = right->pcs[right->pc_count - i];
        if (from != to)
            return from < to ? -1 : 1;
    }
    return left->pc_count < right->pc_count ? -1 : left->pc_count > right->pc_count;
}

/* The samples that have any value. */
static const void **list_samples(struct pep_pprof_tables *tables, size_t *count) {
    const struct pep_profile *profile = tables->profile;
    size_t capacity = (size_t)profile->sample_count + 1;
    struct ranked *ranked = pep_arena_array(tables->arena, capacity, sizeof(*ranked));
    const void **order = pep_arena_array(tables->arena, capacity, sizeof(*order));
    *count = 0;
    if (ranked == NULL || order == NULL)
        return NULL;
    for (uint32_t i = 0; i < profile->sample_count; i++) {
        const struct pep_sample *sample = &profile->samples[i];
        bool is_zero = true;
        for (uint32_t type = 0; type < profile->type_count; type++)
            is_zero = is_zero && value_of(tables, sample, type) == 0;
        if (is_zero)
            continue;
        if (sample->pc_count > tables->depth)
            tables->depth = sample->pc_count;
        ranked[*count] = (struct ranked){.sample = sample,
                                         .weight = sample->values[profile->default_type],
                                         .roots = hash_roots(sample)};
        order[*count] = &ranked[*count];
        (*count)++;
    }
    return order;
}

static bool add_samples(struct pep_pprof_tables *tables) {
    size_t count;
    const void **order = list_samples(tables, &count);
    if (order == NULL)
        return false;
    tables->sample_limit = PEP_PPROF_SAMPLES_MAX - (count > PEP_PPROF_SAMPLES_MAX);
    tables->samples = pep_arena_array(tables->arena, count + 1, sizeof(*tables->samples));
    tables->scratch = pep_arena_array(tables->arena, tables->depth + 1, sizeof(*tables->scratch));
    tables->scratch_ids = pep_arena_array(tables->arena, tables->depth + 1, ID_BYTES);
    if (tables->samples == NULL || tables->scratch == NULL || tables->scratch_ids == NULL)
        return false;
    /* Ranked only where something may have to go: then the lightest come last and go. */
    bool is_ranked = tables->is_tight || count > PEP_PPROF_SAMPLES_MAX;
    if (!pep_sort(tables->arena, order, count, is_ranked ? heavier_first : root_first))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!add_sample(tables, ((const struct ranked *)order[i])->sample))
            return false;
    return tables->other_count == 0 || add_other(tables);
}

static struct pep_pprof_mapping *mapping_of(const struct pep_pprof_tables *tables,
                                            const struct pep_pprof_location *location) {
    const struct pep_mapping *mapping = location->place->mapping;
    return mapping != NULL ? &tables->mappings[mapping - tables->profile->mappings] : NULL;
}

/* Which mappings occur, and which of them have any name. */
static void learn_mappings(struct pep_pprof_tables *tables) {
    for (size_t i = 0; i < tables->location_count; i++) {
        const struct pep_pprof_location *location = &tables->locations[i];
        struct pep_pprof_mapping *mapping = mapping_of(tables, location);
        if (mapping == NULL)
            continue;
        mapping->is_used = true;
        for (uint32_t line = 0; line < location->place->frame_count; line++)
            mapping->has_functions =
                mapping->has_functions || location->place->frames[line].is_known;
    }
}

/* Ties a location to its numbered mapping and tells the mapping what its lines hold. */
static bool settle_location(struct pep_pprof_tables *tables, struct pep_pprof_location *location) {
    struct pep_pprof_mapping *mapping = mapping_of(tables, location);
    if (mapping == NULL)
        return true;
    location->mapping = mapping->id;
    /* In a mapping without any name the clients may find names themselves; they try that only
     * for addresses without a line. */
    if (location->line_count == 0 && mapping->has_functions && !name_lines(tables, location))
        return false;
    /* More than these lines nobody will find out. */
    if (is_without_file(mapping->mapping))
        mapping->has_functions = true;
    mapping->has_inlined = mapping->has_inlined || location->line_count > 1;
    for (uint32_t line = 0; line < location->line_count; line++) {
        const struct pep_frame *frame = &location->place->frames[line];
        mapping->has_files = mapping->has_files || (frame->file != NULL && frame->file[0]);
        mapping->has_lines = mapping->has_lines || frame->line != 0;
    }
    return true;
}

/* Numbers a mapping; the one of the program goes first, because it names the profile. */
static bool write_mapping(struct pep_pprof_tables *tables, uint32_t number) {
    struct pep_pprof_mapping *mapping = &tables->mappings[number];
    mapping->mapping = &tables->profile->mappings[number];
    const char *path = mapping->mapping->path;
    mapping->path = pep_intern_add(&tables->texts, path != NULL && path[0] ? path : "//anon");
    mapping->build_id = pep_intern_add(&tables->texts, mapping->mapping->build_id);
    if (mapping->path == PEP_INDEX_NONE || mapping->build_id == PEP_INDEX_NONE)
        return false;
    /* Nothing in it waits for a name, so no client need search for the file. */
    if (!mapping->is_used)
        mapping->has_functions = true;
    tables->written[tables->written_count++] = mapping;
    mapping->id = (uint32_t)tables->written_count;
    return true;
}

static bool write_mappings(struct pep_pprof_tables *tables) {
    const struct pep_profile *profile = tables->profile;
    uint32_t main_mapping = profile->main_mapping;
    learn_mappings(tables);
    if (main_mapping < profile->mapping_count && !write_mapping(tables, main_mapping))
        return false;
    for (uint32_t i = 0; i < profile->mapping_count; i++)
        if (i != main_mapping && tables->mappings[i].is_used && !write_mapping(tables, i))
            return false;
    for (size_t i = 0; i < tables->location_count; i++)
        if (!settle_location(tables, &tables->locations[i]))
            return false;
    return true;
}

static bool add_comments(struct pep_pprof_tables *tables) {
    const struct pep_profile *profile = tables->profile;
    tables->comments =
        pep_arena_array(tables->arena, profile->comment_count + 1, sizeof(*tables->comments));
    if (tables->comments == NULL)
        return false;
    for (uint32_t i = 0; i < profile->comment_count; i++)
        tables->comments[tables->comment_count++] =
            pep_intern_add(&tables->texts, profile->comments[i]);
    if (tables->other_count != 0)
        tables->comments[tables->comment_count++] = pep_intern_add(
            &tables->texts,
            pep_arena_printf(
                tables->arena,
                "%zu of %zu stacks, as a rule the lightest, are merged into [other]: a profile "
                "holds at most %d samples and %u MiB.",
                tables->other_count, tables->other_count + tables->sample_count - 1,
                PEP_PPROF_SAMPLES_MAX, PEP_PPROF_BYTES_MAX >> 20));
    for (size_t i = 0; i < tables->comment_count; i++)
        if (tables->comments[i] == PEP_INDEX_NONE)
            return false;
    return true;
}

/* What is in the file whatever the samples are. */
static uint64_t fixed_cost(const struct pep_profile *profile) {
    uint64_t cost = RESERVE_COST;
    for (uint32_t i = 0; i < profile->comment_count; i++)
        cost += pep_intern_bound(profile->comments[i]) + 10;
    for (uint32_t i = 0; i < profile->mapping_count; i++) {
        const struct pep_mapping *mapping = &profile->mappings[i];
        cost += MAPPING_COST + sizeof(mapping->build_id);
        cost += mapping->path != NULL ? pep_intern_bound(mapping->path) : 0;
    }
    return cost;
}

static bool build(struct pep_pprof_tables *tables, const struct pep_encode_job *job) {
    pep_places_init(&tables->places, job->arena, job->profile, job->symbolizer);
    pep_index_init(&tables->function_index, job->arena);
    pep_index_init(&tables->label_index, job->arena);
    tables->size_bytes = fixed_cost(job->profile);
    size_t mapping_count = (size_t)job->profile->mapping_count + 1;
    tables->mappings = pep_arena_array(job->arena, mapping_count, sizeof(*tables->mappings));
    tables->written = pep_arena_array(job->arena, mapping_count, sizeof(*tables->written));
    return tables->mappings != NULL && tables->written != NULL &&
           pep_intern_init(&tables->texts, job->arena) && add_samples(tables);
}

bool pep_pprof_tables_build(struct pep_pprof_tables *tables, const struct pep_encode_job *job) {
    *tables = (struct pep_pprof_tables){.profile = job->profile, .arena = job->arena};
    if (!build(tables, job))
        return false;
    if (tables->other_count != 0 && tables->sample_limit == PEP_PPROF_SAMPLES_MAX) {
        /* Too many bytes, and what was left out is not the lightest: once more, ranked. */
        *tables = (struct pep_pprof_tables){
            .profile = job->profile, .arena = job->arena, .is_tight = true};
        if (!build(tables, job))
            return false;
    }
    return write_mappings(tables) && add_comments(tables);
}
