/*
 * The malloc family, watched: the host's pointers, results and errno are the real function's.
 *
 * Model:   allocations: countdown, real call, live map. Frees: live map, real call; the byte is
 *          cleared before the real free, for afterwards the address may be another thread's. A
 *          byte that says more (sampled, own, bootstrap) takes the slow way. operator new and
 *          strdup arrive through malloc. reallocarray is realloc, as in libc.
 * Writers: any thread, at any time of its life.  [hook]
 * Readers: -
 * Memory:  none of their own.
 * When full: see heap.h.
 */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>

#include "preload/hook_malloc_own.h"
#include "preload/init.h"
#include "preload/real.h"
#include "sampler/heap.h"
#include "sampler/heap_hook.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define NOINLINE __attribute__((noinline))
#define HOT PEP_ALIGNED(64)

#define real pep_real_malloc

PEP_HOOK_SAFE NOINLINE static void *note_far(void *block) {
    pep_live_map_add_slow((uintptr_t)block);
    return block;
}

/* A request that failed has used up a part of the countdown in which nothing was due: no bias. */
PEP_HOOK_SAFE static inline void *note(void *block) {
    return pep_likely(pep_live_map_add_fast((uintptr_t)block)) ? block : note_far(block);
}

PEP_HOOK_SAFE static void *note_slow(void *block, size_t size) {
    if (block == NULL)
        pep_heap_give_back(size);
    else if (pep_thread_is_own() || pep_init_is_starting_own())
        pep_live_map_add((uintptr_t)block);
    else if (!pep_bootstrap_is(block))
        pep_heap_allocated((uintptr_t)block, size);
    return block;
}

/* -- malloc and calloc ---------------------------------------------------------------------- */

PEP_HOOK_SAFE NOINLINE static void *malloc_slow(size_t size) {
    void *block = pep_thread_is_own() ? pep_own_alloc(size, false) : NULL;
    return block != NULL ? block : note_slow(real.malloc(size), size);
}

/* A subtraction, two comparisons, two loads and a store above the real one. */
HOT PEP_EXPORT PEP_HOOK_SAFE void *malloc(size_t size) {
    if (pep_heap_take(size))
        return malloc_slow(size);
    if (pep_unlikely(!pep_live_map_exists()))
        return real.malloc(size);
    return note(real.malloc(size));
}

PEP_HOOK_SAFE NOINLINE static void *calloc_slow(size_t count, size_t size) {
    size_t total;
    if (pep_thread_is_own() && !__builtin_mul_overflow(count, size, &total)) {
        void *block = pep_own_alloc(total, true);
        if (block != NULL)
            return block;
    }
    return note_slow(real.calloc(count, size), count * size);
}

PEP_EXPORT PEP_HOOK_SAFE void *calloc(size_t count, size_t size) {
    if (pep_heap_take(count * size))
        return calloc_slow(count, size);
    if (pep_unlikely(!pep_live_map_exists()))
        return real.calloc(count, size);
    return note(real.calloc(count, size));
}

/* -- free ----------------------------------------------------------------------------------- */

/* What is left to do by the real function; false when the block was ours. */
PEP_HOOK_SAFE static bool let_go(void *block) {
    if (pep_bootstrap_is(block))
        return false;
    struct pep_heap_taken taken = pep_heap_take_out((uintptr_t)block);
    if (taken.what == PEP_LIVE_OWN)
        pep_own_free(block);
    else
        pep_heap_freed(&taken);
    return taken.what != PEP_LIVE_OWN;
}

PEP_HOOK_SAFE NOINLINE static void free_slow(void *block) {
    if (let_go(block))
        real.free(block);
}

/* Nothing goes to the real one for NULL: libc frees many on our threads when a stack is used again,
 * and the real one may be stuck. A jump that is taken costs a cycle, so the common way takes none,
 * and that without a map takes one. */
