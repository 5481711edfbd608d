/* Sampled sums are unbiased whatever the sizes, threads, rates and changes of rate; what does not
 * fit is counted. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "heap_help.h"
#include "sampler/heap.h"
#include "sampler/heap_hook.h"
#include "sampler/heap_internal.h"
#include "sampler/rt/counters.h"

#define BASE 0x100000000000ul
#define STEADY_RATE 524288u

/* -- before and at the start ---------------------------------------------------------------- */

static bool find_block(uintptr_t block, enum pep_live what, void *context) {
    *(int *)context += block == BASE - 64 && what == PEP_LIVE_BLOCK;
    return true;
}

static void blocks_of_before_the_start_are_known(void **state) {
    (void)state;
    struct pep_heap_state now;
    pep_heap_thread.rng = 88172645463325252u; /* the same sequence in every run */
    assert_int_equal(pep_heap_begin(1), -95);
    for (uintptr_t i = 1; i <= 1100; i++)
        help_allocate(BASE - i * 64, 64);
    help_free(BASE - 128);
    assert_int_equal(help_sum(PEP_HEAP_INUSE, 0).samples, 0);
    const struct pep_heap_options options = {
        .rate_bytes = STEADY_RATE, .has_live_map = true, .live_map_bytes = 64ul << 20};
    assert_int_equal(pep_heap_init(&options), 0);
    assert_int_equal(pep_heap_init(&options), 0);
    pep_heap_state(&now);
    assert_int_equal(now.rate_bytes, STEADY_RATE);
    assert_true(now.has_live_map);
    assert_null(now.unreachable);
    assert_int_equal(now.live_blocks, 1023); /* the list has 1024 places, one was freed */
    int found = 0;
    pep_live_map_walk(find_block, &found);
    assert_int_equal(found, 1);
    help_free(BASE - 64);
    pep_heap_state(&now);
    assert_int_equal(now.live_blocks, 1022);
}

/* -- sums against the truth ----------------------------------------------------------------- */

/* What is true, and how far an unbiased estimate may stray: a block of p = likelihood adds
 * s^2 (1-p)/p to the variance of the bytes, (1-p)/p to that of the objects. */
struct truth {
    double objects, bytes, objects_variance, bytes_variance;
};

static void add_truth(struct truth *truth, size_t size, double p) {
    double s = (double)size;
    truth->objects += 1;
    truth->bytes += s;
    truth->objects_variance += (1 - p) / p;
    truth->bytes_variance += s * s * (1 - p) / p;
}

static void add_all(struct truth *to, const struct truth *from) {
    to->objects += from->objects;
    to->bytes += from->bytes;
    to->objects_variance += from->objects_variance;
    to->bytes_variance += from->bytes_variance;
}

static void compare_one(const char *what, double found, double truth, double variance) {
    double bound = 4 * sqrt(variance) + 1;
    print_message("  %-14s %16.0f of %16.0f: %+6.3f %%, 4 sigma %6.3f %%\n", what, found, truth,
                  100 * (found / truth - 1), 100 * bound / truth);
    assert_true(fabs(found - truth) <= bound);
}

static void compare(const struct help_sums *before, const struct truth *allocated,
                    const struct truth *live) {
    struct help_sums after = help_sum(PEP_HEAP_INUSE, 0);
    double d[4];
    for (int k = 0; k < 4; k++)
        d[k] = (double)(after.values[k] - before->values[k]);
    compare_one("alloc_objects", d[0], allocated->objects, allocated->objects_variance);
    compare_one("alloc_space", d[1], allocated->bytes, allocated->bytes_variance);
    compare_one("inuse_objects", d[2], live->objects, live->objects_variance);
    compare_one("inuse_space", d[3], live->bytes, live->bytes_variance);
}

struct job {
    pthread_t thread;
    uintptr_t base;
    uint64_t seed;
    int blocks;
    uint32_t rate;
    size_t size; /* 0: mixed */
    struct truth allocated, live;
};

