/*
 * What malloc and free cost, to be run bare and under the preload, with PROFEP_HEAP_RATE and
 * PROFEP_LIVE_MAP as wanted: ns an operation, best and median of 9 runs.
 *
 *   pair    malloc and free of 64 bytes, at once
 *   build   10^6 blocks of 16..128 bytes made, then freed: ns a block
 *   churn   10^5 blocks of 16..1024 bytes, one at random replaced by another: ns a replacement
 *   deep    the pair below 20 frames, for recording everything
 *   soak    10^8 replacements as in churn, once; only when asked for
 *
 * An argument chooses the rows that begin so, a second one divides the counts, for slow company,
 * and a third is the count of the soak.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS 9
#define PAIRS 5000000
#define DEEP_PAIRS 1000000
#define BLOCKS 1000000
#define LIVE 100000
#define REPLACED 1000000

static long divisor = 1;
static long soaked = 100000000;

static void *blocks[BLOCKS];
static uint32_t sizes[BLOCKS];
static uint64_t seed = 88172645463325252u;

static uint64_t next_random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* The compiler may not know that the block is not used. */
static void *used(void *block) {
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

static double pair(void) {
    double start = now_ns();
    long count = PAIRS / divisor;
    for (long i = 0; i < count; i++)
        free(used(malloc(64)));
    return (now_ns() - start) / (double)count;
}

static double build(void) {
    long count = BLOCKS / divisor;
    for (long i = 0; i < count; i++)
        sizes[i] = 16 + (uint32_t)(next_random() % 113);
    double start = now_ns();
    for (long i = 0; i < count; i++)
        blocks[i] = used(malloc(sizes[i]));
    for (long i = 0; i < count; i++)
        free(blocks[i]);
    return (now_ns() - start) / (double)count;
}

static double replace(long count) {
    for (int i = 0; i < LIVE; i++)
        blocks[i] = used(malloc(16 + next_random() % 1009));
    double start = now_ns();
    for (long i = 0; i < count; i++) {
        uint64_t r = next_random();
        free(blocks[r % LIVE]);
        blocks[r % LIVE] = used(malloc(16 + (r >> 32) % 1009));
    }
    double took = (now_ns() - start) / (double)count;
    for (int i = 0; i < LIVE; i++)
        free(blocks[i]);
    return took;
}

static double churn(void) {
    return replace(REPLACED / divisor);
}

static double soak(void) {
    return replace(soaked / divisor);
}

__attribute__((noinline)) static double below(int frames) {
    if (frames > 0) {
        double took = below(frames - 1);
        __asm__ volatile(""); /* not a tail call */
        return took;
    }
    double start = now_ns();
    long count = DEEP_PAIRS / divisor;
    for (long i = 0; i < count; i++)
        free(used(malloc(64)));
    return (now_ns() - start) / (double)count;
}

static double deep(void) {
    return below(17);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        double (*run)(void);
        int runs; /* 0: only when asked for, once */
    } rows[] = {{"pair", pair, RUNS},
                {"build", build, RUNS},
                {"churn", churn, RUNS},
                {"deep", deep, RUNS},
                {"soak", soak, 0}};
    if (argc > 2 && atol(argv[2]) > 0)
        divisor = atol(argv[2]);
    if (argc > 3 && atol(argv[3]) > 0)
        soaked = atol(argv[3]);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double took[RUNS];
        int runs = rows[i].runs;
        if (argc > 1 ? strncmp(rows[i].name, argv[1], strlen(argv[1])) != 0 : runs == 0)
            continue;
        runs = runs == 0 ? 1 : runs;
        for (int run = 0; run < runs; run++)
            took[run] = rows[i].run();
        qsort(took, (size_t)runs, sizeof took[0], compare);
        printf("%-6s %7.2f ns best %7.2f ns median\n", rows[i].name, took[0], took[runs / 2]);
    }
    return 0;
}