HOT PEP_EXPORT PEP_HOOK_SAFE void free(void *block) {
    if (pep_unlikely(block == NULL))
        return;
    uintptr_t bias = pep_live_map_bias((uintptr_t)block);
    if (pep_unlikely(bias == 0)) {
        if (pep_likely(pep_load_relaxed(pep_live_map_filter_byte((uintptr_t)block)) == 0)) {
            pep_signal_fence(); /* or the compiler jumps to the same call below */
            real.free(block);
        } else {
            free_slow(block);
        }
        return;
    }
    uint8_t *byte = pep_live_map_byte(bias, (uintptr_t)block);
    uint8_t what = pep_load_relaxed(byte);
    if (pep_likely(what == PEP_LIVE_BLOCK))
        pep_store_relaxed(byte, PEP_LIVE_NOTHING);
    else if (what != PEP_LIVE_NOTHING) {
        free_slow(block);
        return;
    }
    real.free(block);
}

void free_sized(void *block, size_t size);
void free_aligned_sized(void *block, size_t alignment, size_t size);

/* C23 has these, not all allocators do, and free may always stand for them. */
PEP_EXPORT PEP_HOOK_SAFE void free_sized(void *block, size_t size PEP_UNUSED) {
    pep_public_malloc.free(block);
}

PEP_EXPORT PEP_HOOK_SAFE void free_aligned_sized(void *block, size_t alignment PEP_UNUSED,
                                                 size_t size PEP_UNUSED) {
    pep_public_malloc.free(block);
}

PEP_EXPORT PEP_HOOK_SAFE size_t malloc_usable_size(void *block) {
    if (pep_load_relaxed(pep_live_map_place((uintptr_t)block)) <= PEP_LIVE_BLOCK)
        return real.malloc_usable_size(block);
    if (pep_bootstrap_is(block))
        return pep_bootstrap_size(block);
    if (pep_heap_is_own((uintptr_t)block))
        return pep_own_size(block);
    return real.malloc_usable_size(block);
}

/* -- realloc -------------------------------------------------------------------------------- */

/* Moves a block of ours, of room bytes, to the allocator that serves this thread. */
PEP_HOOK_SAFE static void *move(void *block, size_t room, size_t size) {
    if (size == 0) {
        free(block);
        return NULL;
    }
    void *larger = malloc(size);
    if (larger == NULL)
        return NULL;
    pep_copy(larger, block, room < size ? room : size);
    free(block);
    return larger;
}

PEP_HOOK_SAFE NOINLINE static void *realloc_slow(void *block, size_t size, bool is_due) {
    if (pep_bootstrap_is(block)) {
        pep_heap_give_back(size);
        return move(block, pep_bootstrap_size(block), size);
    }
    if (pep_heap_is_own((uintptr_t)block)) {
        pep_heap_give_back(size);
        return move(block, pep_own_size(block), size);
    }
    if (block == NULL && pep_thread_is_own())
        return malloc_slow(size);
    uint8_t *byte = pep_live_map_place((uintptr_t)block);
    bool was_block = pep_load_relaxed(byte) == PEP_LIVE_BLOCK;
    struct pep_heap_taken taken = {.what = PEP_LIVE_NOTHING};
    if (was_block)
        pep_store_relaxed(byte, PEP_LIVE_NOTHING);
    else
        taken = pep_heap_take_out((uintptr_t)block);
    void *moved = real.realloc(block, size);
    if (moved == NULL && size != 0) {
        pep_heap_give_back(size);
        if (was_block || taken.what != PEP_LIVE_NOTHING)
            pep_heap_put_back((uintptr_t)block, &taken);
        return NULL;
    }
    pep_heap_freed(&taken);
    return is_due ? note_slow(moved, size) : note(moved);
}

PEP_EXPORT PEP_HOOK_SAFE void *realloc(void *block, size_t size) {
    bool is_due = pep_heap_take(size);
    uint8_t *byte = pep_live_map_place((uintptr_t)block);
    uint8_t what = pep_load_relaxed(byte);
    if (pep_unlikely(is_due || what > PEP_LIVE_BLOCK))
        return realloc_slow(block, size, is_due);
    if (what == PEP_LIVE_BLOCK)
        pep_store_relaxed(byte, PEP_LIVE_NOTHING);
    void *moved = real.realloc(block, size);
    if (pep_unlikely(moved == NULL && what == PEP_LIVE_BLOCK && size != 0))
        pep_store_relaxed(byte, PEP_LIVE_BLOCK);
    return note(moved);
}

