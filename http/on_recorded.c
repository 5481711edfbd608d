/*
 * What was recorded last, once more: /profile_callers, /profile_fetch, /profile_init and
 * /profile_clear, as Julia's Profile has callers, fetch, init and clear.
 *
 * Model:   the last recording of either clock, whether one request made it or a start and a stop.
 * Writers: the connection's thread.  [normal]
 * Readers: -
 * Memory:  the request's arena; the recording's, held meanwhile.
 * When full: 503.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "encoder/callers.h"
#include "http/endpoints.h"
#include "http/render.h"

static const char nothing[] =
    "There is no recording: ask profile or profile_wall first, or give duration.";

/* -- callers -------------------------------------------------------------------------------- */

/* lines=10 or lines=10:20 */
static const char *read_lines(const struct pep_request *request, struct pep_callers_query *query) {
    static const char sentence[] = "lines must be a line or two with a colon between, as 10:20.";
    const char *text = pep_request_param(request, "lines");
    int64_t first, last;
    if (!text)
        return NULL;
    size_t count = strcspn(text, ":");
    char *word = pep_arena_strndup(request->arena, text, count);
    if (!word || !pep_request_number(word, 1, INT_MAX, &first))
        return sentence;
    last = first;
    if (text[count] && !pep_request_number(text + count + 1, first, INT_MAX, &last))
        return sentence;
    query->first_line = (uint32_t)first;
    query->last_line = (uint32_t)last;
    return NULL;
}

static const char *read_query(const struct pep_request *request, struct pep_callers_query *query,
                              bool *is_json) {
    const char *format = pep_request_param(request, "format");
    query->function = pep_request_param(request, "func");
    query->file = pep_request_param(request, "file");
    *is_json = format ? strcmp(format, "json") == 0 : pep_request_wants_json(request);
    if (!query->function || !*query->function)
        return "func must be the name of a function.";
    if (query->file && !*query->file)
        return "file must be a path or the end of one.";
    if (format && !*is_json && strcmp(format, "text") != 0)
        return "format must be text or json.";
    return read_lines(request, query);
}

static void write_callers(struct pep_exchange *exchange, const struct pep_profile *profile,
                          const struct pep_callers_query *query, bool is_json) {
    struct pep_response *response = exchange->response;
    struct pep_callers callers;
    struct pep_profile prepared = *profile;
    struct pep_encode_job job = {.profile = &prepared,
                                 .arena = exchange->arena,
                                 .symbolizer = pep_symbolizer_begin(exchange->arena)};
    pep_symbolizer_prepare(job.symbolizer, exchange->arena, &prepared);
    if (!job.symbolizer || !pep_callers_find(&callers, &job, query)) {
        pep_response_error(response, 503, "Not enough memory for this profile.");
    } else {
        pep_response_start(response, 200,
                           is_json ? "application/json" : "text/plain; charset=utf-8");
        pep_response_header(response, "Vary", "Accept");
        pep_response_header(response, "Cache-Control", "no-store");
        if (is_json)
            pep_callers_write_json(&response->writer, &callers);
        else
            pep_callers_write_text(&response->writer, &callers);
    }
    pep_symbolizer_end(job.symbolizer);
}

/* Held, or NULL and answered. */
static struct pep_recording *find(struct pep_exchange *exchange) {
    struct pep_recording *recording = pep_recording_last();
    if (!recording)
        pep_response_error(exchange->response, 400, nothing);
    return recording;
}

void pep_on_callers(struct pep_exchange *exchange) {
    const struct pep_request *request = exchange->request;
    struct pep_endpoint_wanted wanted = {.clock = PEP_WINDOW_CPU};
    struct pep_callers_query query = {.function = NULL};
    bool is_json, is_fresh = pep_request_param(request, "duration") != NULL;
    const char *sentence = read_query(request, &query, &is_json);
    if (!sentence && is_fresh)
        sentence = pep_endpoint_read(request, &wanted);
    if (sentence) {
        pep_response_error(exchange->response, 400, sentence);
        return;
    }
    struct pep_recording *recording = NULL;
    if (!is_fresh)
        recording = find(exchange);
    else if (request->method != PEP_HEAD)
        recording = pep_endpoint_record(exchange, &wanted);
    else
        pep_response_start(exchange->response, 200, "text/plain; charset=utf-8");
    if (recording) {
        write_callers(exchange, recording->profile, &query, is_json);
        pep_recording_drop(recording);
    }
}

/* -- the rest ------------------------------------------------------------------------------- */

void pep_on_recorded_fetch(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    enum pep_format format;
    const char *thread;
    const char *sentence = pep_render_params(exchange->request, &format, &thread);
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    struct pep_recording *recording = find(exchange);
    if (!recording)
        return;
    if (!pep_render_is_head(response, format, "profile")) {
        pep_render_head(response, format, "profile");
        pep_render_body(response, format, recording->profile, exchange->arena);
    }
    pep_recording_drop(recording);
}

/* Nanoseconds as seconds, without the host's decimal point. */
static void write_seconds(struct pep_writer *writer, uint64_t ns) {
    char digits[16];
    snprintf(digits, sizeof(digits), "%09llu", (unsigned long long)(ns % 1000000000u));
    for (size_t end = strlen(digits); end > 1 && digits[end - 1] == '0'; end--)
        digits[end - 1] = '\0';
    pep_write_printf(writer, "%llu.%s", (unsigned long long)(ns / 1000000000u), digits);
}

void pep_on_recorded_init(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    const struct pep_request *request = exchange->request;
    struct pep_endpoint_wanted wanted = {.clock = PEP_WINDOW_CPU};
    struct pep_endpoint_defaults defaults = pep_endpoint_defaults();
    const char *delay = pep_request_param(request, "delay");
    const char *sentence = pep_endpoint_read_rate(request, &wanted);
    double seconds;
    if (sentence) {
        pep_response_error(response, 400, sentence);
        return;
    }
    if (delay &&
        pep_request_decimal(delay, PEP_ENDPOINT_DELAY_LOW, PEP_ENDPOINT_DELAY_HIGH, &seconds))
        defaults.delay_ns = (uint64_t)(seconds * 1e9 + 0.5);
    defaults.room = wanted.room;
    if (request->method != PEP_HEAD)
        pep_endpoint_set_defaults(&defaults);
    pep_response_start(response, 200, "application/json");
    pep_response_header(response, "Cache-Control", "no-store");
    pep_write_printf(&response->writer,
                     "{\"n\": %llu, \"delay\": ", (unsigned long long)defaults.room);
    write_seconds(&response->writer, defaults.delay_ns);
    pep_write_text(&response->writer, "}\n");
}

void pep_on_recorded_clear(struct pep_exchange *exchange) {
    if (exchange->request->method != PEP_HEAD)
        pep_endpoint_clear();
    pep_response_start(exchange->response, 200, "text/plain; charset=utf-8");
    pep_write_text(&exchange->response->writer, "Profile data cleared.");
}
