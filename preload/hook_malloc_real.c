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

struct pep_real_malloc pep_real_malloc PEP_ALIGNED(64) = {
#define FIELD(result, name, parameters, arguments) .name = boot_##name,
    PEP_REAL_MALLOCS(FIELD)
#undef FIELD
};

/* -- what the program calls --------------------------------------------------------------------
 * An allocator may stand before the hooks in the search order and still lack a function that the
 * hooks have: its blocks must come back to it. */

static void boot_public_free(void *block) {
    if (is_resolved())
        pep_public_malloc.free(block);
}

static void *boot_public_realloc(void *block, size_t size) {
    return is_resolved() ? pep_public_malloc.realloc(block, size) : boot_realloc(block, size);
}

static const void *object_of(void *function) {
    Dl_info info;
    return function != NULL && dladdr(function, &info) != 0 ? info.dli_fbase : NULL;
}

static bool has_reallocarray(void) {
    const void *own = object_of(&pep_public_malloc);
    const void *of_realloc = object_of((void *)pep_public_malloc.realloc);
    if (of_realloc == own)
        of_realloc = object_of((void *)pep_real_malloc.realloc);
    return object_of(dlsym(RTLD_NEXT, "reallocarray")) == of_realloc;
}

struct pep_public_malloc pep_public_malloc = {
    .free = boot_public_free, .realloc = boot_public_realloc, .has_reallocarray = has_reallocarray};

static void find_public(void **to, const char *name) {
    pep_store_release(to, dlsym(RTLD_DEFAULT, name));
}

static void *no_block(void) {
    errno = ENOMEM;
    return NULL;
}

/* Called from inside an allocator that starts: what dlsym(3) does not find it tells in allocated
 * memory, which that allocator could not give. So only names that every libc has. */
static void *look_up(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    return found != NULL ? found : (void *)no_block;
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
    find_public((void **)(void *)&pep_public_malloc.free, "free");
    find_public((void **)(void *)&pep_public_malloc.realloc, "realloc");
    pep_store_release(&state, KNOWN);
    errno = saved_errno;
}