static void *allocate_and_free(void *context) {
    struct job *job = context;
    pep_heap_thread.rng = job->seed; /* the same sequence in every run */
    for (int i = 0; i < job->blocks; i++) {
        size_t size = job->size != 0 ? job->size : help_mixed_size(&job->seed);
        uintptr_t block = job->base + (uintptr_t)i * 16;
        double p = -expm1(-(double)size / job->rate);
        help_allocate(block, size);
        add_truth(&job->allocated, size, p);
        if (help_random(&job->seed) % 2 == 0)
            help_free(block);
        else
            add_truth(&job->live, size, p);
    }
    return NULL;
}

static uintptr_t next_base = BASE;

static void run_threads(int threads, int blocks, uint32_t rate, size_t size) {
    static struct job jobs[64];
    struct help_sums before = help_sum(PEP_HEAP_INUSE, 0);
    uint64_t samples = PEP_COUNTED(heap_samples);
    struct truth allocated = {0}, live = {0};
    for (int i = 0; i < threads; i++) {
        jobs[i] = (struct job){.base = next_base,
                               .seed = 88172645463325252u * (uint64_t)(2 * i + 1) + next_base,
                               .blocks = blocks / threads,
                               .rate = rate,
                               .size = size};
        next_base += (uintptr_t)(blocks / threads) * 16;
        pthread_create(&jobs[i].thread, NULL, allocate_and_free, &jobs[i]);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(jobs[i].thread, NULL);
        add_all(&allocated, &jobs[i].allocated);
        add_all(&live, &jobs[i].live);
    }
    print_message("%d threads, %d blocks, rate %u: %llu samples\n", threads, blocks, rate,
                  (unsigned long long)(PEP_COUNTED(heap_samples) - samples));
    compare(&before, &allocated, &live);
}

static void sums_are_unbiased_for_any_number_of_threads(void **state) {
    (void)state;
    run_threads(1, 20000, STEADY_RATE, 0);
    run_threads(8, 20000, STEADY_RATE, 0);
    run_threads(64, 20480, STEADY_RATE, 0);
}

static void small_blocks_are_sampled_as_they_should(void **state) {
    (void)state;
    run_threads(1, 1000000, STEADY_RATE, 64);
    run_threads(4, 400000, STEADY_RATE, 4000);
}

/* 100 MB in blocks of 1 KB at a rate of 8,192 is the leak that people look for. */
static void a_window_with_its_own_rate_is_unbiased(void **state) {
    (void)state;
    assert_int_equal(pep_heap_begin(8192), 0);
    /* The main thread drew its countdown for the other rate; new ones draw for this. */
    run_threads(2, 200000, 8192, 1024);
    pep_heap_end(8192);
}

static void rate_one_records_every_block(void **state) {
    (void)state;
    assert_int_equal(pep_heap_begin(1), 0);
    struct help_sums before = help_sum(PEP_HEAP_INUSE, 0);
    for (uintptr_t i = 0; i < 1000; i++)
        help_allocate(next_base + i * 16, i);
    for (uintptr_t i = 0; i < 500; i++)
        help_free(next_base + i * 16);
    struct help_sums after = help_sum(PEP_HEAP_INUSE, 0), raw = help_sum(PEP_HEAP_INUSE, 1);
    assert_int_equal(after.values[0] - before.values[0], 1000);
    assert_int_equal(after.values[1] - before.values[1], 999 * 500);
    assert_int_equal(after.values[2] - before.values[2], 500);
    assert_int_equal(after.values[3] - before.values[3], 749 * 500 + 250);
    assert_true(raw.values[0] < after.values[0]);
    pep_heap_end(1);
    next_base += 16000;
}

/* -- changes of rate ------------------------------------------------------------------------ */

struct mixed_window {
    uint32_t rate;
    double probability;
};

static void change_window(struct mixed_window *open, uint64_t *seed) {
    static const uint32_t rates[] = {1, 512, 8192, 65536};
    if (open->rate != 0)
        pep_heap_end(open->rate);
    if (open->probability > 0)
        pep_heap_end_probability(open->probability);
    *open = (struct mixed_window){0};
    uint64_t r = help_random(seed) % 8;
    if (r < 4)
        open->rate = rates[r];
    else if (r < 6)
        open->probability = r == 4 ? 0.01 : 0.25;
    if (open->rate != 0)
        assert_int_equal(pep_heap_begin(open->rate), 0);
    if (open->probability > 0)
        assert_int_equal(pep_heap_begin_probability(open->probability), 0);
}

