/*
 * Threads over HTTP: what is asked of the dump and of the births, and in which form it is answered.
 * LDFLAGS: -Wl,--wrap=pep_dump_take,--wrap=pep_dump_count,--wrap=pep_profile_threadcreate
 * LDFLAGS: -Wl,--wrap=pep_birth_snapshot_take,--wrap=pep_render_body,--wrap=pep_os_clock_ns
 * LDFLAGS: -Wl,--wrap=pep_symbolizer_begin,--wrap=pep_symbolizer_end
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "http/render.h"
#include "http/window.h"
#include "test/unit/example_dump.h"
#include "test/unit/example_profile.h"
#include "test/unit/heap_web.h"

struct pep_dump *__wrap_pep_dump_take(struct pep_arena *arena,
                                      const struct pep_dump_options *options);
uint32_t __wrap_pep_dump_count(void);
struct pep_profile *__wrap_pep_profile_threadcreate(struct pep_arena *arena, bool is_live,
                                                    const struct pep_cells_snapshot *before,
                                                    const struct pep_profile_filter *filter);
struct pep_cells_snapshot *__wrap_pep_birth_snapshot_take(struct pep_arena *arena);
void __wrap_pep_render_body(struct pep_response *response, enum pep_format format,
                            const struct pep_profile *profile, struct pep_arena *arena);
struct pep_symbolizer *__wrap_pep_symbolizer_begin(struct pep_arena *arena);
void __wrap_pep_symbolizer_end(struct pep_symbolizer *symbolizer);

#define ACCEPT_HTML "Accept: text/html,application/xml;q=0.9,*/*;q=0.8\r\n"

/* -- fakes ---------------------------------------------------------------------------------- */

static int dumps, failing_dump, births, snapshots, open_symbolizers;
static bool has_no_symbolizer, has_no_births, has_no_snapshot, was_live, had_before, is_changing;
static char thread_seen[64];
static enum pep_format format_seen;
static struct pep_profile rendered;
static struct pep_sample rendered_samples[32];

static void note_thread(const char *thread) {
    strncpy(thread_seen, thread ? thread : "", sizeof(thread_seen) - 1);
}

/* While is_changing the second dump lacks the main thread, and thread 12 does something else in it.
 */
struct pep_dump *__wrap_pep_dump_take(struct pep_arena *arena,
                                      const struct pep_dump_options *options) {
    note_thread(options->filter.thread);
    if (++dumps == failing_dump)
        return NULL;
    struct pep_dump *dump = pep_arena_alloc(arena, sizeof(*dump));
    struct pep_profile *profile = pep_arena_alloc(arena, sizeof(*profile));
    assert_true(dump && profile);
    *dump = example_dump;
    *profile = *example_dump.profile;
    dump->profile = profile;
    if (dumps == 2 && is_changing) {
        struct pep_sample *samples =
            pep_arena_array(arena, profile->sample_count, sizeof(*samples));
        memcpy(samples, profile->samples, profile->sample_count * sizeof(*samples));
        samples[1].state = "running";
        profile->samples = samples + 1;
        profile->sample_count--;
        dump->time_ns += 2000000000;
    }
    return dump;
}

uint32_t __wrap_pep_dump_count(void) {
    return 4242;
}

struct pep_profile *__wrap_pep_profile_threadcreate(struct pep_arena *arena, bool is_live,
                                                    const struct pep_cells_snapshot *before,
                                                    const struct pep_profile_filter *filter) {
    births++;
    was_live = is_live;
    had_before = before != NULL;
    note_thread(filter->thread);
    return has_no_births ? NULL : pep_arena_alloc(arena, sizeof(struct pep_profile));
}

struct pep_cells_snapshot *__wrap_pep_birth_snapshot_take(struct pep_arena *arena) {
    struct pep_cells_snapshot *snapshot =
        pep_arena_alloc(arena, sizeof(*snapshot) + 2 * sizeof(snapshot->cells[0]));
    snapshots++;
    snapshot->cell_count = 2;
    snapshot->cells[0].count = 1000;
    snapshot->cells[1].count = 234;
    return has_no_snapshot ? NULL : snapshot;
}

void __wrap_pep_render_body(struct pep_response *response, enum pep_format format,
                            const struct pep_profile *profile, struct pep_arena *arena) {
    (void)arena;
    format_seen = format;
    rendered = *profile;
    assert_true(profile->sample_count <= 32);
    for (uint32_t i = 0; i < profile->sample_count; i++)
        rendered_samples[i] = profile->samples[i];
    pep_write_text(&response->writer, "rendered");
}

struct pep_symbolizer *__wrap_pep_symbolizer_begin(struct pep_arena *arena) {
    (void)arena;
    open_symbolizers += !has_no_symbolizer;
    return has_no_symbolizer ? NULL : &example_symbolizer;
}

void __wrap_pep_symbolizer_end(struct pep_symbolizer *symbolizer) {
    assert_ptr_equal(symbolizer, &example_symbolizer);
    open_symbolizers--;
}

