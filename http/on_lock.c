/*
 * /debug/pprof/block and /debug/pprof/mutex, as Go's net/http/pprof answers them.
 */
#include <errno.h>

#include "http/render.h"
#include "http/routes.h"

struct named {
    const char *name, *delta_name; /* of the file */
    enum pep_lock_side side;
};

struct wanted {
    struct pep_lock_window window; /* duration_ns 0: since the start */
    enum pep_format format;
};

static const char *read_rate(const struct pep_request *request, struct pep_lock_window *window) {
    const char *text = pep_request_param(request, "rate");
    int64_t rate;
    if (!text)
        return NULL;
    if (!pep_request_number(text, 1, PEP_LOCK_RATE_MAX, &rate))
        return "rate must be a whole number of nanoseconds from 1 to 1000000000000.";
    if (window->duration_ns == 0)
        return "rate is for a window: give seconds too.";
    window->rate_ns = (uint64_t)rate;
    return NULL;
}

/* The sentence for a 400, or NULL when every parameter is good. */
static const char *read_params(const struct pep_exchange *exchange, struct wanted *wanted) {
    const struct pep_request *request = exchange->request;
    struct pep_lock_window *window = &wanted->window;
    const char *sentence = pep_render_delta(request, &window->duration_ns);
    if (!sentence)
        sentence = read_rate(request, window);
    if (!sentence)
        sentence = pep_render_params(request, &wanted->format, &window->filter.thread);
    window->client = exchange->client;
    if (!sentence && pep_request_atoi(pep_request_param(request, "debug")) != 0)
        wanted->format = PEP_FORMAT_CONTENTION;
    return sentence;
}

static void explain(struct pep_response *response, int error) {
    if (error == -ENOMEM)
        pep_response_error(response, 503, "Not enough memory for this profile.");
    else if (error == -ECONNRESET)
        response->writer.error = error;
    else if (error == -EBUSY)
        pep_response_error(response, 429, "Too many windows ask for a rate of their own.");
    else if (error == -ENOTSUP)
        pep_response_error(response, 501, "This program's waiting is not recorded.");
    else
        pep_response_error(response, 500, "failed to collect profile");
}

static void answer(struct pep_exchange *exchange, const struct named *named) {
    struct pep_response *response = exchange->response;
    struct wanted wanted = {.window.side = named->side};
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
    int error = pep_window_lock(exchange->arena, &wanted.window, &profile);
    if (error) {
        explain(response, error);
        return;
    }
    pep_render_head(response, wanted.format, name);
    pep_render_body(response, wanted.format, profile, exchange->arena);
}

void pep_on_block(struct pep_exchange *exchange) {
    answer(exchange, &(struct named){"block", "block-delta", PEP_LOCK_BLOCK});
}

void pep_on_mutex(struct pep_exchange *exchange) {
    answer(exchange, &(struct named){"mutex", "mutex-delta", PEP_LOCK_HOLD});
}

static uint64_t count(struct pep_arena *arena, enum pep_lock_side side) {
    const struct pep_cells_snapshot *now = pep_lock_snapshot_take(arena, side);
    uint64_t found = 0;
    for (uint32_t i = 0; now && i < now->cell_count; i++)
        found += now->cells[i].count != 0;
    return found;
}

uint64_t pep_on_block_count(struct pep_arena *arena) {
    return count(arena, PEP_LOCK_BLOCK);
}

uint64_t pep_on_mutex_count(struct pep_arena *arena) {
    return count(arena, PEP_LOCK_HOLD);
}
