/*
 * The heap profile as text: byte for byte, and read by the two programs that read it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "test/unit/example_profile.h"

/* alloc_objects, alloc_space, inuse_objects, inuse_space. */
static struct pep_sample samples[] = {
    {EXAMPLE_STACK(EXAMPLE_RECURSE_PC, EXAMPLE_MAIN_PC), .tid = 4711, .thread = "exa\"mple",
     .values = {3, 12288, 1, 4096}},
    {EXAMPLE_STACK(EXAMPLE_MEMCPY_PC, EXAMPLE_WORK_PC, EXAMPLE_MAIN_PC),
     .values = {10, 10485760, 10, 10485760}},
    {EXAMPLE_STACK(EXAMPLE_OWN_PC, EXAMPLE_HOSTILE_PC, EXAMPLE_MAIN_PC), .tid = 4712,
     .values = {2, 200, 0, 0}},
    {EXAMPLE_STACK(PEP_PC_TABLE_FULL), .values = {1, 64, 1, 64}},
    {EXAMPLE_STACK(EXAMPLE_OWN_PC), .values = {1, 32, 0, 0}},
    {EXAMPLE_STACK(EXAMPLE_MAIN_PC), .values = {0, 0, 0, 0}},
    {EXAMPLE_STACK(EXAMPLE_MAIN_PC),
     .values = {0, 77, 0, 5}}, /* bytes of no object: readers refuse it */
};

static const char *comments[] = {"rate\n1: 2 [3: 4] @ 0x5", "MaxRSS = 4096"};

static struct pep_profile make(void) {
    struct pep_profile profile = example_profile;
    profile.kind = "heap";
    profile.types[0] = (struct pep_value_type){"alloc_objects", "count"};
    profile.types[1] = (struct pep_value_type){"alloc_space", "bytes"};
    profile.types[2] = (struct pep_value_type){"inuse_objects", "count"};
    profile.types[3] = (struct pep_value_type){"inuse_space", "bytes"};
    profile.type_count = 4;
    profile.default_type = 3;
    profile.period_type = (struct pep_value_type){"space", "bytes"};
    profile.period = 524288;
    profile.duration_ns = 0;
    profile.samples = samples;
    profile.sample_count = sizeof(samples) / sizeof(samples[0]);
    profile.comments = comments;
    return profile;
}

static struct pep_arena arena;

static int drop(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static const char *encode(const struct pep_profile *profile) {
    struct pep_buffer_writer found = example_encode(pep_encode_legacy, profile, &arena);
    assert_int_equal(found.writer.error, 0);
    return found.data;
}

static void test_golden(void **state) {
    (void)state;
    struct pep_profile profile = make();
    struct pep_buffer_writer found = example_encode(pep_encode_legacy, &profile, &arena);
    example_golden("example.heap", &found);
}

static void test_header(void **state) {
    (void)state;
    struct pep_profile profile = make();
    assert_int_equal(strncmp(encode(&profile),
                             "heap profile: 12: 10489920 [17: 10498344] @ heap_v2/524288\n", 59),
                     0);
    /* Equal halves: one byte more, or readers drop the allocations. */
    profile.samples = &samples[1];
    profile.sample_count = 1;
    assert_int_equal(strncmp(encode(&profile), "heap profile: 10: 10485760 [10: 10485761] @ ", 44),
                     0);
    /* Every block was recorded, or none: nothing is to be scaled. */
    profile.period = 0;
    profile.sample_count = 0;
    assert_int_equal(strncmp(encode(&profile), "heap profile: 0: 0 [0: 1] @ heap_v2/1\n", 38), 0);
    profile.is_exact = true;
    assert_int_equal(strncmp(encode(&profile), "heap profile: 0: 0 [0: 1] @ heapprofile\n", 40), 0);
}

static void test_order(void **state) {
    (void)state;
    struct pep_profile profile = make();
    const char *text = encode(&profile);
    const char *first = strstr(text, "10: 10485760 ["), *second = strstr(text, "1: 4096 [");
    const char *third = strstr(text, "1: 64 ["), *last = strstr(text, "0: 0 [1: 32]");
    assert_true(first && second && third && last);
    assert_true(first < second && second < third && third < last);
    assert_null(strstr(text, "pep_hook"));
    assert_null(strstr(text, "77"));
    assert_null(strstr(text, "\n1: 2 [3: 4]")); /* a comment stays a comment */
}

static void test_columns_that_are_not_there(void **state) {
    (void)state;
    struct pep_profile profile = make();
    profile.type_count = 2;
    profile.default_type = 1;
    assert_int_equal(strncmp(encode(&profile), "heap profile: 0: 0 [17: 10498344] @ ", 36), 0);
}

static void test_no_memory(void **state) {
    (void)state;
    struct pep_profile profile = make();
    example_no_memory(pep_encode_legacy, &profile);
}

/* The output of a reader on the example, or NULL where the reader is not installed. */
static const char *read_by(const char *reader, const char *arguments) {
    struct pep_profile profile = make();
    struct pep_buffer_writer found = example_encode(pep_encode_legacy, &profile, &arena);
    return example_read_by(reader, arguments, &found, &arena);
}

static void test_go_reads_it(void **state) {
    (void)state;
    const char *raw = read_by("go", "tool pprof -raw -symbolize=none");
    if (raw == NULL)
        skip();
    assert_non_null(strstr(raw, "PeriodType: space bytes\nPeriod: 524288\n"));
    assert_non_null(strstr(raw, "alloc_objects/count alloc_space/bytes inuse_objects/count "
                                "inuse_space/bytes"));
    /* 1 MiB blocks at 512 KiB: 10 / (1 - exp(-2)). */
    assert_non_null(strstr(raw, "11   12126966         11   12126966: 1 2 3"));
    assert_non_null(strstr(raw, "0x7f0000000100"));
    assert_non_null(strstr(raw, "/usr/bin/example"));
    assert_non_null(strstr(raw, "/lib/x86_64-linux-gnu/libc.so.6"));
}

static void test_perl_reads_it(void **state) {
    (void)state;
    const char *top = read_by("google-pprof", "--text --inuse_space /bin/true");
    if (top == NULL)
        skip();
    assert_non_null(strstr(top, "Total: 12.6 MB\n"));
    assert_non_null(strstr(top, "    11.6  92.0%"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_golden, drop),
        cmocka_unit_test_teardown(test_header, drop),
        cmocka_unit_test_teardown(test_order, drop),
        cmocka_unit_test_teardown(test_columns_that_are_not_there, drop),
        cmocka_unit_test_teardown(test_no_memory, drop),
        cmocka_unit_test_teardown(test_go_reads_it, drop),
        cmocka_unit_test_teardown(test_perl_reads_it, drop),
    };
    pep_arena_init(&arena, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
