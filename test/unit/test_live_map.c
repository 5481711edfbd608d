/* LDFLAGS: -Wl,--wrap=pep_os_map */
/* The map says exactly what lives, under any number of threads, within its bound. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "heap_help.h"
#include "sampler/live_map.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

#define BASE 0x100000000000ul
#define STRETCH (1ul << PEP_LIVE_STRETCH_LOG2)
#define CHUNKS 64
#define RESERVED (BASE + 40 * STRETCH + 4096)
#define RESERVED_BYTES 65536
#define THREADS 8
#define BLOCKS 20000 /* a thread */
#define ROUNDS 400000

static int maps_left = -1; /* how many pep_os_map may succeed; -1: all */
void *__real_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes) {
    if (maps_left == 0)
        return NULL;
    maps_left -= maps_left > 0;
    return __real_pep_os_map(size_bytes);
}

struct seen {
    uint64_t blocks, sampled, own;
    uintptr_t last;
    bool is_sorted;
    uint64_t stop_after;
};

static bool count(uintptr_t block, enum pep_live what, void *context) {
    struct seen *seen = context;
    seen->blocks += what == PEP_LIVE_BLOCK;
    seen->sampled += what == PEP_LIVE_SAMPLED;
    seen->own += what == PEP_LIVE_OWN;
    seen->is_sorted &= block > seen->last;
    seen->last = block;
    return --seen->stop_after != 0;
}

static struct seen walk(void) {
    struct seen seen = {.is_sorted = true};
    uint64_t visited = pep_live_map_walk(count, &seen);
    assert_int_equal(visited, seen.blocks + seen.sampled + seen.own);
    assert_true(seen.is_sorted);
    return seen;
}

static uint8_t at(uintptr_t block) {
    return pep_load_relaxed(pep_live_map_place(block));
}

static bool is_in_filter(uintptr_t block) {
    const uint8_t *place = pep_live_map_place(block);
    return place >= pep_live_filter && place < pep_live_filter + PEP_LIVE_FILTER_BYTES;
}

static void without_a_map_marks_are_kept_in_the_filter(void **state) {
    (void)state;
    pep_live_map_add(BASE);
    assert_int_equal(at(BASE), PEP_LIVE_NOTHING);
    assert_int_equal(walk().blocks, 0);
    pep_live_map_mark(BASE, PEP_LIVE_SAMPLED);
    assert_true(is_in_filter(BASE));
    assert_true(at(BASE) > PEP_LIVE_BLOCK);
    assert_true(at(BASE + STRETCH) > PEP_LIVE_BLOCK); /* shares the place */
    pep_live_map_mark(BASE + STRETCH, PEP_LIVE_OWN);
    pep_live_map_unmark(BASE);
    assert_true(at(BASE + STRETCH) > PEP_LIVE_BLOCK);
    pep_live_map_unmark(BASE + STRETCH);
    assert_int_equal(at(BASE), PEP_LIVE_NOTHING);
    pep_live_map_unmark(BASE);
    assert_int_equal(at(BASE), PEP_LIVE_NOTHING);
}

static void a_crowded_place_in_the_filter_stays_noticed(void **state) {
    (void)state;
    for (uintptr_t i = 0; i < 300; i++)
        pep_live_map_mark(BASE + 64 + i * STRETCH, PEP_LIVE_SAMPLED);
    for (uintptr_t i = 0; i < 300; i++)
        pep_live_map_unmark(BASE + 64 + i * STRETCH);
    assert_true(at(BASE + 64) > PEP_LIVE_BLOCK);
}

static void refused_memory_leaves_no_map(void **state) {
    (void)state;
    maps_left = 0;
    assert_int_equal(pep_live_map_init(CHUNKS * PEP_LIVE_CHUNK_BYTES), -12);
    assert_false(pep_live_map_exists());
    maps_left = -1;
    assert_int_equal(pep_live_map_bytes(), 0);
}

