/*
 * pthread_create and thrd_create: every thread gets its slot before the host's first line.
 *
 * Model:   the real function starts a trampoline; it takes the slot, then calls what the host
 *          wanted, with nothing left of ours but one frame. Arguments travel in a block from a
 *          fixed list. hook_end.c sees the thread off.
 * Writers: any thread.  [hook]
 * Readers: the thread that was born.
 * Memory:  BLOCKS_MAX blocks, static; in use from the call to the new thread's first moment.
 * When full: the thread is created as if we were not there; the sweep finds it.
 */
#include <pthread.h>
#include <threads.h>

#include "preload/init.h"
#include "preload/real.h"
#include "preload/real_lock.h"
#include "sampler/birth.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"
#include "sampler/thread.h"

#define BLOCKS_MAX 1024

struct block {
    uint32_t next; /* index + 1 of the next free block; 0: last. Or busy */
    bool is_blocked_by_host;
    union {
        void *(*start)(void *);
        thrd_start_t start_c11;
    };
    void *argument;
    uint64_t stack_bytes;
    struct pep_birth birth;
};

static struct block blocks[BLOCKS_MAX] PEP_LARGE;
/* Low half: index + 1 of the first free block. High half: rises with each change, so that a
 * thread that slept between its read and its exchange notices (ABA). */
static uint64_t free_head;
/* Blocks [fresh, BLOCKS_MAX) were never used; saves linking them at the start. */
static uint32_t fresh;

PEP_HOOK_SAFE static struct block *block_take(void) {
    uint64_t head = pep_load_acquire(&free_head);
    while ((uint32_t)head != 0) {
        struct block *block = &blocks[(uint32_t)head - 1];
        uint64_t next = ((head >> 32) + 1) << 32 | pep_load_relaxed(&block->next);
        /* acquire: pairs with the release in block_drop, for the block's next. */
        if (pep_cas_acq_rel(&free_head, &head, next))
            return block;
    }
    if (pep_load_relaxed(&fresh) >= BLOCKS_MAX)
        return NULL;
    uint32_t index = pep_add_relaxed(&fresh, 1);
    return index < BLOCKS_MAX ? &blocks[index] : NULL;
}

PEP_HOOK_SAFE static void block_drop(struct block *block) {
    uint64_t head = pep_load_acquire(&free_head);
    uint64_t changed;
    do {
        pep_store_relaxed(&block->next, (uint32_t)head);
        changed = ((head >> 32) + 1) << 32 | (uint32_t)(block - blocks + 1);
    } while (!pep_cas_acq_rel(&free_head, &head, changed));
}

/* -- the new thread's side ------------------------------------------------------------------ */

/* The thread's control block lies above its frames in the same mapping: [self - stack, self) is
 * its stack, less a page for what glibc keeps above the block. */
PEP_HOOK_SAFE static void arrive(const struct block *block) {
    uint64_t stack_bytes = block->stack_bytes > 4096 ? block->stack_bytes - 4096 : 0;
    pep_thread_enter((uintptr_t)pthread_self(), stack_bytes);
    pep_hook_signal_inherit(block->is_blocked_by_host);
    pep_birth_remember(&block->birth);
    pep_hook_end_watch();
    pep_hook_signal_unmask(true);
}

PEP_HOOK_SAFE static void *trampoline(void *argument) {
    struct block block = *(struct block *)argument;
    block_drop(argument);
    arrive(&block);
    return block.start(block.argument);
}

PEP_HOOK_SAFE static int trampoline_c11(void *argument) {
    struct block block = *(struct block *)argument;
    block_drop(argument);
    arrive(&block);
    return block.start_c11(block.argument);
}

/* -- the creator's side --------------------------------------------------------------------- */

/* What pthread_create will take for the stack; 0 when it cannot be known cheaply. */
PEP_HOOK_SAFE static uint64_t stack_bytes_of(const pthread_attr_t *attributes) {
    size_t bytes = 0;
    if (attributes)
        return pthread_attr_getstacksize(attributes, &bytes) == 0 ? bytes : 0;
    /* Copies a struct under a lock of its own; allocates only for a program that set a default
     * affinity, as pthread_create does itself then. */
    pthread_attr_t defaults;
    if (pthread_getattr_default_np(&defaults) != 0)
        return 0;
    if (pthread_attr_getstacksize(&defaults, &bytes) != 0)
        bytes = 0;
    (void)pthread_attr_destroy(&defaults);
    return bytes;
}

PEP_HOOK_SAFE static struct block *prepare(const pthread_attr_t *attributes, void *argument) {
    if (pep_unlikely(!pep_real_lock_is_resolved))
        pep_real_lock_resolve();
    if (!pep_init_is_awake() || pep_thread_is_own() || pep_init_is_starting_own())
        return NULL;
    struct block *block = block_take();
    if (!block)
        return NULL;
    block->argument = argument;
    block->stack_bytes = stack_bytes_of(attributes);
    block->is_blocked_by_host = pep_hook_signal_is_blocked_by_host();
    pep_birth_note(&block->birth);
    pep_hook_end_expect();
    return block;
}

PEP_HOOK_SAFE static void give_up(struct block *block) {
    pep_hook_end_expect_not();
    block_drop(block);
}

/* Our signal is blocked across the real call, so that the child is born with it blocked and the
 * first sample finds its slot. */
PEP_EXPORT PEP_HOOK_SAFE int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                                            void *(*start)(void *), void *argument) {
    struct block *block = prepare(attributes, argument);
    if (!block)
        return pep_real.pthread_create(thread, attributes, start, argument);
    block->start = start;
    bool was_unmasked = pep_hook_signal_mask();
    int error = pep_real.pthread_create(thread, attributes, trampoline, block);
    pep_hook_signal_unmask(was_unmasked);
    if (error != 0)
        give_up(block);
    return error;
}

PEP_EXPORT PEP_HOOK_SAFE int thrd_create(thrd_t *thread, thrd_start_t start, void *argument) {
    struct block *block = prepare(NULL, argument);
    if (!block)
        return pep_real.thrd_create(thread, start, argument);
    block->start_c11 = start;
    bool was_unmasked = pep_hook_signal_mask();
    int result = pep_real.thrd_create(thread, trampoline_c11, block);
    pep_hook_signal_unmask(was_unmasked);
    if (result != thrd_success)
        give_up(block);
    return result;
}
