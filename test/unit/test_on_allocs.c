/*
 * ProfileEndpoints' allocation profile: its bodies, start and stop, the form.
 * The sampler and the encoders are fakes.
 * LDFLAGS: -Wl,--wrap=pep_heap_begin,--wrap=pep_heap_end,--wrap=pep_heap_state
 * LDFLAGS: -Wl,--wrap=pep_heap_begin_probability,--wrap=pep_heap_end_probability
 * LDFLAGS: -Wl,--wrap=pep_heap_snapshot_take,--wrap=pep_profile_heap,--wrap=pep_render_body
 * LDFLAGS: -Wl,--wrap=pep_os_clock_ns,--wrap=malloc_trim,--wrap=pep_calloc
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "test/unit/heap_web.h"

void *__real_pep_calloc(size_t count, size_t size);
void *__wrap_pep_calloc(size_t count, size_t size);

void *__wrap_pep_calloc(size_t count, size_t size) {
    return plan.failing == 'm' ? NULL : __real_pep_calloc(count, size);
}

/* -- ProfileEndpoints ------------------------------------------------------------------------- */

static void test_allocs_profile(void **state) {
    (void)state;
    assert_int_equal(ask("GET /allocs_profile?duration=0.25&sample_rate=1e-1"), 200);
    assert_non_null(strstr(seen.comments, "Each allocation of the window was recorded with "
                                          "probability 0.1, whatever its size.\n"));
    assert_string_equal(seen.calls, "bspe");
    assert_int_equal(seen.waited_ns, 250000000u);
    assert_true(seen.probability == 0.1);
    assert_int_equal(seen.query.view, PEP_HEAP_ALLOCS);
    assert_true(has("Content-Type: application/octet-stream\r\n"));
    assert_int_equal(ask("POST /allocs_profile?duration=1"), 200);
    assert_true(seen.probability == 0.0001);
    assert_int_equal(ask("GET /allocs_profile?sample_rate=1.0&format=top&thread=w"), 200);
    assert_non_null(strstr(seen.comments, "Every allocation of the window was recorded.\n"));
    assert_int_equal(seen.waited_ns, 10000000000u);
    assert_int_equal(seen.format, PEP_FORMAT_TEXT);
    assert_string_equal(seen.thread, "w");
    assert_int_equal(ask("HEAD /allocs_profile?duration=1"), 200);
    assert_string_equal(seen.calls, "");
    plan.leaves_after = 2;
    assert_int_equal(ask("GET /allocs_profile?duration=86400"), 500);
    assert_int_equal(open_rates, 0);
}

static void test_allocs_profile_bad_input(void **state) {
    (void)state;
    static const char *const bad[] = {"0",
                                      "-1",
                                      "NaN",
                                      "inf",
                                      "",
                                      "abc",
                                      "1e400",
                                      "1,",
                                      ".",
                                      "1e",
                                      "1e+",
                                      "0x1p-1",
                                      "1e-99999999999999999999",
                                      "1 ",
                                      "+1",
                                      "86400.001",
                                      "1..2",
                                      "99999999999999999999999999"};
    char line[128];
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++) {
        snprintf(line, sizeof(line), "GET /allocs_profile?duration=%s", bad[i]);
        if (strchr(bad[i], ' ') || bad[i][0] == '+')
            snprintf(line, sizeof(line), "GET /allocs_profile?duration=1%%20");
        refuses(line, 400, "duration must be a number of seconds from 0.001 to 86400.\n");
        snprintf(line, sizeof(line), "GET /allocs_profile_start?sample_rate=%s",
                 strcmp(bad[i], "86400.001") == 0 || strchr(bad[i], ' ') || bad[i][0] == '+'
                     ? "1.0000001"
                     : bad[i]);
        refuses(line, 400, "sample_rate must be a probability from 1e-9 to 1.\n");
        assert_string_equal(seen.calls, "");
    }
    refuses("GET /allocs_profile?duration=1&sample_rate=2", 400,
            "sample_rate must be a probability from 1e-9 to 1.\n");
    refuses("GET /allocs_profile?duration=1&format=x", 400,
            "format must be one of pprof, svg, html, collapsed, text, top, tree, flat, json.\n");
}

