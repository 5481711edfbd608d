/*
 * A program whose allocator, its own, hangs for good two seconds after the start: stuck_malloc.
 * Whoever profiles it must not call malloc, calloc, realloc or free with a block.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char heap[1 << 26];
static size_t used;
static volatile int is_stuck;

static void hang_if_stuck(void) {
    while (is_stuck)
        pause();
}

void *malloc(size_t size) {
    hang_if_stuck();
    size_t at = __atomic_fetch_add(&used, (size + 31) & ~(size_t)15, __ATOMIC_RELAXED);
    if (at + size + 32 > sizeof(heap))
        return NULL;
    memcpy(heap + at, &size, sizeof(size));
    return heap + at + 16;
}

void *calloc(size_t count, size_t size) {
    return malloc(count * size);
}

void free(void *block) {
    if (block)
        hang_if_stuck();
}

void *realloc(void *block, size_t size) {
    size_t old = 0;
    void *copy = malloc(size);
    if (block && copy) {
        memcpy(&old, (char *)block - 16, sizeof(old));
        memcpy(copy, block, old < size ? old : size);
    }
    return copy;
}

int main(void) {
    sleep(2);
    is_stuck = 1;
    (void)!write(1, "stuck\n", 6);
    for (;;)
        getppid();
}
