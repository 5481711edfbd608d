/*
 * Routes and answers: every row of the table, Go's headers, refusals, and what goes over the wire
 * byte by byte. The sampler and the encoders are fakes.
 * LDFLAGS: -Wl,--wrap=pep_window_run,--wrap=pep_window_modules
 * LDFLAGS: -Wl,--wrap=pep_render_body,--wrap=pep_symbolizer_begin
 * LDFLAGS: -Wl,--wrap=pep_symbolizer_end,--wrap=pep_cpu_state
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encoder/symbolize.h"
#include "http/render.h"
#include "http/routes.h"
#include "sampler/cpu.h"
#include "sampler/rt/counters.h"
#include "test/unit/ask_routes.h"

int __wrap_pep_window_run(struct pep_arena *arena, const struct pep_window *window,
                          struct pep_profile **profile);
struct pep_profile *__wrap_pep_window_modules(struct pep_arena *arena);
void __wrap_pep_render_body(struct pep_response *response, enum pep_format format,
                            const struct pep_profile *profile, struct pep_arena *arena);
struct pep_symbolizer *__wrap_pep_symbolizer_begin(struct pep_arena *arena);
void __wrap_pep_symbolizer_end(struct pep_symbolizer *symbolizer);
void __wrap_pep_cpu_state(struct pep_cpu_state *state);

/* -- fakes ---------------------------------------------------------------------------------- */

static struct pep_sample sample;
static struct pep_profile profile = {.samples = &sample, .sample_count = 1};
static struct pep_window window_seen;
static int windows_run, window_error, symbolizers_open, render_error;
static size_t render_bytes;
static enum pep_format format_seen;

int __wrap_pep_window_run(struct pep_arena *arena, const struct pep_window *window,
                          struct pep_profile **to) {
    (void)arena;
    window_seen = *window;
    windows_run++;
    *to = window_error ? NULL : &profile;
    return window_error;
}

struct pep_profile *__wrap_pep_window_modules(struct pep_arena *arena) {
    (void)arena;
    return window_error ? NULL : &profile;
}

void __wrap_pep_render_body(struct pep_response *response, enum pep_format format,
                            const struct pep_profile *from, struct pep_arena *arena) {
    (void)arena;
    assert_ptr_equal(from, &profile);
    format_seen = format;
    for (size_t i = 0; i < render_bytes; i++)
        pep_write(&response->writer, "x", 1);
    if (render_error)
        response->writer.error = render_error;
}

static int look_up(struct pep_symbolizer *symbolizer, const struct pep_profile *of, uintptr_t pc,
                   struct pep_frame *frames, int max) {
    (void)symbolizer;
    (void)of;
    assert_true(max >= 1);
    frames[0] = (struct pep_frame){.name = pc == 0x401136 ? "main" : "ns::f(int)",
                                   .is_known = pc != 0x5000};
    return 1;
}

static struct pep_symbolizer symbolizer = {.lookup = look_up};

struct pep_symbolizer *__wrap_pep_symbolizer_begin(struct pep_arena *arena) {
    (void)arena;
    symbolizers_open++;
    return &symbolizer;
}

void __wrap_pep_symbolizer_end(struct pep_symbolizer *of) {
    assert_ptr_equal(of, &symbolizer);
    symbolizers_open--;
}

void __wrap_pep_cpu_state(struct pep_cpu_state *state) {
    *state = (struct pep_cpu_state){.signal = 64, .windows = 3, .note = "no \"perf\""};
}

/* -- asking --------------------------------------------------------------------------------- */

static bool has(const char *header) {
    return strstr(asked.wire, header) != NULL;
}

static int reset(void **state) {
    (void)state;
    ask_routes_reset();
    windows_run = window_error = render_error = 0;
    render_bytes = 10;
    return 0;
}

static int check(void **state) {
    (void)state;
    assert_int_equal(symbolizers_open, 0);
    pep_arena_drop(&asked.arena);
    return 0;
}

