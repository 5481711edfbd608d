#include "encoder/index.h"

#define SLOTS_AT_FIRST 256

static void put(struct pep_index *index, uint64_t hash, uint32_t number) {
    size_t mask = index->slot_count - 1;
    size_t at = hash & mask;
    while (index->slots[at].number != 0)
        at = (at + 1) & mask;
    index->slots[at] = (struct pep_index_slot){.hash = hash, .number = number};
    index->used_count++;
}

static bool grow(struct pep_index *index) {
    struct pep_index larger = {.arena = index->arena};
    larger.slot_count = index->slot_count == 0 ? SLOTS_AT_FIRST : index->slot_count * 2;
    larger.slots = pep_arena_array(index->arena, larger.slot_count, sizeof(*larger.slots));
    if (larger.slots == NULL)
        return false;
    for (size_t i = 0; i < index->slot_count; i++)
        if (index->slots[i].number != 0)
            put(&larger, index->slots[i].hash, index->slots[i].number);
    *index = larger;
    return true;
}

bool pep_index_add(struct pep_index *index, uint64_t hash, uint32_t number) {
    if (index->used_count >= index->slot_count / 4 * 3 && !grow(index))
        return false;
    put(index, hash, number + 1);
    return true;
}
