/*
 * Any bytes as a request: the parser, the target, the parameters, negotiation and access.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "http/access.h"
#include "http/civetweb_glue.h"
#include "http/listen.h"
#include "http/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count);

static void look_at(const struct pep_request *request) {
    static const char *const names[] = {"seconds", "hz", "format", "thread"};
    struct pep_access access = {.own_host = "127.0.0.1",
                                .token = "secret",
                                .allow_host = "dev.example, box",
                                .allow_origin = "https://ui"};
    enum pep_format format;
    int64_t number;
    for (size_t i = 0; i < PEP_COUNT_OF(names); i++) {
        const char *value = pep_request_param(request, names[i]);
        if (!value)
            continue;
        if (pep_request_seconds(value) <= 0)
            __builtin_trap();
        if (pep_request_number(value, 1, 10000, &number) && (number < 1 || number > 10000))
            __builtin_trap();
        double decimal;
        if (pep_request_decimal(value, 0.5, 2, &decimal) && (decimal < 0.5 || decimal > 2))
            __builtin_trap();
        if (pep_request_positive(value, &number) && number != pep_request_atoi(value))
            __builtin_trap();
        pep_request_format(value, &format);
    }
    pep_request_accept(request);
    /* Nothing gets in without the token. */
    struct pep_verdict verdict = pep_access_check(&access, request);
    if (verdict.status == 0 && !verdict.origin &&
        !pep_request_header(request, "Authorization", NULL))
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count) {
    char text[PEP_WIRE_REQUEST_BYTES + 1];
    struct pep_message message;
    struct pep_request request;
    struct pep_arena arena;
    struct pep_listen where;
    const char *sentence = NULL;
    if (count > PEP_WIRE_REQUEST_BYTES)
        return 0;
    memcpy(text, data, count);
    text[count] = '\0';
    pep_listen_parse(text, &where);
    if (pep_wire_parse(text, count, &message) != 0)
        return 0;
    pep_arena_init(&arena, 1u << 20);
    int status = pep_request_init(&request, &message, &arena, &sentence);
    if (status == 0)
        look_at(&request);
    else if (!sentence)
        __builtin_trap();
    pep_arena_drop(&arena);
    return 0;
}
