/*
 * /debug/profep, the profiler about itself, and /healthz.
 *
 * Model:   counters and states as they are when they are written; they need not be of one moment.
 * Writers: the connection's thread.  [normal]
 * Readers: the client.
 * Memory:  the request's arena.
 * When full: -
 */
#include <string.h>
#include <time.h>

#include "http/routes.h"
#include "http/version.h"
#include "http/window.h"
#include "sampler/cpu.h"
#include "sampler/heap.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

void pep_on_health(struct pep_exchange *exchange) {
    pep_response_start(exchange->response, 200, "text/plain; charset=utf-8");
    pep_write_text(&exchange->response->writer, "ok\n");
}

/* IOx's word for the same. */
void pep_on_health_iox(struct pep_exchange *exchange) {
    pep_response_start(exchange->response, 200, "text/plain; charset=utf-8");
    pep_write_text(&exchange->response->writer, "OK");
}

static void write_sampler(struct pep_writer *writer) {
    struct pep_cpu_state state = {0};
    pep_cpu_state(&state);
    pep_write_printf(writer,
                     "  \"sampler\": {\"signal\": %d, \"hz\": %u, \"windows\": %u, "
                     "\"threads_perf\": %u, \"threads_timer\": %u, \"threads_none\": %u, "
                     "\"note\": ",
                     state.signal, state.hz, state.windows, state.threads_perf, state.threads_timer,
                     state.threads_none);
    pep_write_json_string(writer, state.note ? state.note : "");
    pep_write_text(writer, "},\n");
}

static void write_heap(struct pep_writer *writer) {
    struct pep_heap_state state = {0};
    pep_heap_state(&state);
    pep_write_printf(writer,
                     "  \"heap\": {\"rate_bytes\": %u, \"live_map\": %s, \"live_blocks\": %llu, "
                     "\"uncovered_blocks\": %llu, \"map_bytes\": %llu, \"unreachable\": ",
                     state.rate_bytes, state.has_live_map ? "true" : "false",
                     (unsigned long long)state.live_blocks,
                     (unsigned long long)state.uncovered_blocks,
                     (unsigned long long)state.map_bytes);
    pep_write_json_string(writer, state.unreachable ? state.unreachable : "");
    pep_write_text(writer, "},\n");
}

static void write_counters(struct pep_writer *writer) {
    pep_write_text(writer, "  \"counters\": {");
    for (int i = 0; i < PEP_COUNTER_COUNT; i++) {
        uint64_t value = pep_load_relaxed(&pep_counter_values[i]);
        pep_write_printf(writer, "%s\n    \"%s\": {\"value\": %llu, \"help\": ", i ? "," : "",
                         pep_counter_name((enum pep_counter)i), (unsigned long long)value);
        pep_write_json_string(writer, pep_counter_help((enum pep_counter)i));
        pep_write_text(writer, "}");
    }
    pep_write_text(writer, "\n  },\n");
}

void pep_on_self(struct pep_exchange *exchange) {
    const struct pep_service *service = exchange->service;
    struct pep_writer *writer = &exchange->response->writer;
    const char *config = service->describe ? service->describe() : NULL;
    pep_response_start(exchange->response, 200, "application/json");
    pep_response_header(exchange->response, "Cache-Control", "no-store");
    pep_write_printf(writer,
                     "{\n  \"version\": \"%s\",\n  \"pid\": %d,\n  \"listen\": ", PEP_VERSION,
                     pep_os_getpid());
    pep_write_json_string(writer, service->url ? service->url : "");
    pep_write_printf(writer,
                     ",\n  \"connections\": %u,\n  \"open_windows\": %u,\n  \"default_hz\": %u,\n",
                     service->connections, pep_window_open_count(), service->hz);
    write_sampler(writer);
    write_heap(writer);
    pep_write_printf(writer, "  \"peek\": {\"signal\": %d},\n",
                     service->peek_signal ? service->peek_signal() : 0);
    write_counters(writer);
    pep_write_printf(writer, "  \"config\": %s\n}\n", config ? config : "{}");
}