/* Every block is at least as likely as under the standing rate, so that rate bounds the variance.
 */
static void changes_of_rate_do_not_bias(void **state) {
    (void)state;
    struct help_sums before = help_sum(PEP_HEAP_INUSE, 0);
    struct truth allocated = {0}, live = {0};
    struct mixed_window open = {0};
    uint64_t seed = 4711;
    for (uintptr_t i = 0; i < 300000; i++) {
        size_t size = 64 + help_random(&seed) % 20000;
        uintptr_t block = next_base + i * 16;
        double p = -expm1(-(double)size / STEADY_RATE);
        if (help_random(&seed) % 256 == 0)
            change_window(&open, &seed);
        help_allocate(block, size);
        add_truth(&allocated, size, p);
        if (help_random(&seed) % 2 == 0)
            help_free(block);
        else
            add_truth(&live, size, p);
    }
    open.rate != 0 ? pep_heap_end(open.rate) : pep_heap_end_probability(open.probability);
    next_base += 300000 * 16;
    compare(&before, &allocated, &live);
}

static void a_probability_takes_blocks_whatever_their_size(void **state) {
    (void)state;
    enum { BLOCKS = 100000 };
    struct help_sums before = help_sum(PEP_HEAP_INUSE, 0);
    uint64_t samples = PEP_COUNTED(heap_samples);
    assert_int_equal(pep_heap_begin_probability(0.1), 0);
    struct truth allocated = {0};
    for (uintptr_t i = 0; i < BLOCKS; i++) {
        help_allocate(next_base + i * 16, 16);
        add_truth(&allocated, 16, 0.1);
    }
    pep_heap_end_probability(0.1);
    double off = (double)(PEP_COUNTED(heap_samples) - samples) - BLOCKS * 0.1;
    print_message("samples off by %+.0f, 4 sigma %.0f\n", off, 4 * sqrt(BLOCKS * 0.09));
    assert_true(fabs(off) < 4 * sqrt(BLOCKS * 0.09) + 10);
    compare(&before, &allocated, &allocated);
    next_base += BLOCKS * 16;
}

static void a_probability_of_one_is_exact(void **state) {
    (void)state;
    struct help_sums before = help_sum(PEP_HEAP_INUSE, 0);
    assert_int_equal(pep_heap_begin_probability(1), 0);
    for (uintptr_t i = 0; i < 100; i++)
        help_allocate(next_base + i * 16, 24);
    pep_heap_end_probability(1);
    struct help_sums after = help_sum(PEP_HEAP_INUSE, 0);
    assert_int_equal(after.values[0] - before.values[0], 100);
    assert_int_equal(after.values[3] - before.values[3], 2400);
    next_base += 1600;
}

static void windows_are_refused_when_they_cannot_be(void **state) {
    (void)state;
    struct pep_heap_state now;
    assert_int_equal(pep_heap_begin(0), -22);
    assert_int_equal(pep_heap_begin(PEP_HEAP_RATE_MAX + 1), -22);
    assert_int_equal(pep_heap_begin_probability(0), -22);
    assert_int_equal(pep_heap_begin_probability(-1), -22);
    assert_int_equal(pep_heap_begin_probability(1.5), -22);
    assert_int_equal(pep_heap_begin_probability(NAN), -22);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(pep_heap_begin(1000 + i), 0);
    assert_int_equal(pep_heap_begin(999), -16);
    assert_int_equal(pep_heap_begin_probability(0.5), -16);
    pep_heap_state(&now);
    assert_int_equal(now.rate_bytes, 1000);
    pep_heap_end(1000);
    pep_heap_state(&now);
    assert_int_equal(now.rate_bytes, 1001);
    pep_heap_end(0);
    pep_heap_end_probability(0);
    for (uint32_t i = 1; i < 64; i++)
        pep_heap_end(1000 + i);
    pep_heap_end(77); /* nobody's */
    pep_heap_state(&now);
    assert_int_equal(now.rate_bytes, STEADY_RATE);
    pep_heap_set_unreachable("because");
    pep_heap_state(&now);
    assert_string_equal(now.unreachable, "because");
    pep_heap_set_unreachable(NULL);
}

/* -- odd moments ---------------------------------------------------------------------------- */

