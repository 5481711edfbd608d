/*
 * The last recording once more: fetch, callers, init, clear. The window and the encoders are fakes.
 * LDFLAGS: -Wl,--wrap=pep_window_run,--wrap=pep_render_body,--wrap=pep_os_clock_ns
 * LDFLAGS: -Wl,--wrap=pep_window_begin,--wrap=pep_window_read,--wrap=pep_window_end
 * LDFLAGS: -Wl,--wrap=pep_calloc
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "test/unit/heap_web.h"

void *__real_pep_calloc(size_t count, size_t size);
void *__wrap_pep_calloc(size_t count, size_t size);
int __wrap_pep_window_run(struct pep_arena *arena, const struct pep_window *window,
                          struct pep_profile **profile);
int __wrap_pep_window_begin(struct pep_arena *arena, const struct pep_window *window,
                            void **before);
struct pep_profile *__wrap_pep_window_read(struct pep_arena *arena, const struct pep_window *window,
                                           const void *before);
void __wrap_pep_window_end(const struct pep_window *window);

static struct pep_window window_seen;
static int window_error, begun;

static struct pep_profile *make(struct pep_arena *arena, const char *kind) {
    struct pep_profile *profile = pep_arena_alloc(arena, sizeof(*profile));
    struct pep_sample *samples = pep_arena_array(arena, 2, sizeof(*samples));
    static const char *comments[1];
    comments[0] = kind;
    samples[0].values[0] = samples[1].values[0] = 50;
    samples[0].values[1] = samples[1].values[1] = 500;
    *profile = (struct pep_profile){.kind = kind,
                                    .types = {{"samples", "count"}, {"cpu", "nanoseconds"}},
                                    .type_count = 2,
                                    .default_type = 1,
                                    .samples = samples,
                                    .sample_count = 2,
                                    .comments = comments,
                                    .comment_count = 1};
    return profile;
}

void *__wrap_pep_calloc(size_t count, size_t size) {
    return plan.failing == 'm' ? NULL : __real_pep_calloc(count, size);
}

int __wrap_pep_window_run(struct pep_arena *arena, const struct pep_window *window,
                          struct pep_profile **profile) {
    window_seen = *window;
    *profile = window_error ? NULL : make(arena, window->clock == PEP_WINDOW_CPU ? "cpu" : "wall");
    return window_error;
}

int __wrap_pep_window_begin(struct pep_arena *arena, const struct pep_window *window,
                            void **before) {
    (void)arena;
    window_seen = *window;
    *before = NULL;
    begun++;
    return 0;
}

struct pep_profile *__wrap_pep_window_read(struct pep_arena *arena, const struct pep_window *window,
                                           const void *before) {
    (void)before;
    (void)window;
    return make(arena, "started");
}

void __wrap_pep_window_end(const struct pep_window *window) {
    (void)window;
    begun--;
}

static const char nothing[] =
    "There is no recording: ask profile or profile_wall first, or give duration.\n";

static void test_the_last_one(void **state) {
    (void)state;
    assert_int_equal(ask("GET /profile_clear"), 200);
    assert_string_equal(body, "Profile data cleared.");
    refuses("GET /profile_fetch", 400, nothing);
    refuses("GET /profile_callers?func=x", 400, nothing);
    assert_int_equal(ask("GET /profile?duration=1"), 200);
    assert_int_equal(ask("GET /profile_fetch?format=tree"), 200);
    assert_string_equal(seen.comments, "cpu\n");
    assert_int_equal(seen.format, PEP_FORMAT_TREE);
    assert_int_equal(ask("GET /profile_wall?duration=1"), 200);
    assert_int_equal(ask("GET /profile_fetch"), 200);
    assert_string_equal(seen.comments, "wall\n");
    assert_true(has("filename=\"profile\""));
    assert_int_equal(ask("GET /profile_start"), 200);
    assert_int_equal(ask("GET /profile_fetch"), 200); /* what runs is not recorded yet */
    assert_string_equal(seen.comments, "wall\n");
    assert_int_equal(ask("GET /profile_stop"), 200);
    assert_int_equal(ask("POST /profile_fetch"), 200);
    assert_string_equal(seen.comments, "started\n");
    window_error = -ENOMEM; /* a failure leaves what was there */
    assert_int_equal(ask("GET /profile?duration=1"), 503);
    window_error = 0;
    plan.failing = 'm';
    assert_int_equal(ask("GET /profile?duration=1"), 503);
    plan.failing = 0;
    assert_int_equal(ask("GET /profile_fetch"), 200);
    assert_string_equal(seen.comments, "started\n");
    refuses("GET /profile_fetch?format=x", 400,
            "format must be one of pprof, svg, html, collapsed, text, top, tree, flat, json.\n");
}

