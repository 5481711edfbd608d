/*
 * Every address of a profile once, with its mapping and its frames.
 *
 * Model:   pc -> place; the symbolizer is asked once a place. A number below PEP_PC_FIRST_REAL is
 *          a place too: its one frame is the note.
 * Writers: one encoder.  [normal]
 * Readers: the same.
 * Memory:  an arena.
 * When full: NULL.
 */
#ifndef PEP_ENCODER_PLACES_H
#define PEP_ENCODER_PLACES_H

#include "encoder/index.h"
#include "encoder/symbolize.h"
#include "sampler/profile.h"

/* Deeper inlining is cut at the innermost frames. */
#define PEP_PLACE_FRAMES_MAX 64

struct pep_place {
    uintptr_t pc;
    const struct pep_mapping *mapping; /* NULL: none */
    const struct pep_frame *frames;    /* innermost first; names are never NULL or "" */
    uint32_t frame_count;              /* >= 1 */
    uint32_t number;                   /* for the encoder's own use; 0 at first */
    uint32_t *texts;                   /* likewise; NULL at first */
    bool is_own;                       /* code of libprofep.so: not to be shown */
};

struct pep_places {
    struct pep_arena *arena;
    const struct pep_profile *profile;
    struct pep_symbolizer *symbolizer;
    struct pep_index index;
    struct pep_place **items; /* in the order they were met */
    size_t count, capacity;
};

void pep_places_init(struct pep_places *places, struct pep_arena *arena,
                     const struct pep_profile *profile, struct pep_symbolizer *symbolizer);
/* The place of pc, looked up when new. NULL when memory was refused. */
struct pep_place *pep_places_find(struct pep_places *places, uintptr_t pc);
/* The last part of a mapping's path; "" for none. */
const char *pep_place_module(const struct pep_place *place);

#endif
