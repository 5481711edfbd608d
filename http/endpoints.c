#include "http/endpoints.h"

#include <errno.h>

#include "http/render.h"
#include "http/sample_room.h"
#include "sampler/rt/atomics.h"

#define DURATION_LOW 0.001
#define DURATION_HIGH 86400.0

static uint64_t default_room = 100000000;
static uint64_t default_delay_ns = 10000000;

struct pep_endpoint_defaults pep_endpoint_defaults(void) {
    return (struct pep_endpoint_defaults){.room = pep_load_relaxed(&default_room),
                                          .delay_ns = pep_load_relaxed(&default_delay_ns)};
}

void pep_endpoint_set_defaults(const struct pep_endpoint_defaults *defaults) {
    pep_store_relaxed(&default_room, defaults->room);
    pep_store_relaxed(&default_delay_ns, defaults->delay_ns);
}

const char *pep_endpoint_read_rate(const struct pep_request *request,
                                   struct pep_endpoint_wanted *wanted) {
    const struct pep_endpoint_defaults defaults = pep_endpoint_defaults();
    const char *text = pep_request_param(request, "delay");
    const char *room_text = pep_request_param(request, "n");
    bool is_wall = wanted->clock == PEP_WINDOW_WALL;
    double low = is_wall ? PEP_ENDPOINT_DELAY_WALL_LOW : PEP_ENDPOINT_DELAY_LOW;
    double delay = (double)defaults.delay_ns / 1e9, room = (double)defaults.room;
    if (text && !pep_request_decimal(text, low, PEP_ENDPOINT_DELAY_HIGH, &delay))
        return is_wall ? "delay must be a number of seconds from 0.001 to 1."
                       : "delay must be a number of seconds from 0.0001 to 1.";
    if (room_text && !pep_request_decimal(room_text, 1, PEP_ENDPOINT_ROOM_MAX, &room))
        return "n must be a number from 1 up.";
    wanted->hz = (uint32_t)(1 / (delay > low ? delay : low) + 0.5);
    wanted->room = (uint64_t)room;
    return NULL;
}

const char *pep_endpoint_read(const struct pep_request *request,
                              struct pep_endpoint_wanted *wanted) {
    const char *text = pep_request_param(request, "duration");
    double seconds = 10;
    if (text && !pep_request_decimal(text, DURATION_LOW, DURATION_HIGH, &seconds))
        return "duration must be a number of seconds from 0.001 to 86400.";
    wanted->duration_ns = (uint64_t)(seconds * 1e9);
    const char *sentence = pep_endpoint_read_rate(request, wanted);
    return sentence ? sentence : pep_render_params(request, &wanted->format, &wanted->thread);
}

static int run(struct pep_exchange *exchange, const struct pep_endpoint_wanted *wanted,
               struct pep_recording *recording) {
    const struct pep_window window = {.clock = wanted->clock,
                                      .hz = wanted->hz,
                                      .duration_ns = wanted->duration_ns,
                                      .thread = wanted->thread,
                                      .client = exchange->client};
    int error = pep_window_run(&recording->arena, &window, &recording->profile);
    if (!error && !pep_sample_room_apply(&recording->arena, recording->profile, wanted->room))
        error = -ENOMEM;
    return error;
}

struct pep_recording *pep_endpoint_record(struct pep_exchange *exchange,
                                          const struct pep_endpoint_wanted *wanted) {
    struct pep_recording *recording = pep_recording_make();
    int error = recording ? run(exchange, wanted, recording) : -ENOMEM;
    if (!error) {
        pep_recording_keep(recording);
        return recording;
    }
    if (recording)
        pep_recording_drop(recording);
    pep_on_window_error(exchange->response, wanted->clock, error);
    return NULL;
}