static void test_clear_ends_what_runs(void **state) {
    (void)state;
    assert_int_equal(ask("GET /profile_start"), 200);
    assert_int_equal(ask("GET /profile_wall_start"), 200);
    assert_int_equal(begun, 2);
    assert_int_equal(ask("HEAD /profile_clear"), 200);
    assert_int_equal(begun, 2);
    assert_int_equal(ask("POST /profile_clear"), 200);
    assert_int_equal(begun, 0);
    refuses("GET /profile_fetch", 400, nothing);
}

static void test_room(void **state) {
    (void)state;
    assert_int_equal(ask("GET /profile?duration=1&n=10"), 200);
    assert_non_null(strstr(seen.comments, "\nThe room for samples was full (n=10): 100 were "));
    assert_int_equal(ask("GET /profile?duration=1&n=1e2"), 200);
    assert_string_equal(seen.comments, "cpu\n");
    assert_int_equal(ask("GET /profile_wall_start?n=99"), 200);
    assert_int_equal(ask("GET /profile_wall_stop"), 200);
    assert_non_null(strstr(seen.comments, "\nThe room for samples was full (n=99): 100 were "));
}

static void test_init(void **state) {
    (void)state;
    assert_int_equal(ask("GET /profile_init"), 200);
    assert_string_equal(body, "{\"n\": 100000000, \"delay\": 0.01}\n");
    assert_true(has("Content-Type: application/json\r\n"));
    assert_int_equal(ask("HEAD /profile_init?n=7"), 200);
    assert_int_equal(ask("GET /profile_init?n=10"), 200);
    assert_string_equal(body, "{\"n\": 10, \"delay\": 0.01}\n");
    assert_int_equal(ask("GET /profile_init?delay=0.0005"), 200);
    assert_string_equal(body, "{\"n\": 10, \"delay\": 0.0005}\n");
    assert_int_equal(ask("GET /profile?duration=1"), 200);
    assert_int_equal(window_seen.hz, 2000);
    assert_non_null(strstr(seen.comments, "(n=10)"));
    assert_int_equal(ask("GET /profile_wall?duration=1"), 200);
    assert_int_equal(window_seen.hz, 1000); /* as fine as the wall clock goes */
    assert_int_equal(ask("GET /profile?duration=1&delay=0.1"), 200);
    assert_int_equal(window_seen.hz, 10);
    refuses("GET /profile_init?delay=2", 400,
            "delay must be a number of seconds from 0.0001 to 1.\n");
    refuses("GET /profile_init?n=0", 400, "n must be a number from 1 up.\n");
    assert_int_equal(ask("GET /profile_init?n=1e8&delay=1"), 200);
    assert_string_equal(body, "{\"n\": 100000000, \"delay\": 1.0}\n");
    assert_int_equal(ask("GET /profile_init?delay=0.01"), 200);
}

static void test_callers(void **state) {
    (void)state;
    static const char lines[] = "lines must be a line or two with a colon between, as 10:20.\n";
    static const struct {
        const char *line, *sentence;
    } bad[] = {
        {"GET /profile_callers", "func must be the name of a function.\n"},
        {"GET /profile_callers?func=", "func must be the name of a function.\n"},
        {"GET /profile_callers?func=f&file=", "file must be a path or the end of one.\n"},
        {"GET /profile_callers?func=f&format=svg", "format must be text or json.\n"},
        {"GET /profile_callers?func=f&lines=", lines},
        {"GET /profile_callers?func=f&lines=0", lines},
        {"GET /profile_callers?func=f&lines=5:4", lines},
        {"GET /profile_callers?func=f&lines=5:", lines},
        {"GET /profile_callers?func=f&duration=0",
         "duration must be a number of seconds from 0.001 to 86400.\n"},
    };
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++)
        refuses(bad[i].line, 400, bad[i].sentence);
    assert_int_equal(ask("HEAD /profile_callers?func=f&duration=1"), 200);
    assert_int_equal(ask("GET /profile_callers?func=f&duration=2&delay=0.1&lines=5:6"), 200);
    assert_int_equal(window_seen.hz, 10);
    assert_int_equal(window_seen.duration_ns, 2000000000);
    assert_string_equal(body, " Count File:Line; Function\nTotal snapshots: 0\n");
    assert_int_equal(ask("GET /profile_callers?func=f&format=json"), 200); /* of the same */
    assert_string_equal(body, "[\n]\n");
    assert_int_equal(ask_with("GET /profile_callers?func=f", "Accept: application/json\r\n"), 200);
    assert_string_equal(body, "[\n]\n");
}

int main(void) {
#define WEB_TEST(f) cmocka_unit_test_setup_teardown(f, heap_web_setup, heap_web_teardown)
    const struct CMUnitTest tests[] = {
        WEB_TEST(test_the_last_one), WEB_TEST(test_clear_ends_what_runs),
        WEB_TEST(test_room),         WEB_TEST(test_init),
        WEB_TEST(test_callers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