static void expect_sentence(const char *sentence) {
    assert_true(has("X-Go-Pprof: 1") && has("Content-Type: text/plain; charset=utf-8"));
    assert_true(has("X-Content-Type-Options: nosniff") && has("Connection: close"));
    assert_false(has("Content-Disposition"));
    assert_string_equal(asked.body, sentence);
}

/* -- tests ---------------------------------------------------------------------------------- */

static void test_simple_routes(void **state) {
    (void)state;
    assert_int_equal(ask_routes("GET /healthz HTTP/1.1", ""), 200);
    assert_string_equal(asked.body, "ok\n");
    assert_true(has("HTTP/1.1 200 OK\r\n") && has("Content-Length: 3"));
    assert_int_equal(ask_routes("HEAD /healthz HTTP/1.0", ""), 200);
    assert_true(has("HTTP/1.0 200 OK\r\n") && has("Content-Length: 3"));
    assert_string_equal(asked.body, "");
    assert_int_equal(ask_routes("GET /debug/pprof?a=b HTTP/1.1", ""), 301);
    assert_true(has("Location: /debug/pprof/?a=b"));
    assert_int_equal(ask_routes("GET /debug/pprof HTTP/1.1", ""), 301);
    assert_true(has("Location: /debug/pprof/\r\n"));
    assert_int_equal(ask_routes("GET / HTTP/1.1", ""), 301);
}

static void test_index(void **state) {
    (void)state;
    assert_int_equal(ask_routes("GET /debug/pprof/ HTTP/1.1", ""), 200);
    assert_true(has("Content-Type: text/html; charset=utf-8"));
    assert_non_null(strstr(asked.body, "<th class=\"count\">Count</th><th>Profile</th>"));
    assert_non_null(strstr(asked.body, "href=\"profile\""));
    assert_non_null(strstr(asked.body, "href=\"cmdline\""));
    assert_non_null(strstr(asked.body, "href=\"symbol\""));
    assert_true(strstr(asked.body, "\"allocs\">") < strstr(asked.body, "\"cmdline\">"));
    assert_true(strstr(asked.body, "\"cmdline\">") < strstr(asked.body, "\"heap\">"));
    assert_null(strstr(asked.body, "href=\"/")); /* links work behind a prefix */
    assert_null(strstr(asked.body, "http"));
}

static void test_unknown(void **state) {
    (void)state;
    uint64_t refused = PEP_COUNTED(http_refused);
    assert_int_equal(ask_routes("GET /debug/pprof/nonsense HTTP/1.1", ""), 404);
    expect_sentence("Unknown profile\n");
    assert_int_equal(ask_routes("GET /debug/pprof/profile/ HTTP/1.1", ""), 404);
    assert_int_equal(ask_routes("GET /nothing HTTP/1.1", ""), 404);
    expect_sentence("There is nothing at this path; /debug/pprof/ lists what there is.\n");
    assert_int_equal(PEP_COUNTED(http_refused), refused + 3);
}

static void test_methods(void **state) {
    (void)state;
    assert_int_equal(ask_routes("POST /debug/pprof/profile HTTP/1.1", ""), 405);
    expect_sentence("This path answers GET, HEAD only.\n");
    assert_true(has("Allow: GET, HEAD\r\n"));
    assert_int_equal(ask_routes("DELETE /debug/pprof/symbol HTTP/1.1", ""), 405);
    assert_true(has("Allow: GET, HEAD, POST"));
    assert_int_equal(ask_routes("OPTIONS /healthz HTTP/1.1", ""), 405);
    for (size_t i = 0; i < pep_routes_count; i++) {
        char line[128];
        snprintf(line, sizeof(line), "PUT %s?delay=x&sample_rate=x&format=x&thread= HTTP/1.1",
                 pep_routes[i].path);
        /* ProfileEndpoints' routes answer every method, as those of its server do. */
        assert_int_equal(ask_routes(line, "") != 405, (pep_routes[i].methods & PEP_PUT) != 0);
        snprintf(line, sizeof(line), "PROPFIND %s HTTP/1.1", pep_routes[i].path);
        assert_int_equal(ask_routes(line, ""), 405);
        snprintf(line, sizeof(line), "HEAD %s?x=1 HTTP/1.1", pep_routes[i].path);
        int status = ask_routes(line, "");
        bool is_head = (pep_routes[i].methods & PEP_HEAD) != 0;
        /* 400: what a GET without the words it needs gets, too. */
        assert_true(is_head ? status == 200 || status == 301 || status == 400 || status == 501
                            : status == 405);
        assert_string_equal(asked.body, "");
    }
    assert_int_equal(windows_run, 0); /* HEAD never profiles */
}

