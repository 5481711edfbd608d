/*
 * The profiles of waiting: Go's order of questions and Go's sentences, windows that let their rate
 * go, the counts of the index. The sampler and the encoders are fakes.
 * LDFLAGS: -Wl,--wrap=pep_lock_begin,--wrap=pep_lock_end,--wrap=pep_lock_snapshot_take
 * LDFLAGS: -Wl,--wrap=pep_profile_lock,--wrap=pep_render_body,--wrap=pep_os_clock_ns
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "test/unit/heap_web.h"

int __wrap_pep_lock_begin(uint64_t rate_ns);
void __wrap_pep_lock_end(uint64_t rate_ns);
struct pep_cells_snapshot *__wrap_pep_lock_snapshot_take(struct pep_arena *arena,
                                                         enum pep_lock_side side);
struct pep_profile *__wrap_pep_profile_lock(struct pep_arena *arena, enum pep_lock_side side,
                                            const struct pep_cells_snapshot *before,
                                            const struct pep_profile_filter *filter);

/* -- fakes ------------------------------------------------------------------------------------ */

static uint64_t rate_seen;
static enum pep_lock_side side_seen;
static struct pep_cells_snapshot *taken;

static void log_call(char letter) {
    size_t count = strlen(seen.calls);
    if (count < sizeof(seen.calls) - 1)
        seen.calls[count] = letter;
}

int __wrap_pep_lock_begin(uint64_t rate_ns) {
    log_call('b');
    rate_seen = rate_ns;
    open_rates += plan.begin_error == 0;
    return plan.begin_error;
}

void __wrap_pep_lock_end(uint64_t rate_ns) {
    assert_true(rate_ns == rate_seen);
    log_call('e');
    open_rates--;
}

/* Three cells on the side of the waiters, one on the other; one of all was never charged. */
struct pep_cells_snapshot *__wrap_pep_lock_snapshot_take(struct pep_arena *arena,
                                                         enum pep_lock_side side) {
    log_call('s');
    side_seen = side;
    taken = pep_arena_alloc(arena, sizeof(*taken) + 4 * sizeof(taken->cells[0]));
    assert_non_null(taken);
    memset(taken, 0, sizeof(*taken) + 4 * sizeof(taken->cells[0]));
    taken->cell_count = side == PEP_LOCK_BLOCK ? 4 : 2;
    for (uint32_t i = 1; i < taken->cell_count; i++)
        taken->cells[i].count = i;
    return plan.failing == 's' ? NULL : taken;
}

struct pep_profile *__wrap_pep_profile_lock(struct pep_arena *arena, enum pep_lock_side side,
                                            const struct pep_cells_snapshot *before,
                                            const struct pep_profile_filter *filter) {
    log_call('p');
    side_seen = side;
    seen.has_before = before != NULL;
    assert_true(!before || before == taken);
    snprintf(seen.thread, sizeof(seen.thread), "%s", filter->thread ? filter->thread : "");
    struct pep_profile *profile =
        plan.failing == 'p' ? NULL : pep_arena_alloc(arena, sizeof(*profile));
    if (profile)
        *profile = (struct pep_profile){.kind = side == PEP_LOCK_BLOCK ? "block" : "mutex"};
    return profile;
}

/* -- since the start -------------------------------------------------------------------------- */

static void test_whole(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/block"), 200);
    assert_true(has("Content-Disposition: attachment; filename=\"block\"\r\n"));
    assert_true(has("Content-Type: application/octet-stream\r\n"));
    assert_true(has("X-Content-Type-Options: nosniff\r\n"));
    assert_string_equal(seen.calls, "p");
    assert_int_equal(side_seen, PEP_LOCK_BLOCK);
    assert_false(seen.has_before || seen.was_signed);
    assert_int_equal(seen.format, PEP_FORMAT_PPROF);
    assert_int_equal(ask("GET /debug/pprof/mutex?seconds=&thread=work"), 200);
    assert_true(has("filename=\"mutex\"\r\n"));
    assert_int_equal(side_seen, PEP_LOCK_HOLD);
    assert_string_equal(seen.thread, "work");
    assert_int_equal(ask("GET /debug/pprof/mutex?format=collapsed"), 200);
    assert_int_equal(seen.format, PEP_FORMAT_COLLAPSED);
    assert_int_equal(ask_with("GET /debug/pprof/block", "Accept: text/html,*/*;q=0.8\r\n"), 200);
    assert_int_equal(seen.format, PEP_FORMAT_HTML);
    assert_int_equal(ask("HEAD /debug/pprof/mutex"), 200);
    assert_string_equal(seen.calls, "");
    assert_true(has("filename=\"mutex\"\r\n"));
    assert_int_equal(ask("POST /debug/pprof/block"), 405);
    assert_true(has("Allow: GET, HEAD\r\n"));
}

static void test_debug(void **state) {
    (void)state;
    static const char *const yes[] = {"1", "2", "-1", "%2B1", "01"};
    static const char *const no[] = {"0", "abc", "", "1.0", "0x1", "9999999999999999999"};
    char line[96];
    for (size_t i = 0; i < PEP_COUNT_OF(yes); i++) {
        snprintf(line, sizeof(line), "GET /debug/pprof/block?debug=%s", yes[i]);
        assert_int_equal(ask(line), 200);
        assert_int_equal(seen.format, PEP_FORMAT_CONTENTION);
        assert_true(has("Content-Type: text/plain; charset=utf-8\r\n"));
        assert_false(has("Content-Disposition"));
    }
    for (size_t i = 0; i < PEP_COUNT_OF(no); i++) {
        snprintf(line, sizeof(line), "GET /debug/pprof/mutex?debug=%s", no[i]);
        assert_int_equal(ask(line), 200);
        assert_int_equal(seen.format, PEP_FORMAT_PPROF);
    }
    /* A person at a browser gets the text that was asked for. */
    assert_int_equal(ask_with("GET /debug/pprof/mutex?debug=1", "Accept: text/html\r\n"), 200);
    assert_int_equal(seen.format, PEP_FORMAT_CONTENTION);
}

