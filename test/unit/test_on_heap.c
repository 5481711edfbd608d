/*
 * The heap's profiles: Go's order of questions and Go's sentences, windows that let their rate go.
 * The sampler and the encoders are fakes.
 * LDFLAGS: -Wl,--wrap=pep_heap_begin,--wrap=pep_heap_end,--wrap=pep_heap_state
 * LDFLAGS: -Wl,--wrap=pep_heap_begin_probability,--wrap=pep_heap_end_probability
 * LDFLAGS: -Wl,--wrap=pep_heap_snapshot_take,--wrap=pep_profile_heap,--wrap=pep_render_body
 * LDFLAGS: -Wl,--wrap=pep_os_clock_ns,--wrap=malloc_trim,--wrap=pep_heap_record_count
 * LDFLAGS: -Wl,--wrap=pep_mmap_record_count
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "test/unit/heap_web.h"

uint32_t __wrap_pep_heap_record_count(enum pep_heap_view view);
uint32_t __wrap_pep_mmap_record_count(void);

uint32_t __wrap_pep_heap_record_count(enum pep_heap_view view) {
    return view == PEP_HEAP_TEMPORARY ? 7 : 4711;
}

uint32_t __wrap_pep_mmap_record_count(void) {
    return 12;
}

/* -- since the start -------------------------------------------------------------------------- */

static void test_whole(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/heap"), 200);
    assert_true(has("Content-Disposition: attachment; filename=\"heap\"\r\n"));
    assert_true(has("Content-Type: application/octet-stream\r\n"));
    assert_string_equal(seen.calls, "p");
    assert_int_equal(seen.query.view, PEP_HEAP_INUSE);
    assert_false(seen.query.is_raw || seen.has_before || seen.was_signed);
    assert_int_equal(seen.format, PEP_FORMAT_PPROF);
    assert_int_equal(ask("GET /debug/pprof/allocs?seconds=&thread=work"), 200);
    assert_true(has("filename=\"allocs\"\r\n"));
    assert_int_equal(seen.query.view, PEP_HEAP_ALLOCS);
    assert_string_equal(seen.thread, "work");
    assert_int_equal(ask("GET /debug/pprof/temporary?format=collapsed"), 200);
    assert_int_equal(seen.query.view, PEP_HEAP_TEMPORARY);
    assert_int_equal(seen.format, PEP_FORMAT_COLLAPSED);
    assert_int_equal(ask_with("GET /debug/pprof/heap", "Accept: text/html,*/*;q=0.8\r\n"), 200);
    assert_int_equal(seen.format, PEP_FORMAT_HTML);
    assert_int_equal(ask("HEAD /debug/pprof/heap?gc=1"), 200);
    assert_string_equal(seen.calls, "");
    assert_true(has("filename=\"heap\"\r\n"));
}

static void test_debug(void **state) {
    (void)state;
    static const char *const yes[] = {"1", "2", "-1", "+1", "01"};
    static const char *const no[] = {"0", "abc", "", "1.0", "0x1", "9999999999999999999"};
    char line[96];
    for (size_t i = 0; i < PEP_COUNT_OF(yes); i++) {
        snprintf(line, sizeof(line), "GET /debug/pprof/heap?debug=%s", yes[i]);
        if (yes[i][0] == '+')
            snprintf(line, sizeof(line), "GET /debug/pprof/heap?debug=%%2B1");
        assert_int_equal(ask(line), 200);
        assert_int_equal(seen.format, PEP_FORMAT_LEGACY);
        assert_true(seen.query.is_raw && !seen.was_exact &&
                    has("Content-Type: text/plain; charset=utf-8\r\n"));
        assert_false(has("Content-Disposition"));
        assert_non_null(strstr(seen.comments, "MaxRSS = "));
    }
    for (size_t i = 0; i < PEP_COUNT_OF(no); i++) {
        snprintf(line, sizeof(line), "GET /debug/pprof/heap?debug=%s", no[i]);
        assert_int_equal(ask(line), 200);
        assert_int_equal(seen.format, PEP_FORMAT_PPROF);
        assert_false(seen.query.is_raw);
        assert_null(strstr(seen.comments, "MaxRSS"));
    }
    /* The first one counts, as in Go; a person at a browser gets the text that was asked for. */
    assert_int_equal(ask("GET /debug/pprof/heap?debug=0&debug=1"), 200);
    assert_int_equal(seen.format, PEP_FORMAT_PPROF);
    assert_int_equal(ask_with("GET /debug/pprof/allocs?debug=1", "Accept: text/html\r\n"), 200);
    assert_int_equal(seen.format, PEP_FORMAT_LEGACY);
}