#define FORM "Content-Type: application/x-www-form-urlencoded"

static void test_forms(void **state) {
    (void)state;
    static char large[4200];
    const char form[] = "duration=2&delay=0.005&duration=3";
    assert_int_equal(ask_routes_with("POST /profile?duration=9&thread=x HTTP/1.1", FORM "\r\n",
                                     form, sizeof(form) - 1),
                     200);
    assert_int_equal(window_seen.duration_ns, 2000000000);
    assert_int_equal(window_seen.hz, 200);
    assert_string_equal(window_seen.thread, "x");
    assert_int_equal(
        ask_routes_with("PUT /profile HTTP/1.1", FORM "; charset=utf-8\r\n", "delay=0.5", 9), 200);
    assert_int_equal(window_seen.hz, 2);
    /* Not a form, or not a method that brings one. */
    assert_int_equal(ask_routes_with("POST /profile HTTP/1.1", FORM "x\r\n", "delay=0.5", 9), 400);
    assert_int_equal(ask_routes_with("POST /profile HTTP/1.1", "", "delay=0.5", 9), 400);
    assert_int_equal(ask_routes_with("DELETE /profile HTTP/1.1", FORM "\r\n", "delay=0.5", 9), 400);
    assert_int_equal(windows_run, 2);
    assert_int_equal(ask_routes_with("POST /profile HTTP/1.1", FORM "\r\n", "", 0), 400);
    assert_non_null(strstr(asked.body, "Need to provide query params"));
    assert_int_equal(ask_routes_with("POST /profile HTTP/1.1", FORM "\r\n", "delay\0=1", 8), 400);
    expect_sentence("The form is not properly escaped.\n");
    memset(large, 'x', sizeof(large));
    assert_int_equal(ask_routes_with("POST /profile HTTP/1.1", FORM "\r\n", large, 4096), 200);
    assert_int_equal(ask_routes_with("POST /profile HTTP/1.1", FORM "\r\n", large, 4097), 413);
    expect_sentence("The form in the request's body is longer than 4 KiB.\n");
    assert_int_equal(ask_routes_with("POST /profile HTTP/1.1", FORM "\r\n", NULL, 0), 400);
    expect_sentence("The request's body did not arrive whole.\n");
}

static void test_profile_headers(void **state) {
    (void)state;
    assert_int_equal(ask_routes("GET /debug/pprof/profile?seconds=1 HTTP/1.1", ""), 200);
    assert_true(has("Content-Type: application/octet-stream"));
    assert_true(has("Content-Disposition: attachment; filename=\"profile\""));
    assert_true(has("Vary: Accept") && has("X-Content-Type-Options: nosniff"));
    assert_false(has("Content-Encoding") || has("Access-Control"));
    assert_int_equal(format_seen, PEP_FORMAT_PPROF);
    assert_int_equal(window_seen.duration_ns, 1000000000);
    assert_int_equal(window_seen.hz, 100);
    assert_null(window_seen.thread);
    assert_string_equal(asked.body, "xxxxxxxxxx");
    assert_int_equal(ask_routes("HEAD /debug/pprof/profile HTTP/1.1", ""), 200);
    assert_true(has("filename=\"profile\"") && !has("Content-Length"));
}

