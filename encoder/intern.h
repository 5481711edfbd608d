/*
 * Every text once, as a number.
 *
 * Model:   number 0 is "". Texts are made fit for protobuf and its readers on the way in: bad
 *          UTF-8 and control characters become U+FFFD, and what is longer than 65,535 bytes is
 *          cut.
 * Writers: one encoder.  [normal]
 * Readers: the same.
 * Memory:  an arena; a fit text is not copied and must outlive the table.
 * When full: PEP_INDEX_NONE.
 */
#ifndef PEP_ENCODER_INTERN_H
#define PEP_ENCODER_INTERN_H

#include "encoder/index.h"

#define PEP_INTERN_TEXT_MAX 65535

struct pep_interned {
    const char *text; /* [0, count) and a NUL, unless it was cut */
    uint32_t count;
};

struct pep_intern {
    struct pep_arena *arena;
    struct pep_index index;
    struct pep_interned *items;
    size_t count, capacity;
    uint64_t text_bytes; /* of all items */
};

/* False when memory was refused. */
bool pep_intern_init(struct pep_intern *intern, struct pep_arena *arena);
/* The number of a text, entering it when new; NULL counts as "". */
uint32_t pep_intern_add(struct pep_intern *intern, const char *text);

/* At most so many bytes will a text take. */
size_t pep_intern_bound(const char *text);

#endif
