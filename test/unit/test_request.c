/*
 * Requests: the parser behind the wire, targets, headers, parameters, negotiation, access.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "http/access.h"
#include "http/civetweb_glue.h"
#include "http/request.h"

static struct pep_arena arena;
static struct pep_message message;
static struct pep_request request;
static const char *sentence;
static char text[PEP_WIRE_REQUEST_BYTES + 1];

static int parse_bytes(const char *bytes, size_t count) {
    memcpy(text, bytes, count);
    int status = pep_wire_parse(text, count, &message);
    return status ? status : pep_request_init(&request, &message, &arena, &sentence);
}

static int parse(const char *bytes) {
    return parse_bytes(bytes, strlen(bytes));
}

static void ask(const char *target, const char *headers) {
    char line[2048];
    snprintf(line, sizeof(line), "GET %s HTTP/1.1\r\n%s\r\n", target, headers);
    assert_int_equal(parse(line), 0);
}

static void test_whole(void **state) {
    (void)state;
    assert_int_equal(parse("GET /debug/pprof/profile?seconds=5&hz=7#x HTTP/1.1\r\n"
                           "Host: a\r\nACCEPT: b\r\naccept: c\r\n\r\n"),
                     0);
    assert_int_equal(request.method, PEP_GET);
    assert_string_equal(request.path, "/debug/pprof/profile");
    assert_string_equal(request.query, "seconds=5&hz=7");
    assert_false(request.is_old);
    int count;
    assert_string_equal(pep_request_header(&request, "Accept", &count), "b");
    assert_int_equal(count, 2);
    assert_null(pep_request_header(&request, "Acc", &count));
    assert_int_equal(count, 0);
}

static void test_methods(void **state) {
    (void)state;
    assert_int_equal(parse("HEAD / HTTP/1.0\r\n\r\n"), 0);
    assert_int_equal(request.method, PEP_HEAD);
    assert_true(request.is_old);
    assert_int_equal(parse("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), 0);
    assert_int_equal(request.method, PEP_POST);
    assert_int_equal(parse("PROPFIND / HTTP/1.1\r\n\r\n"), 0);
    assert_int_equal(request.method, 0);
    assert_int_equal(parse("BREW / HTTP/1.1\r\n\r\n"), 400);
    assert_int_equal(parse("get / HTTP/1.1\r\n\r\n"), 400);
}

static void test_malformed(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "\r\n",
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP\r\n\r\n",
        "GET  HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nname : \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n",
        "GET / HTTP/1.1 extra\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET * HTTP/1.1\r\n\r\n",
        "GET http:// HTTP/1.1\r\n\r\n",
        "GET ftp://a/ HTTP/1.1\r\n\r\n",
        "GET /%zz HTTP/1.1\r\n\r\n",
        "GET /%4 HTTP/1.1\r\n\r\n",
        "GET /% HTTP/1.1\r\n\r\n",
        "GET /a%00b HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++)
        if (parse(bad[i]) != 400)
            fail_msg("not refused: %s", bad[i]);
    static const char nul[] = "GET /a\0b HTTP/1.1\r\n\r\n";
    assert_int_equal(parse_bytes(nul, sizeof(nul) - 1), 400);
    assert_int_equal(parse("GET / HTTP/2.0\r\n\r\n"), 505);
    assert_int_equal(parse("GET / HTTP/0.9\r\n\r\n"), 505);
}

static void test_too_many_headers(void **state) {
    (void)state;
    for (int count = 62; count < 80; count++) {
        char many[2048] = "GET / HTTP/1.1\r\n";
        for (int i = 0; i < count; i++)
            strcat(many, "A: b\r\n");
        strcat(many, "\r\n");
        assert_int_equal(parse(many), count < PEP_MESSAGE_HEADERS_MAX ? 0 : 431);
    }
    static char huge[PEP_WIRE_REQUEST_BYTES + 2];
    assert_int_equal(pep_wire_parse(huge, sizeof(huge) - 1, &message), 431);
}

static void test_absolute_target(void **state) {
    (void)state;
    ask("http://localhost:1/healthz?x", "Host: other\r\n");
    assert_string_equal(request.path, "/healthz");
    assert_string_equal(request.query, "x");
    assert_string_equal(request.authority, "localhost:1");
    ask("HTTP://localhost", "");
    assert_string_equal(request.path, "/");
    ask("/%68ealthz+x", "");
    assert_string_equal(request.path, "/healthz+x");
    assert_null(request.authority);
}

static void test_params(void **state) {
    (void)state;
    ask("/?a=1&a=2&b&c=%41+b&d=%&e;=1&f=x=y&%67=h&=i&&j=", "");
    assert_string_equal(pep_request_param(&request, "a"), "1");
    assert_string_equal(pep_request_param(&request, "b"), "");
    assert_string_equal(pep_request_param(&request, "c"), "A b");
    assert_null(pep_request_param(&request, "d"));
    assert_null(pep_request_param(&request, "e"));
    assert_string_equal(pep_request_param(&request, "f"), "x=y");
    assert_string_equal(pep_request_param(&request, "g"), "h");
    assert_string_equal(pep_request_param(&request, ""), "i");
    assert_string_equal(pep_request_param(&request, "j"), "");
    assert_null(pep_request_param(&request, "z"));
}

static void test_seconds(void **state) {
    (void)state;
    static const char *const thirty[] = {
        "",   "abc", "0", "-1", "0.5", "1e3", "0x5", "9999999999999999999",
        " 5", "5 ",  "+", "-",  "1_0", "--5", NULL};
    for (size_t i = 0; i < PEP_COUNT_OF(thirty); i++)
        assert_int_equal(pep_request_seconds(thirty[i]), 30);
    assert_int_equal(pep_request_seconds("1"), 1);
    assert_int_equal(pep_request_seconds("+5"), 5);
    assert_int_equal(pep_request_seconds("0007"), 7);
    assert_int_equal(pep_request_seconds("9223372036854775807"), INT64_MAX);
}

static void test_numbers(void **state) {
    (void)state;
    static const char *const bad[] = {"",    "0",  "10001", "-1",   "+5",
                                      "1.0", "5x", " 5",    "0x10", "18446744073709551617"};
    int64_t number;
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++)
        assert_false(pep_request_number(bad[i], 1, 10000, &number));
    assert_true(pep_request_number("1", 1, 10000, &number));
    assert_true(pep_request_number("10000", 1, 10000, &number));
    assert_int_equal(number, 10000);
}

static void test_go_integers(void **state) {
    (void)state;
    static const char *const zero[] = {"", "0", "abc", "1.0", "0x1", " 1", "9223372036854775808"};
    int64_t number;
    assert_int_equal(pep_request_atoi(NULL), 0);
    for (size_t i = 0; i < PEP_COUNT_OF(zero); i++) {
        assert_int_equal(pep_request_atoi(zero[i]), 0);
        assert_false(pep_request_positive(zero[i], &number));
    }
    assert_int_equal(pep_request_atoi("-3"), -3);
    assert_false(pep_request_positive("-3", &number));
    assert_true(pep_request_positive("+9223372036854775807", &number) && number == INT64_MAX);
}

static void test_decimals(void **state) {
    (void)state;
    static const char *const bad[] = {"",     ".",     "e5",  "-1",   "+1",   "1e",    "1e+",
                                      "1,5",  "1.2.3", "nan", "inf",  "0x10", "1 ",    " 1",
                                      "1e1x", "1e999", "101", "0.09", "1e-9", "1e-999"};
    static const struct {
        const char *text;
        double value;
    } good[] = {{"1", 1},      {"0.1", 0.1},     {".5", .5},        {"5.", 5},
                {"1e-1", 0.1}, {"2.5E1", 25},    {"0.3000", 0.3},   {"100.000", 100},
                {"1e+2", 100}, {"0.123", 0.123}, {"0001e0002", 100}};
    double number;
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++)
        assert_false(pep_request_decimal(bad[i], 0.1, 100, &number));
    for (size_t i = 0; i < PEP_COUNT_OF(good); i++) {
        assert_true(pep_request_decimal(good[i].text, 0.1, 100, &number));
        assert_true(number == good[i].value);
    }
    assert_true(pep_request_decimal("0.0001", 1e-9, 1, &number) && number == 0.0001);
}

static void test_formats(void **state) {
    (void)state;
    enum pep_format format;
    assert_true(pep_request_format("pprof", &format) && format == PEP_FORMAT_PPROF);
    assert_true(pep_request_format("svg", &format) && format == PEP_FORMAT_SVG);
    assert_true(pep_request_format("html", &format) && format == PEP_FORMAT_HTML);
    assert_true(pep_request_format("collapsed", &format) && format == PEP_FORMAT_COLLAPSED);
    assert_true(pep_request_format("text", &format) && format == PEP_FORMAT_TEXT);
    assert_true(pep_request_format("top", &format) && format == PEP_FORMAT_TEXT);
    assert_false(pep_request_format("", &format));
    assert_false(pep_request_format("SVG", &format));
}

static void test_accept(void **state) {
    (void)state;
    static const struct {
        const char *accept;
        enum pep_format format;
    } cases[] = {
        {NULL, PEP_FORMAT_PPROF},
        {"", PEP_FORMAT_PPROF},
        {"*/*", PEP_FORMAT_PPROF},
        {"application/json", PEP_FORMAT_PPROF},
        {"text/html", PEP_FORMAT_HTML},
        {"TEXT/HTML", PEP_FORMAT_HTML},
        {" text/html ", PEP_FORMAT_HTML},
        {"text/html;q=0", PEP_FORMAT_PPROF},
        {"text/html;q=0.000", PEP_FORMAT_PPROF},
        {"text/html; q=0.001", PEP_FORMAT_HTML},
        {"text/html;level=1;q=0", PEP_FORMAT_PPROF},
        {"text/htmlx", PEP_FORMAT_PPROF},
        {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", PEP_FORMAT_HTML},
        {"image/avif,image/webp,image/svg+xml,image/*;q=0.8,*/*;q=0.5", PEP_FORMAT_SVG},
        {"text/html;q=0.5, image/svg+xml", PEP_FORMAT_SVG},
        {"image/svg+xml;q=0.5,text/html", PEP_FORMAT_HTML},
        {"image/svg+xml;q=0 , text/html;q=0", PEP_FORMAT_PPROF},
        {"image/svg+xml;q=1.0", PEP_FORMAT_SVG},
        {"text/html;q=bad", PEP_FORMAT_PPROF},
        {";;,,;", PEP_FORMAT_PPROF},
    };
    for (size_t i = 0; i < PEP_COUNT_OF(cases); i++) {
        message.header_count = cases[i].accept ? 1 : 0;
        message.headers[0] = (struct pep_header){"accept", cases[i].accept};
        if (pep_request_accept(&(struct pep_request){.message = &message}) != cases[i].format)
            fail_msg("Accept: %s", cases[i].accept ? cases[i].accept : "(none)");
    }
}

