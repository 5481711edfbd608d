/*
 * Blocks that do not come from the real malloc, and yet may reach anybody's free.
 *
 * Model:   bootstrap: what is asked for while the real functions are looked up comes from a
 *          static arena and is never reused. own: what libc asks for on profep's threads comes
 *          from pep_malloc, so that they go on when the host is stuck inside its own malloc.
 * Writers: any thread.  [hook]
 * Readers: the hooks of free, realloc and malloc_usable_size.
 * Memory:  64 KiB, static; pep_malloc's own.
 * When full: bootstrap: NULL with ENOMEM; own: the real malloc serves.
 */
#ifndef PEP_PRELOAD_HOOK_MALLOC_OWN_H
#define PEP_PRELOAD_HOOK_MALLOC_OWN_H

#include <stdbool.h>
#include <stddef.h>

#include "sampler/rt/attrs.h"

/* Zeroed, aligned to alignment (a power of two, at least 16). */
PEP_HOOK_SAFE void *pep_bootstrap_alloc(size_t alignment, size_t size_bytes);
PEP_HOOK_SAFE bool pep_bootstrap_is(const void *block);
/* What was asked for. */
PEP_HOOK_SAFE size_t pep_bootstrap_size(const void *block);
/* Tells the live map of the arena; before it is made. */
void pep_bootstrap_reserve(void);

/* Zeroed on request; NULL when the real malloc has to serve. */
PEP_HOOK_SAFE void *pep_own_alloc(size_t size_bytes, bool is_zeroed);
PEP_HOOK_SAFE void pep_own_free(void *block);
PEP_HOOK_SAFE size_t pep_own_size(const void *block);

#endif
