/*
 * Profiles that count, as Go's text: byte for byte, and read by go tool pprof.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "encoder/stack_groups.h"
#include "test/unit/example_dump.h"
#include "test/unit/example_profile.h"

static struct pep_arena arena;

static int drop(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static void test_golden(void **state) {
    (void)state;
    struct pep_buffer_writer found = example_encode(pep_encode_count, example_dump.profile, &arena);
    example_golden("example.count", &found);
}

static void test_same_stacks_are_one_record(void **state) {
    (void)state;
    const char *text = example_encode(pep_encode_count, example_dump.profile, &arena).data;
    assert_int_equal(strncmp(text, "goroutine profile: total 7\n2 @ 0x7f0000000101 0x400031\n", 53),
                     0);
    assert_non_null(strstr(text, "# labels: {\"state\":\"mutex\"}\n# threads: worker, io\n"));
    assert_non_null(strstr(text, "# labels: {\"state\":\"sleep\"}\n# threads: pool-1, pool-2\n"));
    assert_non_null(strstr(text, "{\"thread\":\"mute\", \"thread_id\":\"4712\", "));
    assert_non_null(strstr(text, "\n1 @ 0x4\n")); /* never without an address */
    assert_non_null(strstr(text, "\n--- Memory map: ---\n"));
}

static void test_names(void **state) {
    (void)state;
    enum { COUNT = 40 };
    static const uintptr_t pcs[] = {0x400010};
    struct pep_sample samples[COUNT];
    struct pep_profile profile = *example_dump.profile;
    for (int i = 0; i < COUNT; i++)
        samples[i] = (struct pep_sample){
            .pcs = pcs, .pc_count = 1, .tid = i + 1, .thread = "same", .values = {1}};
    profile.samples = samples;
    profile.sample_count = COUNT;
    const char *text = example_encode(pep_encode_count, &profile, &arena).data;
    assert_non_null(strstr(text, "40 @ 0x400011\n# labels: {\"thread\":\"same\"}\n#\t0x400010\t"));
    for (int i = 0; i < COUNT; i++)
        samples[i].thread = i < 20 ? "same" : pep_arena_printf(&arena, "w%d", i);
    samples[20].thread = NULL;
    text = example_encode(pep_encode_count, &profile, &arena).data;
    assert_non_null(strstr(text, "\n# threads: same x20, (no name), w21, w22, w23, w24, w25, w26, "
                                 "w27, w28, w29, w30 and 9 more\n"));
}

static void test_nothing_is_a_profile_too(void **state) {
    (void)state;
    struct pep_profile profile = *example_dump.profile;
    profile.kind = "threadcreate";
    profile.sample_count = profile.comment_count = 0;
    const char *text = example_encode(pep_encode_count, &profile, &arena).data;
    assert_int_equal(strncmp(text, "threadcreate profile: total 0\n\n--- Memory", 40), 0);
}

static void test_groups(void **state) {
    (void)state;
    struct pep_stack_groups groups;
    struct pep_profile profile = *example_dump.profile;
    struct pep_sample samples[3] = {profile.samples[4], profile.samples[4], profile.samples[4]};
    samples[1].state = "another";
    samples[2].values[0] = -1;
    profile.samples = samples;
    profile.sample_count = 3;
    assert_true(pep_stack_groups_make(&groups, &arena, &profile));
    assert_int_equal(groups.count, 2); /* not the same state; the third has nothing */
    assert_int_equal(groups.total, 2);
    assert_string_equal(groups.items[0]->first->state, "another");
}

static void test_go_reads_it(void **state) {
    (void)state;
    struct pep_buffer_writer found = example_encode(pep_encode_count, example_dump.profile, &arena);
    const char *raw = example_read_by("go", "tool pprof -raw -symbolize=none", &found, &arena);
    if (raw == NULL)
        skip();
    assert_non_null(strstr(raw, "PeriodType: goroutine count\nPeriod: 1\n"));
    assert_non_null(strstr(raw, "goroutine/count"));
    assert_non_null(strstr(raw, "/lib/x86_64-linux-gnu/libc.so.6"));
}

static void test_no_memory(void **state) {
    (void)state;
    example_no_memory(pep_encode_count, example_dump.profile);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_golden, drop),
        cmocka_unit_test_teardown(test_same_stacks_are_one_record, drop),
        cmocka_unit_test_teardown(test_names, drop),
        cmocka_unit_test_teardown(test_nothing_is_a_profile_too, drop),
        cmocka_unit_test_teardown(test_groups, drop),
        cmocka_unit_test_teardown(test_go_reads_it, drop),
        cmocka_unit_test_teardown(test_no_memory, drop),
    };
    pep_arena_init(&arena, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
