/*
 * The real functions of the malloc family, and how they are found.
 *
 * Model:   each pointer leads to a stub at first. The first call looks all of them up; whoever
 *          comes meanwhile, this thread by way of dlsym or another one, gets bootstrap memory.
 * Writers: whoever is first.  [hook]
 * Readers: the hooks.
 * Memory:  static.
 * When full: see hook_malloc_own.h.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "preload/hook_malloc_own.h"
#include "preload/real.h"
#include "sampler/rt/atomics.h"

#define ALIGNMENT 16u
#define PAGE 4096u

enum { UNKNOWN = 0, LOOKING, KNOWN };
static int state;

/* True when the table may be called: false while it is being filled. */
static bool is_resolved(void) {
    if (pep_load_acquire(&state) == UNKNOWN)
        pep_real_malloc_resolve();
    return pep_load_acquire(&state) == KNOWN;
}

static void *boot_malloc(size_t size) {
    return is_resolved() ? pep_real_malloc.malloc(size) : pep_bootstrap_alloc(ALIGNMENT, size);
}

static void boot_free(void *block) {
    if (is_resolved())
        pep_real_malloc.free(block);
}

static void *boot_calloc(size_t count, size_t size) {
    size_t total;
    if (is_resolved())
        return pep_real_malloc.calloc(count, size);
    if (__builtin_mul_overflow(count, size, &total))
        total = SIZE_MAX;
    return pep_bootstrap_alloc(ALIGNMENT, total);
}

/* Bootstrap blocks do not come here: the hook knows them. */
static void *boot_realloc(void *block, size_t size) {
    if (is_resolved())
        return pep_real_malloc.realloc(block, size);
    return block == NULL ? pep_bootstrap_alloc(ALIGNMENT, size) : NULL;
}

static void *boot_aligned(size_t alignment, size_t size) {
    return pep_bootstrap_alloc(alignment < ALIGNMENT ? ALIGNMENT : alignment, size);
}

static void *boot_memalign(size_t alignment, size_t size) {
    return is_resolved() ? pep_real_malloc.memalign(alignment, size)
                         : boot_aligned(alignment, size);
}

static void *boot_aligned_alloc(size_t alignment, size_t size) {
    return is_resolved() ? pep_real_malloc.aligned_alloc(alignment, size)
                         : boot_aligned(alignment, size);
}

static int boot_posix_memalign(void **to, size_t alignment, size_t size) {
    if (is_resolved())
        return pep_real_malloc.posix_memalign(to, alignment, size);
    void *block = boot_aligned(alignment, size);
    if (block == NULL)
        return ENOMEM;
    *to = block;
    return 0;
}

static void *boot_valloc(size_t size) {
    return is_resolved() ? pep_real_malloc.valloc(size) : boot_aligned(PAGE, size);
}

static void *boot_pvalloc(size_t size) {
    return is_resolved() ? pep_real_malloc.pvalloc(size) : boot_aligned(PAGE, size);
}

static size_t boot_malloc_usable_size(void *block) {
    return is_resolved() ? pep_real_malloc.malloc_usable_size(block) : 0;
}

static void boot_free_sized(void *block, size_t size) {
    if (is_resolved())
        pep_real_malloc.free_sized(block, size);
}

static void boot_free_aligned_sized(void *block, size_t alignment, size_t size) {
    if (is_resolved())
        pep_real_malloc.free_aligned_sized(block, alignment, size);
}

struct pep_real_malloc pep_real_malloc PEP_ALIGNED(64) = {
#define FIELD(result, name, parameters, arguments) .name = boot_##name,
    PEP_REAL_MALLOCS(FIELD)
#undef FIELD
};

/* C23 has these, and only some allocators do: free does the same. */
static void free_without_size(void *block, size_t size PEP_UNUSED) {
    pep_real_malloc.free(block);
}

static void free_without_sizes(void *block, size_t alignment PEP_UNUSED, size_t size PEP_UNUSED) {
    pep_real_malloc.free(block);
}

static void *no_block(void) {
    errno = ENOMEM;
    return NULL;
}

static void *stand_in_for(const char *name) {
    if (strcmp(name, "free_sized") == 0)
        return (void *)free_without_size;
    if (strcmp(name, "free_aligned_sized") == 0)
        return (void *)free_without_sizes;
    return (void *)no_block;
}

static void *look_up(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    return found != NULL ? found : stand_in_for(name);
}

void pep_real_malloc_resolve(void) {
    int unknown = UNKNOWN, saved_errno = errno;
    if (!pep_cas_acq_rel(&state, &unknown, LOOKING))
        return;
    struct pep_real_malloc found;
#define FIND(result, name, parameters, arguments) *(void **)(void *)&found.name = look_up(#name);
    PEP_REAL_MALLOCS(FIND)
#undef FIND
    /* The rest of what a failed dlsym allocated is freed by the next one. */
#define KEEP(result, name, parameters, arguments) \
    pep_store_release((void **)(void *)&pep_real_malloc.name, *(void **)(void *)&found.name);
    PEP_REAL_MALLOCS(KEEP)
#undef KEEP
    pep_store_release(&state, KNOWN);
    errno = saved_errno;
}
