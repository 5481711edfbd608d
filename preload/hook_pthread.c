/*
 * pthread_create and thrd_create: every thread gets its slot before the host's first line.
 *
 * Model:   the real function starts a trampoline; it takes the slot, then calls what the host
 *          wanted, with nothing left of ours but one frame. Arguments travel in a block from a
 *          fixed list. A pthread key's destructor sees the thread off in the last round.
 * Writers: any thread.  [hook]
 * Readers: the thread that was born.
 * Memory:  BLOCKS_MAX blocks, static; in use from the call to the new thread's first moment.
 * When full: the thread is created as if we were not there; the sweep finds it.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <threads.h>

#include "preload/init.h"
#include "preload/real.h"
#include "sampler/rt/atomics.h"
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
};

static struct block blocks[BLOCKS_MAX];
/* Low half: index + 1 of the first free block. High half: rises with each change, so that a
 * thread that slept between its read and its exchange notices (ABA). */
static uint64_t free_head;
/* Blocks [fresh, BLOCKS_MAX) were never used; saves linking them at the start. */
static uint32_t fresh;

static pthread_key_t exit_key;
static bool has_exit_key;

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

/* glibc goes round PTHREAD_DESTRUCTOR_ITERATIONS times while keys are set again, and the host's
 * destructors may use their thread until then: we leave in the last round. pthread_key_create(3) */
static void on_exit_key(void *value) {
    uintptr_t round = (uintptr_t)value;
    if (round < PTHREAD_DESTRUCTOR_ITERATIONS &&
        pthread_setspecific(exit_key, (void *)(round + 1)) == 0)
        return;
    pep_thread_leave();
}

/* The thread's control block lies above its frames in the same mapping: [self - stack, self) is
 * its stack, less a page for what glibc keeps above the block. */
static void arrive(const struct block *block) {
    uint64_t stack_bytes = block->stack_bytes > 4096 ? block->stack_bytes - 4096 : 0;
    pep_hook_signal_inherit(block->is_blocked_by_host);
    pep_thread_enter((uintptr_t)pthread_self(), stack_bytes);
    if (has_exit_key)
        (void)pthread_setspecific(exit_key, (void *)1);
    pep_hook_signal_unmask(true);
}

static void *trampoline(void *argument) {
    struct block block = *(struct block *)argument;
    block_drop(argument);
    arrive(&block);
    return block.start(block.argument);
}

static int trampoline_c11(void *argument) {
    struct block block = *(struct block *)argument;
    block_drop(argument);
    arrive(&block);
    return block.start_c11(block.argument);
}

int pep_hook_pthread_init(void) {
    int error = pthread_key_create(&exit_key, on_exit_key);
    if (error == 0) {
        has_exit_key = true;
        /* For a main thread that ends by pthread_exit(3). */
        (void)pthread_setspecific(exit_key, (void *)1);
    }
    return -error;
}

/* -- the creator's side --------------------------------------------------------------------- */

/* What pthread_create will take for the stack; 0 when it cannot be known cheaply. */
static uint64_t stack_bytes_of(const pthread_attr_t *attributes) {
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

static struct block *prepare(const pthread_attr_t *attributes, void *argument) {
    if (!pep_init_is_awake() || pep_thread_is_own() || pep_init_is_starting_own())
        return NULL;
    struct block *block = block_take();
    if (!block)
        return NULL;
    block->argument = argument;
    block->stack_bytes = stack_bytes_of(attributes);
    block->is_blocked_by_host = pep_hook_signal_is_blocked_by_host();
    return block;
}

/* Our signal is blocked across the real call, so that the child is born with it blocked and the
 * first sample finds its slot. */
PEP_EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                              void *(*start)(void *), void *argument) {
    struct block *block = prepare(attributes, argument);
    if (!block)
        return pep_real.pthread_create(thread, attributes, start, argument);
    block->start = start;
    bool was_unmasked = pep_hook_signal_mask();
    int error = pep_real.pthread_create(thread, attributes, trampoline, block);
    pep_hook_signal_unmask(was_unmasked);
    if (error != 0)
        block_drop(block);
    return error;
}

PEP_EXPORT int thrd_create(thrd_t *thread, thrd_start_t start, void *argument) {
    struct block *block = prepare(NULL, argument);
    if (!block)
        return pep_real.thrd_create(thread, start, argument);
    block->start_c11 = start;
    bool was_unmasked = pep_hook_signal_mask();
    int result = pep_real.thrd_create(thread, trampoline_c11, block);
    pep_hook_signal_unmask(was_unmasked);
    if (result != thrd_success)
        block_drop(block);
    return result;
}
