#include "http/body.h"

#include <errno.h>

char *pep_body_read(struct pep_exchange *exchange, size_t *count) {
    char *body = pep_arena_alloc(exchange->arena, PEP_REQUEST_BODY_MAX + 2);
    size_t used = 0;
    long part = body ? 1 : -ENOMEM;
    while (part > 0 && used <= PEP_REQUEST_BODY_MAX) {
        part = exchange->read_body(exchange, body + used, PEP_REQUEST_BODY_MAX + 1 - used);
        used += part > 0 ? (size_t)part : 0;
    }
    *count = used;
    if (part == -ENOMEM)
        pep_response_error(exchange->response, 503, "Not enough memory for this request.");
    else if (part < 0)
        pep_response_error(exchange->response, 400, "The request's body did not arrive whole.");
    else if (used > PEP_REQUEST_BODY_MAX)
        pep_response_error(exchange->response, 413, "The request's body is longer than 64 KiB.");
    else
        return body;
    return NULL;
}