static int setup(void **state) {
    dumps = failing_dump = births = snapshots = open_symbolizers = 0;
    has_no_symbolizer = has_no_births = has_no_snapshot = was_live = had_before = is_changing =
        false;
    rendered = (struct pep_profile){.kind = NULL};
    return heap_web_setup(state);
}

static int teardown(void **state) {
    assert_int_equal(open_symbolizers, 0);
    return heap_web_teardown(state);
}

/* -- tests ---------------------------------------------------------------------------------- */

static void a_tool_gets_the_profile(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/goroutine"), 200);
    assert_int_equal(format_seen, PEP_FORMAT_PPROF);
    assert_true(has("filename=\"goroutine\"") && has("Content-Type: application/octet-stream"));
    assert_int_equal(rendered.sample_count, example_dump.task_count);
    assert_int_equal(ask("GET /debug/pprof/threads?thread=wor"), 200);
    assert_true(has("filename=\"threads\""));
    assert_string_equal(thread_seen, "wor");
    assert_int_equal(ask("GET /debug/pprof/threads?debug=1"), 200);
    assert_int_equal(format_seen, PEP_FORMAT_COUNT);
    assert_true(has("Content-Type: text/plain; charset=utf-8"));
    assert_int_equal(dumps, 3);
}

static void debug_2_is_every_stack(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/goroutine?debug=2"), 200);
    assert_true(has("Content-Type: text/plain; charset=utf-8"));
    assert_false(has("Content-Disposition"));
    assert_int_equal(strncmp(body, "# deadlock: 2 threads", 21), 0);
    assert_non_null(strstr(body, "goroutine 4711 [running, locked to thread]:\n"));
    assert_int_equal(ask_with("GET /debug/pprof/goroutine?debug=2", ACCEPT_HTML), 200);
    assert_int_equal(strncmp(body, "# deadlock: 2 threads", 21), 0);
}

static void a_browser_gets_the_page(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        int status = i == 0 ? ask_with("GET /debug/pprof/threads", ACCEPT_HTML)
                            : ask("GET /debug/pprof/threads?format=html");
        assert_int_equal(status, 200);
        assert_true(has("Content-Type: text/html; charset=utf-8"));
        assert_true(has("Content-Security-Policy: default-src 'none'"));
        assert_non_null(strstr(body, "<h2>Deadlock: 2 threads wait for each other</h2>"));
        assert_non_null(strstr(body, ": 7 threads</h1>"));
    }
    assert_int_equal(ask_with("GET /debug/pprof/threads?format=flame", ACCEPT_HTML), 200);
    assert_string_equal(body, "rendered");
    assert_int_equal(format_seen, PEP_FORMAT_HTML);
    assert_int_equal(ask_with("GET /debug/pprof/threads?format=svg", ACCEPT_HTML), 200);
    assert_int_equal(format_seen, PEP_FORMAT_SVG);
    assert_int_equal(ask_with("GET /debug/pprof/threads?seconds=2", ACCEPT_HTML), 200);
    assert_int_equal(format_seen, PEP_FORMAT_HTML); /* of a difference: the graph */
    assert_string_equal(body, "rendered");
}

static int64_t value_of(int tid, const char *doing) {
    for (uint32_t i = 0; i < rendered.sample_count; i++)
        if (rendered_samples[i].tid == tid && strcmp(rendered_samples[i].state, doing) == 0)
            return rendered_samples[i].values[0];
    return 0;
}

static void a_window_is_a_difference(void **state) {
    (void)state;
    is_changing = true;
    assert_int_equal(ask("GET /debug/pprof/goroutine?seconds=2"), 200);
    assert_true(has("filename=\"goroutine-delta\""));
    assert_int_equal(seen.waited_ns, 2000000000);
    assert_int_equal(dumps, 2);
    assert_true(rendered.is_signed);
    assert_int_equal(rendered.duration_ns, 2000000000);
    assert_int_equal(rendered.sample_count, 3);
    assert_int_equal(value_of(4711, "running"), -1);
    assert_int_equal(value_of(12, "mutex"), -1);
    assert_int_equal(value_of(12, "running"), 1);
}

static void what_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"goroutine?seconds=0", "threads?seconds=x",
                                      "threadcreate?seconds=-1"};
    for (size_t i = 0; i < 3; i++) {
        char line[64] = "GET /debug/pprof/";
        refuses(strcat(line, bad[i]), 400,
                "invalid value for \"seconds\" - must be a positive integer\n");
    }
    refuses("GET /debug/pprof/goroutine?seconds=1&debug=2", 400,
            "seconds and debug params are incompatible\n");
    refuses("GET /debug/pprof/threadcreate?seconds=1&debug=1", 400,
            "seconds and debug params are incompatible\n");
    refuses("GET /debug/pprof/threadcreate?live=2", 400, "live must be 0 or 1.\n");
    refuses("GET /debug/pprof/threadcreate?live=1&seconds=1", 400,
            "live is for now: it takes no seconds.\n");
    assert_int_equal(ask("GET /debug/pprof/threads?format=xml"), 400);
    assert_int_equal(ask("GET /debug/pprof/threads?thread="), 400);
    assert_int_equal(ask("GET /task_backtraces?thread="), 400);
    assert_int_equal(ask("POST /debug/pprof/threads"), 405);
    assert_int_equal(ask("POST /debug/pprof/threadcreate"), 405);
    assert_int_equal(dumps + births, 0);
}

