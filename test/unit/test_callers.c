/* Who called a function: counts, order, files and lines, text and JSON; and samples as JSON lines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "encoder/callers.h"
#include "sampler/rt/attrs.h"
#include "test/unit/example_profile.h"

static struct pep_arena arena;
static struct pep_buffer_writer out;

static int end(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

/* 1 main -> 2 run (inlined: 3) -> 4 work; addresses are 0x1000 * number. */
static int lookup(struct pep_symbolizer *symbolizer, const struct pep_profile *profile,
                  uintptr_t pc, struct pep_frame *frames, int max) {
    (void)symbolizer;
    (void)profile;
    (void)max;
    static const struct pep_frame known[] = {
        {.name = "main", .file = "/src/main.c", .line = 5, .is_known = true},
        {.name = "app::run", .file = "/src/run.c", .line = 20, .is_known = true},
        {.name = "inner\n", .file = "/src/run.h", .line = 7, .is_known = true},
        {.name = "work", .file = "/src/work.c", .line = 30, .is_known = true},
    };
    if (pc == 0x2000) {
        frames[0] = known[2];
        frames[1] = known[1];
        return 2;
    }
    frames[0] = known[pc / 0x1000 - 1];
    return 1;
}

static struct pep_symbolizer symbolizer = {.lookup = lookup};

static struct pep_callers find(const struct pep_callers_query *query) {
    static const uintptr_t whole[] = {0x4000, 0x2000, 0x1000}, direct[] = {0x4000, 0x1000},
                           alone[] = {0x4000}, again[] = {0x4000, 0x4000, 0x1000};
    static struct pep_sample samples[] = {
        {.pcs = whole, .pc_count = 3, .values = {3, 30}},
        {.pcs = direct, .pc_count = 2, .values = {5, 50}},
        {.pcs = alone, .pc_count = 1, .values = {2, 20}},
        {.pcs = again, .pc_count = 3, .values = {1, 10}},
        {.pcs = direct, .pc_count = 2, .values = {0, 0}},
    };
    static const struct pep_profile profile = {
        .kind = "cpu",
        .types = {{"samples", "count"}, {"cpu", "nanoseconds"}},
        .type_count = 2,
        .default_type = 1,
        .samples = samples,
        .sample_count = PEP_COUNT_OF(samples),
    };
    struct pep_encode_job job = {.profile = &profile, .symbolizer = &symbolizer, .arena = &arena};
    struct pep_callers callers;
    assert_true(pep_callers_find(&callers, &job, query));
    pep_buffer_writer_init(&out, &arena);
    return callers;
}

static void test_callers(void **state) {
    (void)state;
    struct pep_callers callers = find(&(struct pep_callers_query){.function = "work"});
    pep_callers_write_text(&out.writer, &callers);
    assert_string_equal(out.data, " Count File:Line; Function\n"
                                  "     6 /src/main.c:5; main\n"
                                  "     3 /src/run.h:7; inner\xEF\xBF\xBD\n"
                                  "     1 /src/work.c:30; work\n"
                                  "     2 [nothing called it]\n"
                                  "Total snapshots: 11\n");
    callers = find(&(struct pep_callers_query){.function = "inner\n"});
    pep_callers_write_json(&out.writer, &callers);
    assert_string_equal(out.data, "[\n{\"count\":3,\"function\":\"app::run\","
                                  "\"file\":\"/src/run.c\",\"line\":20}\n]\n");
    callers = find(&(struct pep_callers_query){.function = "run"});
    assert_int_equal(callers.count, 1);
    assert_string_equal(callers.items[0]->function, "main");
    callers = find(&(struct pep_callers_query){.function = "main"});
    pep_callers_write_json(&out.writer, &callers);
    assert_string_equal(out.data, "[\n]\n");
    assert_int_equal(callers.rootless, 9);
}

static void test_file_and_lines(void **state) {
    (void)state;
    static const struct {
        struct pep_callers_query query;
        int64_t total;
    } cases[] = {
        {{.function = "work", .file = "/src/work.c"}, 11},
        {{.function = "work", .file = "work.c"}, 11},
        {{.function = "work", .file = "ork.c"}, 0},
        {{.function = "work", .file = "/other/src/work.c"}, 0},
        {{.function = "work", .first_line = 30, .last_line = 30}, 11},
        {{.function = "work", .first_line = 10, .last_line = 29}, 0},
        {{.function = "ork"}, 0},
        {{.function = "app::run", .file = "run.c", .first_line = 1, .last_line = 99}, 3},
    };
    for (size_t i = 0; i < PEP_COUNT_OF(cases); i++)
        assert_int_equal(find(&cases[i].query).total, cases[i].total);
}

static void test_no_memory(void **state) {
    (void)state;
    struct pep_arena small;
    struct pep_callers callers;
    pep_arena_init(&small, 1);
    struct pep_encode_job job = {
        .profile = &example_profile, .symbolizer = &example_symbolizer, .arena = &small};
    assert_false(pep_callers_find(&callers, &job, &(struct pep_callers_query){.function = "x"}));
    pep_buffer_writer_init(&out, &arena);
    job.writer = &out.writer;
    pep_encode_samples(&job);
    assert_int_equal(out.writer.error, -ENOMEM);
    pep_arena_drop(&small);
}

static void test_samples(void **state) {
    (void)state;
    struct pep_buffer_writer text = example_encode(pep_encode_samples, &example_profile, &arena);
    char said[64];
    example_golden("example.ndjson", &text);
    const char *path = example_file(&text, false, &arena);
    char *command = pep_arena_printf(
        &arena,
        "jq -se '.[0].format == \"profep-samples\" and (length == .[0].samples + 1) and "
        "([.[1:][].weight] | add) == %d and all(.[1:][]; .frames | length > 0)' %s",
        EXAMPLE_TOTAL_NS - 10000000, path); /* one is below 0 */
    assert_int_equal(example_run(command, said, sizeof(said)), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_callers, end),
        cmocka_unit_test_teardown(test_file_and_lines, end),
        cmocka_unit_test_teardown(test_no_memory, end),
        cmocka_unit_test_teardown(test_samples, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