static void test_accept_in_several_headers(void **state) {
    (void)state;
    const struct pep_request asked = {.message = &message};
    message.headers[0] = (struct pep_header){"Accept", "*/*"};
    message.headers[1] = (struct pep_header){"X", "image/svg+xml"};
    message.headers[2] = (struct pep_header){"accept", "text/html"};
    message.headers[3] = (struct pep_header){"Accept", ""};
    message.header_count = 4;
    assert_int_equal(pep_request_accept(&asked), PEP_FORMAT_HTML);
    assert_false(pep_request_wants_json(&asked));
    message.headers[3].value = "text/html;q=0, application/json";
    assert_int_equal(pep_request_accept(&asked), PEP_FORMAT_PPROF);
    assert_true(pep_request_wants_json(&asked));
}

/* -- who may ask ---------------------------------------------------------------------------- */

static struct pep_access access_of(void) {
    return (struct pep_access){.own_host = "127.0.0.1"};
}

static int judge(const struct pep_access *access, const char *headers) {
    ask("/", headers);
    return pep_access_check(access, &request).status;
}

static void test_hosts(void **state) {
    (void)state;
    static const char *const good[] = {"127.0.0.1", "127.0.0.1:80", "localhost", "LOCALHOST:1",
                                       "[::1]",     "[::1]:6060",   "localhost:"};
    static const char *const bad[] = {"",           "evil.com",    "127.0.0.1.evil.com",
                                      "127.0.0.2",  "0.0.0.0",     "localhost:80x",
                                      "[::1",       "[::1]x",      "[::2]",
                                      "localhosts", "a@localhost", "::1"};
    struct pep_access access = access_of();
    char line[128];
    for (size_t i = 0; i < PEP_COUNT_OF(good); i++) {
        snprintf(line, sizeof(line), "Host: %s\r\n", good[i]);
        assert_int_equal(judge(&access, line), 0);
    }
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++) {
        snprintf(line, sizeof(line), "Host: %s\r\n", bad[i]);
        if (judge(&access, line) != 403)
            fail_msg("not refused: %s", bad[i]);
    }
    assert_int_equal(judge(&access, ""), 400);
    assert_int_equal(judge(&access, "Host: localhost\r\nHost: localhost\r\n"), 400);
    assert_int_equal(parse("GET / HTTP/1.0\r\n\r\n"), 0);
    assert_int_equal(pep_access_check(&access, &request).status, 0);
    assert_int_equal(parse("GET http://evil.com/ HTTP/1.1\r\nHost: localhost\r\n\r\n"), 0);
    assert_int_equal(pep_access_check(&access, &request).status, 403);
}