static void test_profile_params(void **state) {
    (void)state;
    static const char *const bad[] = {"hz=",        "hz=0",    "hz=10001", "hz=x",
                                      "hz=-1",      "hz=1.5",  "format=",  "format=heap",
                                      "format=SVG", "thread=", "hz=%",     "hz=1;format=x&hz=0"};
    char line[256];
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++) {
        snprintf(line, sizeof(line), "GET /debug/pprof/profile?%s HTTP/1.1", bad[i]);
        int wanted = strcmp(bad[i], "hz=%") == 0 ? 200 : 400; /* as Go: such a pair is not there */
        assert_int_equal(ask_routes(line, ""), wanted);
    }
    snprintf(line, sizeof(line), "GET /debug/pprof/profile?thread=%065d HTTP/1.1", 0);
    assert_int_equal(ask_routes(line, ""), 400);
    assert_int_equal(ask_routes("GET /debug/pprof/profile?hz=0 HTTP/1.1", ""), 400);
    expect_sentence("hz must be a whole number from 1 to 10000.\n");
    assert_int_equal(ask_routes("GET /debug/pprof/profile?format=x HTTP/1.1", ""), 400);
    expect_sentence(
        "format must be one of pprof, svg, html, collapsed, text, top, tree, flat, json.\n");
    assert_int_equal(ask_routes("GET /debug/pprof/profile?seconds=-5&hz=250&thread=io%20w&debug=1 "
                                "HTTP/1.1",
                                ""),
                     200);
    assert_int_equal(window_seen.duration_ns, 30000000000);
    assert_int_equal(window_seen.hz, 250);
    assert_string_equal(window_seen.thread, "io w");
}

static void test_profile_formats(void **state) {
    (void)state;
    static const struct {
        const char *query, *accept;
        enum pep_format format;
        const char *type;
    } cases[] = {
        {"", "Accept: text/html\r\n", PEP_FORMAT_HTML, "text/html; charset=utf-8"},
        {"", "Accept: image/svg+xml\r\n", PEP_FORMAT_SVG, "image/svg+xml"},
        {"", "Accept: */*\r\n", PEP_FORMAT_PPROF, "application/octet-stream"},
        {"", "Accept: text/html;q=0\r\n", PEP_FORMAT_PPROF, "application/octet-stream"},
        {"?format=pprof", "Accept: text/html\r\n", PEP_FORMAT_PPROF, "application/octet-stream"},
        {"?format=html", "", PEP_FORMAT_HTML, "text/html; charset=utf-8"},
        {"?format=svg", "", PEP_FORMAT_SVG, "image/svg+xml"},
        {"?format=collapsed", "", PEP_FORMAT_COLLAPSED, "text/plain; charset=utf-8"},
        {"?format=text", "", PEP_FORMAT_TEXT, "text/plain; charset=utf-8"},
        {"?format=top", "", PEP_FORMAT_TEXT, "text/plain; charset=utf-8"},
    };
    for (size_t i = 0; i < PEP_COUNT_OF(cases); i++) {
        char line[128], type[64];
        snprintf(line, sizeof(line), "GET /debug/pprof/profile%s HTTP/1.1", cases[i].query);
        snprintf(type, sizeof(type), "Content-Type: %s\r\n", cases[i].type);
        assert_int_equal(ask_routes(line, cases[i].accept), 200);
        assert_int_equal(format_seen, cases[i].format);
        assert_true(has(type) && has("Vary: Accept"));
        assert_int_equal(has("Content-Disposition"), cases[i].format == PEP_FORMAT_PPROF);
        bool is_page = cases[i].format == PEP_FORMAT_HTML || cases[i].format == PEP_FORMAT_SVG;
        assert_int_equal(has("Content-Security-Policy: default-src 'none'"), is_page);
    }
}

static void test_profile_failures(void **state) {
    (void)state;
    window_error = -ENOMEM;
    assert_int_equal(ask_routes("GET /debug/pprof/profile HTTP/1.1", ""), 503);
    expect_sentence("Not enough memory for this profile.\n");
    window_error = -EPERM;
    assert_int_equal(ask_routes("GET /debug/pprof/profile HTTP/1.1", ""), 500);
    expect_sentence("The CPU sampler could not be started.\n");
    window_error = 0;
    render_error = -ENOMEM;
    assert_int_equal(ask_routes("GET /debug/pprof/profile HTTP/1.1", ""), 500);
    expect_sentence("The answer could not be made.\n");
}

