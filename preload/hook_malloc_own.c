#include "preload/hook_malloc_own.h"
#include "sampler/rt/attrs.h"

#include <errno.h>
#include <stdint.h>

#include "sampler/heap_hook.h"
#include "sampler/live_map.h"
#include "sampler/rt/arena.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

#define BOOTSTRAP_BYTES 65536u

/* A block's size stands in the word before it. */
static char arena[BOOTSTRAP_BYTES] PEP_LARGE PEP_ALIGNED(4096);
static size_t arena_used;

PEP_HOOK_SAFE void *pep_bootstrap_alloc(size_t alignment, size_t size_bytes) {
    size_t used = pep_load_relaxed(&arena_used), start, limit;
    do {
        start = (used + sizeof(size_t) + alignment - 1) & ~(alignment - 1);
        if (alignment > BOOTSTRAP_BYTES || size_bytes > BOOTSTRAP_BYTES ||
            start + size_bytes > BOOTSTRAP_BYTES) {
            errno = ENOMEM;
            return NULL;
        }
        limit = start + (size_bytes == 0 ? 1 : size_bytes);
    } while (!pep_cas_acq_rel(&arena_used, &used, limit));
    pep_copy(arena + start - sizeof(size_t), &size_bytes, sizeof size_bytes);
    pep_live_map_mark((uintptr_t)(arena + start), PEP_LIVE_OWN);
    return arena + start;
}

PEP_HOOK_SAFE bool pep_bootstrap_is(const void *block) {
    return (uintptr_t)block - (uintptr_t)arena < BOOTSTRAP_BYTES;
}

PEP_HOOK_SAFE size_t pep_bootstrap_size(const void *block) {
    size_t size;
    pep_copy(&size, (const char *)block - sizeof size, sizeof size);
    return size;
}

void pep_bootstrap_reserve(void) {
    pep_live_map_reserve((uintptr_t)arena, BOOTSTRAP_BYTES);
}

PEP_HOOK_SAFE void *pep_own_alloc(size_t size_bytes, bool is_zeroed) {
    void *block = is_zeroed ? pep_calloc(1, size_bytes) : pep_malloc(size_bytes);
    if (block != NULL && !pep_heap_keep_own((uintptr_t)block)) {
        pep_free(block);
        block = NULL;
    }
    return block;
}

PEP_HOOK_SAFE void pep_own_free(void *block) {
    pep_free(block);
}

PEP_HOOK_SAFE size_t pep_own_size(const void *block) {
    return pep_malloc_room(block);
}
