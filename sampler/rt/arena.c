#include "sampler/rt/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

#define CHUNK_BYTES_MIN ((size_t)64 << 10)
#define CHUNK_BYTES_MAX ((size_t)4 << 20)
#define ALIGNMENT 16u

struct pep_arena_chunk {
    struct pep_arena_chunk *older;
    size_t size_bytes; /* with this header */
};

static size_t round_up(size_t value, size_t step) {
    return (value + step - 1) / step * step;
}

void pep_arena_init(struct pep_arena *arena, size_t limit_bytes) {
    memset(arena, 0, sizeof(*arena));
    arena->limit_bytes = limit_bytes;
}

static void *refuse(struct pep_arena *arena) {
    arena->is_failed = true;
    PEP_COUNT(self_alloc_failed, 1);
    return NULL;
}

/* Chunks double with the arena, so that large requests need few mappings. */
static bool add_chunk(struct pep_arena *arena, size_t need_bytes) {
    size_t size = arena->total_bytes;
    if (size < CHUNK_BYTES_MIN)
        size = CHUNK_BYTES_MIN;
    if (size > CHUNK_BYTES_MAX)
        size = CHUNK_BYTES_MAX;
    size_t least = round_up(need_bytes + sizeof(struct pep_arena_chunk) + ALIGNMENT, 4096);
    if (size < least)
        size = least;
    if (arena->limit_bytes != 0 && arena->total_bytes + size > arena->limit_bytes)
        return false;
    struct pep_arena_chunk *chunk = pep_os_map(size);
    if (chunk == NULL)
        return false;
    chunk->older = arena->chunks;
    chunk->size_bytes = size;
    arena->chunks = chunk;
    arena->used_bytes = round_up(sizeof(*chunk), ALIGNMENT);
    arena->total_bytes += size;
    return true;
}

void *pep_arena_alloc(struct pep_arena *arena, size_t size_bytes) {
    if (size_bytes > SIZE_MAX / 4)
        return refuse(arena);
    size_t need = round_up(size_bytes == 0 ? 1 : size_bytes, ALIGNMENT);
    if (arena->chunks == NULL || arena->chunks->size_bytes - arena->used_bytes < need) {
        if (!add_chunk(arena, need))
            return refuse(arena);
    }
    void *block = (char *)arena->chunks + arena->used_bytes;
    arena->used_bytes += need;
    return block;
}

void *pep_arena_array(struct pep_arena *arena, size_t count, size_t size_bytes) {
    size_t total;
    if (__builtin_mul_overflow(count, size_bytes, &total))
        return refuse(arena);
    return pep_arena_alloc(arena, total);
}

char *pep_arena_strndup(struct pep_arena *arena, const char *text, size_t len) {
    size_t count = strnlen(text, len);
    char *copy = pep_arena_alloc(arena, count + 1);
    if (copy != NULL)
        memcpy(copy, text, count);
    return copy;
}

char *pep_arena_strdup(struct pep_arena *arena, const char *text) {
    return pep_arena_strndup(arena, text, strlen(text));
}

char *pep_arena_vprintf(struct pep_arena *arena, const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int count = vsnprintf(NULL, 0, format, arguments);
    char *text = count < 0 ? refuse(arena) : pep_arena_alloc(arena, (size_t)count + 1);
    if (text != NULL)
        vsnprintf(text, (size_t)count + 1, format, again);
    va_end(again);
    return text;
}

char *pep_arena_printf(struct pep_arena *arena, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char *text = pep_arena_vprintf(arena, format, arguments);
    va_end(arguments);
    return text;
}

bool pep_arena_grow(struct pep_arena *arena, void **array, size_t *capacity, size_t size_bytes) {
    size_t larger = *capacity == 0 ? 16 : *capacity * 2;
    void *copy = pep_arena_array(arena, larger, size_bytes);
    if (copy == NULL)
        return false;
    if (*array != NULL)
        memcpy(copy, *array, *capacity * size_bytes);
    *array = copy;
    *capacity = larger;
    return true;
}

void pep_arena_drop(struct pep_arena *arena) {
    struct pep_arena_chunk *chunk = arena->chunks;
    while (chunk != NULL) {
        struct pep_arena_chunk *older = chunk->older;
        pep_os_unmap(chunk, chunk->size_bytes);
        chunk = older;
    }
    pep_arena_init(arena, arena->limit_bytes);
}