static void test_index(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/"), 200);
    assert_non_null(strstr(body, "<td class=\"count\">3</td><td><a href=\"block\">block</a></td>"));
    assert_non_null(strstr(body, "<td class=\"count\">1</td><td><a href=\"mutex\">mutex</a></td>"));
    assert_non_null(strstr(body, "<td class=\"count\">0</td><td><a href=\"profile\">"));
    plan.failing = 's';
    assert_int_equal(ask("GET /debug/pprof/"), 200);
    assert_non_null(strstr(body, "<td class=\"count\">0</td><td><a href=\"block\">block</a></td>"));
}

/* -- windows ---------------------------------------------------------------------------------- */

static void test_delta(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/block?seconds=2"), 200);
    assert_true(has("Content-Disposition: attachment; filename=\"block-delta\"\r\n"));
    assert_string_equal(seen.calls, "sp");
    assert_int_equal(seen.waited_ns, 2000000000u);
    assert_true(seen.has_before && !seen.was_signed);
    assert_int_equal(ask("GET /debug/pprof/mutex?seconds=%2B1&rate=1000"), 200);
    assert_true(has("filename=\"mutex-delta\"\r\n"));
    assert_string_equal(seen.calls, "bspe");
    assert_int_equal(side_seen, PEP_LOCK_HOLD);
    assert_int_equal(rate_seen, 1000);
    assert_int_equal(ask("GET /debug/pprof/block?seconds=1&rate=1000000000000&rate=0"), 200);
    assert_true(rate_seen == 1000000000000u);
    assert_int_equal(ask("HEAD /debug/pprof/block?seconds=30&rate=1"), 200);
    assert_string_equal(seen.calls, "");
    assert_true(has("filename=\"block-delta\"\r\n"));
}

static void test_bad_seconds(void **state) {
    (void)state;
    static const char *const bad[] = {"abc", "0",   "-1",  "0.5",  "1e3", "9999999999999999999",
                                      "NaN", "inf", "%20", "0x10", "1_0"};
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++) {
        char line[96];
        snprintf(line, sizeof(line), "GET /debug/pprof/mutex?seconds=%s&debug=1", bad[i]);
        refuses(line, 400, "invalid value for \"seconds\" - must be a positive integer\n");
    }
    refuses("GET /debug/pprof/block?seconds=1&debug=1&rate=0", 400,
            "seconds and debug params are incompatible\n");
    refuses("GET /debug/pprof/blocks?seconds=0", 404, "Unknown profile\n");
}

static void test_bad_own_parameters(void **state) {
    (void)state;
    static const char *const rates[] = {
        "0", "-1", "1000000000001", "9999999999999999999999", "NaN", "1e3", "1.5", "", "%2B5"};
    char line[128];
    for (size_t i = 0; i < PEP_COUNT_OF(rates); i++) {
        snprintf(line, sizeof(line), "GET /debug/pprof/block?seconds=1&rate=%s", rates[i]);
        refuses(line, 400, "rate must be a whole number of nanoseconds from 1 to 1000000000000.\n");
        assert_string_equal(seen.calls, "");
    }
    refuses("GET /debug/pprof/mutex?rate=1", 400, "rate is for a window: give seconds too.\n");
    refuses("GET /debug/pprof/mutex?format=gif", 400,
            "format must be one of pprof, svg, html, collapsed, text, top, tree, flat, json.\n");
    refuses("GET /debug/pprof/block?thread=", 400,
            "thread must be a thread id or a part of a thread's name, up to 64 bytes.\n");
}

static void test_window_ends_badly(void **state) {
    (void)state;
    plan.leaves_after = 3;
    assert_int_equal(ask("GET /debug/pprof/block?seconds=9223372036854775807&rate=1"), 500);
    assert_string_equal(seen.calls, "bse");
    assert_int_equal(seen.waits, 3);
    plan.leaves_after = 0;
    plan.failing = 's';
    refuses("GET /debug/pprof/block?seconds=1&rate=1", 503,
            "Not enough memory for this profile.\n");
    assert_string_equal(seen.calls, "bse");
    plan.failing = 'p';
    refuses("GET /debug/pprof/mutex?seconds=1&rate=1", 503,
            "Not enough memory for this profile.\n");
    assert_string_equal(seen.calls, "bspe");
    refuses("GET /debug/pprof/mutex", 503, "Not enough memory for this profile.\n");
    plan.failing = 0;
    plan.begin_error = -EBUSY;
    refuses("GET /debug/pprof/mutex?seconds=1&rate=1", 429,
            "Too many windows ask for a rate of their own.\n");
    plan.begin_error = -ENOTSUP;
    refuses("GET /debug/pprof/block?seconds=1&rate=1", 501,
            "This program's waiting is not recorded.\n");
    plan.begin_error = -EIO;
    refuses("GET /debug/pprof/block?seconds=1&rate=1", 500, "failed to collect profile\n");
    assert_string_equal(seen.calls, "b");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_debug, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_index, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_delta, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_bad_seconds, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_bad_own_parameters, heap_web_setup, heap_web_teardown),
        cmocka_unit_test_setup_teardown(test_window_ends_badly, heap_web_setup, heap_web_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