static void test_allocs_profile_asked_nothing(void **state) {
    (void)state;
    assert_int_equal(ask("GET /allocs_profile"), 400);
    assert_ptr_equal(strstr(body, "Need to provide query params:\n    - duration=10.0\n"
                                  "    - sample_rate=0.0001\n\nHint: "),
                     body);
    assert_int_equal(ask_with("GET /allocs_profile", "Accept: text/html,*/*\r\n"), 200);
    assert_true(has("Content-Type: text/html; charset=utf-8"));
    assert_true(has("form-action 'self'"));
    assert_non_null(strstr(body, "name=\"duration\" value=\"10\" min=\"0.001\" max=\"86400\""));
    assert_non_null(strstr(body, "name=\"sample_rate\" value=\"0.0001\""));
    assert_non_null(strstr(body, "<progress"));
    assert_null(strstr(body, "sample form"));
    assert_int_equal(strncmp(body, "<!doctype html>", 15), 0);
    assert_string_equal(seen.calls, "");
}

static void test_start_and_stop(void **state) {
    (void)state;
    assert_int_equal(ask("GET /allocs_profile_stop"), 200); /* nothing was recorded */
    assert_string_equal(seen.calls, "sp");
    plan.failing = 'p';
    refuses("GET /allocs_profile_stop", 503, "Not enough memory for this profile.\n");
    plan.failing = 0;
    assert_int_equal(ask("HEAD /allocs_profile_start"), 200);
    assert_string_equal(seen.calls, "");
    assert_int_equal(ask("GET /allocs_profile_start?sample_rate=0.5"), 200);
    assert_string_equal(body, "Allocation profiling started.");
    assert_string_equal(seen.calls, "bs");
    assert_true(seen.probability == 0.5 && open_rates == 1);
    assert_int_equal(ask("GET /allocs_profile_start?sample_rate=0.5"), 200); /* begins again */
    assert_string_equal(seen.calls, "bse");
    assert_int_equal(open_rates, 1);
    plan.failing = 'p';
    assert_int_equal(ask("GET /allocs_profile_stop"), 503);
    assert_int_equal(open_rates, 1);
    plan.failing = 0;
    assert_int_equal(ask("HEAD /allocs_profile_stop"), 200);
    assert_int_equal(ask("GET /allocs_profile_stop?format=collapsed"), 200);
    assert_string_equal(body, "rendered");
    assert_string_equal(seen.calls, "pe");
    assert_true(seen.has_before && seen.was_signed);
    assert_int_equal(seen.format, PEP_FORMAT_COLLAPSED);
    assert_int_equal(ask("POST /allocs_profile_stop"), 200); /* the same once more */
    assert_string_equal(seen.calls, "");
    assert_string_equal(body, "rendered");
    assert_int_equal(ask("GET /allocs_profile_stop?format=x"), 400);
}

static void test_start_refused(void **state) {
    (void)state;
    plan.failing = 'm';
    refuses("GET /allocs_profile_start", 503, "Not enough memory for this profile.\n");
    plan.failing = 's';
    refuses("GET /allocs_profile_start", 503, "Not enough memory for this profile.\n");
    assert_string_equal(seen.calls, "bse");
    plan.failing = 0;
    plan.begin_error = -ENOTSUP;
    refuses("GET /allocs_profile_start", 501, "This program's allocations are not recorded.\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_allocs_profile, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_allocs_profile_bad_input, heap_web_setup,
                                        heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_allocs_profile_asked_nothing, heap_web_setup,
                                        heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_start_and_stop, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_start_refused, heap_web_setup, heap_web_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
