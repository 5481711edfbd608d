/* Room for n samples: how many are left, what they stand for, and that it is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "http/sample_room.h"

static struct pep_arena arena;
static struct pep_sample samples[100];
static struct pep_profile profile;

static int start(void **state) {
    (void)state;
    static const char *comments[] = {"first"};
    for (int i = 0; i < 100; i++)
        samples[i] = (struct pep_sample){.tid = i, .values = {i, i * 10000000ll}};
    profile = (struct pep_profile){
        .samples = samples, .sample_count = 100, .comments = comments, .comment_count = 1};
    return 0;
}

static int end(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static int64_t sum(int type) {
    int64_t total = 0;
    for (uint32_t i = 0; i < profile.sample_count; i++)
        total += profile.samples[i].values[type];
    return total;
}

static void test_room_enough(void **state) {
    (void)state;
    assert_true(pep_sample_room_apply(&arena, &profile, 4950));
    assert_int_equal(profile.sample_count, 100);
    assert_false(profile.is_full);
    assert_int_equal(profile.comment_count, 1);
}

static void test_full(void **state) {
    (void)state;
    static const uint64_t rooms[] = {4949, 495, 99, 7, 1};
    for (size_t i = 0; i < 5; i++) {
        start(NULL);
        assert_true(pep_sample_room_apply(&arena, &profile, rooms[i]));
        assert_true(profile.is_full);
        assert_int_equal(sum(0), rooms[i]);
        /* They stand for the whole, but for what the division leaves. */
        assert_in_range(sum(1), 49500000000 - 100, 49500000000);
        for (uint32_t j = 0; j < profile.sample_count; j++) {
            int64_t was = profile.samples[j].tid;
            int64_t share = was * (int64_t)rooms[i] / 4950;
            assert_in_range(profile.samples[j].values[0], share > 1 ? share : 1, share + 1);
        }
    }
    assert_int_equal(profile.comment_count, 2);
    assert_string_equal(profile.comments[0], "first");
    assert_string_equal(profile.comments[1],
                        "The room for samples was full (n=1): 4950 were recorded; those left are "
                        "spread evenly over them.");
}

static void test_edges(void **state) {
    (void)state;
    profile.sample_count = 0;
    assert_true(pep_sample_room_apply(&arena, &profile, 1));
    assert_false(profile.is_full);
    samples[0].values[0] = -5; /* a difference that fell below 0 counts as nothing */
    samples[1].values[0] = INT64_MAX / 2;
    samples[1].values[1] = INT64_MAX / 2;
    profile.sample_count = 2;
    assert_true(pep_sample_room_apply(&arena, &profile, 10));
    assert_int_equal(profile.sample_count, 1);
    assert_int_equal(profile.samples[0].values[0], 10);
    assert_int_equal(profile.samples[0].values[1], INT64_MAX / 2);
    struct pep_arena small;
    pep_arena_init(&small, 1);
    start(NULL);
    assert_false(pep_sample_room_apply(&small, &profile, 10));
    pep_arena_drop(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_room_enough, start, end),
        cmocka_unit_test_setup_teardown(test_full, start, end),
        cmocka_unit_test_setup_teardown(test_edges, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