static void test_more_hosts(void **state) {
    (void)state;
    struct pep_access access = access_of();
    access.allow_host = "dev.example, box";
    assert_int_equal(judge(&access, "Host: dev.example:80\r\n"), 0);
    assert_int_equal(judge(&access, "Host: BOX\r\n"), 0);
    assert_int_equal(judge(&access, "Host: bo\r\n"), 403);
    assert_int_equal(judge(&access, "Host: dev.example, box\r\n"), 403);
    access.own_host = "10.1.2.3";
    assert_int_equal(judge(&access, "Host: 10.1.2.3:80\r\n"), 0);
    assert_int_equal(judge(&access, "Host: 10.1.2.4:80\r\n"), 403);
    access.is_any = true;
    assert_int_equal(judge(&access, "Host: 10.1.2.4:80\r\n"), 0);
    assert_int_equal(judge(&access, "Host: [fe80::1]:80\r\n"), 0);
    assert_int_equal(judge(&access, "Host: evil.com\r\n"), 403);
    access.own_host = NULL; /* a unix socket: the name means nothing */
    assert_int_equal(judge(&access, "Host: anything\r\n"), 0);
}

static void test_origins(void **state) {
    (void)state;
    struct pep_access access = access_of();
#define HOST "Host: localhost:80\r\n"
    assert_int_equal(judge(&access, HOST "Origin: http://localhost:80\r\n"), 0);
    assert_int_equal(judge(&access, HOST "Origin: http://localhost:81\r\n"), 403);
    assert_int_equal(judge(&access, HOST "Origin: https://localhost:80\r\n"), 403);
    assert_int_equal(judge(&access, HOST "Origin: null\r\n"), 403);
    assert_int_equal(judge(&access, HOST "Origin: http://evil.com\r\n"), 403);
    assert_int_equal(judge(&access, HOST "Sec-Fetch-Site: cross-site\r\n"), 403);
    assert_int_equal(judge(&access, HOST "Sec-Fetch-Site: same-origin\r\n"), 0);
    assert_int_equal(judge(&access, HOST "Sec-Fetch-Site: none\r\n"), 0);
    access.allow_origin = "https://ui.example";
    assert_int_equal(
        judge(&access, HOST "Origin: https://ui.example\r\nSec-Fetch-Site: cross-site\r\n"), 0);
    assert_string_equal(pep_access_check(&access, &request).origin, "https://ui.example");
    assert_int_equal(judge(&access, HOST "Origin: https://ui.example.evil\r\n"), 403);
    assert_int_equal(judge(&access, HOST "Origin: https://ui.example\r\nOrigin: https://evil\r\n"),
                     403);
}

