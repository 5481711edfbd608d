/*
 * What InfluxDB IOx's clients ask of the routes that Go's have too: its words for the rate, errors
 * as JSON, nothing at all where nothing was sampled.
 * LDFLAGS: -Wl,--wrap=pep_window_run,--wrap=pep_window_heap,--wrap=pep_render_body
 * LDFLAGS: -Wl,--wrap=pep_os_clock_ns,--wrap=pep_heap_state
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "test/unit/heap_web.h"

int __wrap_pep_window_run(struct pep_arena *arena, const struct pep_window *window,
                          struct pep_profile **profile);
int __wrap_pep_window_heap(struct pep_arena *arena, const struct pep_heap_window *window,
                           struct pep_profile **profile);

static struct pep_profile result = {.kind = "cpu", .sample_count = 1};
static struct pep_window window_seen;
static uint64_t duration_seen;
static int window_error;

int __wrap_pep_window_run(struct pep_arena *arena, const struct pep_window *window,
                          struct pep_profile **profile) {
    (void)arena;
    window_seen = *window;
    *profile = window_error ? NULL : &result;
    return window_error;
}

int __wrap_pep_window_heap(struct pep_arena *arena, const struct pep_heap_window *window,
                           struct pep_profile **profile) {
    (void)arena;
    seen.rate_bytes = window->rate_bytes;
    duration_seen = window->duration_ns;
    result.comments = NULL; /* the last question's arena had them */
    result.comment_count = 0;
    *profile = &result;
    return 0;
}

static void test_nothing_sampled(void **state) {
    (void)state;
    static const struct {
        const char *line, *accept;
        int status;
    } cases[] = {
        {"GET /debug/pprof/profile?seconds=1", "Accept: text/html,*/*\r\n", 204},
        {"GET /debug/pprof/profile?seconds=1", "Accept: image/svg+xml\r\n", 204},
        {"GET /debug/pprof/profile?format=html", "Accept: text/html\r\n", 200},
        {"GET /debug/pprof/profile?seconds=1", "Accept: */*\r\n", 200},
        {"GET /debug/pprof/wall?seconds=1", "Accept: text/html\r\n", 204},
        {"GET /debug/pprof/allocs?seconds=1", "Accept: text/html\r\n", 204},
        {"GET /debug/pprof/heap?seconds=1", "Accept: text/html\r\n", 200},
    };
    result.sample_count = 0;
    for (size_t i = 0; i < PEP_COUNT_OF(cases); i++) {
        assert_int_equal(ask_with(cases[i].line, cases[i].accept), cases[i].status);
        assert_true(has("Vary: Accept"));
        if (cases[i].status == 204)
            assert_true(body[0] == '\0' && !has("Content-Length") && !has("Content-Type:"));
    }
    /* Here there is something to say. */
    assert_int_equal(
        ask_with("GET /debug/pprof/allocs?seconds=1&thread=no%0Abody", "Accept: text/html\r\n"),
        404);
    assert_string_equal(body,
                        "No thread was sampled whose id is \"no?body\" or whose name has it.\n");
    assert_int_equal(ask("GET /debug/pprof/profile?seconds=1&thread=nobody"), 200);
    result.sample_count = 1;
}

static void expect_json(const char *wanted) {
    assert_string_equal(body, wanted);
    assert_true(has("Content-Type: application/json\r\n"));
    assert_false(has("X-Go-Pprof"));
}

static void test_json_errors(void **state) {
    (void)state;
    static const char json[] = "Accept: text/plain, application/json;q=0.5\r\n";
    assert_int_equal(ask_with("GET /debug/pprof/profile?frequency=0", json), 400);
    expect_json("{\"code\":\"invalid\",\"message\":"
                "\"frequency must be a whole number from 1 to 10000.\"}\n");
    assert_int_equal(ask_with("GET /profile", json), 400);
    assert_int_equal(count_of("Vary: "), 1);
    assert_int_equal(ask_with("GET /nowhere", json), 404);
    expect_json("{\"code\":\"not found\",\"message\":\"There is nothing at this path; "
                "/debug/pprof/ lists what there is.\"}\n");
    window_error = -ENOMEM;
    assert_int_equal(ask_with("GET /debug/pprof/profile?seconds=1", json), 503);
    expect_json("{\"code\":\"unavailable\",\"message\":"
                "\"Not enough memory for this profile.\"}\n");
    window_error = -EAGAIN;
    assert_int_equal(ask_with("GET /debug/pprof/profile?seconds=1", json), 500);
    expect_json("{\"code\":\"internal error\",\"message\":"
                "\"The CPU sampler could not be started.\"}\n");
    window_error = 0;
    assert_int_equal(ask_with("GET /nowhere", "Accept: application/json;q=0\r\n"), 404);
    assert_string_equal(body,
                        "There is nothing at this path; /debug/pprof/ lists what there is.\n");
    assert_true(has("X-Go-Pprof: 1"));
}

static void test_iox_words(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/profile?seconds=2&frequency=99"), 200);
    assert_int_equal(window_seen.hz, 99);
    assert_int_equal(ask("GET /debug/pprof/profile?hz=7&frequency=99"), 200);
    assert_int_equal(window_seen.hz, 7);
    assert_int_equal(ask("GET /debug/pprof/allocs?seconds=2&interval=1"), 200);
    assert_int_equal(seen.rate_bytes, 1);
    assert_int_equal(ask("GET /debug/pprof/allocs?interval=64"), 200);
    assert_int_equal(seen.rate_bytes, 64);
    assert_int_equal(duration_seen, 30000000000u);
    assert_true(has("filename=\"allocs-delta\""));
    refuses("GET /debug/pprof/allocs?interval=0", 400,
            "interval must be a whole number of bytes from 1 to 1073741824.\n");
    refuses("GET /debug/pprof/allocs?interval=1&debug=1", 400,
            "interval and debug params are incompatible\n");
    refuses("GET /debug/pprof/heap?interval=1", 400,
            "interval is for a window: give seconds too.\n");
    refuses("GET /debug/pprof/allocs?rate=1", 400, "rate is for a window: give seconds too.\n");
    refuses("GET /debug/pprof/wall?frequency=1001", 400,
            "frequency must be a whole number from 1 to 1000.\n");
    refuses("GET /debug/pprof/profile?hz=0&frequency=1", 400,
            "hz must be a whole number from 1 to 10000.\n");
    assert_int_equal(ask("GET /health"), 200);
    assert_string_equal(body, "OK");
}

int main(void) {
#define WEB_TEST(f) cmocka_unit_test_setup_teardown(f, heap_web_setup, heap_web_teardown)
    const struct CMUnitTest tests[] = {
        WEB_TEST(test_nothing_sampled),
        WEB_TEST(test_json_errors),
        WEB_TEST(test_iox_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
