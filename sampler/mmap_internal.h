/*
 * What the parts of the record of mappings share: mmap.c (the record), mmap_pieces.c (which
 * address belongs to which mapping), profile_mmap.c.
 *
 * Model:   everything stands in one table behind one lock. The pieces are kept sorted in leaves of
 *          a few dozen, and the leaves' numbers sorted in an array, so that putting one in or out
 *          moves at most two short arrays.
 * Writers: hooks that hold the lock.  [hook]
 * Readers: cells and labels: profile_mmap.c, without the lock.  [normal]
 * Memory:  see mmap.h.
 * When full: pep_mmap_pieces_insert says false.
 */
#ifndef PEP_SAMPLER_MMAP_INTERNAL_H
#define PEP_SAMPLER_MMAP_INTERNAL_H

#include "sampler/mmap.h"
#include "sampler/stack_table.h"

#define PEP_MMAP_LEAF_PIECES 64u
#define PEP_MMAP_LEAVES 2048u
#define PEP_MMAP_MAPPINGS (PEP_MMAP_LEAVES * PEP_MMAP_LEAF_PIECES)
#define PEP_MMAP_CELLS 16384u
#define PEP_MMAP_CELL_INDEX (2 * PEP_MMAP_CELLS) /* at most half full: probes end */
#define PEP_MMAP_LABELS 1024u
#define PEP_MMAP_TEXT_BYTES 131072u

struct pep_mmap_leaf {
    uint32_t count;
    uint32_t next_free; /* of a leaf not in use: number + 1 of the next */
    struct pep_mmap_piece pieces[PEP_MMAP_LEAF_PIECES];
};

/* The sorted set of pieces; they never overlap. */
struct pep_mmap_pieces {
    uint32_t leaf_count; /* in use; order[0, leaf_count) are their numbers by address */
    uint32_t leaf_limit; /* leaves [0, leaf_limit) were ever used */
    uint32_t free_leaf;  /* number + 1 */
    uint16_t order[PEP_MMAP_LEAVES];
    struct pep_mmap_leaf leaves[PEP_MMAP_LEAVES];
};

/* Where a piece stands: a place in order and a place in its leaf. Good until the next change. */
struct pep_mmap_at {
    uint32_t leaf, slot;
};

/* The first piece that ends after address; NULL: none. */
PEP_HOOK_SAFE struct pep_mmap_piece *
pep_mmap_pieces_find(struct pep_mmap_pieces *pieces, uintptr_t address, struct pep_mmap_at *at);
/* The piece must not overlap any other. False when there is no room. */
PEP_HOOK_SAFE bool pep_mmap_pieces_insert(struct pep_mmap_pieces *pieces,
                                          const struct pep_mmap_piece *piece);
PEP_HOOK_SAFE void pep_mmap_pieces_remove(struct pep_mmap_pieces *pieces,
                                          const struct pep_mmap_at *at);

struct pep_mmap_cell {
    uint64_t key; /* stack id << 32 | thread identity << 12 | label; 0: empty */
    uint64_t mapped_objects, mapped_bytes;
    uint64_t unmapped_objects, unmapped_bytes;
};

/* Cells [0, count), and the text of a cell's label. */
uint32_t pep_mmap_cell_count(void);
const struct pep_mmap_cell *pep_mmap_cell_at(uint32_t number);
const char *pep_mmap_text_of(const struct pep_mmap_cell *cell);
static inline pep_stack_id pep_mmap_stack_of(const struct pep_mmap_cell *cell) {
    return (pep_stack_id)(cell->key >> 32);
}
static inline uint32_t pep_mmap_identity_of(const struct pep_mmap_cell *cell) {
    return (uint32_t)cell->key >> 12;
}

/* Traps unless pieces, mappings and cells agree (tests). */
void pep_mmap_check(void);

#endif
