#include "encoder/xz_lzma.h"

#include <string.h>

#define PROBABILITY_BITS 11
#define PROBABILITY_HALF (1u << (PROBABILITY_BITS - 1))
#define ADAPTATION 5
#define RANGE_MIN (1u << 24)
#define LENGTH_MIN 2
#define STATE_LITERALS 7 /* states below: the last thing was a literal */

/* Bytes behind the end of a chunk read as 0 and make it damaged. */
static uint8_t next_byte(struct pep_lzma *lzma) {
    if (lzma->in_at < lzma->in_end)
        return lzma->in[lzma->in_at++];
    lzma->is_damaged = true;
    return 0;
}

static void normalize(struct pep_lzma *lzma) {
    if (lzma->range < RANGE_MIN) {
        lzma->range <<= 8;
        lzma->code = lzma->code << 8 | next_byte(lzma);
    }
}

static uint32_t decode_bit(struct pep_lzma *lzma, uint16_t *probability) {
    normalize(lzma);
    uint32_t bound = (lzma->range >> PROBABILITY_BITS) * *probability;
    if (lzma->code < bound) {
        lzma->range = bound;
        *probability =
            (uint16_t)(*probability + (((1u << PROBABILITY_BITS) - *probability) >> ADAPTATION));
        return 0;
    }
    lzma->range -= bound;
    lzma->code -= bound;
    *probability = (uint16_t)(*probability - (*probability >> ADAPTATION));
    return 1;
}

/* A number of so many bits, highest first, through a tree of probabilities. */
static uint32_t decode_tree(struct pep_lzma *lzma, uint16_t *tree, uint32_t bits) {
    uint32_t node = 1;
    for (uint32_t i = 0; i < bits; i++)
        node = node << 1 | decode_bit(lzma, &tree[node]);
    return node - (1u << bits);
}

/* The same, lowest bit first. tree[0] is the root here. */
static uint32_t decode_reverse_tree(struct pep_lzma *lzma, uint16_t *tree, uint32_t bits) {
    uint32_t node = 1, value = 0;
    for (uint32_t i = 0; i < bits; i++) {
        uint32_t bit = decode_bit(lzma, &tree[node - 1]);
        node = node << 1 | bit;
        value |= bit << i;
    }
    return value;
}

/* Bits that are equally likely. */
static uint32_t decode_direct(struct pep_lzma *lzma, uint32_t bits) {
    uint32_t value = 0;
    for (uint32_t i = 0; i < bits; i++) {
        normalize(lzma);
        lzma->range >>= 1;
        uint32_t bit = lzma->code >= lzma->range;
        lzma->code -= bit ? lzma->range : 0;
        value = value << 1 | bit;
    }
    return value;
}

static uint32_t decode_length(struct pep_lzma *lzma, struct pep_lzma_length *length,
                              uint32_t pos_state) {
    if (!decode_bit(lzma, &length->choice[0]))
        return LENGTH_MIN + decode_tree(lzma, length->low[pos_state], 3);
    if (!decode_bit(lzma, &length->choice[1]))
        return LENGTH_MIN + 8 + decode_tree(lzma, length->middle[pos_state], 3);
    return LENGTH_MIN + 16 + decode_tree(lzma, length->high, 8);
}

/* The distance of a new match, minus 1. */
static uint32_t decode_distance(struct pep_lzma *lzma, uint32_t length) {
    uint32_t by_length = length - LENGTH_MIN < 3 ? length - LENGTH_MIN : 3;
    uint32_t slot = decode_tree(lzma, lzma->p.slot[by_length], 6);
    if (slot < 4)
        return slot;
    uint32_t bits = (slot >> 1) - 1;
    uint32_t distance = (2 | (slot & 1)) << bits;
    if (slot < 14)
        return distance + decode_reverse_tree(lzma, &lzma->p.special[distance - slot], bits);
    distance += decode_direct(lzma, bits - 4) << 4;
    return distance + decode_reverse_tree(lzma, lzma->p.align + 1, 4);
}

static void decode_literal(struct pep_lzma *lzma, size_t position) {
    uint32_t before = position > 0 ? lzma->out[lzma->out_at - 1] : 0;
    uint32_t context = (uint32_t)(position & ((1u << lzma->lp) - 1)) << lzma->lc;
    context += before >> (8 - lzma->lc);
    uint16_t *tree = &lzma->p.literal[PEP_LZMA_LITERAL_SIZE * context];
    uint32_t symbol = 1;
    if (lzma->state >= STATE_LITERALS) {
        /* After a match: the byte that the match would have gone on with is a good guess. */
        uint32_t guess = lzma->rep[0] < position ? lzma->out[lzma->out_at - lzma->rep[0] - 1] : 0;
        for (uint32_t offset = 0x100; symbol < 0x100;) {
            guess <<= 1;
            uint32_t guessed = guess & offset;
            uint32_t bit = decode_bit(lzma, &tree[offset + guessed + symbol]);
            symbol = symbol << 1 | bit;
            offset &= bit ? guessed : ~guessed;
        }
    }
    while (symbol < 0x100)
        symbol = symbol << 1 | decode_bit(lzma, &tree[symbol]);
    lzma->out[lzma->out_at++] = (uint8_t)symbol;
    lzma->state = lzma->state < 4 ? 0 : lzma->state < 10 ? lzma->state - 3 : lzma->state - 6;
}

