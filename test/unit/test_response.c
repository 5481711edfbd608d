/*
 * Answers byte by byte: dates, header limits, lengths, chunks, cuts.
 * LDFLAGS: -Wl,--wrap=pep_os_clock_ns
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/civetweb_glue.h"
#include "http/response.h"
#include "sampler/rt/os.h"

static char wire[100000];
static size_t wire_count, send_limit = sizeof(wire) - 1;
static struct pep_response response;

static int send_fake(struct pep_sink *sink, const void *bytes, size_t count) {
    (void)sink;
    if (wire_count + count > send_limit)
        return -EPIPE;
    memcpy(wire + wire_count, bytes, count);
    wire_count += count;
    wire[wire_count] = '\0';
    return 0;
}

static struct pep_sink sink = {send_fake};

static void begin(bool is_old, bool is_head) {
    wire_count = 0;
    wire[0] = '\0';
    pep_response_init(&response, &sink);
    response.is_old = is_old;
    response.is_head = is_head;
    pep_response_start(&response, 200, "a/b");
}

static void fill(size_t count) {
    for (size_t i = 0; i < count; i++)
        pep_write(&response.writer, "x", 1);
}

static bool has(const char *text) {
    return strstr(wire, text) != NULL;
}

static uint64_t step_ns, steps;
uint64_t __real_pep_os_clock_ns(clockid_t);
uint64_t __wrap_pep_os_clock_ns(clockid_t);
uint64_t __wrap_pep_os_clock_ns(clockid_t clock) {
    return __real_pep_os_clock_ns(clock) + step_ns * steps++;
}

/* A thread that got no processor for so long reads what has come meanwhile. */
static void test_late_reader(void **state) {
    (void)state;
    static const char ask[] = "GET /a HTTP/1.1\r\nHost: b\r\n\r\n";
    for (int has_come = 0; has_come < 2; has_come++) {
        int ends[2];
        struct pep_message message;
        const char *sentence;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        struct pep_fd fd = pep_fd_take(ends[0]);
        struct pep_wire *reader = pep_wire_open(&fd);
        assert_non_null(reader);
        if (has_come)
            assert_int_equal(write(ends[1], ask, sizeof(ask) - 1), sizeof(ask) - 1);
        step_ns = 10000000000u;
        int status = pep_wire_read_request(reader, &message, &sentence);
        step_ns = 0;
        assert_int_equal(status, has_come ? 0 : 408);
        pep_wire_close(reader);
        pep_fd_drop(&fd);
        close(ends[1]);
    }
}

static void test_dates(void **state) {
    (void)state;
    static const struct {
        int64_t seconds;
        const char *text;
    } cases[] = {
        {0, "Thu, 01 Jan 1970 00:00:00 GMT"},
        {784111777, "Sun, 06 Nov 1994 08:49:37 GMT"},
        {951782399, "Mon, 28 Feb 2000 23:59:59 GMT"},
        {951782400, "Tue, 29 Feb 2000 00:00:00 GMT"},
        {951868800, "Wed, 01 Mar 2000 00:00:00 GMT"},
        {4107542400, "Mon, 01 Mar 2100 00:00:00 GMT"},
        {1735689599, "Tue, 31 Dec 2024 23:59:59 GMT"},
    };
    char text[40];
    for (size_t i = 0; i < PEP_COUNT_OF(cases); i++) {
        pep_response_date(cases[i].seconds, text, sizeof(text));
        assert_string_equal(text, cases[i].text);
    }
}

static void test_header_injection(void **state) {
    (void)state;
    begin(false, false);
    pep_response_header(&response, "X", "a\r\nInjected: b\x7f");
    assert_int_equal(pep_response_end(&response), 0);
    assert_true(has("X: aInjected: b\r\n"));
}

static void test_head_is_full(void **state) {
    (void)state;
    char value[600];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    begin(false, false);
    for (int i = 0; i < 4; i++)
        pep_response_header(&response, "X", value);
    assert_int_equal(pep_response_end(&response), 0);
    assert_true(has("HTTP/1.1 500 Internal Server Error") && has("X-Go-Pprof: 1"));
    assert_false(has("vvv"));
}

static void test_lengths(void **state) {
    (void)state;
    begin(false, false);
    fill(PEP_RESPONSE_BODY_BYTES);
    assert_int_equal(pep_response_end(&response), 0);
    assert_true(has("Content-Length: 8192\r\n") && !has("chunked"));
    begin(false, false);
    fill(PEP_RESPONSE_BODY_BYTES + 1);
    assert_int_equal(pep_response_end(&response), 0);
    assert_true(has("Transfer-Encoding: chunked\r\n") && !has("Content-Length"));
    assert_true(has("\r\n\r\n2000\r\nxxx") && has("xxx\r\n1\r\nx\r\n0\r\n\r\n"));
    begin(true, false);
    fill(PEP_RESPONSE_BODY_BYTES + 1);
    assert_int_equal(pep_response_end(&response), 0);
    assert_true(has("HTTP/1.0 200 OK") && !has("chunked") && !has("Content-Length"));
    assert_int_equal(strlen(strstr(wire, "\r\n\r\n") + 4), PEP_RESPONSE_BODY_BYTES + 1);
    begin(false, true);
    fill(100);
    assert_int_equal(pep_response_end(&response), 0);
    assert_true(has("Content-Length: 100\r\n\r\n") && !has("xx"));
}

static void test_errors_when_begun(void **state) {
    (void)state;
    begin(false, false);
    fill(10);
    pep_response_error(&response, 503, "Too late to begin.");
    assert_int_equal(pep_response_end(&response), 0);
    assert_true(has("503 Service Unavailable") && has("\r\n\r\nToo late to begin.\n"));
    assert_false(has("xx"));
    begin(false, false);
    fill(PEP_RESPONSE_BODY_BYTES + 1);
    pep_response_error(&response, 503, "Too late.");
    assert_int_equal(pep_response_end(&response), -EIO);
    assert_false(has("Too late.") || has("\r\n0\r\n\r\n"));
}

/* Wherever the socket breaks, the error comes out and nothing is added after it. */
static void test_broken_sockets(void **state) {
    (void)state;
    begin(false, false);
    fill(20000);
    pep_response_end(&response);
    size_t whole = wire_count;
    for (send_limit = 0; send_limit < whole; send_limit += 7) {
        begin(false, false);
        fill(20000);
        assert_int_equal(pep_response_end(&response), -EPIPE);
        assert_false(has("\r\n0\r\n\r\n"));
    }
    send_limit = sizeof(wire) - 1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late_reader),      cmocka_unit_test(test_dates),
        cmocka_unit_test(test_header_injection), cmocka_unit_test(test_head_is_full),
        cmocka_unit_test(test_lengths),          cmocka_unit_test(test_errors_when_begun),
        cmocka_unit_test(test_broken_sockets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
