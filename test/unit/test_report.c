#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "encoder/encoders.h"
#include "test/unit/example_profile.h"

#define PROGRAM 0x400000u

static struct pep_arena arena;

static int start(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    return 0;
}

static int end(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static const char *report(example_encoder encode, const struct pep_profile *profile,
                          const struct pep_report_options *options) {
    static struct pep_buffer_writer buffer;
    pep_buffer_writer_init(&buffer, &arena);
    struct pep_encode_job job = {.profile = profile,
                                 .symbolizer = &example_symbolizer,
                                 .writer = &buffer.writer,
                                 .arena = &arena,
                                 .report = options};
    encode(&job);
    assert_int_equal(buffer.writer.error, 0);
    return buffer.data;
}

static void test_exact_bytes(void **state) {
    (void)state;
    struct pep_buffer_writer tree = example_encode(pep_encode_tree, &example_profile, &arena);
    struct pep_buffer_writer flat = example_encode(pep_encode_flat, &example_profile, &arena);
    example_golden("example.tree", &tree);
    example_golden("example.flat", &flat);
}

static void test_libraries_are_shown_when_asked(void **state) {
    (void)state;
    struct pep_report_options options = {.has_libraries = true};
    assert_null(strstr(report(pep_encode_tree, &example_profile, NULL), "memcpy"));
    assert_non_null(strstr(report(pep_encode_tree, &example_profile, &options), "memcpy"));
    assert_non_null(strstr(report(pep_encode_flat, &example_profile, &options), "memcpy"));
}

/* What ran below a hidden frame belongs to the innermost one that is shown. */
static void test_hidden_frames_give_their_time_to_their_caller(void **state) {
    (void)state;
    assert_non_null(strstr(report(pep_encode_tree, &example_profile, NULL), "5╎"));
}

static void test_nothing_but_libraries_is_shown_all_the_same(void **state) {
    (void)state;
    static const uintptr_t pcs[] = {0x7f0000000100u};
    struct pep_sample sample = {.pcs = pcs, .pc_count = 1, .values = {3, 30000000}};
    struct pep_profile profile = example_profile;
    profile.samples = &sample;
    profile.sample_count = 1;
    assert_non_null(strstr(report(pep_encode_tree, &profile, NULL), "memcpy"));
    assert_non_null(strstr(report(pep_encode_flat, &profile, NULL), "memcpy"));
}

static void test_by_thread(void **state) {
    (void)state;
    struct pep_report_options options = {.is_by_thread = true};
    const char *text = report(pep_encode_tree, &example_profile, &options);
    const char *first = strstr(text, "Thread 4711 (example) Total snapshots: 11. Utilization: ");
    const char *second = strstr(text, "Thread 4712 (wo;rk");
    assert_non_null(first);
    assert_non_null(second);
    assert_true(first < second);
    assert_non_null(strstr(text, "Utilization: 55%"));
}

static void test_only_some_threads(void **state) {
    (void)state;
    static const int tids[] = {4712};
    struct pep_report_options options = {.tids = tids, .tid_count = 1};
    const char *text = report(pep_encode_tree, &example_profile, &options);
    assert_null(strstr(text, "recurse"));
    assert_non_null(strstr(text, "Total snapshots: 3. Utilization: 15% across"));
    static const int nobody[] = {1};
    options.tids = nobody;
    assert_non_null(strstr(report(pep_encode_tree, &example_profile, &options),
                           "There were no samples collected.\n"));
    assert_non_null(strstr(report(pep_encode_flat, &example_profile, &options),
                           "There were no samples collected.\n"));
    options.is_by_thread = true;
    assert_non_null(strstr(report(pep_encode_tree, &example_profile, &options),
                           "There were no samples collected in one or more groups.\n"));
}

static int count_of(const char *text, const char *part) {
    int count = 0;
    for (; (text = strstr(text, part)) != NULL; text += strlen(part))
        count++;
    return count;
}

static void test_recursion(void **state) {
    (void)state;
    struct pep_report_options options = {0};
    assert_int_equal(count_of(report(pep_encode_tree, &example_profile, &options), "; recurse"), 3);
    options.recursion = PEP_REPORT_RECUR_FLAT;
    assert_int_equal(count_of(report(pep_encode_tree, &example_profile, &options), "; recurse"), 2);
}

static void test_limits(void **state) {
    (void)state;
    struct pep_report_options options = {.max_depth = 1};
    const char *text = report(pep_encode_tree, &example_profile, &options);
    assert_non_null(strstr(text, "; work"));
    assert_null(strstr(text, "push_back"));
    options = (struct pep_report_options){.min_count = 5};
    text = report(pep_encode_tree, &example_profile, &options);
    assert_non_null(strstr(text, "; work"));
    assert_null(strstr(text, "; recurse"));
    assert_null(strstr(report(pep_encode_flat, &example_profile, &options), "recurse"));
    /* main has 13 of them: 1.2 times its root is 4.3. */
    options = (struct pep_report_options){.noise_floor = 1.2};
    text = report(pep_encode_tree, &example_profile, &options);
    assert_non_null(strstr(text, "; recurse"));
    assert_null(strstr(text, "nameless"));
    options.noise_floor = 1.5;
    assert_null(strstr(report(pep_encode_tree, &example_profile, &options), "; recurse"));
}

static void test_order(void **state) {
    (void)state;
    struct pep_report_options options = {.sort = PEP_REPORT_BY_COUNT};
    const char *text = report(pep_encode_tree, &example_profile, &options);
    assert_true(strstr(text, "; recurse") < strstr(text, "; work"));
    options.sort = PEP_REPORT_BY_FLAT_COUNT;
    text = report(pep_encode_tree, &example_profile, &options);
    assert_true(strstr(text, "; recurse") < strstr(text, "; work"));
    options.sort = PEP_REPORT_BY_OVERHEAD;
    text = report(pep_encode_flat, &example_profile, &options);
    assert_true(strstr(text, " work\n") < strstr(text, " main\n"));
    assert_true(strstr(text, " main\n") < strstr(text, "push_back"));
    options.sort = PEP_REPORT_BY_COUNT;
    text = report(pep_encode_flat, &example_profile, &options);
    assert_true(strstr(text, " main\n") > strstr(text, " work\n"));
}

static void test_by_address(void **state) {
    (void)state;
    struct pep_report_options options = {.is_by_address = true};
    assert_non_null(
        strstr(report(pep_encode_tree, &example_profile, &options), "0x0000000000400030 recurse"));
}

/* Deeper than half the columns: the indent stays and says how much is left out. */
static void test_deep(void **state) {
    (void)state;
    enum { DEPTH = 200 };
    static uintptr_t pcs[DEPTH];
    for (int i = 0; i < DEPTH; i++)
        pcs[i] = i % 2 ? PROGRAM + 0x10 : PROGRAM + 0x34;
    struct pep_sample sample = {.pcs = pcs, .pc_count = DEPTH, .values = {1, 10000000}};
    struct pep_profile profile = example_profile;
    profile.samples = &sample;
    profile.sample_count = 1;
    const char *text = report(pep_encode_tree, &profile, NULL);
    assert_non_null(strstr(text, " +1 1 "));
    assert_non_null(strstr(text, " +159 1 "));
    assert_int_equal(count_of(text, "\n"), DEPTH + 3);
}

static void test_bytes(void **state) {
    (void)state;
    static const uintptr_t pcs[] = {PROGRAM + 0x10};
    struct pep_sample sample = {.pcs = pcs, .pc_count = 1, .values = {7, 4096}};
    struct pep_profile profile = example_profile;
    profile.kind = "allocs";
    profile.types[0] = (struct pep_value_type){"alloc_objects", "count"};
    profile.types[1] = (struct pep_value_type){"alloc_space", "bytes"};
    profile.samples = &sample;
    profile.sample_count = 1;
    const char *text = report(pep_encode_tree, &profile, NULL);
    assert_non_null(strstr(text, "4096╎4096 /src/main.c:12; main\n"));
    assert_non_null(strstr(text, "Total snapshots: 7\nTotal bytes: 4096\n"));
}

static void test_waiting_threads_lower_the_utilization(void **state) {
    (void)state;
    static const uintptr_t pcs[] = {PROGRAM + 0x10};
    struct pep_sample samples[] = {
        {.pcs = pcs, .pc_count = 1, .tid = 1, .state = "running", .values = {1, 10000000}},
        {.pcs = pcs, .pc_count = 1, .tid = 1, .state = "futex wait", .values = {3, 30000000}}};
    struct pep_profile profile = example_profile;
    profile.kind = "wall";
    profile.samples = samples;
    profile.sample_count = 2;
    assert_non_null(strstr(report(pep_encode_tree, &profile, NULL),
                           "Total snapshots: 4. Utilization: 25% across"));
}

static void test_refused_memory_is_an_error(void **state) {
    (void)state;
    struct pep_arena small;
    struct pep_buffer_writer buffer;
    struct pep_encode_job job = {.profile = &example_profile,
                                 .symbolizer = &example_symbolizer,
                                 .writer = &buffer.writer,
                                 .arena = &small};
    pep_arena_init(&small, 1);
    pep_buffer_writer_init(&buffer, &arena);
    pep_encode_tree(&job);
    assert_int_equal(buffer.writer.error, -ENOMEM);
    pep_buffer_writer_init(&buffer, &arena);
    pep_encode_flat(&job);
    assert_int_equal(buffer.writer.error, -ENOMEM);
    pep_arena_drop(&small);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_exact_bytes),
        TEST(test_libraries_are_shown_when_asked),
        TEST(test_hidden_frames_give_their_time_to_their_caller),
        TEST(test_nothing_but_libraries_is_shown_all_the_same),
        TEST(test_by_thread),
        TEST(test_only_some_threads),
        TEST(test_recursion),
        TEST(test_limits),
        TEST(test_order),
        TEST(test_by_address),
        TEST(test_deep),
        TEST(test_bytes),
        TEST(test_waiting_threads_lower_the_utilization),
        TEST(test_refused_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
