#include "http/delta.h"

#include <stdio.h>
#include <string.h>

#define NAME_BYTES 48

/* 0: no window is asked for. */
static const char *read_seconds(const struct pep_request *request, uint64_t *duration_ns) {
    const char *text = pep_request_param(request, "seconds");
    int64_t seconds;
    *duration_ns = 0;
    if (!text || !*text)
        return NULL;
    if (!pep_request_positive(text, &seconds))
        return "invalid value for \"seconds\" - must be a positive integer";
    if (pep_request_atoi(pep_request_param(request, "debug")) != 0)
        return "seconds and debug params are incompatible";
    *duration_ns = pep_window_duration_ns(seconds);
    return NULL;
}

const char *pep_delta_read(const struct pep_request *request, struct pep_delta *asked) {
    const char *sentence = read_seconds(request, &asked->duration_ns);
    if (!sentence)
        sentence = pep_render_params(request, &asked->format, &asked->filter.thread);
    if (!sentence && pep_request_atoi(pep_request_param(request, "debug")) != 0)
        asked->format = asked->text;
    return sentence;
}

const char *pep_delta_read_inuse(const struct pep_request *request, bool *is_absolute) {
    const char *text = pep_request_param(request, "inuse");
    *is_absolute = text && strcmp(text, "absolute") == 0;
    if (!text || *is_absolute || strcmp(text, "difference") == 0)
        return NULL;
    return "inuse must be absolute or difference.";
}

static const char *name_of(const struct pep_delta *asked, char to[NAME_BYTES]) {
    snprintf(to, NAME_BYTES, "%s%s", asked->name, asked->duration_ns ? "-delta" : "");
    return to;
}

bool pep_delta_is_answered(struct pep_exchange *exchange, const struct pep_delta *asked,
                           const char *sentence) {
    char name[NAME_BYTES];
    if (!sentence)
        return pep_render_is_head(exchange->response, asked->format, name_of(asked, name));
    pep_response_error(exchange->response, 400, sentence);
    return true;
}

void pep_delta_answer(struct pep_exchange *exchange, const struct pep_delta *asked, int error,
                      const struct pep_profile *profile) {
    char name[NAME_BYTES];
    if (error) {
        pep_render_error(exchange->response, error, asked->unrecorded);
        return;
    }
    pep_render_head(exchange->response, asked->format, name_of(asked, name));
    pep_render_body(exchange->response, asked->format, profile, exchange->arena);
}