static void head_looks_at_nobody(void **state) {
    (void)state;
    assert_int_equal(ask("HEAD /debug/pprof/threads"), 200);
    assert_true(has("filename=\"threads\""));
    assert_int_equal(ask("HEAD /debug/pprof/goroutine?debug=2"), 200);
    assert_true(has("Content-Type: text/plain; charset=utf-8"));
    assert_int_equal(ask_with("HEAD /debug/pprof/threads", ACCEPT_HTML), 200);
    assert_true(has("Content-Type: text/html; charset=utf-8"));
    assert_int_equal(ask("HEAD /debug/pprof/threadcreate?seconds=9"), 200);
    assert_true(has("filename=\"threadcreate-delta\""));
    assert_int_equal(ask("HEAD /task_backtraces"), 200);
    assert_false(has("Content-Length"));
    assert_int_equal(dumps + births + seen.waits, 0);
}

static void who_made_the_threads(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/threadcreate"), 200);
    assert_int_equal(format_seen, PEP_FORMAT_PPROF);
    assert_true(has("filename=\"threadcreate\""));
    assert_false(was_live || had_before);
    assert_int_equal(ask("GET /debug/pprof/threadcreate?live=1&debug=1&thread=io"), 200);
    assert_int_equal(format_seen, PEP_FORMAT_COUNT);
    assert_string_equal(thread_seen, "io");
    assert_true(was_live && !had_before);
    assert_int_equal(ask("GET /debug/pprof/threadcreate?seconds=3&live=0"), 200);
    assert_true(has("filename=\"threadcreate-delta\""));
    assert_int_equal(seen.waited_ns, 3000000000);
    assert_true(!was_live && had_before);
    assert_int_equal(ask_with("GET /debug/pprof/threadcreate", ACCEPT_HTML), 200);
    assert_int_equal(format_seen, PEP_FORMAT_HTML);
}

static void julias_form(void **state) {
    (void)state;
    static const char *const lines[] = {"GET /task_backtraces?thread=w", "POST /task_backtraces"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(ask(lines[i]), 200);
        assert_true(has("Content-Type: text/plain; charset=utf-8"));
        assert_int_equal(strncmp(body, "==== Thread 4711 created 1 live tasks\n", 38), 0);
    }
    assert_int_equal(ask_with("GET /task_backtraces", ACCEPT_HTML), 200);
    assert_int_equal(strncmp(body, "==== Thread 4711 ", 17), 0);
}

static void the_index_counts(void **state) {
    (void)state;
    assert_int_equal(ask("GET /debug/pprof/"), 200);
    assert_non_null(strstr(body, ">4242</td><td><a href=\"goroutine?debug=2\">goroutine</a>"));
    assert_non_null(strstr(body, ">4242</td><td><a href=\"threads\">threads</a>"));
    assert_non_null(strstr(body, ">1234</td><td><a href=\"threadcreate?debug=1\">"));
    has_no_snapshot = true;
    assert_int_equal(ask("GET /debug/pprof/"), 200);
    assert_non_null(strstr(body, ">0</td><td><a href=\"threadcreate?debug=1\">"));
}

static void memory_that_is_refused(void **state) {
    (void)state;
    static const char sentence[] = "Not enough memory for this profile.\n";
    failing_dump = 1;
    refuses("GET /debug/pprof/threads", 503, sentence);
    dumps = 0;
    refuses("GET /debug/pprof/threads?seconds=1", 503, sentence);
    assert_int_equal(seen.waits, 0);
    dumps = 0;
    failing_dump = 2;
    refuses("GET /debug/pprof/threads?seconds=1", 503, sentence);
    failing_dump = 0;
    has_no_symbolizer = true;
    refuses("GET /debug/pprof/threads?debug=2", 503, sentence);
    has_no_births = true;
    refuses("GET /debug/pprof/threadcreate", 503, sentence);
    has_no_snapshot = true;
    refuses("GET /debug/pprof/threadcreate?seconds=1", 503, sentence);
}

static void a_client_that_leaves(void **state) {
    (void)state;
    plan.leaves_after = 3;
    assert_int_equal(ask("GET /debug/pprof/threads?seconds=60"), 500);
    assert_int_equal(dumps, 1);
    assert_int_equal(ask("GET /debug/pprof/threadcreate?seconds=60"), 500);
    assert_int_equal(births, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_tool_gets_the_profile), TEST(debug_2_is_every_stack),
        TEST(a_browser_gets_the_page), TEST(a_window_is_a_difference),
        TEST(what_is_refused),         TEST(head_looks_at_nobody),
        TEST(who_made_the_threads),    TEST(julias_form),
        TEST(the_index_counts),        TEST(memory_that_is_refused),
        TEST(a_client_that_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
