/*
 * ProfileEndpoints' CPU and wall clock profiles, and the wall clock as Go would serve it: bodies,
 * parameters, start and stop. Samplers and encoders are fakes; small letters are the CPU's calls.
 * LDFLAGS: -Wl,--wrap=pep_cpu_begin,--wrap=pep_cpu_end,--wrap=pep_cpu_sweep
 * LDFLAGS: -Wl,--wrap=pep_cpu_snapshot_take,--wrap=pep_profile_cpu
 * LDFLAGS: -Wl,--wrap=pep_wall_begin,--wrap=pep_wall_end,--wrap=pep_wall_snapshot_take
 * LDFLAGS: -Wl,--wrap=pep_profile_wall
 * LDFLAGS: -Wl,--wrap=pep_render_body,--wrap=pep_os_clock_ns,--wrap=pep_calloc
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sampler/cpu.h"
#include "sampler/wall.h"
#include "test/unit/heap_web.h"

void *__real_pep_calloc(size_t count, size_t size);
void *__wrap_pep_calloc(size_t count, size_t size);
int __wrap_pep_cpu_begin(uint32_t hz);
void __wrap_pep_cpu_end(uint32_t hz);
void __wrap_pep_cpu_sweep(void);
struct pep_cpu_snapshot *__wrap_pep_cpu_snapshot_take(struct pep_arena *arena);
struct pep_profile *__wrap_pep_profile_cpu(struct pep_arena *arena,
                                           const struct pep_cpu_snapshot *before, uint32_t hz,
                                           const struct pep_profile_filter *filter);
int __wrap_pep_wall_begin(uint32_t hz);
void __wrap_pep_wall_end(uint32_t hz);
struct pep_cells_snapshot *__wrap_pep_wall_snapshot_take(struct pep_arena *arena);
struct pep_profile *__wrap_pep_profile_wall(struct pep_arena *arena,
                                            const struct pep_cells_snapshot *before, uint32_t hz,
                                            const struct pep_profile_filter *filter);

static struct pep_profile result;
static char before_mark;
static uint32_t hz_seen, hz_begun;

void *__wrap_pep_calloc(size_t count, size_t size) {
    return plan.failing == 'm' ? NULL : __real_pep_calloc(count, size);
}

static void log_call(char letter) {
    size_t count = strlen(seen.calls);
    if (count < sizeof(seen.calls) - 1)
        seen.calls[count] = letter;
}

static int begin(char letter, uint32_t hz) {
    log_call(letter);
    hz_seen = hz_begun = hz;
    open_rates += plan.begin_error == 0;
    return plan.begin_error;
}

static void end(char letter, uint32_t hz) {
    log_call(letter);
    assert_int_equal(hz, hz_begun);
    open_rates--;
}

static struct pep_profile *make(char letter, const void *before,
                                const struct pep_profile_filter *filter) {
    log_call(letter);
    assert_ptr_equal(before, &before_mark);
    snprintf(seen.thread, sizeof(seen.thread), "%s", filter->thread ? filter->thread : "");
    return plan.failing == 'p' ? NULL : &result;
}

int __wrap_pep_cpu_begin(uint32_t hz) {
    return begin('b', hz);
}

void __wrap_pep_cpu_end(uint32_t hz) {
    end('e', hz);
}

void __wrap_pep_cpu_sweep(void) {
}

struct pep_cpu_snapshot *__wrap_pep_cpu_snapshot_take(struct pep_arena *arena) {
    (void)arena;
    log_call('s');
    return plan.failing == 's' ? NULL : (struct pep_cpu_snapshot *)&before_mark;
}

struct pep_profile *__wrap_pep_profile_cpu(struct pep_arena *arena,
                                           const struct pep_cpu_snapshot *before, uint32_t hz,
                                           const struct pep_profile_filter *filter) {
    (void)arena;
    assert_int_equal(hz, hz_begun);
    return make('p', before, filter);
}

int __wrap_pep_wall_begin(uint32_t hz) {
    return begin('B', hz);
}

void __wrap_pep_wall_end(uint32_t hz) {
    end('E', hz);
}

struct pep_cells_snapshot *__wrap_pep_wall_snapshot_take(struct pep_arena *arena) {
    (void)arena;
    log_call('S');
    return plan.failing == 's' ? NULL : (struct pep_cells_snapshot *)&before_mark;
}

struct pep_profile *__wrap_pep_profile_wall(struct pep_arena *arena,
                                            const struct pep_cells_snapshot *before, uint32_t hz,
                                            const struct pep_profile_filter *filter) {
    (void)arena;
    assert_int_equal(hz, hz_begun);
    return make('P', before, filter);
}

/* -- as Go would serve it --------------------------------------------------------------------- */

