/*
 * /allocs_profile and its start and stop, as ProfileEndpoints answers them.
 *
 * Model:   a recording is begun by start and ended by the first stop, which leaves its profile;
 *          later stops answer the same. A start forgets what was there before. Whoever answers
 *          from a recording holds it, so a start may come while a slow client reads.
 * Writers: the connections' threads, one at a time under the lock.  [normal]
 * Readers: the same.
 * Memory:  an arena for each recording, until it is forgotten and nobody holds it.
 * When full: 503.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "http/form.h"
#include "http/heap_notes.h"
#include "http/render.h"
#include "http/routes.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"
#include "sampler/rt/os.h"

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
     "The program runs on as usual; only allocations of this time are recorded."},
    {"sample_rate", "Sample rate", "0.0001", "0.000000001", "1",
     "The probability of an allocation being recorded, whatever its size. 1 records every "
     "allocation and slows the program down: begin low."},
};
static const struct pep_form form = {
    "Allocation profile",
    "Records where the program allocates memory and shows it as a flame graph.",
    "allocs_profile",
    fields,
    PEP_COUNT_OF(fields),
};

struct recording {
    struct pep_arena arena;
    struct pep_heap_window window;
    struct pep_heap_snapshot *before;
    struct pep_profile *profile; /* NULL while it runs */
    int holders;                 /* `current` is one; under the lock */
};

static struct recording *current; /* under the lock */
static int lock;

static void take_lock(void) {
    while (pep_swap_acq_rel(&lock, 1))
        (void)pep_os_futex_wait(&lock, 1, 1000000);
}

static void drop_lock(void) {
    pep_store_release(&lock, 0);
    (void)pep_os_futex_wake(&lock, 1);
}

/* Under the lock. */
static void let_go(struct recording *recording) {
    if (!recording || --recording->holders > 0)
        return;
    if (!recording->profile)
        pep_window_heap_end(&recording->window);
    pep_arena_drop(&recording->arena);
    pep_free(recording);
}

void pep_on_allocs_after_fork_child(void) {
    /* What the parent recorded is its own, and may have been half way through anything. */
    current = NULL;
    lock = 0;
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
    if (exchange->request->method == PEP_HEAD) {
        pep_render_head(response, format, "allocs_profile");
        response->is_length_unknown = true;
        return;
    }
    int error = pep_window_heap(exchange->arena, &window, &profile);
    if (error) {
        pep_on_heap_error(response, error);
        return;
    }
    pep_heap_notes_add(&(struct pep_heap_notes){.arena = exchange->arena, .profile = profile});
    answer_profile(exchange, format, profile);
}

void pep_on_allocs_profile(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    if (pep_form_is_wanted(exchange->request)) {
        pep_form_answer(response, &form);
    } else if (!*exchange->request->query) {
        pep_response_error(response, 400, help_text);
        pep_response_header(response, "Vary", "Accept");
    } else {
        record(exchange);
    }
}

/* -- start and stop --------------------------------------------------------------------------- */

static int begin(struct recording *recording, double probability) {
    recording->holders = 1;
    recording->window =
        (struct pep_heap_window){.probability = probability, .query = {.view = PEP_HEAP_ALLOCS}};
    pep_arena_init(&recording->arena, 0);
    int error = pep_window_heap_begin(&recording->window);
    if (error)
        return error;
    recording->before = pep_heap_snapshot_take(&recording->arena);
    if (recording->before)
        return 0;
    pep_window_heap_end(&recording->window);
    return -ENOMEM;
}

void pep_on_allocs_start(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    double probability;
    const char *sentence = read_probability(exchange->request, &probability);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    struct recording *fresh =
        exchange->request->method == PEP_HEAD ? NULL : pep_calloc(1, sizeof(*fresh));
    int error = fresh || exchange->request->method == PEP_HEAD ? 0 : -ENOMEM;
    if (fresh)
        error = begin(fresh, probability);
    if (error) {
        if (fresh)
            pep_arena_drop(&fresh->arena);
        pep_free(fresh);
        pep_on_heap_error(response, error);
        return;
    }
    if (fresh) {
        take_lock();
        let_go(current);
        current = fresh;
        drop_lock();
    }
    pep_response_start(response, 200, "text/plain; charset=utf-8");
    pep_write_text(&response->writer, "Allocation profiling started.");
}

/* The recording, ended and held, or NULL with *error. */
static struct recording *end_and_hold(int *error) {
    take_lock();
    struct recording *recording = current;
    *error = recording ? 0 : -ENOENT;
    if (recording && !recording->profile) {
        struct pep_profile *profile =
            pep_profile_heap(&recording->arena, recording->before, &recording->window.query);
        if (profile) {
            profile->is_signed = true;
            pep_heap_notes_add(
                &(struct pep_heap_notes){.arena = &recording->arena, .profile = profile});
            pep_window_heap_end(&recording->window);
            recording->profile = profile;
        } else {
            *error = -ENOMEM; /* it runs on: another stop may find memory */
        }
    }
    if (*error)
        recording = NULL;
    else
        recording->holders++;
    drop_lock();
    return recording;
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
    if (exchange->request->method == PEP_HEAD) {
        pep_render_head(response, format, "allocs_profile");
        response->is_length_unknown = true;
        return;
    }
    struct recording *recording = end_and_hold(&error);
    if (error == -ENOENT) {
        pep_response_error(response, 400, "There is no recording: ask allocs_profile_start first.");
        return;
    }
    if (error) {
        pep_on_heap_error(response, error);
        return;
    }
    answer_profile(exchange, format, recording->profile);
    take_lock();
    let_go(recording);
    drop_lock();
}
