/*
 * /debug/pprof/heap, allocs and temporary, as Go's net/http/pprof answers the first two.
 *
 * Model:   delta.h, with rate= for a window and gc= for the whole; notes tell what stands beside
 * the numbers (heap_notes.h). Writers: the connection's thread.  [normal] Readers: the client.
 * Memory:  the request's arena.
 * When full: 503.
 */
#include <errno.h>
#include <malloc.h>

#include "http/delta.h"
#include "http/heap_notes.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

#define UNRECORDED "This program's allocations are not recorded."

struct wanted {
    struct pep_delta asked;
    struct pep_heap_window window; /* duration_ns 0: since the start */
    bool has_trim, is_trimmed;
};

/* -- what is asked ---------------------------------------------------------------------------- */

/* IOx's word for the rate. Its allocations are those of 30 seconds where nobody says of how many.
 */
static const char *read_interval(const struct pep_request *request, struct wanted *wanted) {
    const char *text = pep_request_param(request, "interval");
    int64_t bytes;
    if (!text)
        return NULL;
    if (!pep_request_number(text, 1, PEP_HEAP_RATE_MAX, &bytes))
        return "interval must be a whole number of bytes from 1 to 1073741824.";
    if (wanted->asked.duration_ns == 0 && wanted->asked.format == PEP_FORMAT_LEGACY)
        return "interval and debug params are incompatible";
    if (wanted->asked.duration_ns == 0 && wanted->window.query.view != PEP_HEAP_ALLOCS)
        return "interval is for a window: give seconds too.";
    if (wanted->asked.duration_ns == 0)
        wanted->asked.duration_ns = pep_window_duration_ns(PEP_REQUEST_SECONDS);
    wanted->window.rate_bytes = (uint32_t)bytes;
    return NULL;
}

static const char *read_rate(const struct pep_request *request, struct wanted *wanted) {
    const char *text = pep_request_param(request, "rate");
    int64_t rate;
    if (!text)
        return read_interval(request, wanted);
    if (!pep_request_number(text, 1, PEP_HEAP_RATE_MAX, &rate))
        return "rate must be a whole number of bytes from 1 to 1073741824.";
    if (wanted->asked.duration_ns == 0)
        return "rate is for a window: give seconds too.";
    wanted->window.rate_bytes = (uint32_t)rate;
    return NULL;
}

/* The sentence for a 400, or NULL when every parameter is good. */
static const char *read_params(const struct pep_exchange *exchange, struct wanted *wanted) {
    const struct pep_request *request = exchange->request;
    struct pep_heap_query *query = &wanted->window.query;
    const char *sentence = pep_delta_read(request, &wanted->asked);
    if (!sentence)
        sentence = read_rate(request, wanted);
    wanted->window.duration_ns = wanted->asked.duration_ns;
    wanted->window.client = exchange->client;
    query->filter = wanted->asked.filter;
    if (!sentence)
        sentence = pep_delta_read_inuse(request, &query->has_absolute_inuse);
    wanted->has_trim = query->view == PEP_HEAP_INUSE && wanted->window.duration_ns == 0 &&
                       pep_request_atoi(pep_request_param(request, "gc")) > 0;
    /* Readers of the text scale all samples by one rate. Where they have several, they get the
     * scaled values and are told to leave them. */
    query->is_raw = wanted->asked.format == PEP_FORMAT_LEGACY && !pep_window_heap_has_varied();
    return sentence;
}

/* -- what is answered ------------------------------------------------------------------------- */

void pep_on_heap_error(struct pep_response *response, int error) {
    pep_render_error(response, error, UNRECORDED);
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
    if (*profile && wanted->asked.format == PEP_FORMAT_LEGACY)
        (*profile)->is_exact = !window->query.is_raw;
    return *profile ? 0 : -ENOMEM;
}

static void answer(struct pep_exchange *exchange, const char *name, enum pep_heap_view view) {
    struct wanted wanted = {
        .asked = {.name = name, .text = PEP_FORMAT_LEGACY, .unrecorded = UNRECORDED},
        .window.query.view = view};
    struct pep_profile *profile = NULL;
    const char *sentence = read_params(exchange, &wanted);
    if (pep_delta_is_answered(exchange, &wanted.asked, sentence))
        return;
    int error = collect(exchange, &wanted, &profile);
    struct pep_heap_notes notes = {.arena = exchange->arena,
                                   .profile = profile,
                                   .has_trimmed = wanted.is_trimmed,
                                   .is_trim_refused = wanted.has_trim && !wanted.is_trimmed,
                                   .has_memory = wanted.asked.format == PEP_FORMAT_LEGACY};
    if (!error)
        pep_heap_notes_add(&notes);
    if (!error && wanted.window.duration_ns && view == PEP_HEAP_ALLOCS &&
        pep_render_nothing(exchange->response, wanted.asked.format, profile))
        return;
    pep_delta_answer(exchange, &wanted.asked, error, profile);
}

void pep_on_heap(struct pep_exchange *exchange) {
    answer(exchange, "heap", PEP_HEAP_INUSE);
}

void pep_on_allocs(struct pep_exchange *exchange) {
    answer(exchange, "allocs", PEP_HEAP_ALLOCS);
}

void pep_on_temporary(struct pep_exchange *exchange) {
    answer(exchange, "temporary", PEP_HEAP_TEMPORARY);
}

/* -- for the index ---------------------------------------------------------------------------- */

uint64_t pep_on_heap_count(struct pep_arena *arena) {
    (void)arena;
    return pep_heap_record_count(PEP_HEAP_INUSE);
}

uint64_t pep_on_temporary_count(struct pep_arena *arena) {
    (void)arena;
    return pep_heap_record_count(PEP_HEAP_TEMPORARY);
}
