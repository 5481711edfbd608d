/*
 * malloc for third-party code that runs on profep's own threads.
 *
 * Model:   blocks of 2^k bytes with a 16-byte header, a free list a size, cut from 256-KiB
 *          mappings; blocks above 64 KiB are mappings of their own and go back by munmap.
 * Writers: profep's own threads, behind one futex lock held for a few instructions.  [normal]
 * Readers: the same.
 * Memory:  what is in use, rounded up to a power of two; free lists are kept.
 * When full: NULL, counted self_alloc_failed.
 */
#include <stdint.h>
#include <string.h>

#include "sampler/rt/arena.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

#define CLASS_MIN 5  /* 32 bytes with the header */
#define CLASS_MAX 16 /* 64 KiB */
#define SLAB_BYTES ((size_t)256 << 10)
#define MAGIC 0x70657072u

struct block {
    size_t size_bytes; /* of the whole block with this header */
    uint32_t class;    /* 0: a mapping of its own */
    uint32_t magic;
};

struct free_block {
    struct block head;
    struct free_block *next;
};

static struct {
    int lock; /* 0 free, 1 held, 2 held and somebody waits */
    struct free_block *free[CLASS_MAX + 1];
    char *slab;
    size_t slab_left_bytes;
} heap;

static void lock_heap(void) {
    int expected = 0;
    if (pep_cas_acq_rel(&heap.lock, &expected, 1))
        return;
    while (pep_swap_acq_rel(&heap.lock, 2) != 0)
        pep_os_futex_wait(&heap.lock, 2, UINT64_MAX);
}

static void unlock_heap(void) {
    if (pep_swap_acq_rel(&heap.lock, 0) == 2)
        pep_os_futex_wake(&heap.lock, 1);
}

void pep_malloc_after_fork(void) {
    /* The holder may have been between two stores: what is on the lists is given up. */
    if (heap.lock != 0)
        memset(&heap, 0, sizeof(heap));
}

static unsigned class_of(size_t total_bytes) {
    unsigned class = CLASS_MIN;
    while (((size_t)1 << class) < total_bytes)
        class ++;
    return class;
}

static struct block *take(unsigned class) {
    struct free_block *found = heap.free[class];
    if (found != NULL) {
        heap.free[class] = found->next;
        return &found->head;
    }
    size_t size = (size_t)1 << class;
    if (heap.slab_left_bytes < size) {
        char *slab = pep_os_map(SLAB_BYTES);
        if (slab == NULL)
            return NULL;
        heap.slab = slab;
        heap.slab_left_bytes = SLAB_BYTES;
    }
    struct block *block = (struct block *)heap.slab;
    heap.slab += size;
    heap.slab_left_bytes -= size;
    return block;
}

void *pep_malloc(size_t size_bytes) {
    struct block *block = NULL;
    size_t total = size_bytes + sizeof(struct block);
    unsigned class = 0;
    if (size_bytes < SIZE_MAX / 4 && total <= (size_t)1 << CLASS_MAX) {
        class = class_of(total);
        total = (size_t)1 << class;
        lock_heap();
        block = take(class);
        unlock_heap();
    } else if (size_bytes < SIZE_MAX / 4) {
        block = pep_os_map(total);
    }
    if (block == NULL) {
        PEP_COUNT(self_alloc_failed, 1);
        return NULL;
    }
    *block = (struct block){.size_bytes = total, .class = class, .magic = MAGIC};
    return block + 1;
}

void *pep_calloc(size_t count, size_t size_bytes) {
    size_t total;
    if (__builtin_mul_overflow(count, size_bytes, &total)) {
        PEP_COUNT(self_alloc_failed, 1);
        return NULL;
    }
    void *block = pep_malloc(total);
    return block == NULL ? NULL : memset(block, 0, total);
}

void pep_free(void *pointer) {
    if (pointer == NULL)
        return;
    struct block *block = (struct block *)pointer - 1;
    PEP_CHECK(block->magic == MAGIC);
    block->magic = 0;
    if (block->class == 0) {
        pep_os_unmap(block, block->size_bytes);
        return;
    }
    struct free_block *freed = (struct free_block *)block;
    lock_heap();
    freed->next = heap.free[block->class];
    heap.free[block->class] = freed;
    unlock_heap();
}

size_t pep_malloc_room(const void *pointer) {
    return ((const struct block *)pointer - 1)->size_bytes - sizeof(struct block);
}

void *pep_realloc(void *pointer, size_t size_bytes) {
    if (pointer == NULL)
        return pep_malloc(size_bytes);
    struct block *block = (struct block *)pointer - 1;
    size_t room = block->size_bytes - sizeof(*block);
    if (size_bytes <= room && (block->class != 0 || size_bytes > room / 2))
        return pointer;
    void *larger = pep_malloc(size_bytes);
    if (larger == NULL)
        return NULL;
    memcpy(larger, pointer, room < size_bytes ? room : size_bytes);
    pep_free(pointer);
    return larger;
}