static void a_failed_request_leaves_no_trace(void **state) {
    (void)state;
    int64_t before = pep_heap_thread.countdown;
    assert_false(pep_heap_take(SIZE_MAX));
    assert_false(pep_heap_take((size_t)PTRDIFF_MAX + 1));
    pep_heap_give_back(SIZE_MAX);
    assert_int_equal(pep_heap_thread.countdown, before);
    assert_true(pep_heap_take(PTRDIFF_MAX));
    pep_heap_give_back(PTRDIFF_MAX);
    assert_int_equal(pep_heap_thread.countdown, before);
}

static void a_handler_that_allocates_while_we_record_is_served(void **state) {
    (void)state;
    assert_int_equal(pep_heap_begin(1), 0);
    uint64_t lost = PEP_COUNTED(heap_no_stack);
    struct help_sums before = help_sum(PEP_HEAP_INUSE, 0);
    pep_heap_thread.busy_sp = UINTPTR_MAX; /* everything is below */
    help_allocate(next_base, 100);
    assert_true(pep_heap_thread.busy_sp == UINTPTR_MAX);
    pep_heap_thread.busy_sp = 0;
    assert_int_equal(PEP_COUNTED(heap_no_stack), lost + 1);
    assert_int_equal(help_sum(PEP_HEAP_INUSE, 0).values[3] - before.values[3], 100);
    help_free(next_base);
    assert_int_equal(help_sum(PEP_HEAP_INUSE, 0).values[3] - before.values[3], 0);
    pep_heap_end(1);
}

/* siglongjmp(3) out of a handler, over the recording that it interrupted. */
static void a_recording_that_never_ends_is_noticed(void **state) {
    (void)state;
    const struct pep_stack_range kept = pep_heap_thread.stack;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    assert_int_equal(pep_heap_begin(1), 0);
    uint64_t lost = PEP_COUNTED(heap_no_stack);
    pep_heap_thread.stack = (struct pep_stack_range){here - 65536, here + 256};
    pep_heap_thread.busy_sp = here - 60000;
    help_allocate(next_base, 100);
    assert_true(pep_heap_thread.busy_sp == 0);
    assert_int_equal(PEP_COUNTED(heap_no_stack), lost);
    pep_heap_thread.stack = kept;
    help_free(next_base);
    pep_heap_end(1);
}

static void a_failed_realloc_changes_nothing(void **state) {
    (void)state;
    assert_int_equal(pep_heap_begin(1), 0);
    help_allocate(next_base, 5000);
    struct help_sums before = help_sum(PEP_HEAP_INUSE, 0);
    struct pep_heap_taken taken = pep_heap_take_out(next_base);
    assert_int_equal(taken.what, PEP_LIVE_SAMPLED);
    assert_int_equal(taken.size_bytes, 5000);
    assert_int_equal(*pep_live_map_place(next_base), PEP_LIVE_NOTHING);
    assert_int_equal(pep_heap_take_out(next_base).what, PEP_LIVE_NOTHING);
    pep_heap_put_back(next_base, &taken);
    assert_int_equal(*pep_live_map_place(next_base), PEP_LIVE_SAMPLED);
    struct help_sums after = help_sum(PEP_HEAP_INUSE, 0);
    assert_memory_equal(&before, &after, sizeof before);
    help_free(next_base);
    assert_int_equal(help_sum(PEP_HEAP_INUSE, 0).values[3], before.values[3] - 5000);
    pep_heap_end(1);
}

static void own_blocks_are_told_from_the_hosts(void **state) {
    (void)state;
    uintptr_t mine = next_base + 4096;
    assert_false(pep_heap_is_own(mine));
    assert_true(pep_heap_keep_own(mine));
    assert_true(pep_heap_is_own(mine));
    assert_int_equal(*pep_live_map_place(mine), PEP_LIVE_OWN);
    struct pep_heap_taken taken = pep_heap_take_out(mine);
    assert_int_equal(taken.what, PEP_LIVE_OWN);
    pep_heap_freed(&taken); /* not a block of the host's: nothing is charged */
    assert_false(pep_heap_is_own(mine));
    assert_int_equal(*pep_live_map_place(mine), PEP_LIVE_NOTHING);
}

