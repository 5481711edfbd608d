/*
 * /debug/pprof/profile and cmdline, as Go's net/http/pprof answers them; wall and fgprof likewise.
 *
 * Model:   one window (window.h) on the clock that the path names.
 * Writers: the connection's thread.  [normal]
 * Readers: the client.
 * Memory:  the request's arena.
 * When full: 503.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "http/render.h"
#include "http/routes.h"
#include "sampler/cpu.h"
#include "sampler/rt/attrs.h"
#include "sampler/rt/os.h"
#include "sampler/wall.h"

/* As much as a kernel lets a program be started with, by default. */
#define CMDLINE_BYTES_MAX (2u << 20)

struct wanted {
    struct pep_window window;
    enum pep_format format;
};

static const char *const refused_rates[2][2] = {
    {"hz must be a whole number from 1 to 10000.", "hz must be a whole number from 1 to 1000."},
    {"frequency must be a whole number from 1 to 10000.",
     "frequency must be a whole number from 1 to 1000."}};

/* The sentence for a 400, or NULL when every parameter is good. */
static const char *read_params(const struct pep_exchange *exchange, struct wanted *wanted) {
    const struct pep_request *request = exchange->request;
    const char *text = pep_request_param(request, "hz");
    const bool is_frequency = !text; /* IOx's word for the same */
    if (is_frequency)
        text = pep_request_param(request, "frequency");
    const bool is_wall = wanted->window.clock == PEP_WINDOW_WALL;
    const int64_t highest = is_wall ? PEP_WALL_HZ_MAX : PEP_CPU_HZ_MAX;
    int64_t hz = exchange->service->hz < highest ? exchange->service->hz : highest;
    if (text && !pep_request_number(text, 1, highest, &hz))
        return refused_rates[is_frequency][is_wall];
    int64_t seconds = pep_request_seconds(pep_request_param(request, "seconds"));
    wanted->window.hz = (uint32_t)hz;
    wanted->window.duration_ns = pep_window_duration_ns(seconds);
    wanted->window.client = exchange->client;
    return pep_render_params(request, &wanted->format, &wanted->window.thread);
}

void pep_on_window_error(struct pep_response *response, enum pep_window_clock clock, int error) {
    if (error == -ENOMEM)
        pep_response_error(response, 503, "Not enough memory for this profile.");
    else if (error == -ECONNRESET)
        response->writer.error = error;
    else
        pep_response_error(response, 500,
                           clock == PEP_WINDOW_WALL ? "The wall clock reader could not be started."
                                                    : "The CPU sampler could not be started.");
}

static void answer(struct pep_exchange *exchange, enum pep_window_clock clock, const char *name) {
    struct pep_response *response = exchange->response;
    struct pep_profile *profile;
    struct wanted wanted = {.window = {.clock = clock}};
    const char *sentence = read_params(exchange, &wanted);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    if (pep_render_is_head(response, wanted.format, name))
        return;
    int error = pep_window_run(exchange->arena, &wanted.window, &profile);
    if (error) {
        pep_on_window_error(response, clock, error);
        return;
    }
    if (pep_render_nothing(response, wanted.format, profile))
        return;
    pep_render_head(response, wanted.format, name);
    pep_render_body(response, wanted.format, profile, exchange->arena);
}

void pep_on_profile(struct pep_exchange *exchange) {
    answer(exchange, PEP_WINDOW_CPU, "profile");
}

void pep_on_wall(struct pep_exchange *exchange) {
    answer(exchange, PEP_WINDOW_WALL, "wall");
}

void pep_on_fgprof(struct pep_exchange *exchange) {
    answer(exchange, PEP_WINDOW_WALL, "fgprof");
}

/* The kernel gives a program's arguments each with a NUL behind it; a program that writes a title
 * over them may leave more. Neither belongs to Go's form. */
static long read_cmdline(struct pep_arena *arena, char **text) {
    long used = 0, count = 0;
    int fd = pep_os_open("/proc/thread-self/cmdline", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    for (size_t size = 4096; size <= CMDLINE_BYTES_MAX; size *= 8) {
        *text = pep_arena_alloc(arena, size);
        if (!*text)
            break;
        used = 0;
        do {
            count = pep_os_pread(fd, *text + used, size - (size_t)used, used);
            used += count > 0 ? count : 0;
        } while (count > 0 && (size_t)used < size);
        if ((size_t)used < size)
            break;
    }
    pep_os_close(fd);
    while (used > 0 && (*text)[used - 1] == '\0')
        used--;
    return *text ? used : -ENOMEM;
}

void pep_on_cmdline(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    char *text = NULL;
    long count = read_cmdline(exchange->arena, &text);
    pep_response_start(response, 200, "text/plain; charset=utf-8");
    if (count > 0)
        pep_write(&response->writer, text, (size_t)count);
    else
        pep_write_text(&response->writer, program_invocation_name);
}
