/*
 * /profile, /profile_wall and the start and stop of each, as ProfileEndpoints answers them.
 *
 * Model:   the two differ in their clock and their limits alone. delay is the time between two
 *          samples, n the room for samples. Each profile is kept as the last one (on_recorded.c).
 * Writers: the connection's thread.  [normal]
 * Readers: -
 * Memory:  the request's arena; a recording's (recording.h).
 * When full: 503.
 */
#include <errno.h>
#include <string.h>

#include "http/endpoints.h"
#include "http/form.h"
#include "http/render.h"
#include "http/sample_room.h"
#include "sampler/rt/attrs.h"

#define UNSTARTED_HZ 100 /* the period that an empty profile tells */

struct endpoint {
    const char *name;
    enum pep_window_clock clock;
    const char *started;
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
    "of a thread. A delay of duration / 1000 makes a readable profile. n is the room for samples,\n"
    "pprof=false answers every sample as JSON lines.\n";

static const struct pep_form_field fields[] = {
    {"duration", "Duration in seconds", "10", "0.001", "86400",
     "The program runs on as usual meanwhile.", false},
    {"delay", "Delay in seconds", "0.01", "0.001", "1",
     "The time between two samples of a thread: 0.01 makes 100 samples a second.", false},
    {"n", "Samples", "1000", "1", "864000000",
     "Of a thread that is busy all the time; 1,000 to 10,000 make a readable profile. Change it "
     "and the delay follows.",
     true},
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
    .started = "CPU_PROFILE profiling started.",
    .form = {"CPU profile", "Records where CPU time goes and shows it as a flame graph.", "profile",
             fields, PEP_COUNT_OF(fields)},
    .recordings = {.begin = begin_cpu, .read = read_cpu, .end = end_cpu, .is_kept = true},
};
static struct endpoint wall = {
    .name = "profile_wall",
    .clock = PEP_WINDOW_WALL,
    .started = "WALL_PROFILE profiling started.",
    .form = {"Wall clock profile",
             "Records where the time of every thread goes, running and waiting, and shows it as a "
             "flame graph.",
             "profile_wall", fields, PEP_COUNT_OF(fields)},
    .recordings = {.begin = begin_wall, .read = read_wall, .end = end_wall, .is_kept = true},
};

void pep_endpoint_clear(void) {
    pep_recording_forget(&cpu.recordings);
    pep_recording_forget(&wall.recordings);
    pep_recording_keep(NULL);
}

void pep_on_endpoints_after_fork_child(void) {
    pep_recording_after_fork_child(&cpu.recordings);
    pep_recording_after_fork_child(&wall.recordings);
}

/* -- what is asked ---------------------------------------------------------------------------- */

/* pprof=true is the profile as format and Accept have it, pprof=false every sample as JSON lines,
 * for programs: Julia's own form is a data structure of Julia's. NULL, or the sentence of a 400. */
static const char *read_pprof(const struct pep_request *request, enum pep_format *format) {
    const char *text = pep_request_param(request, "pprof");
    if (!text || strcmp(text, "true") == 0)
        return NULL;
    if (strcmp(text, "false") != 0)
        return "pprof must be true or false.";
    if (!pep_request_param(request, "format"))
        *format = PEP_FORMAT_JSON;
    return NULL;
}

/* -- one request ------------------------------------------------------------------------------ */

static void answer_profile(struct pep_exchange *exchange, const struct endpoint *endpoint,
                           enum pep_format format, const struct pep_profile *profile) {
    pep_render_head(exchange->response, format, endpoint->name);
    pep_render_body(exchange->response, format, profile, exchange->arena);
}

static void record(struct pep_exchange *exchange, const struct endpoint *endpoint) {
    struct pep_endpoint_wanted wanted = {.clock = endpoint->clock};
    const char *sentence = pep_endpoint_read(exchange->request, &wanted);
    if (!sentence)
        sentence = read_pprof(exchange->request, &wanted.format);
    if (sentence) {
        pep_response_error(exchange->response, 400, sentence);
        return;
    }
    if (pep_render_is_head(exchange->response, wanted.format, endpoint->name))
        return;
    struct pep_recording *recording = pep_endpoint_record(exchange, &wanted);
    if (recording) {
        answer_profile(exchange, endpoint, wanted.format, recording->profile);
        pep_recording_drop(recording);
    }
}

static void answer(struct pep_exchange *exchange, const struct endpoint *endpoint) {
    struct pep_response *response = exchange->response;
    if (pep_form_is_wanted(exchange->request)) {
        pep_form_answer(response, &endpoint->form);
    } else if (!*exchange->request->query) {
        pep_response_error(response, 400, help_text);
    } else {
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

static struct pep_profile *read_up_to_now(enum pep_window_clock clock,
                                          struct pep_recording *recording) {
    const struct pep_window window = window_of(clock, recording);
    struct pep_profile *profile = pep_window_read(&recording->arena, &window, recording->before);
    if (profile && !pep_sample_room_apply(&recording->arena, profile, recording->room))
        profile = NULL;
    return profile;
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
    return read_up_to_now(PEP_WINDOW_CPU, recording);
}

static struct pep_profile *read_wall(struct pep_recording *recording) {
    return read_up_to_now(PEP_WINDOW_WALL, recording);
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
    struct pep_endpoint_wanted wanted = {.clock = endpoint->clock};
    const char *sentence = pep_endpoint_read_rate(exchange->request, &wanted);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    int error = 0;
    if (exchange->request->method != PEP_HEAD)
        error = pep_recording_start(&endpoint->recordings, wanted.hz, wanted.room);
    if (error) {
        pep_on_window_error(response, endpoint->clock, error);
        return;
    }
    pep_response_start(response, 200, "text/plain; charset=utf-8");
    pep_write_text(&response->writer, endpoint->started);
}

/* Nobody asked for a start: Julia's buffer has what another request left there, or nothing. */
static void answer_unstarted(struct pep_exchange *exchange, const struct endpoint *endpoint,
                             enum pep_format format) {
    const struct pep_window window = {.clock = endpoint->clock, .hz = UNSTARTED_HZ};
    const char *kind = endpoint->clock == PEP_WINDOW_WALL ? "wall" : "cpu";
    struct pep_recording *last = pep_recording_last();
    const struct pep_profile *profile = last ? last->profile : NULL;
    if (!profile || !profile->kind || strcmp(profile->kind, kind) != 0)
        profile = pep_window_empty(exchange->arena, &window);
    if (profile)
        answer_profile(exchange, endpoint, format, profile);
    else
        pep_on_window_error(exchange->response, endpoint->clock, -ENOMEM);
    if (last)
        pep_recording_drop(last);
}

static void stop(struct pep_exchange *exchange, struct endpoint *endpoint) {
    struct pep_response *response = exchange->response;
    enum pep_format format;
    const char *thread;
    int error;
    const char *sentence = pep_render_params(exchange->request, &format, &thread);
    if (!sentence)
        sentence = read_pprof(exchange->request, &format);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    if (pep_render_is_head(response, format, endpoint->name))
        return;
    struct pep_recording *recording = pep_recording_stop(&endpoint->recordings, &error);
    if (error == -ENOENT) {
        answer_unstarted(exchange, endpoint, format);
    } else if (error) {
        pep_on_window_error(response, endpoint->clock, error);
    } else {
        answer_profile(exchange, endpoint, format, recording->profile);
        pep_recording_drop(recording);
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
