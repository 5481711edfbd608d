/*
 * /profile, /profile_wall and the start and stop of each, as ProfileEndpoints answers them.
 *
 * Model:   the two differ in their clock and their limits alone. Its parameters: delay is the time
 *          between two samples; n, the room for samples, is read and not needed: sums take none.
 * Writers: the connection's thread.  [normal]
 * Readers: -
 * Memory:  the request's arena; a recording's (recording.h).
 * When full: 503.
 */
#include <errno.h>
#include <string.h>

#include "http/form.h"
#include "http/recording.h"
#include "http/render.h"
#include "http/routes.h"
#include "sampler/rt/attrs.h"

#define DURATION_LOW 0.001
#define DURATION_HIGH 86400.0
#define DELAY_HIGH 1.0
#define ROOM_HIGH 1e15
#define DEFAULT_HZ 100.0

struct endpoint {
    const char *name;
    enum pep_window_clock clock;
    double delay_low;
    const char *delay_sentence;
    const char *started, *not_started;
    struct pep_form form;
    struct pep_recordings recordings;
};

static const char help_text[] =
    "Need to provide query params:\n"
    "    - duration=10.0\n"
    "    - delay=0.01\n"
    "    - n=1e8\n"
    "    - pprof=true\n"
    "\n"
    "Hint: duration is how many seconds to record, delay how many of them lie between two samples\n"
    "of a thread. A delay of duration / 1000 makes a readable profile. n may be left out.\n";

static const struct pep_form_field fields[] = {
    {"duration", "Duration in seconds", "10", "0.001", "86400",
     "The program runs on as usual meanwhile."},
    {"delay", "Delay in seconds", "0.01", "0.001", "1",
     "The time between two samples of a thread: 0.01 makes 100 samples a second."},
};

static int begin_cpu(struct pep_recording *recording);
static int begin_wall(struct pep_recording *recording);
static struct pep_profile *read_cpu(struct pep_recording *recording);
static struct pep_profile *read_wall(struct pep_recording *recording);
static void end_cpu(struct pep_recording *recording);
static void end_wall(struct pep_recording *recording);

static struct endpoint cpu = {
    .name = "profile",
    .clock = PEP_WINDOW_CPU,
    .delay_low = 0.0001,
    .delay_sentence = "delay must be a number of seconds from 0.0001 to 1.",
    .started = "CPU_PROFILE profiling started.",
    .not_started = "There is no recording: ask profile_start first.",
    .form = {"CPU profile", "Records where CPU time goes and shows it as a flame graph.", "profile",
             fields, PEP_COUNT_OF(fields)},
    .recordings = {.begin = begin_cpu, .read = read_cpu, .end = end_cpu},
};
static struct endpoint wall = {
    .name = "profile_wall",
    .clock = PEP_WINDOW_WALL,
    .delay_low = 0.001,
    .delay_sentence = "delay must be a number of seconds from 0.001 to 1.",
    .started = "WALL_PROFILE profiling started.",
    .not_started = "There is no recording: ask profile_wall_start first.",
    .form = {"Wall clock profile",
             "Records where the time of every thread goes, running and waiting, and shows it as a "
             "flame graph.",
             "profile_wall", fields, PEP_COUNT_OF(fields)},
    .recordings = {.begin = begin_wall, .read = read_wall, .end = end_wall},
};

void pep_on_endpoints_after_fork_child(void) {
    pep_recording_after_fork_child(&cpu.recordings);
    pep_recording_after_fork_child(&wall.recordings);
}

/* -- what is asked ---------------------------------------------------------------------------- */

