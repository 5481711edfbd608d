/*
 * The LZMA2 decoder behind encoder/xz.h.
 *
 * Model:   chunks of at most 2 MiB, each raw or range coded; probabilities live across chunks
 *          until a chunk resets them.
 * Writers: pep_lzma2_decode.  [normal]
 * Readers: encoder/xz.c.
 * Memory:  the struct; the caller's output.
 * When full: false.
 */
#ifndef PEP_ENCODER_XZ_LZMA_H
#define PEP_ENCODER_XZ_LZMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEP_LZMA_STATES 12
#define PEP_LZMA_POS_STATES 16
#define PEP_LZMA_LITERAL_SIZE 0x300
#define PEP_LZMA_LITERALS_MAX (PEP_LZMA_LITERAL_SIZE << 4) /* LZMA2: lc + lp <= 4 */

struct pep_lzma_length {
    uint16_t choice[2];
    uint16_t low[PEP_LZMA_POS_STATES][8], middle[PEP_LZMA_POS_STATES][8], high[256];
};

/* All adaptive probabilities, one block so that they are reset at once. */
struct pep_lzma_probabilities {
    uint16_t is_match[PEP_LZMA_STATES][PEP_LZMA_POS_STATES];
    uint16_t is_rep[PEP_LZMA_STATES], is_rep0[PEP_LZMA_STATES], is_rep1[PEP_LZMA_STATES];
    uint16_t is_rep2[PEP_LZMA_STATES], is_rep0_long[PEP_LZMA_STATES][PEP_LZMA_POS_STATES];
    uint16_t slot[4][64], special[114], align[16];
    struct pep_lzma_length match_length, rep_length;
    uint16_t literal[PEP_LZMA_LITERALS_MAX];
};

struct pep_lzma {
    const uint8_t *in; /* [in_at, in_end) is left */
    size_t in_at, in_end;
    uint8_t *out; /* [0, out_at) is done */
    size_t out_at, out_limit;
    size_t dictionary; /* out_at at the last dictionary reset */
    uint32_t range, code;
    uint32_t lc, lp, pb;
    uint32_t state, rep[4];
    bool has_properties, is_damaged;
    struct pep_lzma_probabilities p;
};

/* Decodes LZMA2 chunks from in_at up to their end mark; out_at and in_at move. False when the data
 * is damaged or the output is full. */
bool pep_lzma2_decode(struct pep_lzma *lzma);

#endif
