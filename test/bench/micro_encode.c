/*
 * What it takes to encode and compress a profile of 10,000 distinct stacks of 30 frames from 20
 * threads and 20 libraries, without looking up names: milliseconds of CPU, best and median of 11.
 * Stacks are random walks through a program of 5,000 functions with 6 calls each, the first the
 * likeliest. An argument chooses the rows that begin so.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "encoder/encoders.h"

#define STACKS 10000
#define DEPTH 30
#define FUNCTIONS 5000
#define CALLS 6
#define LIBRARIES 20
#define THREADS 20
#define RUNS 11
#define BASE 0x7f0000000000u
#define LIBRARY 0x1000000u

static uintptr_t pcs[STACKS][DEPTH];
static struct pep_sample samples[STACKS];
static struct pep_mapping mappings[LIBRARIES];
static char names[FUNCTIONS][64];
static char paths[LIBRARIES][64];
static char threads[THREADS][16];
static uint64_t seed = 88172645463325252u;

static uint64_t next_random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static uintptr_t pc_of(uint64_t function, uint64_t call) {
    return BASE + function % LIBRARIES * LIBRARY + function / LIBRARIES * 0x200 + call * 0x20;
}

/* From the root down; 0 is main. The hash of the stack. */
static uint64_t walk(uintptr_t *stack) {
    uint64_t function = 0, hash = 1;
    for (int depth = DEPTH - 1; depth >= 0; depth--) {
        uint64_t call = 0;
        while (call < CALLS - 1 && next_random() % 8 == 0)
            call++;
        stack[depth] = pc_of(function, call);
        hash = (hash ^ stack[depth]) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 31;
        function = (function * CALLS + call + 1) * 2654435761u % FUNCTIONS;
    }
    return hash;
}

static bool is_new(uint64_t hash) {
    static uint64_t seen[STACKS * 8];
    size_t at = hash % PEP_COUNT_OF(seen);
    while (seen[at] != 0 && seen[at] != hash)
        at = (at + 1) % PEP_COUNT_OF(seen);
    bool was_new = seen[at] == 0;
    seen[at] = hash;
    return was_new;
}

static int lookup(struct pep_symbolizer *symbolizer, const struct pep_profile *profile,
                  uintptr_t pc, struct pep_frame *frames, int max) {
    (void)symbolizer;
    (void)profile;
    (void)max;
    uint64_t library = (pc - BASE) / LIBRARY, at = (pc - BASE) % LIBRARY / 0x200;
    frames[0] = (struct pep_frame){.name = names[at * LIBRARIES + library], .is_known = true};
    return 1;
}

static void fill(void) {
    for (int i = 0; i < FUNCTIONS; i++)
        snprintf(names[i], sizeof(names[i]), "example::module_%d::function_number_%d", i % 50, i);
    for (int i = 0; i < LIBRARIES; i++) {
        snprintf(paths[i], sizeof(paths[i]), "/usr/lib/x86_64-linux-gnu/libexample-%d.so", i);
        mappings[i] = (struct pep_mapping){.start = BASE + (uint64_t)i * LIBRARY,
                                           .limit = BASE + (uint64_t)(i + 1) * LIBRARY,
                                           .path = paths[i]};
        snprintf(mappings[i].build_id, sizeof(mappings[i].build_id), "%040d", i);
    }
    for (int i = 0; i < THREADS; i++)
        snprintf(threads[i], sizeof(threads[i]), "worker-%d", i);
    for (int i = 0; i < STACKS; i++) {
        while (!is_new(walk(pcs[i])))
            continue;
        int64_t count = 1 + (int64_t)(next_random() % 8 * (next_random() % 8) / 8);
        samples[i] = (struct pep_sample){.pcs = pcs[i],
                                         .pc_count = DEPTH,
                                         .tid = 1000 + i % THREADS,
                                         .thread = threads[i % THREADS],
                                         .values = {count, count * 10000000}};
    }
}

static double cpu_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int by_value(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static const char *chosen = "";

static void measure(const struct pep_profile *profile, const char *what, int level,
                    void (*encode)(const struct pep_encode_job *job)) {
    if (strncmp(what, chosen, strlen(chosen)) != 0)
        return;
    struct pep_symbolizer symbolizer = {.lookup = lookup};
    double took[RUNS];
    uint64_t plain = 0, packed = 0;
    for (int i = 0; i < RUNS; i++) {
        struct pep_arena arena;
        struct pep_buffer_writer out;
        struct pep_gzip_writer gzip;
        double begin = cpu_ms();
        pep_arena_init(&arena, 0);
        pep_buffer_writer_init(&out, &arena);
        struct pep_encode_job job = {.profile = profile,
                                     .symbolizer = &symbolizer,
                                     .writer = &out.writer,
                                     .arena = &arena,
                                     .title = "bench"};
        if (level > 0) {
            if (pep_gzip_writer_init(&gzip, &out.writer, level) != 0)
                exit(1);
            job.writer = &gzip.writer;
        }
        encode(&job);
        plain = job.writer->total_bytes;
        if ((level > 0 && pep_gzip_writer_finish(&gzip) != 0) || out.writer.error != 0)
            exit(1);
        packed = out.count;
        took[i] = cpu_ms() - begin;
        pep_arena_drop(&arena);
    }
    qsort(took, RUNS, sizeof(took[0]), by_value);
    printf("%-22s best %6.1f ms  median %6.1f ms  %8llu bytes -> %8llu\n", what, took[0],
           took[RUNS / 2], (unsigned long long)plain, (unsigned long long)packed);
}

int main(int argc, char **argv) {
    if (argc > 1)
        chosen = argv[1];
    fill();
    struct pep_profile profile = {.kind = "cpu",
                                  .types = {{"samples", "count"}, {"cpu", "nanoseconds"}},
                                  .type_count = 2,
                                  .default_type = 1,
                                  .period_type = {"cpu", "nanoseconds"},
                                  .period = 10000000,
                                  .time_ns = 1700000000000000000,
                                  .duration_ns = 10000000000,
                                  .samples = samples,
                                  .sample_count = STACKS,
                                  .mappings = mappings,
                                  .mapping_count = LIBRARIES,
                                  .main_mapping = 0};
    measure(&profile, "pprof", 0, pep_encode_pprof);
    measure(&profile, "pprof, gzip level 1", 1, pep_encode_pprof);
    measure(&profile, "pprof, gzip level 6", 6, pep_encode_pprof);
    measure(&profile, "collapsed", 0, pep_encode_collapsed);
    measure(&profile, "text", 0, pep_encode_text);
    return 0;
}