PEP_EXPORT PEP_HOOK_SAFE void *reallocarray(void *block, size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    void *moved = pep_public_malloc.realloc(block, total);
    if (moved == NULL && total != 0 && pep_public_malloc.has_reallocarray())
        errno = ENOMEM; /* it says so even where its realloc does not */
    return moved;
}

/* -- aligned ones --------------------------------------------------------------------------- */

PEP_EXPORT PEP_HOOK_SAFE void *memalign(size_t alignment, size_t size) {
    bool is_due = pep_heap_take(size);
    void *block = real.memalign(alignment, size);
    return is_due ? note_slow(block, size) : note(block);
}

PEP_EXPORT PEP_HOOK_SAFE void *aligned_alloc(size_t alignment, size_t size) {
    bool is_due = pep_heap_take(size);
    void *block = real.aligned_alloc(alignment, size);
    return is_due ? note_slow(block, size) : note(block);
}

PEP_EXPORT PEP_HOOK_SAFE int posix_memalign(void **to, size_t alignment, size_t size) {
    bool is_due = pep_heap_take(size);
    int error = real.posix_memalign(to, alignment, size);
    void *block = error == 0 ? *to : NULL;
    (void)(is_due ? note_slow(block, size) : note(block));
    return error;
}

PEP_EXPORT PEP_HOOK_SAFE void *valloc(size_t size) {
    bool is_due = pep_heap_take(size);
    void *block = real.valloc(size);
    return is_due ? note_slow(block, size) : note(block);
}

PEP_EXPORT PEP_HOOK_SAFE void *pvalloc(size_t size) {
    bool is_due = pep_heap_take(size);
    void *block = real.pvalloc(size);
    return is_due ? note_slow(block, size) : note(block);
}

/* -- start ---------------------------------------------------------------------------------- */

extern void *own_malloc(size_t size)
    __attribute__((alias("malloc"), copy(malloc), visibility("hidden")));

/* A program that takes malloc's address may have an entry of its own for it that leads to us, so a
 * call tells what the address does not. */
static bool is_reached(void) {
    void *(*found)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc");
    void (*found_free)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "free");
    if (found == own_malloc || found == NULL || found_free == NULL)
        return true;
    const int64_t before = 4096;
    pep_heap_thread.countdown = before;
    found_free(found(1));
    bool is_ours = pep_heap_thread.countdown != before;
    pep_heap_thread.countdown = 0;
    return is_ours;
}

extern void *operator_new(size_t size) __asm__("_Znwm")
    __attribute__((weak, visibility("default")));

/* Objects do not overlap, so the one that holds an address has the nearest base below it. The
 * constructor runs under the loader's lock. */
static uintptr_t base_below(uintptr_t address) {
    uintptr_t base = 0;
    for (const struct link_map *at = _r_debug.r_map; at != NULL; at = at->l_next)
        if (at->l_addr <= address && at->l_addr > base)
            base = at->l_addr;
    return base;
}

/* Allocators for C++ bring the operators too, and those do not come by malloc. */
static bool has_operators_of_its_own(void) {
    return operator_new != NULL &&
           base_below((uintptr_t)operator_new) == base_below((uintptr_t)real.malloc);
}

/* libc's smallest block has room for 24 bytes, that of other allocators for 8. */
static bool has_blocks_of_8(void) {
    void *block = real.malloc(1);
    bool is_small = block != NULL && real.malloc_usable_size(block) < 16;
    real.free(block);
    return is_small;
}

void pep_hook_malloc_init(void) {
    pep_bootstrap_reserve();
    pep_heap_small = has_blocks_of_8() ? 9 : 0;
    if (has_operators_of_its_own())
        pep_heap_set_unreachable("Operators new and delete of C++ are not seen: they are those of "
                                 "the allocator that replaces libc's. malloc and its kin are seen");
    if (!is_reached())
        pep_heap_set_unreachable(
            "Allocations are not seen: the program, or a library before this one, has a malloc of "
            "its own");
}