static void wall_takes_what_profile_takes(void **state) {
    (void)state;
    static const char *const paths[] = {"/debug/pprof/wall", "/debug/fgprof"};
    static const char *const names[] = {"wall", "fgprof"};
    char line[128];
    for (int i = 0; i < 2; i++) {
        snprintf(line, sizeof(line), "GET %s?seconds=2&hz=1000&thread=io", paths[i]);
        assert_int_equal(ask(line), 200);
        assert_string_equal(seen.calls, "SBPE");
        assert_int_equal(hz_seen, 1000);
        assert_int_equal(seen.waited_ns, 2000000000u);
        assert_string_equal(seen.thread, "io");
        assert_true(has("Content-Type: application/octet-stream\r\n"));
        snprintf(line, sizeof(line), "filename=\"%s\"", names[i]);
        assert_true(has(line));
        snprintf(line, sizeof(line), "HEAD %s", paths[i]);
        assert_int_equal(ask(line), 200);
        assert_string_equal(seen.calls, "");
        snprintf(line, sizeof(line), "GET %s?hz=1001", paths[i]);
        refuses(line, 400, "hz must be a whole number from 1 to 1000.\n");
        snprintf(line, sizeof(line), "POST %s?seconds=1", paths[i]);
        assert_int_equal(ask(line), 405);
    }
}

static void wall_says_what_went_wrong(void **state) {
    (void)state;
    plan.begin_error = -EAGAIN;
    refuses("GET /debug/pprof/wall?seconds=1&hz=50", 500,
            "The wall clock reader could not be started.\n");
    plan.begin_error = 0;
    plan.failing = 's';
    refuses("GET /debug/pprof/wall?seconds=1&hz=50", 503, "Not enough memory for this profile.\n");
    plan.failing = 'p';
    refuses("GET /debug/pprof/wall?seconds=1&hz=50", 503, "Not enough memory for this profile.\n");
    plan.failing = 0;
    plan.leaves_after = 2;
    assert_int_equal(ask("GET /debug/pprof/wall?seconds=100&hz=50"), 500);
    assert_string_equal(seen.calls, "SBE");
    assert_int_equal(open_rates, 0);
}

/* -- ProfileEndpoints ------------------------------------------------------------------------- */

static void one_question_one_profile(void **state) {
    (void)state;
    assert_int_equal(ask("GET /profile?duration=0.25&delay=0.0001&n=1e8&pprof=true"), 200);
    assert_string_equal(seen.calls, "sbpe");
    assert_int_equal(hz_seen, 10000);
    assert_int_equal(seen.waited_ns, 250000000u);
    assert_true(has("filename=\"profile\""));
    assert_int_equal(ask("POST /profile_wall?delay=0.003&thread=w&format=top"), 200);
    assert_string_equal(seen.calls, "SBPE");
    assert_int_equal(hz_seen, 333);
    assert_int_equal(seen.waited_ns, 10000000000u);
    assert_string_equal(seen.thread, "w");
    assert_int_equal(seen.format, PEP_FORMAT_TEXT);
    assert_int_equal(ask("GET /profile_wall?pprof=true"), 200);
    assert_int_equal(hz_seen, 100);
    assert_true(has("filename=\"profile_wall\""));
    assert_int_equal(ask("HEAD /profile_wall?duration=1"), 200);
    assert_string_equal(seen.calls, "");
    plan.leaves_after = 2;
    assert_int_equal(ask("GET /profile_wall?duration=86400"), 500);
    assert_int_equal(open_rates, 0);
}

static void asked_nothing_it_tells_what_to_ask(void **state) {
    (void)state;
    static const char *const paths[] = {"GET /profile", "GET /profile_wall"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ask(paths[i]), 400);
        assert_ptr_equal(strstr(body, "Need to provide query params:\n    - duration=10.0\n"
                                      "    - delay=0.01\n    - n=1e8\n    - pprof=true\n\nHint: "),
                         body);
        assert_int_equal(ask_with(paths[i], "Accept: text/html,*/*\r\n"), 200);
        assert_non_null(strstr(body, "name=\"duration\" value=\"10\""));
        assert_non_null(strstr(body, "name=\"delay\" value=\"0.01\" min=\"0.001\" max=\"1\""));
        assert_non_null(strstr(body, i ? "action=\"profile_wall\"" : "action=\"profile\""));
        assert_string_equal(seen.calls, "");
    }
}

static void bad_words_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *line, *sentence;
    } bad[] = {
        {"GET /profile?delay=0.00009", "delay must be a number of seconds from 0.0001 to 1.\n"},
        {"GET /profile_wall?delay=0.0009", "delay must be a number of seconds from 0.001 to 1.\n"},
        {"GET /profile_wall_start?delay=2", "delay must be a number of seconds from 0.001 to 1.\n"},
        {"GET /profile?duration=0", "duration must be a number of seconds from 0.001 to 86400.\n"},
        {"GET /profile?n=0", "n must be a number from 1 up.\n"},
        {"GET /profile_start?n=x", "n must be a number from 1 up.\n"},
        {"GET /profile?pprof=1", "pprof must be true or false.\n"},
        {"GET /profile_stop?pprof=", "pprof must be true or false.\n"},
        {"GET /profile_wall?duration=1&format=x",
         "format must be one of pprof, svg, html, collapsed, text, top, tree, flat, json.\n"},
        {"GET /profile_wall_stop?format=x",
         "format must be one of pprof, svg, html, collapsed, text, top, tree, flat, json.\n"},
    };
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++) {
        refuses(bad[i].line, 400, bad[i].sentence);
        assert_string_equal(seen.calls, "");
    }
    assert_int_equal(ask("GET /profile?pprof=false&duration=1"), 200);
    assert_int_equal(seen.format, PEP_FORMAT_JSON);
    assert_int_equal(ask("GET /profile?pprof=false&duration=1&format=flat"), 200);
    assert_int_equal(seen.format, PEP_FORMAT_FLAT);
}