static void *be_own(void *context) {
    pep_heap_thread_become_own();
    *(bool *)context = pep_heap_take(0) && pep_heap_take(1);
    return NULL;
}

static void own_threads_always_take_the_slow_way(void **state) {
    (void)state;
    pthread_t thread;
    bool is_slow = false;
    pthread_create(&thread, NULL, be_own, &is_slow);
    pthread_join(thread, NULL);
    assert_true(is_slow);
}

static void a_forked_child_keeps_what_is_true(void **state) {
    (void)state;
    struct help_sums before = help_sum(PEP_HEAP_INUSE, 0);
    assert_int_equal(pep_heap_begin(1), 0);
    pep_heap_after_fork_child();
    struct pep_heap_state now;
    pep_heap_state(&now);
    assert_int_equal(now.rate_bytes, STEADY_RATE); /* the parent's windows are not open here */
    struct help_sums after = help_sum(PEP_HEAP_INUSE, 0);
    assert_memory_equal(&before, &after, sizeof before);
    run_threads(2, 2000, STEADY_RATE, 0);
}

/* Last: there is no way back. */
static void a_retired_heap_records_nothing_and_keeps_its_map(void **state) {
    (void)state;
    assert_int_equal(pep_heap_begin(1), 0);
    pep_heap_retire();
    uint64_t samples = PEP_COUNTED(heap_samples);
    for (uintptr_t i = 0; i < 100; i++)
        help_allocate(next_base + i * 16, 1 << 20);
    assert_int_equal(PEP_COUNTED(heap_samples), samples);
    assert_int_equal(*pep_live_map_place(next_base + 16), PEP_LIVE_BLOCK);
    assert_int_equal(pep_heap_begin(1), -95);
    assert_int_equal(pep_heap_begin_probability(1), -95);
}

static void two_blocks_that_share_a_byte_are_both_noticed(void **state) {
    (void)state;
    const struct pep_heap_taken sample = {.what = PEP_LIVE_SAMPLED, .weight = 1, .size_bytes = 8};
    uintptr_t low = next_base + 4096, high = low + 8;
    pep_heap_small = 9;
    pep_heap_put_back(low, &sample);
    pep_live_map_add(high); /* not sampled, and the mark stays */
    assert_int_equal(*pep_live_map_place(low), PEP_LIVE_SAMPLED);
    assert_int_equal(pep_heap_take_out(high).what, PEP_LIVE_NOTHING);
    assert_int_equal(*pep_live_map_place(low), PEP_LIVE_SAMPLED);
    pep_heap_put_back(high, &sample);
    assert_int_equal(pep_heap_take_out(low).what, PEP_LIVE_SAMPLED);
    assert_int_equal(*pep_live_map_place(high), PEP_LIVE_SAMPLED);
    assert_int_equal(pep_heap_take_out(high).what, PEP_LIVE_SAMPLED);
    assert_int_equal(*pep_live_map_place(high), PEP_LIVE_NOTHING);
    pep_heap_small = 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_before_the_start_are_known),
        cmocka_unit_test(sums_are_unbiased_for_any_number_of_threads),
        cmocka_unit_test(small_blocks_are_sampled_as_they_should),
        cmocka_unit_test(a_window_with_its_own_rate_is_unbiased),
        cmocka_unit_test(rate_one_records_every_block),
        cmocka_unit_test(changes_of_rate_do_not_bias),
        cmocka_unit_test(a_probability_takes_blocks_whatever_their_size),
        cmocka_unit_test(a_probability_of_one_is_exact),
        cmocka_unit_test(windows_are_refused_when_they_cannot_be),
        cmocka_unit_test(a_failed_request_leaves_no_trace),
        cmocka_unit_test(a_handler_that_allocates_while_we_record_is_served),
        cmocka_unit_test(a_recording_that_never_ends_is_noticed),
        cmocka_unit_test(a_failed_realloc_changes_nothing),
        cmocka_unit_test(own_blocks_are_told_from_the_hosts),
        cmocka_unit_test(own_threads_always_take_the_slow_way),
        cmocka_unit_test(a_forked_child_keeps_what_is_true),
        cmocka_unit_test(two_blocks_that_share_a_byte_are_both_noticed),
        cmocka_unit_test(a_retired_heap_records_nothing_and_keeps_its_map),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
