#include "encoder/places.h"

#include <string.h>

void pep_places_init(struct pep_places *places, struct pep_arena *arena,
                     const struct pep_profile *profile, struct pep_symbolizer *symbolizer) {
    *places = (struct pep_places){.arena = arena, .profile = profile, .symbolizer = symbolizer};
    pep_index_init(&places->index, arena);
}

/* What is shown for a number that is no address. */
static int frame_of_note(uintptr_t pc, struct pep_frame *frame) {
    const char *note = pep_profile_pc_note(pc);
    *frame = (struct pep_frame){.name = note != NULL ? note : "[unknown]"};
    return 1;
}

static bool fill(struct pep_places *places, struct pep_place *place) {
    struct pep_frame frames[PEP_PLACE_FRAMES_MAX];
    int count;
    if (place->pc < PEP_PC_FIRST_REAL)
        count = frame_of_note(place->pc, frames);
    else
        count = places->symbolizer->lookup(places->symbolizer, places->profile, place->pc, frames,
                                           PEP_PLACE_FRAMES_MAX);
    if (count < 1)
        count = frame_of_note(PEP_PC_UNKNOWN, frames);
    for (int i = 0; i < count; i++) {
        if (frames[i].name == NULL || frames[i].name[0] == '\0')
            frames[i].name = "[unknown]";
        if (frames[i].system_name == NULL || frames[i].system_name[0] == '\0')
            frames[i].system_name = frames[i].name;
    }
    struct pep_frame *kept = pep_arena_array(places->arena, (size_t)count, sizeof(*kept));
    if (kept == NULL)
        return false;
    memcpy(kept, frames, (size_t)count * sizeof(*kept));
    place->frames = kept;
    place->frame_count = (uint32_t)count;
    return true;
}

static struct pep_place *add(struct pep_places *places, uintptr_t pc) {
    struct pep_place *place = pep_arena_alloc(places->arena, sizeof(*place));
    if (place == NULL)
        return NULL;
    place->pc = pc;
    uint32_t mapping = PEP_MAPPING_NONE;
    if (pc >= PEP_PC_FIRST_REAL)
        mapping = pep_profile_mapping_of(places->profile, pc);
    if (mapping != PEP_MAPPING_NONE) {
        place->mapping = &places->profile->mappings[mapping];
        place->is_own = place->mapping->is_own;
    }
    if (!fill(places, place) ||
        !PEP_ARENA_GROW(places->arena, places->items, places->count, places->capacity) ||
        !pep_index_add(&places->index, pep_index_mix(pc), (uint32_t)places->count))
        return NULL;
    places->items[places->count++] = place;
    return place;
}

struct pep_place *pep_places_find(struct pep_places *places, uintptr_t pc) {
    size_t cursor = 0;
    if (pc == PEP_PC_NONE)
        pc = PEP_PC_UNKNOWN;
    /* The mix keeps different numbers different, so the first with the same hash is it. */
    uint32_t found = pep_index_next(&places->index, pep_index_mix(pc), &cursor);
    return found != PEP_INDEX_NONE ? places->items[found] : add(places, pc);
}

const char *pep_place_module(const struct pep_place *place) {
    if (place->mapping == NULL || place->mapping->path == NULL)
        return "";
    const char *slash = strrchr(place->mapping->path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : place->mapping->path;
}