static void test_long_answers(void **state) {
    (void)state;
    render_bytes = 3 * PEP_RESPONSE_BODY_BYTES + 5;
    assert_int_equal(ask_routes("GET /debug/pprof/profile HTTP/1.1", ""), 200);
    assert_true(has("Transfer-Encoding: chunked") && !has("Content-Length"));
    assert_memory_equal(asked.body, "2000\r\nxxx", 9);
    assert_string_equal(asked.wire + asked.count - 17, "\r\n5\r\nxxxxx\r\n0\r\n\r\n");
    assert_int_equal(asked.end_error, 0);
    assert_int_equal(ask_routes("GET /debug/pprof/profile HTTP/1.0", ""), 200);
    assert_true(!has("Transfer-Encoding") && !has("Content-Length"));
    assert_int_equal(strlen(asked.body), render_bytes);
}

/* What breaks half way ends without the last chunk: nobody can take it for whole. */
static void test_cut_answers(void **state) {
    (void)state;
    render_bytes = 2 * PEP_RESPONSE_BODY_BYTES;
    render_error = -ENOMEM;
    assert_int_equal(ask_routes("GET /debug/pprof/profile HTTP/1.1", ""), 200);
    assert_int_equal(asked.end_error, -ENOMEM);
    assert_null(strstr(asked.body, "\r\n0\r\n"));
    render_error = 0;
    asked.send_limit = PEP_RESPONSE_BODY_BYTES + 500;
    ask_routes("GET /debug/pprof/profile HTTP/1.1", "");
    assert_int_equal(asked.end_error, -EPIPE);
    asked.send_limit = 0;
    ask_routes("GET /healthz HTTP/1.1", "");
    assert_int_equal(asked.end_error, -EPIPE);
}

static void test_cmdline(void **state) {
    (void)state;
    char wanted[4096] = "";
    FILE *file = fopen("/proc/self/cmdline", "r");
    size_t count = fread(wanted, 1, sizeof(wanted), file);
    fclose(file);
    assert_int_equal(ask_routes("GET /debug/pprof/cmdline HTTP/1.1", ""), 200);
    assert_true(has("Content-Type: text/plain; charset=utf-8") && has("nosniff"));
    assert_int_equal(asked.count - (size_t)(asked.body - asked.wire),
                     count - 1); /* no NUL at the end */
    assert_memory_equal(asked.body, wanted, count - 1);
}

static void post(const char *text, size_t count) {
    asked.form = text;
    asked.form_left = count;
}

static void test_symbol(void **state) {
    (void)state;
    assert_int_equal(ask_routes("GET /debug/pprof/symbol HTTP/1.1", ""), 200);
    assert_string_equal(asked.body, "num_symbols: 1\n");
    assert_int_equal(ask_routes("HEAD /debug/pprof/symbol HTTP/1.1", ""), 200);
    assert_int_equal(
        ask_routes("GET /debug/pprof/symbol?0x401136+4198710+0x5000+bad+0+0xZ+12+0X402000 HTTP/1.1",
                   ""),
        200);
    assert_string_equal(asked.body,
                        "num_symbols: 1\n0x401136 main\n0x401136 main\n0x402000 ns::f(int)\n");
    post("0x401136+020010466+", 19);
    assert_int_equal(ask_routes("POST /debug/pprof/symbol?0x402000 HTTP/1.1", ""), 200);
    assert_string_equal(asked.body, "num_symbols: 1\n0x401136 main\n0x401136 main\n");
    post("0x401136\r\n", 10);
    assert_int_equal(ask_routes("POST /debug/pprof/symbol HTTP/1.1", ""), 200);
    assert_string_equal(asked.body, "num_symbols: 1\n0x401136 main\n");
    post("", 0);
    assert_int_equal(ask_routes("POST /debug/pprof/symbol HTTP/1.1", ""), 200);
    assert_string_equal(asked.body, "num_symbols: 1\n");
}

