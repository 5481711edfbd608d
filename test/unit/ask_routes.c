/* See ask_routes.h. */
#include "test/unit/ask_routes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/civetweb_glue.h"

struct asked asked;

static int send_fake(struct pep_sink *sink, const void *bytes, size_t count) {
    (void)sink;
    if (asked.count + count > asked.send_limit)
        return -EPIPE;
    memcpy(asked.wire + asked.count, bytes, count);
    asked.count += count;
    asked.wire[asked.count] = '\0';
    return 0;
}

static long read_fake(struct pep_exchange *exchange, void *to, size_t max) {
    (void)exchange;
    if (!asked.form)
        return -EIO;
    size_t count = asked.form_left < max ? asked.form_left : max;
    if (asked.piece_max != 0 && count > asked.piece_max)
        count = asked.piece_max;
    memcpy(to, asked.form, count);
    asked.form += count;
    asked.form_left -= count;
    return (long)count;
}

static struct pep_sink sink = {send_fake};

int ask_routes(const char *line, const char *headers) {
    static struct pep_message message;
    struct pep_request request;
    struct pep_response response;
    const char *sentence;
    char text[PEP_WIRE_REQUEST_BYTES + 1];
    int count = snprintf(text, sizeof(text), "%s\r\nHost: localhost\r\n%s\r\n", line, headers);
    assert_int_equal(pep_wire_parse(text, (size_t)count, &message), 0);
    assert_int_equal(pep_request_init(&request, &message, &asked.arena, &sentence), 0);
    pep_response_init(&response, &sink);
    response.is_head = request.method == PEP_HEAD;
    response.is_old = request.is_old;
    struct pep_exchange exchange = {.service = &asked.service,
                                    .request = &request,
                                    .response = &response,
                                    .arena = &asked.arena,
                                    .client = asked.client,
                                    .read_body = read_fake};
    asked.count = 0;
    asked.wire[0] = '\0';
    pep_routes_serve(&exchange);
    asked.writer_error = response.writer.error;
    asked.end_error = pep_response_end(&response);
    asked.body = strstr(asked.wire, "\r\n\r\n");
    if (asked.body) {
        *asked.body = '\0';
        asked.body += 4;
    }
    return asked.count > 9 ? atoi(asked.wire + 9) : 0;
}

int ask_routes_with(const char *line, const char *headers, const char *form, size_t count) {
    asked.form = form;
    asked.form_left = count;
    return ask_routes(line, headers);
}

void ask_routes_reset(void) {
    asked.service = (struct pep_service){
        .hz = 100, .url = "http://127.0.0.1:1/", .access = {.own_host = "127.0.0.1"}};
    asked.send_limit = sizeof(asked.wire) - 1;
    asked.form = NULL;
    asked.piece_max = 0;
    asked.client = NULL;
}
