#include "encoder/line_cache.h"

#include <string.h>

#include "encoder/symbolize.h"
#include "sampler/rt/os.h"

void pep_line_cache_init(struct pep_line_cache *cache) {
    pep_arena_init(&cache->arena, 0);
    pep_index_init(&cache->index, &cache->arena);
    pep_index_init(&cache->text_index, &cache->arena);
    cache->entries = NULL;
    cache->texts = NULL;
    cache->count = cache->capacity = cache->text_count = cache->text_capacity = 0;
}

const struct pep_line_entry *pep_line_cache_find(const struct pep_line_cache *cache,
                                                 uint64_t address) {
    size_t cursor = 0;
    /* The mix keeps different numbers different, so the first with the same hash is it. */
    uint32_t found = pep_index_next(&cache->index, pep_index_mix(address), &cursor);
    return found != PEP_INDEX_NONE ? cache->entries[found] : NULL;
}

/* Every text once; NULL for NULL and without memory. */
static struct pep_line_text *text_of(struct pep_line_cache *cache, const char *raw) {
    if (raw == NULL)
        return NULL;
    size_t length = strlen(raw), cursor = 0;
    uint64_t hash = pep_index_hash(raw, length);
    uint32_t found;
    while ((found = pep_index_next(&cache->text_index, hash, &cursor)) != PEP_INDEX_NONE)
        if (strcmp(cache->texts[found].raw, raw) == 0)
            return &cache->texts[found];
    const char *copy = pep_arena_strndup(&cache->arena, raw, length);
    if (copy == NULL ||
        !PEP_ARENA_GROW(&cache->arena, cache->texts, cache->text_count, cache->text_capacity) ||
        !pep_index_add(&cache->text_index, hash, (uint32_t)cache->text_count))
        return NULL;
    cache->texts[cache->text_count] = (struct pep_line_text){.raw = copy};
    return &cache->texts[cache->text_count++];
}

static const char *demangled(struct pep_line_cache *cache, struct pep_line_text *text) {
    if (text->demangled == NULL)
        text->demangled = pep_demangle(&cache->arena, text->raw);
    if (text->demangled == NULL)
        text->demangled = text->raw;
    return text->demangled;
}

static struct pep_line_frame frame_of(struct pep_line_cache *cache, const struct pep_line *line) {
    struct pep_line_frame frame = {.line = line->line};
    struct pep_line_text *file = text_of(cache, line->file);
    if (file != NULL)
        frame.file = file->raw;
    struct pep_line_text *function = text_of(cache, line->function);
    if (function != NULL) {
        frame.system_name = function->raw;
        frame.name = demangled(cache, function);
    }
    return frame;
}

static void add(struct pep_line_cache *cache, uint64_t address, const struct pep_lines *lines) {
    struct pep_line_entry *entry = pep_arena_alloc(&cache->arena, sizeof(*entry));
    struct pep_line_frame *frames = pep_arena_array(&cache->arena, lines->count, sizeof(*frames));
    if (entry == NULL || frames == NULL)
        return;
    for (uint32_t i = 0; i < lines->count; i++)
        frames[i] = frame_of(cache, &lines->frames[i]);
    *entry = (struct pep_line_entry){address, frames, lines->count};
    if (PEP_ARENA_GROW(&cache->arena, cache->entries, cache->count, cache->capacity) &&
        pep_index_add(&cache->index, pep_index_mix(address), (uint32_t)cache->count))
        cache->entries[cache->count++] = entry;
}

static void note_end(struct pep_line_cache *cache, enum pep_lines_end end) {
    if (end == PEP_LINES_UNREAD)
        return;
    cache->at_end = end;
    if (end == PEP_LINES_LATE)
        cache->late_count++;
    else if (end == PEP_LINES_ENDED)
        cache->ended_count++;
    else
        cache->late_count = cache->ended_count = 0;
    if (end == PEP_LINES_LATE || end == PEP_LINES_ENDED)
        cache->setback_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
}

void pep_line_cache_keep(struct pep_line_cache *cache, const struct pep_lines_file *read,
                         bool is_alone) {
    note_end(cache, read->end);
    if (cache->arena.total_bytes > PEP_LINE_CACHE_BYTES && !is_alone)
        return;
    if (cache->arena.total_bytes > PEP_LINE_CACHE_BYTES) {
        pep_arena_drop(&cache->arena);
        pep_line_cache_init(cache);
    }
    for (uint32_t i = 0; i < read->count; i++)
        if (read->answers[i] != NULL && pep_line_cache_find(cache, read->addresses[i]) == NULL)
            add(cache, read->addresses[i], read->answers[i]);
}

/* How long the file is left alone. */
static uint64_t pause_ns(const struct pep_line_cache *cache) {
    if (cache->at_end == PEP_LINES_LATE)
        return cache->late_count >= PEP_LINE_TRIES_MAX ? PEP_LINE_PAUSE_NS : 0;
    if (cache->at_end != PEP_LINES_ENDED)
        return 0;
    uint32_t doublings = cache->ended_count - 1;
    if (doublings > PEP_LINE_ENDED_DOUBLINGS)
        doublings = PEP_LINE_ENDED_DOUBLINGS;
    return PEP_LINE_ENDED_PAUSE_NS << doublings;
}

bool pep_line_cache_is_hopeless(const struct pep_line_cache *cache) {
    uint64_t pause = pause_ns(cache);
    return cache->at_end == PEP_LINES_DAMAGED ||
           (pause != 0 && pep_os_clock_ns(CLOCK_MONOTONIC) - cache->setback_ns < pause);
}
