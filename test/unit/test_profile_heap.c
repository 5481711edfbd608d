/* LDFLAGS: -Wl,--wrap=pep_os_map */
/* What a heap profile shows: views, differences, labels, filters, peaks. Everything is recorded
 * here, so all numbers are exact. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include <cmocka.h>

#include "heap_help.h"
#include "sampler/heap.h"
#include "sampler/heap_hook.h"
#include "sampler/heap_internal.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define BASE 0x100000000000ul
#define LARGE (4ul << 20)  /* maps above this may be refused */
#define NEVER_ALLOCATED 25 /* bytes that a test frees */

static int refuse_large;
void *__real_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes) {
    return refuse_large && size_bytes > LARGE ? NULL : __real_pep_os_map(size_bytes);
}

static uintptr_t next_block = BASE;

/* Two functions, so that there are two stacks. */
__attribute__((noipa, aligned(128))) static uintptr_t allocate_here(size_t size) {
    uintptr_t block = next_block;
    next_block += 16;
    help_allocate(block, size);
    __asm__ volatile("" : : : "memory");
    return block;
}

__attribute__((noipa, aligned(128))) static uintptr_t allocate_there(size_t size) {
    uintptr_t block = next_block;
    next_block += 16;
    help_allocate(block, size);
    __asm__ volatile("" : : "r"(block) : "memory");
    return block;
}

static struct pep_arena arena;

static int begin_test(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    return 0;
}

