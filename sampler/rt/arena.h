/*
 * Memory that does not come from the host's malloc.
 *
 * Model:   (1) bump arenas over private mappings, dropped whole; one a request.
 *          (2) pep_malloc and its family: a small size-class allocator over such mappings, for
 *          third-party code (civetweb) and for the few things that live across requests.
 * Writers: an arena has one owner thread; pep_malloc any of profep's own threads.  [normal]
 * Readers: whoever the owner hands memory to, until the arena is dropped.
 * Memory:  arenas grow in chunks of at least 64 KiB, up to their limit; returned by munmap.
 * When full: NULL; the arena remembers it (is_failed), counts self_alloc_failed.
 */
#ifndef PEP_SAMPLER_RT_ARENA_H
#define PEP_SAMPLER_RT_ARENA_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "sampler/rt/attrs.h"

struct pep_arena_chunk;

struct pep_arena {
    struct pep_arena_chunk *chunks; /* newest first */
    size_t used_bytes;              /* in the newest chunk */
    size_t total_bytes;             /* mapped by all chunks */
    size_t limit_bytes;             /* 0: none */
    bool is_failed;                 /* sticky: some allocation was refused */
};

/* Starts an empty arena; maps nothing yet. limit_bytes 0 means no limit. */
void pep_arena_init(struct pep_arena *arena, size_t limit_bytes);
/* Zeroed memory, aligned to 16 bytes, owned by the arena; NULL when refused. size 0 gives 1 byte.
 */
void *pep_arena_alloc(struct pep_arena *arena, size_t size_bytes);
/* count objects of size bytes; NULL also when the product overflows. */
void *pep_arena_array(struct pep_arena *arena, size_t count, size_t size_bytes);
/* A copy, NUL-terminated; NULL when refused. */
char *pep_arena_strndup(struct pep_arena *arena, const char *text, size_t len);
char *pep_arena_strdup(struct pep_arena *arena, const char *text);
char *pep_arena_printf(struct pep_arena *arena, const char *format, ...) PEP_PRINTF(2, 3);
char *pep_arena_vprintf(struct pep_arena *arena, const char *format, va_list arguments)
    PEP_PRINTF(2, 0);
/* Unmaps everything; the arena is empty and usable again. */
void pep_arena_drop(struct pep_arena *arena);

/* A growable array inside an arena: doubles, old copies stay until the arena is dropped. */
#define PEP_ARENA_GROW(arena, array, count, capacity) \
    ((count) < (capacity) || \
     pep_arena_grow((arena), (void **)&(array), &(capacity), sizeof(*(array))))
bool pep_arena_grow(struct pep_arena *arena, void **array, size_t *capacity, size_t size_bytes);

/* malloc's contracts, errno left alone; any of profep's own threads; not for hooks or signals. */
void *pep_malloc(size_t size_bytes);
void *pep_calloc(size_t count, size_t size_bytes);
void *pep_realloc(void *block, size_t size_bytes);
void pep_free(void *block);
/* Bytes that fit into a block. */
size_t pep_malloc_room(const void *block);
/* Forgets a lock that another thread held when this process was forked. */
void pep_malloc_after_fork(void);

#endif