/* Which of the last four distances is meant; it becomes the first. True: a single byte of it. */
static bool decode_rep(struct pep_lzma *lzma, uint32_t pos_state) {
    uint32_t state = lzma->state, *rep = lzma->rep;
    if (!decode_bit(lzma, &lzma->p.is_rep0[state]))
        return !decode_bit(lzma, &lzma->p.is_rep0_long[state][pos_state]);
    uint32_t which = 1;
    if (decode_bit(lzma, &lzma->p.is_rep1[state]))
        which = 2 + decode_bit(lzma, &lzma->p.is_rep2[state]);
    uint32_t distance = rep[which];
    for (; which > 0; which--)
        rep[which] = rep[which - 1];
    rep[0] = distance;
    return false;
}

/* The length of a match whose distance is then rep[0]. */
static uint32_t decode_match(struct pep_lzma *lzma, uint32_t pos_state) {
    bool is_after_literal = lzma->state < STATE_LITERALS;
    if (decode_bit(lzma, &lzma->p.is_rep[lzma->state])) {
        if (decode_rep(lzma, pos_state)) {
            lzma->state = is_after_literal ? 9 : 11;
            return 1;
        }
        lzma->state = is_after_literal ? 8 : 11;
        return decode_length(lzma, &lzma->p.rep_length, pos_state);
    }
    lzma->state = is_after_literal ? 7 : 10;
    uint32_t length = decode_length(lzma, &lzma->p.match_length, pos_state);
    for (int i = 3; i > 0; i--)
        lzma->rep[i] = lzma->rep[i - 1];
    lzma->rep[0] = decode_distance(lzma, length);
    return length;
}

/* One range coded chunk: exactly [in_at, in_end) to exactly [out_at, out_end). */
static bool decode_chunk(struct pep_lzma *lzma, size_t out_end) {
    if (next_byte(lzma) != 0)
        return false;
    lzma->range = UINT32_MAX;
    lzma->code = 0;
    for (int i = 0; i < 4; i++)
        lzma->code = lzma->code << 8 | next_byte(lzma);
    while (lzma->out_at < out_end && !lzma->is_damaged) {
        size_t position = lzma->out_at - lzma->dictionary;
        uint32_t pos_state = (uint32_t)position & ((1u << lzma->pb) - 1);
        if (!decode_bit(lzma, &lzma->p.is_match[lzma->state][pos_state])) {
            decode_literal(lzma, position);
            continue;
        }
        uint32_t length = decode_match(lzma, pos_state);
        if (lzma->rep[0] >= position || length > out_end - lzma->out_at)
            return false;
        const uint8_t *from = lzma->out + lzma->out_at - lzma->rep[0] - 1;
        for (uint32_t i = 0; i < length; i++) /* may overlap: bytes just written repeat */
            lzma->out[lzma->out_at++] = *from++;
    }
    normalize(lzma);
    return !lzma->is_damaged && lzma->code == 0 && lzma->in_at == lzma->in_end;
}

static void reset_state(struct pep_lzma *lzma) {
    uint16_t *all = (uint16_t *)&lzma->p;
    for (size_t i = 0; i < sizeof(lzma->p) / sizeof(uint16_t); i++)
        all[i] = PROBABILITY_HALF;
    lzma->state = 0;
    memset(lzma->rep, 0, sizeof(lzma->rep));
}

static bool set_properties(struct pep_lzma *lzma, uint32_t byte) {
    if (byte >= 9 * 5 * 5)
        return false;
    lzma->lc = byte % 9;
    lzma->lp = byte / 9 % 5;
    lzma->pb = byte / 45;
    lzma->has_properties = true;
    return lzma->lc + lzma->lp <= 4;
}

static bool copy_raw(struct pep_lzma *lzma, uint32_t control) {
    if (control == 1)
        lzma->dictionary = lzma->out_at;
    size_t count = (size_t)next_byte(lzma) << 8;
    count += next_byte(lzma) + 1u;
    if (control > 2 || count > lzma->in_end - lzma->in_at || count > lzma->out_limit - lzma->out_at)
        return false;
    memcpy(lzma->out + lzma->out_at, lzma->in + lzma->in_at, count);
    lzma->in_at += count;
    lzma->out_at += count;
    return !lzma->is_damaged;
}

/* control: 1 in bit 7, what to reset in bits 5 and 6, bits 16 to 20 of the size below. */
static bool decode_coded(struct pep_lzma *lzma, uint32_t control) {
    uint32_t reset = control >> 5 & 3;
    size_t out_bytes = (size_t)(control & 31) << 16;
    out_bytes += (size_t)next_byte(lzma) << 8;
    out_bytes += next_byte(lzma) + 1u;
    size_t in_bytes = (size_t)next_byte(lzma) << 8;
    in_bytes += next_byte(lzma) + 1u;
    if (reset == 3)
        lzma->dictionary = lzma->out_at;
    if (reset >= 2 && !set_properties(lzma, next_byte(lzma)))
        return false;
    if (reset >= 1)
        reset_state(lzma);
    if (lzma->is_damaged || !lzma->has_properties || in_bytes > lzma->in_end - lzma->in_at ||
        out_bytes > lzma->out_limit - lzma->out_at)
        return false;
    size_t in_end = lzma->in_end;
    lzma->in_end = lzma->in_at + in_bytes;
    bool is_good = decode_chunk(lzma, lzma->out_at + out_bytes);
    lzma->in_end = in_end;
    return is_good;
}

bool pep_lzma2_decode(struct pep_lzma *lzma) {
    lzma->has_properties = false;
    lzma->is_damaged = false;
    bool has_dictionary = false;
    for (;;) {
        uint32_t control = next_byte(lzma);
        if (control == 0)
            return !lzma->is_damaged;
        has_dictionary = has_dictionary || control == 1 || control >= 0xe0;
        if (!has_dictionary)
            return false;
        bool is_good = control < 0x80 ? copy_raw(lzma, control) : decode_coded(lzma, control);
        if (!is_good)
            return false;
    }
}
