/*
 * Allocates what it then tells exactly, and waits to be profiled.
 *
 *     heap_truth THREADS MEGABYTES
 *     heap_truth leak MEGABYTES
 *
 * The first prints a line for each of three functions: name, objects and bytes allocated, objects
 * and bytes alive; and one for each size that differs by a sixteenth of an octave: name, objects
 * and bytes allocated, objects and bytes alive of that size, from which follows how far an estimate
 * may lie from the truth when one byte in RATE is sampled. The second leaks blocks of 1 KB in each
 * of four functions. "ready" ends both.
 */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLASSES 3
#define THREADS_MAX 64
#define MAILBOX 1024
#define SIZES (27 * 16) /* of sixteenths of an octave */

struct sums {
    double objects, bytes;
};

struct truth {
    struct sums allocated[SIZES], live[SIZES];
};

struct worker {
    pthread_t thread;
    uint64_t random, bytes;
    struct truth truth[CLASSES];
};

static struct worker workers[THREADS_MAX];
static void *mailbox[MAILBOX];
static struct {
    const char *name;
    double low, high, share; /* of the bytes */
} classes[CLASSES] = {
    {"small", 64, 1024, 0.15}, {"medium", 1024, 65536, 0.35}, {"large", 65536, 64 << 20, 0.5}};

#define ALLOCATOR(name) \
    __attribute__((noinline)) static void *name(size_t size) { \
        char *block = malloc(size); \
        if (block == NULL) \
            abort(); \
        block[0] = block[size - 1] = 1; \
        return block; \
    }
ALLOCATOR(small)
ALLOCATOR(medium)
ALLOCATOR(large)
ALLOCATOR(leak_one)
ALLOCATOR(leak_two)
ALLOCATOR(leak_three)
ALLOCATOR(leak_four)

static double uniform(struct worker *w) {
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (double)(w->random >> 11) / (double)(1ull << 53);
}

static void count(struct sums *to, double size) {
    int index = (int)(log2(size) * 16);
    to[index].objects += 1;
    to[index].bytes += size;
}

static void fill(struct worker *w, int class) {
    static void *(*volatile const ways[CLASSES])(size_t) = {small, medium, large};
    double left = (double)w->bytes * classes[class].share;
    double span = log(classes[class].high / classes[class].low);
    while (left > 0) {
        double size = floor(classes[class].low * exp(span * uniform(w)));
        size = size > left && class == CLASSES - 1 ? left + 1 : size;
        size = floor(size);
        void *block = ways[class]((size_t)size);
        count(w->truth[class].allocated, size);
        left -= size;
        if (uniform(w) < 0.25) {
            count(w->truth[class].live, size);
            continue;
        }
        void *other =
            __atomic_exchange_n(&mailbox[(size_t)(uniform(w) * MAILBOX)], block, __ATOMIC_ACQ_REL);
        free(other); /* maybe another thread's */
    }
}

static void *work(void *argument) {
    for (int class = 0; class < CLASSES; class ++)
        fill(argument, class);
    return NULL;
}

static void add(struct sums *to, const struct sums *from) {
    to->objects += from->objects;
    to->bytes += from->bytes;
}

static void tell_sums(const char *kind, int class, const struct sums *allocated,
                      const struct sums *live) {
    printf("%s %s %.0f %.0f %.0f %.0f\n", kind, classes[class].name, allocated->objects,
           allocated->bytes, live->objects, live->bytes);
}

static void tell(int threads) {
    for (int class = 0; class < CLASSES; class ++) {
        struct sums allocated = {0}, live = {0};
        for (int size = 0; size < SIZES; size++) {
            struct sums allocated_here = {0}, live_here = {0};
            for (int i = 0; i < threads; i++) {
                add(&allocated_here, &workers[i].truth[class].allocated[size]);
                add(&live_here, &workers[i].truth[class].live[size]);
            }
            if (allocated_here.objects > 0)
                tell_sums("size", class, &allocated_here, &live_here);
            add(&allocated, &allocated_here);
            add(&live, &live_here);
        }
        tell_sums("sum", class, &allocated, &live);
    }
}

static void leak(int megabytes) {
    static void *(*volatile const ways[4])(size_t) = {leak_one, leak_two, leak_three, leak_four};
    for (int way = 0; way < 4; way++)
        for (long i = 0; i < megabytes * 1000l; i++)
            ways[way](1000);
}

int main(int arguments_count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (arguments_count == 3 && strcmp(arguments[1], "leak") == 0) {
        leak(atoi(arguments[2]));
    } else if (arguments_count == 3) {
        int threads = atoi(arguments[1]);
        /* Surely sampled: while the first sample makes the tables, other threads' have no stack. */
        free(large(64 << 20));
        count(workers[0].truth[CLASSES - 1].allocated, 64 << 20);
        for (int i = 0; i < threads && i < THREADS_MAX; i++) {
            workers[i].random = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u;
            workers[i].bytes = strtoull(arguments[2], NULL, 10) * 1000000 / (uint64_t)threads;
            pthread_create(&workers[i].thread, NULL, work, &workers[i]);
        }
        for (int i = 0; i < threads; i++)
            pthread_join(workers[i].thread, NULL);
        for (int i = 0; i < MAILBOX; i++)
            free(mailbox[i]);
        tell(threads);
    } else {
        return 2;
    }
    puts("ready");
    for (;;)
        pause();
}