static void test_tokens(void **state) {
    (void)state;
    struct pep_access access = access_of();
    access.token = "secret";
    assert_int_equal(judge(&access, HOST), 401);
    assert_int_equal(judge(&access, HOST "Authorization: Basic secret\r\n"), 401);
    assert_int_equal(judge(&access, HOST "Authorization: Bearer\r\n"), 401);
    assert_int_equal(judge(&access, HOST "Authorization: Bearer secre\r\n"), 401);
    assert_int_equal(judge(&access, HOST "Authorization: Bearer secretsecret\r\n"), 401);
    assert_int_equal(judge(&access, HOST "Authorization: Bearer Secret\r\n"), 401);
    assert_int_equal(judge(&access, HOST "Authorization: bearer secret\r\n"), 0);
    /* The name comes first: who calls us wrongly learns nothing about tokens. */
    assert_int_equal(judge(&access, "Host: evil\r\nAuthorization: Bearer secret\r\n"), 403);
    access.allow_origin = "https://ui.example";
    assert_int_equal(parse("OPTIONS / HTTP/1.1\r\n" HOST "Origin: https://ui.example\r\n\r\n"), 0);
    assert_int_equal(pep_access_check(&access, &request).status, 0);
}

static int drop_arena(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_whole, drop_arena),
        cmocka_unit_test_teardown(test_methods, drop_arena),
        cmocka_unit_test_teardown(test_malformed, drop_arena),
        cmocka_unit_test_teardown(test_too_many_headers, drop_arena),
        cmocka_unit_test_teardown(test_absolute_target, drop_arena),
        cmocka_unit_test_teardown(test_params, drop_arena),
        cmocka_unit_test_teardown(test_seconds, drop_arena),
        cmocka_unit_test_teardown(test_numbers, drop_arena),
        cmocka_unit_test_teardown(test_go_integers, drop_arena),
        cmocka_unit_test_teardown(test_decimals, drop_arena),
        cmocka_unit_test_teardown(test_formats, drop_arena),
        cmocka_unit_test_teardown(test_accept, drop_arena),
        cmocka_unit_test(test_accept_in_several_headers),
        cmocka_unit_test_teardown(test_hosts, drop_arena),
        cmocka_unit_test_teardown(test_more_hosts, drop_arena),
        cmocka_unit_test_teardown(test_origins, drop_arena),
        cmocka_unit_test_teardown(test_tokens, drop_arena),
    };
    pep_arena_init(&arena, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