static void test_gc(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/heap?gc=1"), 200);
    assert_string_equal(seen.calls, "tp");
    assert_non_null(strstr(seen.comments, "malloc_trim(0) was called"));
    static const char *const no[] = {"heap?gc=0",    "heap?gc=-1",         "heap?gc=yes",
                                     "allocs?gc=1",  "heap?gc=NaN",        "heap?gc=0&gc=1",
                                     "heap?gc=1e99", "heap?gc=1&seconds=1"};
    for (size_t i = 0; i < PEP_COUNT_OF(no); i++) {
        char line[96];
        snprintf(line, sizeof(line), "GET /debug/pprof/%s", no[i]);
        assert_int_equal(ask(line), 200);
        assert_null(strchr(seen.calls, 't'));
        assert_null(strstr(seen.comments, "malloc_trim"));
    }
}

static void test_notes(void **state) {
    (void)state;
    plan.state.live_blocks = 12;
    assert_int_equal(ask("GET /debug/pprof/heap"), 200);
    assert_string_equal(seen.comments, "of the sampler\n");
    assert_int_equal(ask("GET /debug/pprof/heap?debug=1"), 200);
    assert_int_equal(strncmp(seen.comments, "of the sampler\nHeapObjects = 12\nSys = ", 38), 0);
    plan.state.has_live_map = false;
    assert_int_equal(ask("GET /debug/pprof/heap?debug=1"), 200);
    assert_null(strstr(seen.comments, "HeapObjects"));
    assert_int_equal(ask("GET /debug/pprof/heap?seconds=1"), 200);
    assert_non_null(strstr(seen.comments, "difference over the window"));
}

/* -- windows ---------------------------------------------------------------------------------- */

static void test_delta(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/heap?seconds=2"), 200);
    assert_true(has("Content-Disposition: attachment; filename=\"heap-delta\"\r\n"));
    assert_string_equal(seen.calls, "sp");
    assert_int_equal(seen.waited_ns, 2000000000u);
    assert_true(seen.has_before && seen.was_signed && !seen.query.has_absolute_inuse);
    assert_int_equal(ask("GET /debug/pprof/heap?seconds=1&inuse=absolute"), 200);
    assert_true(seen.query.has_absolute_inuse && !seen.was_signed);
    assert_int_equal(ask("GET /debug/pprof/heap?seconds=1&inuse=difference"), 200);
    assert_true(!seen.query.has_absolute_inuse && seen.was_signed);
    assert_int_equal(ask("GET /debug/pprof/allocs?seconds=%2B1&rate=4096"), 200);
    assert_true(has("filename=\"allocs-delta\"\r\n"));
    assert_string_equal(seen.calls, "bspe");
    assert_int_equal(seen.rate_bytes, 4096);
    assert_int_equal(ask("GET /debug/pprof/allocs?seconds=1&interval=1"), 200);
    assert_int_equal(seen.rate_bytes, 1);
    assert_int_equal(ask("GET /debug/pprof/heap?seconds=1&rate=1073741824&rate=0"), 200);
    assert_int_equal(seen.rate_bytes, 1073741824);
    assert_int_equal(ask("HEAD /debug/pprof/heap?seconds=30&rate=1"), 200);
    assert_string_equal(seen.calls, "");
    assert_true(has("filename=\"heap-delta\"\r\n"));
}

static void test_bad_seconds(void **state) {
    (void)state;
    static const char *const bad[] = {"abc", "0",   "-1",  "0.5",  "1e3", "9999999999999999999",
                                      "NaN", "inf", "%20", "0x10", "1_0"};
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++) {
        char line[96];
        snprintf(line, sizeof(line), "GET /debug/pprof/heap?seconds=%s&debug=1", bad[i]);
        refuses(line, 400, "invalid value for \"seconds\" - must be a positive integer\n");
    }
    refuses("GET /debug/pprof/allocs?seconds=1&debug=1&rate=0", 400,
            "seconds and debug params are incompatible\n");
    refuses("GET /debug/pprof/heapz?seconds=0", 404, "Unknown profile\n");
}

