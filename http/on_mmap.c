/*
 * /debug/pprof/mmap: what is mapped outside of malloc, and by whom; asked as the heap is.
 */
#include <errno.h>
#include <string.h>

#include "http/render.h"
#include "http/routes.h"

struct wanted {
    struct pep_mmap_window window; /* duration_ns 0: since the start */
    enum pep_format format;
};

static const char *read_query(const struct pep_request *request, struct pep_mmap_query *query) {
    const char *inuse = pep_request_param(request, "inuse");
    query->mapping = pep_request_param(request, "mapping");
    if (inuse && strcmp(inuse, "difference") != 0 && strcmp(inuse, "absolute") != 0)
        return "inuse must be absolute or difference.";
    query->has_absolute_inuse = inuse && *inuse == 'a';
    if (query->mapping && (!*query->mapping || strlen(query->mapping) >= PEP_MMAP_LABEL_BYTES))
        return "mapping must be a part of a label such as [anon] or a path, up to 255 bytes.";
    return NULL;
}

/* The sentence for a 400, or NULL when every parameter is good. */
static const char *read_params(const struct pep_exchange *exchange, struct wanted *wanted) {
    const struct pep_request *request = exchange->request;
    struct pep_mmap_query *query = &wanted->window.query;
    const char *sentence = pep_render_delta(request, &wanted->window.duration_ns);
    if (!sentence)
        sentence = read_query(request, query);
    if (!sentence)
        sentence = pep_render_params(request, &wanted->format, &query->filter.thread);
    if (sentence)
        return sentence;
    wanted->window.client = exchange->client;
    if (pep_request_atoi(pep_request_param(request, "debug")) != 0)
        wanted->format = PEP_FORMAT_LEGACY;
    return NULL;
}

void pep_on_mmap(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    struct wanted wanted = {.format = PEP_FORMAT_PPROF};
    struct pep_profile *profile = NULL;
    const char *sentence = read_params(exchange, &wanted);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    const char *name = wanted.window.duration_ns ? "mmap-delta" : "mmap";
    if (exchange->request->method == PEP_HEAD) {
        pep_render_head(response, wanted.format, name);
        response->is_length_unknown = true;
        return;
    }
    int error = pep_window_mmap(exchange->arena, &wanted.window, &profile);
    if (error) {
        pep_on_heap_error(response, error);
        return;
    }
    pep_render_head(response, wanted.format, name);
    pep_render_body(response, wanted.format, profile, exchange->arena);
}