static const char *read_delay(const struct pep_request *request, const struct endpoint *endpoint,
                              uint32_t *hz) {
    const char *text = pep_request_param(request, "delay");
    const char *room = pep_request_param(request, "n");
    double delay = 1 / DEFAULT_HZ, ignored;
    if (text && !pep_request_decimal(text, endpoint->delay_low, DELAY_HIGH, &delay))
        return endpoint->delay_sentence;
    if (room && !pep_request_decimal(room, 1, ROOM_HIGH, &ignored))
        return "n must be a number from 1 up.";
    *hz = (uint32_t)(1 / delay + 0.5);
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

/* True when this is answered: the other form is a data structure of Julia's own. */
static bool refuse_serialized(struct pep_exchange *exchange) {
    const char *text = pep_request_param(exchange->request, "pprof");
    if (!text || strcmp(text, "true") == 0)
        return false;
    bool is_known = strcmp(text, "false") == 0;
    pep_response_error(exchange->response, is_known ? 501 : 400,
                       is_known ? "Only pprof=true is served: Julia's serialized form is Julia's."
                                : "pprof must be true.");
    return true;
}

/* -- one request ------------------------------------------------------------------------------ */

static void answer_profile(struct pep_exchange *exchange, const struct endpoint *endpoint,
                           enum pep_format format, const struct pep_profile *profile) {
    pep_render_head(exchange->response, format, endpoint->name);
    if (profile)
        pep_render_body(exchange->response, format, profile, exchange->arena);
    else
        exchange->response->is_length_unknown = true; /* HEAD */
}

static void record(struct pep_exchange *exchange, const struct endpoint *endpoint) {
    struct pep_response *response = exchange->response;
    const struct pep_request *request = exchange->request;
    struct pep_window window = {.clock = endpoint->clock, .client = exchange->client};
    struct pep_profile *profile = NULL;
    enum pep_format format;
    const char *sentence = read_duration(request, &window.duration_ns);
    if (!sentence)
        sentence = read_delay(request, endpoint, &window.hz);
    if (!sentence)
        sentence = pep_render_params(request, &format, &window.thread);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    int error = 0;
    if (request->method != PEP_HEAD)
        error = pep_window_run(exchange->arena, &window, &profile);
    if (error)
        pep_on_window_error(response, endpoint->clock, error);
    else
        answer_profile(exchange, endpoint, format, profile);
}

static void answer(struct pep_exchange *exchange, const struct endpoint *endpoint) {
    struct pep_response *response = exchange->response;
    if (pep_form_is_wanted(exchange->request)) {
        pep_form_answer(response, &endpoint->form);
    } else if (!*exchange->request->query) {
        pep_response_error(response, 400, help_text);
        pep_response_header(response, "Vary", "Accept");
    } else if (!refuse_serialized(exchange)) {
        record(exchange, endpoint);
    }
}

void pep_on_endpoint_profile(struct pep_exchange *exchange) {
    answer(exchange, &cpu);
}

void pep_on_endpoint_wall(struct pep_exchange *exchange) {
    answer(exchange, &wall);
}

/* -- start and stop --------------------------------------------------------------------------- */

static struct pep_window window_of(enum pep_window_clock clock,
                                   const struct pep_recording *recording) {
    return (struct pep_window){.clock = clock, .hz = (uint32_t)recording->wanted};
}

static int begin_cpu(struct pep_recording *recording) {
    const struct pep_window window = window_of(PEP_WINDOW_CPU, recording);
    return pep_window_begin(&recording->arena, &window, &recording->before);
}

static int begin_wall(struct pep_recording *recording) {
    const struct pep_window window = window_of(PEP_WINDOW_WALL, recording);
    return pep_window_begin(&recording->arena, &window, &recording->before);
}

static struct pep_profile *read_cpu(struct pep_recording *recording) {
    const struct pep_window window = window_of(PEP_WINDOW_CPU, recording);
    return pep_window_read(&recording->arena, &window, recording->before);
}

static struct pep_profile *read_wall(struct pep_recording *recording) {
    const struct pep_window window = window_of(PEP_WINDOW_WALL, recording);
    return pep_window_read(&recording->arena, &window, recording->before);
}

static void end_cpu(struct pep_recording *recording) {
    const struct pep_window window = window_of(PEP_WINDOW_CPU, recording);
    pep_window_end(&window);
}

static void end_wall(struct pep_recording *recording) {
    const struct pep_window window = window_of(PEP_WINDOW_WALL, recording);
    pep_window_end(&window);
}

static void start(struct pep_exchange *exchange, struct endpoint *endpoint) {
    struct pep_response *response = exchange->response;
    uint32_t hz;
    const char *sentence = read_delay(exchange->request, endpoint, &hz);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    int error = 0;
    if (exchange->request->method != PEP_HEAD)
        error = pep_recording_start(&endpoint->recordings, hz);
    if (error) {
        pep_on_window_error(response, endpoint->clock, error);
        return;
    }
    pep_response_start(response, 200, "text/plain; charset=utf-8");
    pep_write_text(&response->writer, endpoint->started);
}

static void stop(struct pep_exchange *exchange, struct endpoint *endpoint) {
    struct pep_response *response = exchange->response;
    enum pep_format format;
    const char *thread;
    int error;
    const char *sentence = pep_render_params(exchange->request, &format, &thread);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    if (refuse_serialized(exchange))
        return;
    if (exchange->request->method == PEP_HEAD) {
        answer_profile(exchange, endpoint, format, NULL);
        return;
    }
    struct pep_recording *recording = pep_recording_stop(&endpoint->recordings, &error);
    if (error == -ENOENT) {
        pep_response_error(response, 400, endpoint->not_started);
    } else if (error) {
        pep_on_window_error(response, endpoint->clock, error);
    } else {
        answer_profile(exchange, endpoint, format, recording->profile);
        pep_recording_drop(&endpoint->recordings, recording);
    }
}

void pep_on_endpoint_profile_start(struct pep_exchange *exchange) {
    start(exchange, &cpu);
}

void pep_on_endpoint_profile_stop(struct pep_exchange *exchange) {
    stop(exchange, &cpu);
}

void pep_on_endpoint_wall_start(struct pep_exchange *exchange) {
    start(exchange, &wall);
}

void pep_on_endpoint_wall_stop(struct pep_exchange *exchange) {
    stop(exchange, &wall);
}