static void test_symbol_refusals(void **state) {
    (void)state;
    static char large[PEP_REQUEST_BODY_MAX + 2];
    memset(large, '+', sizeof(large));
    post(large, PEP_REQUEST_BODY_MAX);
    assert_int_equal(ask_routes("POST /debug/pprof/symbol HTTP/1.1", ""), 200);
    post(large, sizeof(large));
    assert_int_equal(ask_routes("POST /debug/pprof/symbol HTTP/1.1", ""), 413);
    expect_sentence("The request's body is longer than 64 KiB.\n");
    asked.form = NULL;
    assert_int_equal(ask_routes("POST /debug/pprof/symbol HTTP/1.1", ""), 400);
    expect_sentence("The request's body did not arrive whole.\n");
    window_error = -ENOMEM;
    assert_int_equal(ask_routes("GET /debug/pprof/symbol?0x401136 HTTP/1.1", ""), 503);
}

static const char *describe(void) {
    return "{\"hz\": 100}";
}

static void test_self(void **state) {
    (void)state;
    assert_int_equal(ask_routes("GET /debug/profep HTTP/1.1", ""), 200);
    assert_true(has("Content-Type: application/json"));
    assert_non_null(strstr(asked.body, "\"windows\": 3"));
    assert_non_null(strstr(asked.body, "\"note\": \"no \\\"perf\\\"\""));
    assert_non_null(strstr(asked.body, "\"config\": {}"));
    assert_non_null(strstr(asked.body, "\"peek\": {\"signal\": 0}"));
    for (int i = 0; i < PEP_COUNTER_COUNT; i++)
        assert_non_null(strstr(asked.body, pep_counter_name((enum pep_counter)i)));
    asked.service.describe = describe;
    ask_routes("GET /debug/profep HTTP/1.1", "");
    assert_non_null(strstr(asked.body, "\"config\": {\"hz\": 100}"));
}

static void test_strangers(void **state) {
    (void)state;
    assert_int_equal(ask_routes("GET /healthz HTTP/1.1", "Origin: http://evil\r\n"), 403);
    expect_sentence("Requests from other web sites are refused; PROFEP_ALLOW_ORIGIN can allow "
                    "one.\n");
    asked.service.access.token = "t";
    assert_int_equal(ask_routes("GET /healthz HTTP/1.1", ""), 401);
    assert_true(has("WWW-Authenticate: Bearer") && has("X-Go-Pprof: 1"));
    assert_int_equal(ask_routes("GET /healthz HTTP/1.1", "Authorization: Bearer t\r\n"), 200);
    asked.service.access.allow_origin = "https://ui";
    assert_int_equal(ask_routes("OPTIONS /debug/profep HTTP/1.1",
                                "Origin: https://ui\r\nAccess-Control-Request-Method: GET\r\n"),
                     204);
    assert_true(has("Access-Control-Allow-Origin: https://ui") && !has("Content-Length"));
    assert_true(has("Access-Control-Allow-Headers: Authorization"));
    assert_int_equal(
        ask_routes("GET /healthz HTTP/1.1", "Origin: https://ui\r\nAuthorization: Bearer t\r\n"),
        200);
    assert_true(has("Access-Control-Allow-Origin: https://ui") && has("Vary: Origin"));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, reset, check)
    const struct CMUnitTest tests[] = {
        TEST(test_simple_routes),  TEST(test_index),           TEST(test_unknown),
        TEST(test_methods),        TEST(test_forms),           TEST(test_profile_headers),
        TEST(test_profile_params), TEST(test_profile_formats), TEST(test_profile_failures),
        TEST(test_long_answers),   TEST(test_cut_answers),     TEST(test_cmdline),
        TEST(test_symbol),         TEST(test_symbol_refusals), TEST(test_self),
        TEST(test_strangers),

    };
    pep_arena_init(&asked.arena, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
