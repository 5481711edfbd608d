/*
 * From a hash to the numbers of the things that have it.
 *
 * Model:   open addressing; whoever asks compares the candidates. Nothing is ever taken out.
 * Writers: one encoder.  [normal]
 * Readers: the same.
 * Memory:  an arena; the table doubles when three quarters are in use.
 * When full: pep_index_add is false.
 */
#ifndef PEP_ENCODER_INDEX_H
#define PEP_ENCODER_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sampler/rt/arena.h"

#define PEP_INDEX_NONE UINT32_MAX

struct pep_index_slot {
    uint64_t hash;
    uint32_t number; /* of the thing, plus 1; 0: empty */
};

struct pep_index {
    struct pep_arena *arena;
    struct pep_index_slot *slots; /* a power of two of them, or none yet */
    size_t slot_count, used_count;
};

static inline void pep_index_init(struct pep_index *index, struct pep_arena *arena) {
    *index = (struct pep_index){.arena = arena};
}

/* Spreads a number over 64 bits; different numbers stay different. */
static inline uint64_t pep_index_mix(uint64_t value) {
    value = (value ^ (value >> 32)) * 0x9E3779B97F4A7C15u;
    return value ^ (value >> 29);
}

/* Over bytes, eight at a time. */
static inline uint64_t pep_index_hash(const char *text, size_t count) {
    uint64_t hash = count, word;
    for (; count >= sizeof(word); text += sizeof(word), count -= sizeof(word)) {
        memcpy(&word, text, sizeof(word));
        hash = pep_index_mix(hash ^ word);
    }
    word = 0;
    memcpy(&word, text, count);
    return pep_index_mix(hash ^ word);
}

/* The next number entered under hash, or PEP_INDEX_NONE. *cursor is 0 at first. */
static inline uint32_t pep_index_next(const struct pep_index *index, uint64_t hash,
                                      size_t *cursor) {
    size_t mask = index->slot_count - 1;
    while (*cursor < index->slot_count) {
        const struct pep_index_slot *slot = &index->slots[(hash + *cursor) & mask];
        (*cursor)++;
        if (slot->number == 0)
            return PEP_INDEX_NONE;
        if (slot->hash == hash)
            return slot->number - 1;
    }
    return PEP_INDEX_NONE;
}

/* Enters number under hash. False when memory was refused. */
bool pep_index_add(struct pep_index *index, uint64_t hash, uint32_t number);

#endif
