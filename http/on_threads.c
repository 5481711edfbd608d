/*
 * The threads of the program: /debug/pprof/goroutine and its other name threads, threadcreate, and
 * /task_backtraces.
 *
 * Model:   debug and seconds as Go has them. A browser that asks for threads gets the page of the
 *          dump: who looks there wants to know what hangs, not where the weight is; format=flame
 *          has the graph.
 * Writers: the connection's thread.  [normal]
 * Readers: the client.
 * Memory:  the request's arena.
 * When full: 503.
 */
#include <errno.h>
#include <string.h>

#include "encoder/threads.h"
#include "http/render.h"
#include "http/routes.h"

struct wanted {
    struct pep_threads_window window; /* duration_ns 0: now */
    enum pep_format format;
    void (*encode)(const struct pep_threads_job *job); /* of the dump itself; NULL: a profile */
};

/* -- what is asked -------------------------------------------------------------------------- */

/* The sentence for a 400, or NULL when every parameter is good. */
static const char *read_params(const struct pep_exchange *exchange, struct wanted *wanted) {
    const struct pep_request *request = exchange->request;
    struct pep_threads_window *window = &wanted->window;
    const char *sentence = pep_render_delta(request, &window->duration_ns);
    if (!sentence)
        sentence = pep_render_params(request, &wanted->format, &window->filter.thread);
    window->client = exchange->client;
    if (!sentence && pep_request_atoi(pep_request_param(request, "debug")) != 0)
        wanted->format = PEP_FORMAT_COUNT;
    return sentence;
}

static const char *read_dump_params(const struct pep_exchange *exchange, struct wanted *wanted) {
    const struct pep_request *request = exchange->request;
    const char *sentence = read_params(exchange, wanted);
    const char *format = pep_request_param(request, "format");
    bool is_flame = format && strcmp(format, "flame") == 0;
    if (pep_request_atoi(pep_request_param(request, "debug")) >= 2)
        wanted->encode = pep_encode_threads_text;
    else if (wanted->format == PEP_FORMAT_HTML && !is_flame && !wanted->window.duration_ns)
        wanted->encode = pep_encode_threads_html;
    return sentence;
}

static const char *read_live(const struct pep_request *request, struct pep_threads_window *window) {
    const char *text = pep_request_param(request, "live");
    if (text && strcmp(text, "0") != 0 && strcmp(text, "1") != 0)
        return "live must be 0 or 1.";
    window->is_live = text && *text == '1';
    return window->is_live && window->duration_ns ? "live is for now: it takes no seconds." : NULL;
}

/* -- what is answered ----------------------------------------------------------------------- */

static void explain(struct pep_response *response, int error) {
    if (error == -ECONNRESET)
        response->writer.error = error;
    else
        pep_response_error(response, 503, "Not enough memory for this profile.");
}

static void start_dump(struct pep_exchange *exchange, const struct wanted *wanted) {
    if (wanted->encode == pep_encode_threads_html)
        pep_render_head(exchange->response, PEP_FORMAT_HTML, "threads");
    else
        pep_render_head(exchange->response, PEP_FORMAT_COUNT, "threads");
}

static void write_dump(struct pep_exchange *exchange, const struct wanted *wanted,
                       const struct pep_dump *dump) {
    struct pep_writer *writer = &exchange->response->writer;
    struct pep_threads_job job = {.dump = dump,
                                  .symbolizer = pep_symbolizer_begin(exchange->arena),
                                  .writer = writer,
                                  .arena = exchange->arena,
                                  .title = pep_render_program(exchange->arena)};
    if (!job.symbolizer) {
        explain(exchange->response, -ENOMEM);
        return;
    }
    start_dump(exchange, wanted);
    wanted->encode(&job);
    pep_symbolizer_end(job.symbolizer);
}

