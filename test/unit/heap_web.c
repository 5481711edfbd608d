#include "test/unit/heap_web.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "http/render.h"
#include "test/unit/ask_routes.h"

/* This file is linked into every test; those with fakes of their own use theirs. */
#define FAKE __attribute__((weak))
FAKE int __wrap_pep_heap_begin(uint32_t rate_bytes);
FAKE void __wrap_pep_heap_end(uint32_t rate_bytes);
FAKE int __wrap_pep_heap_begin_probability(double probability);
FAKE void __wrap_pep_heap_end_probability(double probability);
FAKE void __wrap_pep_heap_state(struct pep_heap_state *state);
FAKE struct pep_heap_snapshot *__wrap_pep_heap_snapshot_take(struct pep_arena *arena);
FAKE struct pep_profile *__wrap_pep_profile_heap(struct pep_arena *arena,
                                                 const struct pep_heap_snapshot *before,
                                                 const struct pep_heap_query *query);
FAKE void __wrap_pep_render_body(struct pep_response *response, enum pep_format format,
                                 const struct pep_profile *profile, struct pep_arena *arena);
FAKE uint64_t __wrap_pep_os_clock_ns(clockid_t clock);
FAKE int __wrap_malloc_trim(size_t pad);

/* -- fakes ---------------------------------------------------------------------------------- */

struct heap_web_seen seen;
struct heap_web_plan plan;
int open_rates;
static uint64_t now_ns; /* moves only while somebody waits */
static char before_mark;
static double probability_begun; /* perhaps by an earlier question */

static void log_call(char letter) {
    size_t count = strlen(seen.calls);
    if (count < sizeof(seen.calls) - 1)
        seen.calls[count] = letter;
}

static int begin(void) {
    log_call('b');
    open_rates += plan.begin_error == 0;
    return plan.begin_error;
}

int __wrap_pep_heap_begin(uint32_t rate_bytes) {
    seen.rate_bytes = rate_bytes;
    return begin();
}

void __wrap_pep_heap_end(uint32_t rate_bytes) {
    assert_int_equal(rate_bytes, seen.rate_bytes);
    log_call('e');
    open_rates--;
}

int __wrap_pep_heap_begin_probability(double probability) {
    seen.probability = probability_begun = probability;
    return begin();
}

void __wrap_pep_heap_end_probability(double probability) {
    assert_true(probability == probability_begun);
    log_call('e');
    open_rates--;
}

void __wrap_pep_heap_state(struct pep_heap_state *state) {
    *state = plan.state;
}

struct pep_heap_snapshot *__wrap_pep_heap_snapshot_take(struct pep_arena *arena) {
    assert_non_null(arena);
    log_call('s');
    return plan.failing == 's' ? NULL : (struct pep_heap_snapshot *)&before_mark;
}

struct pep_profile *__wrap_pep_profile_heap(struct pep_arena *arena,
                                            const struct pep_heap_snapshot *before,
                                            const struct pep_heap_query *query) {
    static const char *comments[] = {"of the sampler"};
    log_call('p');
    seen.query = *query;
    seen.has_before = before != NULL;
    snprintf(seen.thread, sizeof(seen.thread), "%s",
             query->filter.thread ? query->filter.thread : "");
    struct pep_profile *profile =
        plan.failing == 'p' ? NULL : pep_arena_alloc(arena, sizeof(*profile));
    if (profile)
        *profile = (struct pep_profile){.kind = "heap", .comments = comments, .comment_count = 1};
    return profile;
}

void __wrap_pep_render_body(struct pep_response *response, enum pep_format format,
                            const struct pep_profile *profile, struct pep_arena *arena) {
    (void)arena;
    seen.format = format;
    seen.was_signed = profile->is_signed;
    seen.was_exact = profile->is_exact;
    seen.comments[0] = '\0';
    for (uint32_t i = 0; i < profile->comment_count; i++)
        snprintf(seen.comments + strlen(seen.comments), sizeof(seen.comments) - 256, "%.200s\n",
                 profile->comments[i]);
    pep_write_text(&response->writer, "rendered");
}

uint64_t __wrap_pep_os_clock_ns(clockid_t clock) {
    return clock == CLOCK_REALTIME ? 77 : now_ns;
}

int __wrap_malloc_trim(size_t pad) {
    assert_int_equal(pad, 0);
    log_call('t');
    return 1;
}

static bool wait_fake(struct pep_client *client, uint64_t ns) {
    (void)client;
    assert_true(ns <= PEP_WINDOW_SLICE_NS);
    seen.waits++;
    now_ns += ns;
    seen.waited_ns += ns;
    return !plan.leaves_after || seen.waits < plan.leaves_after;
}

/* -- asking --------------------------------------------------------------------------------- */

char *body;
static struct pep_client client = {wait_fake};

int ask_with(const char *line, const char *headers) {
    char text[2048];
    snprintf(text, sizeof(text), "%s HTTP/1.1", line);
    memset(&seen, 0, sizeof(seen));
    int status = ask_routes(text, headers);
    body = asked.end_error ? NULL : asked.body;
    return asked.end_error ? asked.end_error : status;
}

int ask(const char *line) {
    return ask_with(line, "");
}

bool has(const char *header) {
    return strstr(asked.wire, header) != NULL;
}

int count_of(const char *header) {
    int count = 0;
    for (const char *at = asked.wire; (at = strstr(at, header)) != NULL; at++)
        count++;
    return count;
}

void refuses(const char *line, int status, const char *sentence) {
    assert_int_equal(ask(line), status);
    assert_string_equal(body, sentence);
    assert_true(has("X-Go-Pprof: 1") && has("Content-Type: text/plain; charset=utf-8"));
    assert_false(has("Content-Disposition"));
    assert_int_equal(open_rates, 0);
}

int heap_web_setup(void **state) {
    (void)state;
    ask_routes_reset();
    asked.client = &client;
    now_ns = 12345;
    plan = (struct heap_web_plan){.state = {.rate_bytes = 524288, .has_live_map = true}};
    pep_on_allocs_after_fork_child();
    return 0;
}

int heap_web_teardown(void **state) {
    (void)state;
    assert_int_equal(open_rates, 0);
    pep_arena_drop(&asked.arena);
    return 0;
}