static void blocks_of_before_init_enter_the_map(void **state) {
    (void)state;
    pep_live_map_keep_early(0);
    for (uintptr_t i = 0; i < 10; i++)
        pep_live_map_keep_early(BASE + 1024 + i * 16);
    assert_true(at(BASE + 1024) > PEP_LIVE_BLOCK); /* so that a free asks */
    assert_true(pep_live_map_drop_early(BASE + 1024));
    assert_false(pep_live_map_drop_early(BASE + 1024));
    assert_int_equal(at(BASE + 1024), PEP_LIVE_NOTHING);
    pep_live_map_mark(RESERVED + 16, PEP_LIVE_OWN);
    pep_live_map_reserve(RESERVED, RESERVED_BYTES);
    assert_int_equal(pep_live_map_init((uint64_t)CHUNKS * PEP_LIVE_CHUNK_BYTES), 0);
    assert_int_equal(pep_live_map_init(1), 0);
    pep_live_map_end_early();
    assert_int_equal(walk().blocks, 9);
    for (uintptr_t i = 1; i < 10; i++)
        assert_int_equal(at(BASE + 1024 + i * 16), PEP_LIVE_BLOCK);
    pep_live_map_keep_early(BASE + 2048); /* too late */
    assert_int_equal(at(BASE + 2048), PEP_LIVE_NOTHING);
    for (uintptr_t i = 1; i < 10; i++)
        pep_live_map_unmark(BASE + 1024 + i * 16);
    assert_int_equal(walk().blocks, 0);
}

static void reserved_blocks_are_always_noticed_and_never_shown(void **state) {
    (void)state;
    assert_true(at(RESERVED + 16) > PEP_LIVE_BLOCK);
    pep_live_map_add(RESERVED - 64); /* gives the stretch a chunk */
    assert_false(is_in_filter(RESERVED + 16));
    assert_int_equal(at(RESERVED), PEP_LIVE_OWN);
    assert_int_equal(at(RESERVED + 16), PEP_LIVE_OWN);
    assert_int_equal(at(RESERVED + RESERVED_BYTES - 16), PEP_LIVE_OWN);
    assert_int_equal(at(RESERVED + RESERVED_BYTES), PEP_LIVE_NOTHING);
    assert_int_equal(walk().own, 0);
    assert_int_equal(walk().blocks, 1);
    pep_live_map_unmark(RESERVED - 64);
}

static void a_walk_sees_what_each_block_is(void **state) {
    (void)state;
    pep_live_map_add(BASE + 32);
    pep_live_map_mark(BASE + 48, PEP_LIVE_SAMPLED);
    pep_live_map_mark(BASE + STRETCH - 16, PEP_LIVE_OWN);
    struct seen seen = walk();
    assert_int_equal(seen.blocks, 1);
    assert_int_equal(seen.sampled, 1);
    assert_int_equal(seen.own, 1);
    struct seen two = {.stop_after = 2};
    assert_int_equal(pep_live_map_walk(count, &two), 2);
    pep_live_map_unmark(BASE + 32);
    pep_live_map_unmark(BASE + 48);
    pep_live_map_unmark(BASE + STRETCH - 16);
    assert_int_equal(walk().blocks + walk().sampled + walk().own, 0);
}

/* -- many threads --------------------------------------------------------------------------- */

struct worker {
    pthread_t thread;
    uint64_t seed;
    uint8_t shadow[BLOCKS];
    int number;
};

/* Neighbours of other threads, so that bytes of one word are written at once. */
static uintptr_t block_of(const struct worker *worker, uint32_t i) {
    return BASE + ((uintptr_t)i * THREADS + (uintptr_t)worker->number) * 16;
}

static void *work(void *context) {
    struct worker *worker = context;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t i = (uint32_t)(help_random(&worker->seed) % BLOCKS);
        uintptr_t block = block_of(worker, i);
        if (worker->shadow[i] != PEP_LIVE_NOTHING) {
            pep_live_map_unmark(block);
            worker->shadow[i] = PEP_LIVE_NOTHING;
        } else if (help_random(&worker->seed) % 16 != 0) {
            pep_live_map_add(block);
            worker->shadow[i] = PEP_LIVE_BLOCK;
        } else {
            pep_live_map_mark(block, PEP_LIVE_SAMPLED);
            worker->shadow[i] = PEP_LIVE_SAMPLED;
        }
    }
    return NULL;
}

