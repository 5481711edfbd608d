/* The parameters of Julia's reports: each one taken, each one refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "http/report_params.h"
#include "sampler/rt/attrs.h"

static struct pep_arena arena;

static const char *read_query(const char *query, struct pep_report_options *options) {
    struct pep_request request = {.arena = &arena, .query = query};
    return pep_report_params(&request, options);
}

static int end(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static void test_defaults(void **state) {
    (void)state;
    struct pep_report_options options;
    assert_null(read_query("", &options));
    assert_false(options.is_by_address || options.has_libraries || options.is_by_thread);
    assert_int_equal(options.max_depth, 0);
    assert_int_equal(options.min_count, 0);
    assert_int_equal(options.columns, 80);
    assert_true(options.noise_floor == 0);
    assert_int_equal(options.sort, PEP_REPORT_BY_LINE);
    assert_int_equal(options.recursion, PEP_REPORT_RECUR_OFF);
    assert_null(options.tids);
}

static void test_all(void **state) {
    (void)state;
    static const char *const sorts[] = {"filefuncline", "count", "overhead", "flat_count"};
    static const char *const recursions[] = {"off", "flat", "flatc"};
    struct pep_report_options options;
    assert_null(read_query("combine=false&C=true&maxdepth=5&mincount=7&columns=10000&"
                           "noisefloor=2.0&groupby=thread&threads=12,2147483647",
                           &options));
    assert_true(options.is_by_address && options.has_libraries && options.is_by_thread);
    assert_int_equal(options.max_depth, 5);
    assert_int_equal(options.min_count, 7);
    assert_int_equal(options.columns, 10000);
    assert_true(options.noise_floor == 2.0);
    assert_int_equal(options.tid_count, 2);
    assert_int_equal(options.tids[0], 12);
    assert_int_equal(options.tids[1], 2147483647);
    assert_null(read_query("combine=1&C=0&groupby=none", &options));
    assert_false(options.is_by_address || options.has_libraries || options.is_by_thread);
    for (int i = 0; i < 4; i++) {
        const char *query = pep_arena_printf(&arena, "sortedby=%s", sorts[i]);
        assert_null(read_query(query, &options));
        assert_int_equal(options.sort, i);
    }
    for (int i = 0; i < 3; i++) {
        const char *query = pep_arena_printf(&arena, "recur=%s", recursions[i]);
        assert_null(read_query(query, &options));
        assert_int_equal(options.recursion, i);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const char threads[] = "threads must be up to 4096 thread ids with commas between.";
    static const char columns[] = "columns must be the width of the text, from 40 to 10000.";
    static const char floor[] = "noisefloor must be a number from 0 to 1e9; 2.0 is a good one.";
    static const struct {
        const char *query, *sentence;
    } bad[] = {
        {"combine=", "combine must be true or false."},
        {"combine=yes", "combine must be true or false."},
        {"C=c", "C must be true, to show the frames of libraries, or false."},
        {"sortedby=x", "sortedby must be one of filefuncline, count, overhead, flat_count."},
        {"groupby=task", "groupby must be none or thread."},
        {"recur=on", "recur must be one of off, flat, flatc."},
        {"maxdepth=-1",
         "maxdepth must be a number of levels from 0, which is no limit, to 2147483647."},
        {"mincount=1.5", "mincount must be a number of samples from 0 to 2147483647."},
        {"columns=39", columns},
        {"columns=10001", columns},
        {"noisefloor=-1", floor},
        {"noisefloor=1e10", floor},
        {"threads=", threads},
        {"threads=1,", threads},
        {"threads=0", threads},
        {"threads=1,x", threads},
        {"threads=2147483648", threads},
    };
    struct pep_report_options options;
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++) {
        const char *sentence = read_query(bad[i].query, &options);
        assert_non_null(sentence);
        assert_string_equal(sentence, bad[i].sentence);
    }
    static char many[9 + 4097 * 2] = "threads=1";
    for (int i = 1; i < 4096; i++)
        strcat(many, ",1");
    assert_null(read_query(many, &options));
    assert_int_equal(options.tid_count, 4096);
    strcat(many, ",1");
    assert_string_equal(read_query(many, &options), threads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_defaults, end),
        cmocka_unit_test_teardown(test_all, end),
        cmocka_unit_test_teardown(test_refusals, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
