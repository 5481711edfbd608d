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
#include "http/delta.h"
#include "sampler/rt/os.h"

struct wanted {
    struct pep_delta asked;
    struct pep_threads_window window;                  /* duration_ns 0: now */
    void (*encode)(const struct pep_threads_job *job); /* of the dump itself; NULL: a profile */
};

/* -- what is asked -------------------------------------------------------------------------- */

/* The sentence for a 400, or NULL when every parameter is good. */
static const char *read_params(const struct pep_exchange *exchange, struct wanted *wanted) {
    const char *sentence = pep_delta_read(exchange->request, &wanted->asked);
    wanted->window.duration_ns = wanted->asked.duration_ns;
    wanted->window.filter = wanted->asked.filter;
    wanted->window.client = exchange->client;
    return sentence;
}

static const char *read_dump_params(const struct pep_exchange *exchange, struct wanted *wanted) {
    const struct pep_request *request = exchange->request;
    const char *sentence = read_params(exchange, wanted);
    const char *format = pep_request_param(request, "format");
    bool is_flame = format && strcmp(format, "flame") == 0;
    if (pep_request_atoi(pep_request_param(request, "debug")) >= 2)
        wanted->encode = pep_encode_threads_text;
    else if (wanted->asked.format == PEP_FORMAT_HTML && !is_flame && !wanted->window.duration_ns)
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
        pep_render_error(exchange->response, -ENOMEM, NULL);
        return;
    }
    pep_threads_prepare(&job);
    start_dump(exchange, wanted);
    wanted->encode(&job);
    pep_symbolizer_end(job.symbolizer);
}

static void answer_dump(struct pep_exchange *exchange, const struct wanted *wanted) {
    const struct pep_dump_options options = {.filter = wanted->window.filter};
    int before = pep_os_hurry();
    const struct pep_dump *dump = pep_dump_take(exchange->arena, &options);
    if (dump && wanted->encode)
        write_dump(exchange, wanted, dump);
    else
        pep_delta_answer(exchange, &wanted->asked, dump ? 0 : -ENOMEM, dump ? dump->profile : NULL);
    pep_os_hurry_end(before);
}

/* A HEAD is answered without looking at a thread. */
static bool is_answered(struct pep_exchange *exchange, const struct wanted *wanted,
                        const char *sentence) {
    if (sentence || !wanted->encode || exchange->request->method != PEP_HEAD)
        return pep_delta_is_answered(exchange, &wanted->asked, sentence);
    start_dump(exchange, wanted);
    exchange->response->is_length_unknown = true;
    return true;
}

static void answer_threads(struct pep_exchange *exchange, const char *name) {
    struct wanted wanted = {.asked = {.name = name, .text = PEP_FORMAT_COUNT}};
    struct pep_profile *profile = NULL;
    const char *sentence = read_dump_params(exchange, &wanted);
    if (is_answered(exchange, &wanted, sentence))
        return;
    if (wanted.window.duration_ns) {
        int error = pep_window_threads(exchange->arena, &wanted.window, &profile);
        pep_delta_answer(exchange, &wanted.asked, error, profile);
    } else {
        answer_dump(exchange, &wanted);
    }
}

void pep_on_goroutine(struct pep_exchange *exchange) {
    answer_threads(exchange, "goroutine");
}

void pep_on_threads(struct pep_exchange *exchange) {
    answer_threads(exchange, "threads");
}

void pep_on_threadcreate(struct pep_exchange *exchange) {
    struct wanted wanted = {.asked = {.name = "threadcreate", .text = PEP_FORMAT_COUNT}};
    struct pep_profile *profile = NULL;
    const char *sentence = read_params(exchange, &wanted);
    if (!sentence)
        sentence = read_live(exchange->request, &wanted.window);
    if (is_answered(exchange, &wanted, sentence))
        return;
    int error = pep_window_births(exchange->arena, &wanted.window, &profile);
    pep_delta_answer(exchange, &wanted.asked, error, profile);
}

void pep_on_task_backtraces(struct pep_exchange *exchange) {
    struct wanted wanted = {.encode = pep_encode_threads_julia};
    const char *sentence =
        pep_render_params(exchange->request, &wanted.asked.format, &wanted.window.filter.thread);
    if (!is_answered(exchange, &wanted, sentence))
        answer_dump(exchange, &wanted);
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
