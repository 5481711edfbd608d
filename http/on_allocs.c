/*
 * /allocs_profile and its start and stop, as ProfileEndpoints answers them.
 *
 * Model:   one window, or a recording (recording.h); what is sampled is each allocation with the
 *          same probability, whatever its size.
 * Writers: the connection's thread.  [normal]
 * Readers: -
 * Memory:  the request's arena; a recording's.
 * When full: 503.
 */
#include <errno.h>
#include <string.h>

#include "http/form.h"
#include "http/heap_notes.h"
#include "http/recording.h"
#include "http/render.h"
#include "http/routes.h"
#include "sampler/rt/attrs.h"

#define DURATION_LOW 0.001
#define DURATION_HIGH 86400.0
#define PROBABILITY_LOW 1e-9
#define PROBABILITY_HIGH 1.0

static const char help_text[] =
    "Need to provide query params:\n"
    "    - duration=10.0\n"
    "    - sample_rate=0.0001\n"
    "\n"
    "Hint: duration is how many seconds to record. sample_rate is the probability of an "
    "allocation\n"
    "being recorded, whatever its size: 1 records every one and slows the program down. Start low\n"
    "and raise it until the profile has some 1,000 samples.\n";

static const struct pep_form_field fields[] = {
    {"duration", "Duration in seconds", "10", "0.001", "86400",
     "The program runs on as usual; only allocations of this time are recorded.", false},
    {"sample_rate", "Sample rate", "0.0001", "0.000000001", "1",
     "The probability of an allocation being recorded, whatever its size. 1 records every "
     "allocation and slows the program down: begin low.",
     false},
};
static const struct pep_form form = {
    "Allocation profile",
    "Records where the program allocates memory and shows it as a flame graph.",
    "allocs_profile",
    fields,
    PEP_COUNT_OF(fields),
};

static int begin(struct pep_recording *recording);
static struct pep_profile *read_up_to_now(struct pep_recording *recording);
static void end(struct pep_recording *recording);

static struct pep_recordings recordings = {.begin = begin, .read = read_up_to_now, .end = end};

void pep_on_allocs_after_fork_child(void) {
    pep_recording_after_fork_child(&recordings);
}

/* -- what is asked ---------------------------------------------------------------------------- */

static const char *read_probability(const struct pep_request *request, double *probability) {
    const char *text = pep_request_param(request, "sample_rate");
    *probability = 0.0001;
    if (text && !pep_request_decimal(text, PROBABILITY_LOW, PROBABILITY_HIGH, probability))
        return "sample_rate must be a probability from 1e-9 to 1.";
    return NULL;
}

static const char *read_duration(const struct pep_request *request, uint64_t *duration_ns) {
    const char *text = pep_request_param(request, "duration");
    double seconds = 10;
    if (text && !pep_request_decimal(text, DURATION_LOW, DURATION_HIGH, &seconds))
        return "duration must be a number of seconds from 0.001 to 86400.";
    *duration_ns = (uint64_t)(seconds * 1e9);
    return NULL;
}

static void answer_profile(struct pep_exchange *exchange, enum pep_format format,
                           struct pep_profile *profile) {
    pep_render_head(exchange->response, format, "allocs_profile");
    pep_render_body(exchange->response, format, profile, exchange->arena);
}

/* -- one request ------------------------------------------------------------------------------ */

static void record(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    struct pep_heap_window window = {
        .query = {.view = PEP_HEAP_ALLOCS, .has_absolute_inuse = false},
        .client = exchange->client};
    struct pep_profile *profile;
    enum pep_format format;
    const char *sentence = read_duration(exchange->request, &window.duration_ns);
    if (!sentence)
        sentence = read_probability(exchange->request, &window.probability);
    if (!sentence)
        sentence = pep_render_params(exchange->request, &format, &window.query.filter.thread);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    if (pep_render_is_head(response, format, "allocs_profile"))
        return;
    int error = pep_window_heap(exchange->arena, &window, &profile);
    if (error) {
        pep_on_heap_error(response, error);
        return;
    }
    pep_heap_notes_add(&(struct pep_heap_notes){
        .arena = exchange->arena, .profile = profile, .probability = window.probability});
    answer_profile(exchange, format, profile);
}

void pep_on_allocs_profile(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    if (pep_form_is_wanted(exchange->request)) {
        pep_form_answer(response, &form);
    } else if (!*exchange->request->query) {
        pep_response_error(response, 400, help_text);
    } else {
        record(exchange);
    }
}

/* -- start and stop --------------------------------------------------------------------------- */

static struct pep_heap_window window_of(const struct pep_recording *recording) {
    return (struct pep_heap_window){.probability = recording->wanted,
                                    .query = {.view = PEP_HEAP_ALLOCS}};
}

static int begin(struct pep_recording *recording) {
    const struct pep_heap_window window = window_of(recording);
    int error = pep_window_heap_begin(&window);
    if (error)
        return error;
    recording->before = pep_heap_snapshot_take(&recording->arena);
    if (recording->before)
        return 0;
    pep_window_heap_end(&window);
    return -ENOMEM;
}

static struct pep_profile *read_up_to_now(struct pep_recording *recording) {
    const struct pep_heap_window window = window_of(recording);
    struct pep_profile *profile =
        pep_profile_heap(&recording->arena, recording->before, &window.query);
    if (!profile)
        return NULL;
    profile->is_signed = true;
    pep_heap_notes_add(&(struct pep_heap_notes){
        .arena = &recording->arena, .profile = profile, .probability = window.probability});
    return profile;
}

static void end(struct pep_recording *recording) {
    const struct pep_heap_window window = window_of(recording);
    pep_window_heap_end(&window);
}

void pep_on_allocs_start(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    double probability;
    const char *sentence = read_probability(exchange->request, &probability);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    int error = 0;
    if (exchange->request->method != PEP_HEAD)
        error = pep_recording_start(&recordings, probability, 0);
    if (error) {
        pep_on_heap_error(response, error);
        return;
    }
    pep_response_start(response, 200, "text/plain; charset=utf-8");
    pep_write_text(&response->writer, "Allocation profiling started.");
}

/* Nobody asked for a start: there is nothing to tell of. */
static struct pep_profile *make_empty(struct pep_arena *arena) {
    const struct pep_heap_query query = {.view = PEP_HEAP_ALLOCS};
    const struct pep_heap_snapshot *before = pep_heap_snapshot_take(arena);
    struct pep_profile *profile = before ? pep_profile_heap(arena, before, &query) : NULL;
    if (profile)
        profile->sample_count = 0; /* what was recorded between the two */
    return profile;
}

void pep_on_allocs_stop(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    enum pep_format format;
    const char *thread;
    int error;
    const char *sentence = pep_render_params(exchange->request, &format, &thread);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    if (pep_render_is_head(response, format, "allocs_profile"))
        return;
    struct pep_recording *recording = pep_recording_stop(&recordings, &error);
    if (error == -ENOENT) {
        struct pep_profile *profile = make_empty(exchange->arena);
        if (profile)
            answer_profile(exchange, format, profile);
        else
            pep_on_heap_error(response, -ENOMEM);
        return;
    }
    if (error) {
        pep_on_heap_error(response, error);
        return;
    }
    answer_profile(exchange, format, recording->profile);
    pep_recording_drop(recording);
}
