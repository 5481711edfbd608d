#include "encoder/callers.h"

#include <inttypes.h>
#include <string.h>

#include "encoder/calltree.h"
#include "encoder/intern.h"
#include "encoder/places.h"
#include "encoder/sort.h"

struct search {
    struct pep_callers *callers;
    const struct pep_callers_query *query;
    struct pep_arena *arena;
    struct pep_places places;
    struct pep_index index;
    struct pep_intern texts; /* fit for a terminal, each once */
};

/* What is asked for is the whole text, or stands behind the last of these marks. */
static bool is_end(const char *text, const char *wanted, const char *mark) {
    size_t have = strlen(text), want = strlen(wanted), width = strlen(mark);
    if (have < want || strcmp(text + have - want, wanted) != 0)
        return false;
    return have == want ||
           (have >= want + width && memcmp(text + have - want - width, mark, width) == 0);
}

static bool is_wanted(const struct pep_callers_query *query, const struct pep_frame *frame) {
    if (!is_end(frame->name, query->function, "::"))
        return false;
    if (query->file && (!frame->file || !is_end(frame->file, query->file, "/")))
        return false;
    return query->last_line == 0 ||
           (frame->line >= query->first_line && frame->line <= query->last_line);
}

static bool is_same(const struct pep_caller *a, const struct pep_caller *b) {
    return a->line == b->line && a->function == b->function && a->file == b->file;
}

static bool count_caller(struct search *search, const struct pep_caller *key, int64_t count) {
    struct pep_callers *callers = search->callers;
    uint64_t hash = pep_index_mix((uintptr_t)key->function);
    hash = pep_index_mix(hash ^ (uintptr_t)key->file);
    hash = pep_index_mix(hash ^ key->line);
    size_t cursor = 0;
    uint32_t found;
    while ((found = pep_index_next(&search->index, hash, &cursor)) != PEP_INDEX_NONE) {
        if (is_same(callers->items[found], key)) {
            callers->items[found]->count += count;
            return true;
        }
    }
    struct pep_caller *caller = pep_arena_alloc(search->arena, sizeof(*caller));
    if (!caller ||
        !PEP_ARENA_GROW(search->arena, callers->items, callers->count, callers->capacity) ||
        !pep_index_add(&search->index, hash, (uint32_t)callers->count))
        return false;
    *caller = *key;
    caller->count = count;
    callers->items[callers->count++] = caller;
    return true;
}

static const char *text_of(struct search *search, const char *text) {
    uint32_t number = pep_intern_add(&search->texts, text);
    return number == PEP_INDEX_NONE ? NULL : search->texts.items[number].text;
}

static bool count_frame(struct search *search, const struct pep_place *place, uint32_t at,
                        int64_t count) {
    const struct pep_frame *frame = &place->frames[at];
    const char *path = place->mapping != NULL ? place->mapping->path : NULL;
    const struct pep_caller key = {
        .function = text_of(search, frame->name),
        .file = text_of(search, frame->file != NULL ? frame->file : path),
        .line = frame->line,
    };
    return key.function != NULL && key.file != NULL && count_caller(search, &key, count);
}

/* From the inside out: whatever stands behind a frame that is wanted called it. */
static bool add_sample(struct search *search, const struct pep_sample *sample, int64_t count) {
    bool is_called = false, is_any = false;
    for (uint32_t i = 0; i < sample->pc_count; i++) {
        const struct pep_place *place = pep_places_find(&search->places, sample->pcs[i]);
        if (place == NULL)
            return false;
        for (uint32_t at = 0; at < place->frame_count && !place->is_own; at++) {
            if (is_called && !count_frame(search, place, at, count))
                return false;
            is_called = is_wanted(search->query, &place->frames[at]);
            is_any = is_any || is_called;
        }
    }
    search->callers->rootless += is_called ? count : 0;
    search->callers->total += is_any ? count : 0;
    return true;
}

static int by_count(const void *a, const void *b) {
    const struct pep_caller *left = a, *right = b;
    if (left->count != right->count)
        return left->count > right->count ? -1 : 1;
    int order = strcmp(left->function, right->function);
    if (order == 0)
        order = strcmp(left->file, right->file);
    return order != 0 ? order : left->line < right->line ? -1 : left->line > right->line;
}

bool pep_callers_find(struct pep_callers *callers, const struct pep_encode_job *job,
                      const struct pep_callers_query *query) {
    const struct pep_profile *profile = job->profile;
    struct search search = {.callers = callers, .query = query, .arena = job->arena};
    uint32_t type = pep_calltree_count_type(profile, profile->default_type);
    *callers = (struct pep_callers){.items = NULL};
    pep_places_init(&search.places, job->arena, profile, job->symbolizer);
    pep_index_init(&search.index, job->arena);
    if (!pep_intern_init(&search.texts, job->arena))
        return false;
    for (uint32_t i = 0; i < profile->sample_count; i++) {
        int64_t count = profile->samples[i].values[type];
        if (count > 0 && !add_sample(&search, &profile->samples[i], count))
            return false;
    }
    return pep_sort(job->arena, (const void **)callers->items, callers->count, by_count);
}

void pep_callers_write_text(struct pep_writer *writer, const struct pep_callers *callers) {
    pep_write_text(writer, " Count File:Line; Function\n");
    for (size_t i = 0; i < callers->count; i++) {
        const struct pep_caller *caller = callers->items[i];
        pep_write_printf(writer, "%6" PRId64 " %s:", caller->count,
                         caller->file[0] != '\0' ? caller->file : "[unknown file]");
        if (caller->line != 0)
            pep_write_printf(writer, "%" PRIu32, caller->line);
        else
            pep_write_text(writer, "?");
        pep_write_printf(writer, "; %s\n", caller->function);
    }
    if (callers->rootless > 0)
        pep_write_printf(writer, "%6" PRId64 " [nothing called it]\n", callers->rootless);
    pep_write_printf(writer, "Total snapshots: %" PRId64 "\n", callers->total);
}

void pep_callers_write_json(struct pep_writer *writer, const struct pep_callers *callers) {
    pep_write_text(writer, "[");
    for (size_t i = 0; i < callers->count; i++) {
        const struct pep_caller *caller = callers->items[i];
        pep_write_printf(writer, "%s\n{\"count\":%" PRId64 ",\"function\":", i > 0 ? "," : "",
                         caller->count);
        pep_write_json_string(writer, caller->function);
        pep_write_text(writer, ",\"file\":");
        pep_write_json_string(writer, caller->file);
        pep_write_printf(writer, ",\"line\":%" PRIu32 "}", caller->line);
    }
    pep_write_text(writer, "\n]\n");
}
