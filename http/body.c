#include "http/body.h"

#include <errno.h>
#include <string.h>

#define FORM_MAX 4096 /* what a first line may have */

static char *read_up_to(struct pep_exchange *exchange, size_t max, const char *too_long,
                        size_t *count) {
    char *body = pep_arena_alloc(exchange->arena, max + 2);
    size_t used = 0;
    long part = body ? 1 : -ENOMEM;
    while (part > 0 && used <= max) {
        part = exchange->read_body(exchange, body + used, max + 1 - used);
        used += part > 0 ? (size_t)part : 0;
    }
    *count = used;
    if (part == -ENOMEM)
        pep_response_error(exchange->response, 503, "Not enough memory for this request.");
    else if (part < 0)
        pep_response_error(exchange->response, 400, "The request's body did not arrive whole.");
    else if (used > max)
        pep_response_error(exchange->response, 413, too_long);
    else
        return body;
    return NULL;
}

char *pep_body_read(struct pep_exchange *exchange, size_t *count) {
    return read_up_to(exchange, PEP_REQUEST_BODY_MAX, "The request's body is longer than 64 KiB.",
                      count);
}

const char *pep_body_read_form(struct pep_exchange *exchange) {
    size_t count;
    const char *form = read_up_to(exchange, FORM_MAX,
                                  "The form in the request's body is longer than 4 KiB.", &count);
    if (!form || strlen(form) == count)
        return form;
    pep_response_error(exchange->response, 400, "The form is not properly escaped.");
    return NULL;
}
