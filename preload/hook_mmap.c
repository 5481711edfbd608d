/*
 * mmap and its kin, watched: results and errno are the real function's.
 *
 * Model:   what a call added is recorded after it, what a call removes is taken out before it and
 *          put back should it fail (sampler/mmap.h). mmap64 is mmap. Not seen: libc's own calls,
 *          for malloc, for the stacks of threads, in stdio, and the loader's; these do not go
 *          through the symbols. Raw system calls, SysV shared memory and mprotect are not watched.
 *          An allocator that calls mmap from inside its malloc comes by here, maybe holding its
 *          locks: nothing here allocates, and no symbol is looked up on the way.
 * Writers: any thread, at any time of its life, also in signal handlers.  [hook]
 * Readers: -
 * Memory:  none of their own.
 * When full: see sampler/mmap.h.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "preload/init.h"
#include "preload/real.h"
#include "sampler/mmap.h"
#include "sampler/rt/atomics.h"
#include "sampler/thread.h"

#define PAGE 4096u

#define real pep_real_map

/* Of libprofep.so: libraries in it map too. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _etext[] __attribute__((visibility("hidden")));
static uintptr_t own_start, own_limit;
static int is_on;

PEP_HOOK_SAFE static bool is_noted(const void *caller) {
    return pep_load_acquire(&is_on) && pep_init_is_awake() && !pep_thread_is_own() &&
           (uintptr_t)caller - own_start >= own_limit - own_start && pep_init_is_this_process();
}
#define IS_NOTED() is_noted(__builtin_return_address(0))

/* Whole pages, as the kernel counts; a size that wraps fails there. */
PEP_HOOK_SAFE static size_t pages(size_t bytes) {
    return (bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
}

PEP_HOOK_SAFE static bool is_page(const void *address) {
    return ((uintptr_t)address & (PAGE - 1)) == 0;
}

/* -- mmap and munmap ------------------------------------------------------------------------ */

struct asked {
    size_t bytes;
    int protection, flags, fd;
};

PEP_HOOK_SAFE static void note(const void *found, const struct asked *asked) {
    struct pep_mmap_label label;
    pep_mmap_label(&label, asked->protection, asked->flags, asked->fd);
    pep_mmap_added((uintptr_t)found, pages(asked->bytes), &label);
}

PEP_EXPORT PEP_HOOK_SAFE void *mmap(void *hint, size_t bytes, int protection, int flags, int fd,
                                    off_t offset) {
    void *found = real.mmap(hint, bytes, protection, flags, fd, offset);
    if (found != MAP_FAILED && IS_NOTED())
        note(found, &(struct asked){bytes, protection, flags, fd});
    return found;
}

PEP_EXPORT PEP_HOOK_SAFE void *mmap64(void *hint, size_t bytes, int protection, int flags, int fd,
                                      off_t offset) {
    void *found = real.mmap(hint, bytes, protection, flags, fd, offset);
    if (found != MAP_FAILED && IS_NOTED())
        note(found, &(struct asked){bytes, protection, flags, fd});
    return found;
}

PEP_EXPORT PEP_HOOK_SAFE int munmap(void *address, size_t bytes) {
    if (!pep_mmap_is_used() || !is_page(address) || !IS_NOTED())
        return real.munmap(address, bytes);
    struct pep_mmap_taken taken;
    pep_mmap_take((uintptr_t)address, pages(bytes), &taken);
    int result = real.munmap(address, bytes);
    if (result == 0)
        pep_mmap_drop(&taken);
    else
        pep_mmap_put_back(&taken);
    return result;
}

/* -- mremap --------------------------------------------------------------------------------- */

/* The old place stays: a second view of shared memory, or MREMAP_DONTUNMAP. */
PEP_HOOK_SAFE static void note_second(const void *found, size_t bytes, bool is_shared) {
    struct pep_mmap_label label;
    int flags = MAP_ANONYMOUS | (is_shared ? MAP_SHARED : MAP_PRIVATE);
    pep_mmap_label(&label, PROT_READ, flags, -1);
    pep_mmap_added((uintptr_t)found, pages(bytes), &label);
}

/* libc reads the fifth argument always, too: mremap(2). */
PEP_EXPORT PEP_HOOK_SAFE void *mremap(void *old, size_t old_bytes, size_t bytes, int flags, ...) {
    va_list list;
    va_start(list, flags);
    void *hint = va_arg(list, void *);
    va_end(list);
    if (!is_page(old) || !IS_NOTED())
        return real.mremap(old, old_bytes, bytes, flags, hint);
    if (old_bytes == 0 || (flags & MREMAP_DONTUNMAP) != 0) {
        void *second = real.mremap(old, old_bytes, bytes, flags, hint);
        if (second != MAP_FAILED)
            note_second(second, bytes, old_bytes == 0);
        return second;
    }
    struct pep_mmap_taken taken;
    pep_mmap_take((uintptr_t)old, pages(old_bytes), &taken);
    void *found = real.mremap(old, old_bytes, bytes, flags, hint);
    const struct pep_mmap_move move = {(uintptr_t)old, (uintptr_t)found, pages(old_bytes),
                                       pages(bytes)};
    if (found == MAP_FAILED)
        pep_mmap_put_back(&taken);
    else
        pep_mmap_moved(&taken, &move);
    return found;
}

/* -- brk and sbrk --------------------------------------------------------------------------- */

PEP_HOOK_SAFE static void *shrink(uintptr_t now, intptr_t by) {
    struct pep_mmap_taken taken;
    pep_mmap_take(now - (uintptr_t)by, (size_t)by, &taken);
    void *result = real.sbrk(-by);
    if (result != (void *)-1)
        pep_mmap_drop(&taken);
    else
        pep_mmap_put_back(&taken);
    return result;
}

PEP_EXPORT PEP_HOOK_SAFE void *sbrk(intptr_t by) {
    if (by == 0 || by == INTPTR_MIN || !IS_NOTED())
        return real.sbrk(by);
    if (by < 0)
        return shrink((uintptr_t)real.sbrk(0), -by);
    void *result = real.sbrk(by);
    if (result != (void *)-1)
        pep_mmap_added((uintptr_t)result, (size_t)by, NULL);
    return result;
}

PEP_EXPORT PEP_HOOK_SAFE int brk(void *to) {
    uintptr_t before = IS_NOTED() ? (uintptr_t)real.sbrk(0) : 0;
    if (before == 0 || before == UINTPTR_MAX)
        return real.brk(to);
    struct pep_mmap_taken taken = {.count = 0};
    if ((uintptr_t)to < before)
        pep_mmap_take((uintptr_t)to, before - (uintptr_t)to, &taken);
    int result = real.brk(to);
    if (result != 0)
        pep_mmap_put_back(&taken);
    else if ((uintptr_t)to > before)
        pep_mmap_added(before, (uintptr_t)to - before, NULL);
    else
        pep_mmap_drop(&taken);
    return result;
}

/* -- start ---------------------------------------------------------------------------------- */

extern int own_munmap(void *address, size_t bytes)
    __attribute__((alias("munmap"), copy(munmap), visibility("hidden")));

void pep_hook_mmap_init(void) {
    own_start = (uintptr_t)__ehdr_start;
    own_limit = (uintptr_t)_etext;
    if (dlsym(RTLD_DEFAULT, "munmap") != (void *)own_munmap)
        pep_mmap_set_unreachable("another mmap stands before ours");
    pep_store_release(&is_on, 1);
}