static void answer_dump(struct pep_exchange *exchange, const struct wanted *wanted,
                        const char *name) {
    const struct pep_dump_options options = {.filter = wanted->window.filter};
    const struct pep_dump *dump = pep_dump_take(exchange->arena, &options);
    if (!dump) {
        explain(exchange->response, -ENOMEM);
    } else if (wanted->encode) {
        write_dump(exchange, wanted, dump);
    } else {
        pep_render_head(exchange->response, wanted->format, name);
        pep_render_body(exchange->response, wanted->format, dump->profile, exchange->arena);
    }
}

/* The names of files with and without a window. */
struct names {
    const char *now, *delta;
};

static void answer_window(struct pep_exchange *exchange, const struct wanted *wanted,
                          int (*run)(struct pep_arena *, const struct pep_threads_window *,
                                     struct pep_profile **),
                          const struct names *names) {
    struct pep_profile *profile = NULL;
    int error = run(exchange->arena, &wanted->window, &profile);
    if (error) {
        explain(exchange->response, error);
        return;
    }
    pep_render_head(exchange->response, wanted->format,
                    wanted->window.duration_ns ? names->delta : names->now);
    pep_render_body(exchange->response, wanted->format, profile, exchange->arena);
}

/* A HEAD is answered without looking at a thread. */
static bool is_answered(struct pep_exchange *exchange, const struct wanted *wanted,
                        const struct names *names) {
    if (exchange->request->method != PEP_HEAD)
        return false;
    if (wanted->encode)
        start_dump(exchange, wanted);
    else
        pep_render_head(exchange->response, wanted->format,
                        wanted->window.duration_ns ? names->delta : names->now);
    exchange->response->is_length_unknown = true;
    return true;
}

static void answer_threads(struct pep_exchange *exchange, const struct names *names) {
    struct wanted wanted = {.format = PEP_FORMAT_PPROF};
    const char *sentence = read_dump_params(exchange, &wanted);
    if (sentence)
        pep_response_error(exchange->response, 400, sentence);
    else if (is_answered(exchange, &wanted, names))
        return;
    else if (wanted.window.duration_ns)
        answer_window(exchange, &wanted, pep_window_threads, names);
    else
        answer_dump(exchange, &wanted, names->now);
}

void pep_on_goroutine(struct pep_exchange *exchange) {
    answer_threads(exchange, &(struct names){"goroutine", "goroutine-delta"});
}

void pep_on_threads(struct pep_exchange *exchange) {
    answer_threads(exchange, &(struct names){"threads", "threads-delta"});
}

void pep_on_threadcreate(struct pep_exchange *exchange) {
    static const struct names names = {"threadcreate", "threadcreate-delta"};
    struct wanted wanted = {.format = PEP_FORMAT_PPROF};
    const char *sentence = read_params(exchange, &wanted);
    if (!sentence)
        sentence = read_live(exchange->request, &wanted.window);
    if (sentence)
        pep_response_error(exchange->response, 400, sentence);
    else if (!is_answered(exchange, &wanted, &names))
        answer_window(exchange, &wanted, pep_window_births, &names);
}

void pep_on_task_backtraces(struct pep_exchange *exchange) {
    struct wanted wanted = {.encode = pep_encode_threads_julia};
    const char *sentence =
        pep_render_params(exchange->request, &wanted.format, &wanted.window.filter.thread);
    if (sentence)
        pep_response_error(exchange->response, 400, sentence);
    else if (!is_answered(exchange, &wanted, &(struct names){"threads", "threads"}))
        answer_dump(exchange, &wanted, "threads");
}

/* -- for the index -------------------------------------------------------------------------- */

uint64_t pep_on_threads_count(struct pep_arena *arena) {
    (void)arena;
    return pep_dump_count();
}

uint64_t pep_on_threadcreate_count(struct pep_arena *arena) {
    const struct pep_cells_snapshot *now = pep_birth_snapshot_take(arena);
    uint64_t births = 0;
    for (uint32_t i = 0; now && i < now->cell_count; i++)
        births += now->cells[i].count;
    return births;
}
