/*
 * The profiles block and mutex as text: byte for byte, and read by the programs that read it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "test/unit/example_profile.h"

/* contentions, delay. */
static struct pep_sample samples[] = {
    {EXAMPLE_STACK(EXAMPLE_RECURSE_PC, EXAMPLE_MAIN_PC), .tid = 4711, .thread = "exa\"mple",
     .state = "mutex", .values = {2, 40}},
    {EXAMPLE_STACK(EXAMPLE_MEMCPY_PC, EXAMPLE_WORK_PC, EXAMPLE_MAIN_PC), .tid = 4711,
     .values = {7, 2000000000}},
    {EXAMPLE_STACK(EXAMPLE_OWN_PC, EXAMPLE_HOSTILE_PC, EXAMPLE_MAIN_PC), .tid = 4712,
     .state = "rwlock", .values = {9, 40}},
    {EXAMPLE_STACK(PEP_PC_TABLE_FULL), .values = {1, 5000}},
    {EXAMPLE_STACK(EXAMPLE_OWN_PC), .values = {1, 30}},
    {EXAMPLE_STACK(EXAMPLE_MAIN_PC), .values = {0, 0}},
    {EXAMPLE_STACK(EXAMPLE_MAIN_PC), .values = {0, 66}},  /* and divide by the count */
    {EXAMPLE_STACK(EXAMPLE_MAIN_PC), .values = {1, -77}}, /* readers know no sign */
    {EXAMPLE_STACK(EXAMPLE_MAIN_PC), .values = {3, 0}},
};

static const char *comments[] = {"waits of 1 ns\n1 2 @ 0x5"};

static struct pep_profile make(const char *kind) {
    struct pep_profile profile = example_profile;
    profile.kind = kind;
    profile.types[0] = (struct pep_value_type){"contentions", "count"};
    profile.types[1] = (struct pep_value_type){"delay", "nanoseconds"};
    profile.type_count = 2;
    profile.default_type = 1;
    profile.period_type = (struct pep_value_type){"contentions", "count"};
    profile.period = 1;
    profile.duration_ns = 0;
    profile.samples = samples;
    profile.sample_count = sizeof(samples) / sizeof(samples[0]);
    profile.comments = comments;
    profile.comment_count = 1;
    return profile;
}

static struct pep_arena arena;

static int drop(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static const char *encode(const struct pep_profile *profile) {
    struct pep_buffer_writer found = example_encode(pep_encode_contention, profile, &arena);
    assert_int_equal(found.writer.error, 0);
    return found.data;
}

static void test_golden(void **state) {
    (void)state;
    struct pep_profile profile = make("block");
    struct pep_buffer_writer found = example_encode(pep_encode_contention, &profile, &arena);
    example_golden("example.block", &found);
}

static void test_header(void **state) {
    (void)state;
    static const char block[] = "--- contention:\ncycles/second=1000000000\n2000000000 7 @ 0x";
    static const char mutex[] =
        "--- mutex:\ncycles/second=1000000000\nsampling period=1\n2000000000 7 @ 0x";
    struct pep_profile profile = make("block");
    assert_memory_equal(encode(&profile), block, sizeof(block) - 1);
    profile = make(NULL);
    assert_memory_equal(encode(&profile), block, sizeof(block) - 1);
    profile = make("mutex");
    assert_memory_equal(encode(&profile), mutex, sizeof(mutex) - 1);
    profile.sample_count = 0;
    assert_non_null(strstr(encode(&profile), "period=1\n# waits of 1 ns 1 2 @ 0x5\n\n--- Memory "));
}

static void test_order(void **state) {
    (void)state;
    struct pep_profile profile = make("mutex");
    const char *text = encode(&profile);
    static const char *const lines[] = {"\n2000000000 7 @ ", "\n5000 1 @ ", "\n40 9 @ ",
                                        "\n40 2 @ ",         "\n30 1 @ ",   "\n0 3 @ "};
    for (size_t i = 0; i < PEP_COUNT_OF(lines); i++) {
        const char *found = strstr(text, lines[i]);
        assert_non_null(found);
        text = found + 1;
    }
    assert_null(strstr(text, "\n0 0 @"));
    text = encode(&profile);
    assert_null(strstr(text, "77 1 @"));
    assert_null(strstr(text, "66 0 @"));
    assert_null(strstr(text, "pep_hook"));
    assert_null(strstr(text, "\n1 2 @")); /* a comment stays a comment */
}

static void test_no_memory(void **state) {
    (void)state;
    struct pep_profile profile = make("block");
    example_no_memory(pep_encode_contention, &profile);
}

/* The output of a reader on the example, or NULL where the reader is not installed. */
static const char *read_by(const char *reader, const char *arguments, const char *kind) {
    struct pep_profile profile = make(kind);
    struct pep_buffer_writer found = example_encode(pep_encode_contention, &profile, &arena);
    return example_read_by(reader, arguments, &found, &arena);
}

static void test_go_reads_it(void **state) {
    (void)state;
    static const char *const kinds[] = {"block", "mutex"};
    for (size_t i = 0; i < PEP_COUNT_OF(kinds); i++) {
        const char *raw = read_by("go", "tool pprof -raw -symbolize=none", kinds[i]);
        if (raw == NULL)
            skip();
        assert_non_null(strstr(raw, "PeriodType: contentions count\nPeriod: 1\n"));
        assert_non_null(strstr(raw, "contentions/count delay/nanoseconds"));
        assert_non_null(strstr(raw, " 7 2000000000: 1 2 3"));
        assert_non_null(strstr(raw, " 3          0: 3"));
        assert_non_null(strstr(raw, "0x7f0000000100"));
        assert_non_null(strstr(raw, "/usr/bin/example"));
        assert_non_null(strstr(raw, "/lib/x86_64-linux-gnu/libc.so.6"));
    }
}

static void test_perl_reads_it(void **state) {
    (void)state;
    const char *top = read_by("google-pprof", "--text --contentions /bin/true", "block");
    if (top == NULL)
        skip();
    assert_non_null(strstr(top, "Total: 23 samples\n"));
    top = read_by("google-pprof", "--text --total_delay /bin/true", "block");
    assert_non_null(strstr(top, "Total: 2.000 seconds\n"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_golden, drop),
        cmocka_unit_test_teardown(test_header, drop),
        cmocka_unit_test_teardown(test_order, drop),
        cmocka_unit_test_teardown(test_no_memory, drop),
        cmocka_unit_test_teardown(test_go_reads_it, drop),
        cmocka_unit_test_teardown(test_perl_reads_it, drop),
    };
    pep_arena_init(&arena, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