static void start_and_stop(void **state) {
    (void)state;
    hz_begun = 100;
    result.sample_count = 1;
    assert_int_equal(ask("GET /profile_stop"), 200); /* as if the buffer were empty */
    assert_string_equal(seen.calls, "sp");
    assert_int_equal(result.sample_count, 0);
    assert_int_equal(ask("GET /profile_wall_stop?format=json"), 200);
    assert_string_equal(seen.calls, "SP");
    assert_int_equal(seen.format, PEP_FORMAT_JSON);
    plan.failing = 's';
    refuses("GET /profile_stop", 503, "Not enough memory for this profile.\n");
    plan.failing = 'p';
    refuses("GET /profile_wall_stop", 503, "Not enough memory for this profile.\n");
    plan.failing = 0;
    result.kind = "wall";
    assert_int_equal(ask("GET /profile_wall?duration=0.1&delay=0.01"), 200);
    assert_int_equal(ask("GET /profile_wall_stop"), 200); /* what is in it, is answered */
    assert_string_equal(seen.calls, "");
    assert_int_equal(ask("GET /profile_stop"), 200);
    assert_string_equal(seen.calls, "sp");
    result.kind = NULL;
    assert_int_equal(ask("HEAD /profile_wall_start"), 200);
    assert_string_equal(seen.calls, "");
    assert_int_equal(ask("GET /profile_wall_start?delay=0.005"), 200);
    assert_string_equal(body, "WALL_PROFILE profiling started.");
    assert_string_equal(seen.calls, "SB");
    assert_int_equal(hz_seen, 200);
    assert_int_equal(ask("GET /profile_wall_start?delay=0.005"), 200); /* begins again */
    assert_string_equal(seen.calls, "SBE");
    assert_int_equal(open_rates, 1);
    plan.failing = 'p';
    assert_int_equal(ask("GET /profile_wall_stop"), 503);
    assert_int_equal(open_rates, 1);
    plan.failing = 0;
    assert_int_equal(ask("HEAD /profile_wall_stop"), 200);
    assert_int_equal(ask("GET /profile_wall_stop?format=collapsed"), 200);
    assert_string_equal(seen.calls, "PE");
    assert_int_equal(seen.format, PEP_FORMAT_COLLAPSED);
    assert_string_equal(body, "rendered");
    assert_int_equal(ask("POST /profile_wall_stop"), 200); /* the same once more */
    assert_string_equal(seen.calls, "");
    assert_string_equal(body, "rendered");
    assert_int_equal(ask("GET /profile_start"), 200); /* the other clock's is another */
    assert_string_equal(body, "CPU_PROFILE profiling started.");
    assert_string_equal(seen.calls, "sb");
    assert_int_equal(ask("GET /profile_wall_stop"), 200);
    assert_string_equal(seen.calls, "");
    assert_int_equal(ask("GET /profile_stop"), 200);
    assert_string_equal(seen.calls, "pe");
    assert_int_equal(open_rates, 0);
}

static void a_start_that_fails_leaves_nothing(void **state) {
    (void)state;
    pep_on_endpoints_after_fork_child(); /* what another test recorded is not ours */
    plan.failing = 'm';
    refuses("GET /profile_wall_start", 503, "Not enough memory for this profile.\n");
    plan.failing = 's';
    refuses("GET /profile_start", 503, "Not enough memory for this profile.\n");
    plan.failing = 0;
    plan.begin_error = -EAGAIN;
    refuses("GET /profile_start", 500, "The CPU sampler could not be started.\n");
    refuses("GET /profile_wall_start", 500, "The wall clock reader could not be started.\n");
}

int main(void) {
#define WEB_TEST(f) cmocka_unit_test_setup_teardown(f, heap_web_setup, heap_web_teardown)
    const struct CMUnitTest tests[] = {
        WEB_TEST(wall_takes_what_profile_takes),
        WEB_TEST(wall_says_what_went_wrong),
        WEB_TEST(one_question_one_profile),
        WEB_TEST(asked_nothing_it_tells_what_to_ask),
        WEB_TEST(bad_words_are_refused),
        WEB_TEST(start_and_stop),
        WEB_TEST(a_start_that_fails_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