static int end_test(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static const struct pep_profile *take(const struct pep_heap_snapshot *before,
                                      struct pep_heap_query query) {
    const struct pep_profile *profile = pep_profile_heap(&arena, before, &query);
    assert_non_null(profile);
    return profile;
}

static bool is_within(uintptr_t pc, const void *function) {
    return pc - (uintptr_t)function < 128;
}

static bool has_function(const struct pep_sample *sample, const void *function) {
    for (uint32_t i = 0; i < sample->pc_count; i++)
        if (is_within(sample->pcs[i], function))
            return true;
    return false;
}

/* All samples whose stack has the function in it, as one; NULL when there is none. */
static const struct pep_sample *find(const struct pep_profile *profile, const void *function) {
    struct pep_sample *sum = NULL;
    for (uint32_t i = 0; i < profile->sample_count; i++) {
        if (!has_function(&profile->samples[i], function))
            continue;
        if (sum == NULL) {
            sum = pep_arena_alloc(&arena, sizeof *sum);
            *sum = profile->samples[i];
            continue;
        }
        for (int k = 0; k < 4; k++)
            sum->values[k] += profile->samples[i].values[k];
    }
    return sum;
}

static bool has_comment(const struct pep_profile *profile, const char *part) {
    for (uint32_t i = 0; i < profile->comment_count; i++)
        if (strstr(profile->comments[i], part) != NULL)
            return true;
    return false;
}

static void assert_values(const struct pep_sample *sample, const int64_t values[4]) {
    assert_non_null(sample);
    for (int k = 0; k < 4; k++)
        assert_int_equal(sample->values[k], values[k]);
}

static void a_heap_that_gets_no_memory_stays_off(void **state) {
    (void)state;
    const struct pep_heap_options options = {.rate_bytes = 1};
    refuse_large = 1;
    assert_int_equal(pep_heap_init(&options), -12);
    refuse_large = 0;
    assert_int_equal(pep_heap_begin(1), -95);
    assert_int_equal(pep_heap_record_count(PEP_HEAP_INUSE), 0);
    const struct pep_profile *profile = take(NULL, (struct pep_heap_query){0});
    assert_int_equal(profile->sample_count, 0);
    assert_true(has_comment(profile, "not sampled"));
}

static void types_and_names_are_those_that_readers_know(void **state) {
    (void)state;
    static const char *const names[] = {"alloc_objects", "alloc_space", "inuse_objects",
                                        "inuse_space"};
    const struct pep_heap_options options = {
        .has_live_map = true, .live_map_bytes = 1u << 20, .is_recording_all = true};
    assert_int_equal(pep_threads_init(), 0);
    assert_int_equal(pep_heap_init(&options), 0);
    pep_live_map_end_early();
    allocate_here(10);
    const struct pep_profile *profile = take(NULL, (struct pep_heap_query){0});
    assert_string_equal(profile->kind, "heap");
    assert_int_equal(profile->sample_count, pep_heap_record_count(PEP_HEAP_INUSE));
    assert_int_equal(profile->type_count, 4);
    for (int k = 0; k < 4; k++) {
        assert_string_equal(profile->types[k].type, names[k]);
        assert_string_equal(profile->types[k].unit, k % 2 == 0 ? "count" : "bytes");
    }
    assert_int_equal(profile->default_type, 3);
    assert_string_equal(profile->period_type.type, "space");
    assert_string_equal(profile->period_type.unit, "bytes");
    assert_int_equal(profile->period, 1);
    assert_int_equal(profile->duration_ns, 0);
    assert_true(profile->time_ns > 0);
    assert_true(has_comment(profile, "Every allocation is recorded"));
    assert_true(has_comment(profile, "Live map: "));
    profile = take(NULL, (struct pep_heap_query){.view = PEP_HEAP_ALLOCS});
    assert_string_equal(profile->kind, "allocs");
    assert_int_equal(profile->default_type, 1);
    profile = take(NULL, (struct pep_heap_query){.view = PEP_HEAP_TEMPORARY});
    assert_int_equal(profile->sample_count, pep_heap_record_count(PEP_HEAP_TEMPORARY));
    assert_int_equal(profile->type_count, 2);
    assert_int_equal(profile->default_type, 1);
    pep_heap_set_unreachable("somebody else has the malloc");
    assert_true(
        has_comment(take(NULL, (struct pep_heap_query){0}), "somebody else has the malloc."));
    pep_heap_set_unreachable(NULL);
}

/* Of blocks that differ the label says little, so that it stays what it is: 107 is told as 96. */
static void the_average_block_is_told_in_steps(void **state) {
    (void)state;
    volatile size_t sizes[10] = {173, 100, 100, 100, 100, 100, 100, 100, 100, 100};
    struct pep_heap_snapshot *before = pep_heap_snapshot_take(&arena);
    uintptr_t blocks[10];
    for (int i = 0; i < 10; i++)
        blocks[i] = allocate_here(sizes[i]); /* one place, or they were two stacks */
    const struct pep_profile *profile = take(before, (struct pep_heap_query){0});
    assert_int_equal(find(profile, allocate_here)->bytes_label, 96);
    for (int i = 0; i < 10; i++)
        help_free(blocks[i]);
}

static void blocks_are_charged_to_their_stacks(void **state) {
    (void)state;
    struct pep_heap_snapshot *before = pep_heap_snapshot_take(&arena);
    uintptr_t blocks[10];
    for (int i = 0; i < 10; i++)
        blocks[i] = allocate_here(100);
    for (int i = 0; i < 4; i++)
        help_free(blocks[i]);
    allocate_there(7000);
    const struct pep_profile *profile = take(before, (struct pep_heap_query){0});
    const struct pep_sample *here = find(profile, allocate_here);
    const struct pep_sample *there = find(profile, allocate_there);
    assert_values(here, (const int64_t[]){10, 1000, 6, 600});
    assert_values(there, (const int64_t[]){1, 7000, 1, 7000});
    assert_int_equal(here->bytes_label, 100);
    assert_int_equal(there->bytes_label, 7000);
    assert_int_equal(here->tid, pep_os_gettid());
    assert_true(profile->duration_ns > 0);
    for (int i = 4; i < 10; i++)
        help_free(blocks[i]);
}

static void a_difference_may_be_negative_or_absolute(void **state) {
    (void)state;
    uintptr_t block = allocate_there(500);
    struct pep_heap_snapshot *before = pep_heap_snapshot_take(&arena);
    const struct pep_profile *now = take(NULL, (struct pep_heap_query){0});
    int64_t live = find(now, allocate_there)->values[3];
    help_free(block);
    const struct pep_profile *profile = take(before, (struct pep_heap_query){0});
    assert_int_equal(profile->sample_count, 1); /* what did not change is left out */
    assert_values(find(profile, allocate_there), (const int64_t[]){0, 0, -1, -500});
    profile = take(before, (struct pep_heap_query){.has_absolute_inuse = true});
    assert_int_equal(find(profile, allocate_there)->values[3], live - 500);
    assert_int_equal(find(profile, allocate_there)->values[1], 0);
}

static void stacks_born_in_a_window_are_whole(void **state) {
    (void)state;
    struct pep_heap_snapshot *before = pep_heap_snapshot_take(&arena);
    help_allocate(next_block, 123); /* this stack is new */
    next_block += 16;
    const struct pep_profile *profile = take(before, (struct pep_heap_query){0});
    assert_int_equal(profile->sample_count, 1);
    assert_values(&profile->samples[0], (const int64_t[]){1, 123, 1, 123});
}

static void raw_values_are_not_weighed(void **state) {
    (void)state;
    struct help_sums before = help_sum(PEP_HEAP_INUSE, 1), whole = help_sum(PEP_HEAP_INUSE, 0);
    const struct pep_heap_taken sample = {
        .what = PEP_LIVE_SAMPLED, .cell = pep_heap_cell_of(1, 0), .weight = 2.5f, .size_bytes = 10};
    pep_heap_freed(&sample);
    struct help_sums after = help_sum(PEP_HEAP_TEMPORARY, 0);
    assert_true(after.values[0] >= 0);
    /* A cell of which more was freed than allocated lives at zero, never below. */
    after = help_sum(PEP_HEAP_INUSE, 1);
    assert_int_equal(after.values[2], before.values[2]);
    assert_int_equal(help_sum(PEP_HEAP_INUSE, 0).values[3], whole.values[3]);
}

static void short_lives_are_temporary(void **state) {
    (void)state;
    struct pep_heap_snapshot *before = pep_heap_snapshot_take(&arena);
    const struct pep_heap_query query = {.view = PEP_HEAP_TEMPORARY};
    uintptr_t block = allocate_here(4096);
    help_free(block);
    const struct pep_profile *profile = take(before, query);
    assert_values(find(profile, allocate_here), (const int64_t[]){1, 4096, 0, 0});
    assert_true(has_comment(profile, "freed within"));
    before = pep_heap_snapshot_take(&arena);
    block = allocate_here(4096);
    struct pep_heap_taken taken = pep_heap_take_out(block);
    taken.time_ms -= 1000; /* it lived long */
    pep_heap_freed(&taken);
    assert_int_equal(take(before, query)->sample_count, 0);
}

/* -- threads -------------------------------------------------------------------------------- */

static void *allocate_under_a_name(void *name) {
    pep_thread_enter((uintptr_t)__builtin_frame_address(0), 0);
    prctl(PR_SET_NAME, (unsigned long)name, 0, 0, 0);
    allocate_there(1000);
    pep_thread_leave();
    return NULL;
}

static void samples_carry_their_thread(void **state) {
    (void)state;
    pthread_t thread;
    char name[] = "grower";
    struct pep_heap_snapshot *before = pep_heap_snapshot_take(&arena);
    pthread_create(&thread, NULL, allocate_under_a_name, name);
    pthread_join(thread, NULL);
    allocate_there(30);
    const struct pep_profile *profile = take(before, (struct pep_heap_query){0});
    assert_int_equal(profile->sample_count, 2);
    profile = take(before, (struct pep_heap_query){.filter.thread = "grow"});
    assert_int_equal(profile->sample_count, 1);
    assert_string_equal(profile->samples[0].thread, "grower");
    assert_int_equal(profile->samples[0].values[1], 1000);
    profile = take(before, (struct pep_heap_query){.filter.thread = "nobody"});
    assert_int_equal(profile->sample_count, 0);
}

/* -- peaks ---------------------------------------------------------------------------------- */

static int64_t peak_of(const void *function) {
    const struct pep_profile *profile = take(NULL, (struct pep_heap_query){.view = PEP_HEAP_PEAK});
    const struct pep_sample *sample = find(profile, function);
    return sample == NULL ? 0 : sample->values[3];
}

static int64_t peak_total(void) {
    return help_sum(PEP_HEAP_PEAK, 0).values[3];
}

static void the_peak_is_what_lived_then(void **state) {
    (void)state;
    uintptr_t first = allocate_here(10000000); /* above all that was before */
    uintptr_t second = allocate_there(2000000);
    int64_t here = peak_of(allocate_here), there = peak_of(allocate_there), all = peak_total();
    assert_true(here >= 10000000 && there >= 2000000);
    assert_int_equal(all, pep_heap_peak_bytes() + NEVER_ALLOCATED);
    help_free(first);
    allocate_there(1);
    assert_int_equal(peak_of(allocate_here), here);
    assert_int_equal(peak_of(allocate_there), there);
    assert_int_equal(peak_total(), all);
    uintptr_t third = allocate_there(20000000); /* a new one */
    assert_int_equal(peak_of(allocate_here), here - 10000000);
    assert_int_equal(peak_of(allocate_there), there + 20000001);
    help_free(second);
    help_free(third);
    assert_int_equal(peak_of(allocate_there), there + 20000001);
    assert_int_equal(peak_total(), pep_heap_peak_bytes() + NEVER_ALLOCATED);
}

static void refused_memory_gives_no_profile(void **state) {
    (void)state;
    struct pep_arena small;
    const struct pep_heap_query query = {.view = PEP_HEAP_INUSE};
    pep_arena_init(&small, 1);
    assert_null(pep_heap_snapshot_take(&small));
    assert_null(pep_profile_heap(&small, NULL, &query));
    pep_arena_drop(&small);
    pep_arena_init(&small, 128 << 10);
    assert_null(pep_profile_heap(&small, NULL, &query));
    pep_arena_drop(&small);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_test, end_test)
    const struct CMUnitTest tests[] = {
        TEST(a_heap_that_gets_no_memory_stays_off),
        TEST(types_and_names_are_those_that_readers_know),
        TEST(blocks_are_charged_to_their_stacks),
        TEST(the_average_block_is_told_in_steps),
        TEST(a_difference_may_be_negative_or_absolute),
        TEST(stacks_born_in_a_window_are_whole),
        TEST(raw_values_are_not_weighed),
        TEST(short_lives_are_temporary),
        TEST(samples_carry_their_thread),
        TEST(the_peak_is_what_lived_then),
        TEST(refused_memory_gives_no_profile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