static void test_bad_own_parameters(void **state) {
    (void)state;
    static const char *const rates[] = {
        "0", "-1", "1073741825", "9999999999999999999999", "NaN", "1e3", "1.5", "", "%2B5"};
    char line[128];
    for (size_t i = 0; i < PEP_COUNT_OF(rates); i++) {
        snprintf(line, sizeof(line), "GET /debug/pprof/heap?seconds=1&rate=%s", rates[i]);
        refuses(line, 400, "rate must be a whole number of bytes from 1 to 1073741824.\n");
        assert_string_equal(seen.calls, "");
    }
    refuses("GET /debug/pprof/heap?rate=1", 400, "rate is for a window: give seconds too.\n");
    refuses("GET /debug/pprof/heap?seconds=1&inuse=1", 400,
            "inuse must be absolute or difference.\n");
    refuses("GET /debug/pprof/heap?format=gif", 400,
            "format must be one of pprof, svg, html, collapsed, text, top, tree, flat, json.\n");
    refuses("GET /debug/pprof/heap?thread=", 400,
            "thread must be a thread id or a part of a thread's name, up to 64 bytes.\n");
}

static void test_window_ends_badly(void **state) {
    (void)state;
    plan.leaves_after = 3;
    assert_int_equal(ask("GET /debug/pprof/heap?seconds=9223372036854775807&rate=1"), 500);
    assert_string_equal(seen.calls, "bse");
    assert_int_equal(seen.waits, 3);
    plan.leaves_after = 0;
    plan.failing = 's';
    refuses("GET /debug/pprof/heap?seconds=1&rate=1", 503, "Not enough memory for this profile.\n");
    assert_string_equal(seen.calls, "bse");
    plan.failing = 'p';
    refuses("GET /debug/pprof/heap?seconds=1&rate=1", 503, "Not enough memory for this profile.\n");
    assert_string_equal(seen.calls, "bspe");
    refuses("GET /debug/pprof/heap", 503, "Not enough memory for this profile.\n");
    plan.failing = 0;
    plan.begin_error = -EBUSY;
    refuses("GET /debug/pprof/heap?seconds=1&rate=1", 429,
            "Too many windows ask for a rate of their own.\n");
    plan.begin_error = -ENOTSUP;
    refuses("GET /debug/pprof/heap?seconds=1&rate=1", 501,
            "This program's allocations are not recorded.\n");
    plan.begin_error = -EIO;
    refuses("GET /debug/pprof/heap?seconds=1&rate=1", 500, "failed to collect profile\n");
    assert_string_equal(seen.calls, "b");
}

static void test_index(void **state) {
    (void)state;
    static const char *const rows[] = {
        "<td class=\"count\">4711</td><td><a href=\"heap\">",
        "<td class=\"count\">4711</td><td><a href=\"allocs\">",
        "<td class=\"count\">7</td><td><a href=\"temporary\">",
        "<td class=\"count\">12</td><td><a href=\"mmap\">",
    };
    assert_int_equal(ask("GET /debug/pprof/"), 200);
    for (size_t i = 0; i < PEP_COUNT_OF(rows); i++)
        assert_non_null(strstr(body, rows[i]));
    assert_string_equal(seen.calls, ""); /* no snapshot, no profile */
}

/* The last one: a process does not forget that rates were different. */
static void test_text_of_several_rates(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/heap?seconds=1&rate=1"), 200);
    assert_int_equal(ask("GET /debug/pprof/heap?debug=1"), 200);
    assert_true(!seen.query.is_raw && seen.was_exact);
    assert_int_equal(ask("GET /debug/pprof/heap"), 200);
    assert_false(seen.was_exact);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_debug, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_gc, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_notes, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_delta, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_bad_seconds, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_bad_own_parameters, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_window_ends_badly, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_index, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_text_of_several_rates, heap_web_setup,
                                        heap_web_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
