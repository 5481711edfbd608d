/*
 * /debug/pprof/heap, allocs and temporary, as Go's net/http/pprof answers the first two.
 */
#include <errno.h>
#include <malloc.h>
#include <string.h>

#include "http/heap_notes.h"
#include "http/render.h"
#include "http/routes.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

struct named {
    const char *name, *delta_name; /* of the file */
    enum pep_heap_view view;
};

struct wanted {
    const struct named *named;
    struct pep_heap_window window; /* duration_ns 0: since the start */
    enum pep_format format;
    bool has_trim, is_trimmed;
};

/* -- what is asked ---------------------------------------------------------------------------- */

/* interval is IOx's word for the same. */
static const char *read_rate(const struct pep_request *request, struct wanted *wanted) {
    const char *text = pep_request_param(request, "rate");
    int64_t rate = 0;
    if (!text)
        text = pep_request_param(request, "interval");
    if (!text)
        return NULL;
    if (!pep_request_number(text, 1, PEP_HEAP_RATE_MAX, &rate))
        return "rate must be a whole number of bytes from 1 to 1073741824.";
    if (wanted->window.duration_ns == 0)
        return "rate is for a window: give seconds too.";
    wanted->window.rate_bytes = (uint32_t)rate;
    return NULL;
}

static const char *read_inuse(const struct pep_request *request, struct wanted *wanted) {
    const char *text = pep_request_param(request, "inuse");
    if (!text || strcmp(text, "difference") == 0)
        return NULL;
    if (strcmp(text, "absolute") != 0)
        return "inuse must be absolute or difference.";
    wanted->window.query.has_absolute_inuse = true;
    return NULL;
}

/* The sentence for a 400, or NULL when every parameter is good. */
static const char *read_params(const struct pep_exchange *exchange, struct wanted *wanted) {
    const struct pep_request *request = exchange->request;
    struct pep_heap_query *query = &wanted->window.query;
    /* Go's order and Go's sentences; ours come after them. */
    const char *sentence = pep_render_delta(request, &wanted->window.duration_ns);
    if (!sentence)
        sentence = read_rate(request, wanted);
    if (!sentence)
        sentence = read_inuse(request, wanted);
    if (!sentence)
        sentence = pep_render_params(request, &wanted->format, &query->filter.thread);
    if (sentence)
        return sentence;
    query->view = wanted->named->view;
    wanted->window.client = exchange->client;
    if (wanted->window.duration_ns != 0)
        return NULL;
    wanted->has_trim =
        query->view == PEP_HEAP_INUSE && pep_request_atoi(pep_request_param(request, "gc")) > 0;
    if (pep_request_atoi(pep_request_param(request, "debug")) == 0)
        return NULL;
    wanted->format = PEP_FORMAT_LEGACY;
    /* Readers of the text scale all samples by one rate. Where they have several, they get the
     * scaled values and are told to leave them. */
    query->is_raw = !pep_window_heap_has_varied();
    return NULL;
}

/* -- what is answered ------------------------------------------------------------------------- */

void pep_on_heap_error(struct pep_response *response, int error) {
    if (error == -ENOMEM)
        pep_response_error(response, 503, "Not enough memory for this profile.");
    else if (error == -ECONNRESET)
        response->writer.error = error;
    else if (error == -EBUSY)
        pep_response_error(response, 429, "Too many windows ask for a rate of their own.");
    else if (error == -ENOTSUP)
        pep_response_error(response, 501, "This program's allocations are not recorded.");
    else
        pep_response_error(response, 500, "failed to collect profile");
}

/* Here and in no other place the host's malloc is called into: what a program would do itself to
 * give free memory back. It waits where the program's malloc is stuck, so one request at a time
 * does; the others would take all connections. False when one has not come back. */
static bool trim(void) {
    static int busy_pid; /* a forked child has not called */
    int pid = pep_os_getpid(), seen = pep_load_relaxed(&busy_pid);
    if (seen == pid || !pep_cas_acq_rel(&busy_pid, &seen, pid))
        return false;
    malloc_trim(0);
    pep_store_release(&busy_pid, 0);
    return true;
}

static int collect(struct pep_exchange *exchange, struct wanted *wanted,
                   struct pep_profile **profile) {
    const struct pep_heap_window *window = &wanted->window;
    if (window->duration_ns != 0)
        return pep_window_heap(exchange->arena, window, profile);
    if (wanted->has_trim)
        wanted->is_trimmed = trim();
    *profile = pep_profile_heap(exchange->arena, NULL, &window->query);
    if (*profile && wanted->format == PEP_FORMAT_LEGACY)
        (*profile)->is_exact = !window->query.is_raw;
    return *profile ? 0 : -ENOMEM;
}

static void answer(struct pep_exchange *exchange, const struct named *named) {
    struct pep_response *response = exchange->response;
    struct wanted wanted = {.named = named};
    struct pep_profile *profile = NULL;
    const char *sentence = read_params(exchange, &wanted);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    const char *name = wanted.window.duration_ns ? named->delta_name : named->name;
    if (exchange->request->method == PEP_HEAD) {
        pep_render_head(response, wanted.format, name);
        response->is_length_unknown = true;
        return;
    }
    int error = collect(exchange, &wanted, &profile);
    if (error) {
        pep_on_heap_error(response, error);
        return;
    }
    struct pep_heap_notes notes = {.arena = exchange->arena,
                                   .profile = profile,
                                   .has_trimmed = wanted.is_trimmed,
                                   .is_trim_refused = wanted.has_trim && !wanted.is_trimmed,
                                   .has_memory = wanted.format == PEP_FORMAT_LEGACY};
    pep_heap_notes_add(&notes);
    if (wanted.window.duration_ns && named->view == PEP_HEAP_ALLOCS &&
        pep_render_nothing(response, wanted.format, profile))
        return;
    pep_render_head(response, wanted.format, name);
    pep_render_body(response, wanted.format, profile, exchange->arena);
}

void pep_on_heap(struct pep_exchange *exchange) {
    answer(exchange, &(struct named){"heap", "heap-delta", PEP_HEAP_INUSE});
}

void pep_on_allocs(struct pep_exchange *exchange) {
    answer(exchange, &(struct named){"allocs", "allocs-delta", PEP_HEAP_ALLOCS});
}

void pep_on_temporary(struct pep_exchange *exchange) {
    answer(exchange, &(struct named){"temporary", "temporary-delta", PEP_HEAP_TEMPORARY});
}
