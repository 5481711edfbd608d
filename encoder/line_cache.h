/*
 * The source lines of one object file that were read before.
 *
 * Model:   (address) -> frames with their names ready to show. A file has one build-id, so what was
 *          read once stays right.
 * Writers: whoever holds the lock of the symbol cache.  [normal]
 * Readers: the same; entries live as long as a reference to the file.
 * Memory:  an arena of its own, at most PEP_LINE_CACHE_BYTES and what one request adds.
 * When full: emptied when no other request holds the file; else nothing more is kept.
 */
#ifndef PEP_ENCODER_LINE_CACHE_H
#define PEP_ENCODER_LINE_CACHE_H

#include "encoder/index.h"
#include "encoder/lines.h"

#define PEP_LINE_CACHE_BYTES (UINT64_C(32) << 20)
#define PEP_LINE_TRIES_MAX 2 /* reads of a file that come too late before it is left alone */
#define PEP_LINE_PAUSE_NS UINT64_C(60000000000) /* for so long */
/* After a read whose child somebody ended; doubled each time, up to an hour and a half. */
#define PEP_LINE_ENDED_PAUSE_NS UINT64_C(10000000000)
#define PEP_LINE_ENDED_DOUBLINGS 9

struct pep_line_frame {
    const char *name;        /* demangled; NULL: not known */
    const char *system_name; /* as in the debug information */
    const char *file;        /* NULL: not known */
    uint32_t line;
};

struct pep_line_entry {
    uint64_t address;
    const struct pep_line_frame *frames; /* innermost first */
    uint32_t count;                      /* 0: the debug information does not know the address */
};

struct pep_line_cache {
    struct pep_arena arena;
    struct pep_index index; /* of addresses */
    struct pep_line_entry **entries;
    size_t count, capacity;
    struct pep_index text_index;
    struct pep_line_text {
        const char *raw, *demangled; /* NULL: not asked for */
    } * texts;
    size_t text_count, text_capacity;
    uint32_t late_count;       /* reads in a row that did not end in time */
    uint32_t ended_count;      /* reads since the last good one whose child somebody ended */
    uint64_t setback_ns;       /* CLOCK_MONOTONIC, the last of these or those */
    enum pep_lines_end at_end; /* of the last read of this file */
};

void pep_line_cache_init(struct pep_line_cache *cache);
/* NULL when the address is not kept. */
const struct pep_line_entry *pep_line_cache_find(const struct pep_line_cache *cache,
                                                 uint64_t address);
/* Keeps the answers of a read. A full cache is emptied first when nobody else looks at it. */
void pep_line_cache_keep(struct pep_line_cache *cache, const struct pep_lines_file *read,
                         bool is_alone);
/* True when there is no sense in reading this file now. */
bool pep_line_cache_is_hopeless(const struct pep_line_cache *cache);

#endif
