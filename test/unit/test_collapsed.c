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

static void test_exact_bytes(void **state) {
    (void)state;
    struct pep_buffer_writer text = example_encode(pep_encode_collapsed, &example_profile, &arena);
    example_golden("example.collapsed", &text);
}

/* What a reader does: split at the last space, then at ';'. Sums must be the profile's. */
static void test_a_reader_gets_it_back(void **state) {
    (void)state;
    struct pep_buffer_writer text = example_encode(pep_encode_collapsed, &example_profile, &arena);
    long long total = 0;
    int lines = 0;
    for (char *line = text.data; *line != '\0'; lines++) {
        char *limit = strchr(line, '\n'), *space, *rest;
        assert_non_null(limit);
        *limit = '\0';
        space = strrchr(line, ' ');
        assert_non_null(space);
        assert_true(space > line);
        long long weight = strtoll(space + 1, &rest, 10);
        assert_int_equal(*rest, '\0');
        assert_true(weight > 0);
        total += weight;
        *space = '\0';
        assert_null(strstr(line, ";;"));
        assert_true(strchr(line, ';') != NULL);
        line = limit + 1;
    }
    assert_int_equal(lines, 7);
    assert_int_equal(total, EXAMPLE_TOTAL_NS);
}

static void test_inlined_frames_and_hostile_names(void **state) {
    (void)state;
    struct pep_buffer_writer text = example_encode(pep_encode_collapsed, &example_profile, &arena);
    assert_non_null(strstr(text.data, "example (4711);main;work;std::vector<int>::push_back(int "
                                      "const&);memcpy 50000000\n"));
    assert_non_null(strstr(text.data, "wo:rk\uFFFDer (4712);main;a:b\uFFFD</script>"));
    assert_null(strstr(text.data, "pep_hook"));
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
    pep_encode_collapsed(&job);
    assert_int_equal(buffer.writer.error, -ENOMEM);
    assert_int_equal(buffer.count, 0);
    pep_arena_drop(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_exact_bytes, start, end),
        cmocka_unit_test_setup_teardown(test_a_reader_gets_it_back, start, end),
        cmocka_unit_test_setup_teardown(test_inlined_frames_and_hostile_names, start, end),
        cmocka_unit_test_setup_teardown(test_errors, start, end),
    };
    return cmocka_run_group_tests_name("collapsed", tests, NULL, NULL);
}
