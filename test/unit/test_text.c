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

static const char *table(const struct pep_profile *profile) {
    struct pep_buffer_writer text = example_encode(pep_encode_text, profile, &arena);
    assert_int_equal(text.writer.error, 0);
    return text.data;
}

static void test_exact_bytes(void **state) {
    (void)state;
    struct pep_buffer_writer text = example_encode(pep_encode_text, &example_profile, &arena);
    example_golden("example.txt", &text);
}

static void test_recursion_counts_once(void **state) {
    (void)state;
    assert_non_null(strstr(table(&example_profile),
                           "      40ms  26.67%  60.00%       40ms  26.67%  recurse\n"));
}

static void test_head_tells_losses_on_one_line_each(void **state) {
    (void)state;
    const char *text = table(&example_profile);
    const char *head = strstr(text, "      flat   flat%");
    const char *comment = strstr(text, "# 2 samples were lost: table full");
    assert_non_null(head);
    assert_non_null(comment);
    assert_true(comment < head);
    assert_non_null(strstr(text, "Duration: 200ms, Total samples = 150ms (75.00%)\n"));
    assert_non_null(strstr(text, "Showing nodes accounting for 150ms, 100.00% of 150ms total\n"));
}

static void test_small_nodes_are_dropped_and_told(void **state) {
    (void)state;
    enum { COUNT = 300 };
    static struct pep_sample samples[COUNT];
    static uintptr_t pcs[COUNT];
    for (int i = 0; i < COUNT; i++) {
        pcs[i] = 0x500000 + (uintptr_t)i; /* each a name of its own */
        samples[i] = (struct pep_sample){.pcs = &pcs[i], .pc_count = 1, .values = {1, 1000}};
    }
    samples[7].values[1] = 1000000;
    struct pep_profile profile = example_profile;
    profile.samples = samples;
    profile.sample_count = COUNT;
    const char *text = table(&profile);
    assert_non_null(strstr(text, "Dropped "));
    assert_non_null(strstr(text, "of 1.30ms total\n"));
    const char *rows = strstr(text, "cum%\n");
    assert_non_null(rows);
    assert_null(strchr(strchr(rows + 5, '\n') + 1, '\n'));
}

static void test_nothing_measured(void **state) {
    (void)state;
    struct pep_profile profile = example_profile;
    profile.sample_count = 0;
    profile.main_mapping = PEP_MAPPING_NONE;
    profile.duration_ns = 0;
    const char *text = table(&profile);
    assert_non_null(strstr(text, "Total samples = 0\n"));
    assert_null(strstr(text, "Duration"));
}

static void test_errors(void **state) {
    (void)state;
    struct pep_arena small;
    struct pep_buffer_writer buffer;
    struct pep_encode_job job = {.profile = &example_profile,
                                 .symbolizer = &example_symbolizer,
                                 .writer = &buffer.writer,
                                 .arena = &small};
    pep_arena_init(&small, 1);
    pep_buffer_writer_init(&buffer, &arena);
    pep_encode_text(&job);
    assert_int_equal(buffer.writer.error, -ENOMEM);
    assert_int_equal(buffer.count, 0);
    pep_arena_drop(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_exact_bytes, start, end),
        cmocka_unit_test_setup_teardown(test_recursion_counts_once, start, end),
        cmocka_unit_test_setup_teardown(test_head_tells_losses_on_one_line_each, start, end),
        cmocka_unit_test_setup_teardown(test_small_nodes_are_dropped_and_told, start, end),
        cmocka_unit_test_setup_teardown(test_nothing_measured, start, end),
        cmocka_unit_test_setup_teardown(test_errors, start, end),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