static bool compare(uintptr_t block, enum pep_live what, void *context) {
    struct worker *workers = context;
    uintptr_t place = (block - BASE) / 16;
    struct worker *worker = &workers[place % THREADS];
    assert_true(block >= BASE && place / THREADS < BLOCKS);
    assert_int_equal(worker->shadow[place / THREADS], what);
    worker->shadow[place / THREADS] = PEP_LIVE_NOTHING;
    return true;
}

static void the_map_is_exact_under_many_threads(void **state) {
    (void)state;
    static struct worker workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i].number = i;
        workers[i].seed = 88172645463325252u + (uint64_t)i * 12345;
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    uint64_t visited = pep_live_map_walk(compare, workers);
    assert_true(visited > THREADS * BLOCKS / 3);
    for (int i = 0; i < THREADS; i++)
        for (uint32_t j = 0; j < BLOCKS; j++)
            assert_int_equal(workers[i].shadow[j], PEP_LIVE_NOTHING); /* all were visited */
    for (uintptr_t i = 0; i < (uintptr_t)THREADS * BLOCKS; i++)
        pep_live_map_unmark(BASE + i * 16);
}

/* All threads want a chunk for the same stretches at the same time. */
static pthread_barrier_t barrier;

static void *cover(void *context) {
    uintptr_t own = (uintptr_t)context * 16;
    for (uintptr_t i = 1; i <= 20; i++) {
        pthread_barrier_wait(&barrier);
        pep_live_map_add(BASE + i * STRETCH + own);
    }
    return NULL;
}

static void a_stretch_gets_one_chunk(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, cover, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(walk().blocks, 20 * THREADS);
    for (uintptr_t i = 1; i <= 20; i++)
        for (uintptr_t j = 0; j < THREADS; j++)
            pep_live_map_unmark(BASE + i * STRETCH + j * 16);
}

/* -- the bound ------------------------------------------------------------------------------ */

static void beyond_the_bound_blocks_are_counted(void **state) {
    (void)state;
    for (uintptr_t i = 0; i < 2 * CHUNKS; i++)
        pep_live_map_add(BASE + 100 * STRETCH + i * STRETCH);
    uint64_t covered = walk().blocks;
    assert_true(covered > 0 && covered <= CHUNKS);
    assert_int_equal(PEP_COUNTED(live_map_full), 1);
    assert_int_equal(pep_live_map_bytes(), (uint64_t)CHUNKS * PEP_LIVE_CHUNK_BYTES);
    uintptr_t far = BASE + 500 * STRETCH + 4096;
    uint64_t before = pep_live_map_uncovered();
    for (uintptr_t i = 0; i < 640; i++)
        pep_live_map_add(far + i * 16);
    assert_int_equal(pep_live_map_uncovered() - before, 640);
    assert_int_equal(at(far), PEP_LIVE_NOTHING);
    /* Sampled ones are noticed all the same. */
    pep_live_map_mark(far, PEP_LIVE_SAMPLED);
    assert_true(is_in_filter(far) && at(far) > PEP_LIVE_BLOCK);
    pep_live_map_unmark(far);
    assert_int_equal(at(far), PEP_LIVE_NOTHING);
    assert_int_equal(walk().blocks, covered);
    pep_live_map_add(0); /* a request that failed */
    assert_int_equal(walk().blocks, covered);
}

static void foreign_pointers_do_no_harm(void **state) {
    (void)state;
    uint64_t seed = 4711;
    for (int i = 0; i < 1000000; i++) {
        uintptr_t anything = help_random(&seed);
        (void)at(anything);
    }
    (void)at(UINTPTR_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_map_marks_are_kept_in_the_filter),
        cmocka_unit_test(a_crowded_place_in_the_filter_stays_noticed),
        cmocka_unit_test(refused_memory_leaves_no_map),
        cmocka_unit_test(blocks_of_before_init_enter_the_map),
        cmocka_unit_test(reserved_blocks_are_always_noticed_and_never_shown),
        cmocka_unit_test(a_walk_sees_what_each_block_is),
        cmocka_unit_test(the_map_is_exact_under_many_threads),
        cmocka_unit_test(a_stretch_gets_one_chunk),
        cmocka_unit_test(beyond_the_bound_blocks_are_counted),
        cmocka_unit_test(foreign_pointers_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
