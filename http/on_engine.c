/*
 * /debug_engine: ProfileEndpoints' one route for all profiles, by a JSON body; what is made goes
 * into a file, and the answer is its path.
 *
 * Model:   a body {"profile_type": T, name: value ...} is the route of that type with these
 *          parameters, asked here and not over the wire; the status and the sentence are its own.
 * Writers: the connection's thread.  [normal]
 * Readers: -
 * Memory:  the request's arena, with the file's whole content.
 * When full: 503.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "http/body.h"
#include "http/json.h"
#include "http/routes.h"
#include "http/stage.h"
#include "sampler/rt/attrs.h"
#include "sampler/rt/os.h"

enum product { SAID, PROFILE, TEXT, SNAPSHOT }; /* what is answered, or what is in the file */

static const struct engine {
    const char *type;
    void (*handle)(struct pep_exchange *exchange);
    enum product product;
} engines[] = {
    {"cpu_profile", pep_on_endpoint_profile, PROFILE},
    {"wall_profile", pep_on_endpoint_wall, PROFILE},
    {"cpu_profile_start", pep_on_endpoint_profile_start, SAID},
    {"wall_profile_start", pep_on_endpoint_wall_start, SAID},
    {"cpu_profile_stop", pep_on_endpoint_profile_stop, PROFILE},
    {"wall_profile_stop", pep_on_endpoint_wall_stop, PROFILE},
    {"heap_snapshot", pep_on_heap_snapshot, SNAPSHOT},
    {"allocs_profile", pep_on_allocs_profile, PROFILE},
    {"allocs_profile_start", pep_on_allocs_start, SAID},
    {"allocs_profile_stop", pep_on_allocs_stop, PROFILE},
    {"task_backtraces", pep_on_task_backtraces, TEXT},
};

static const struct engine *find(const char *type) {
    for (size_t i = 0; i < PEP_COUNT_OF(engines); i++)
        if (strcmp(engines[i].type, type) == 0)
            return &engines[i];
    return NULL;
}

/* -- the request inside --------------------------------------------------------------------- */

static void write_escaped(struct pep_writer *writer, const char *text) {
    static const char digits[] = "0123456789ABCDEF";
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        bool is_plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                        (c && strchr("-_.~", c));
        char escape[3] = {'%', digits[c >> 4], digits[c & 15]};
        pep_write(writer, is_plain ? text : escape, is_plain ? 1 : 3);
    }
}

/* All members, profile_type too: a query that is there asks for no help. NULL: no memory. */
static const char *query_of(struct pep_arena *arena, const struct pep_json *json) {
    struct pep_buffer_writer query;
    pep_buffer_writer_init(&query, arena);
    for (size_t i = 0; i < json->count; i++) {
        if (!json->members[i].value)
            continue;
        if (query.count > 0)
            pep_write_text(&query.writer, "&");
        write_escaped(&query.writer, json->members[i].name);
        pep_write_text(&query.writer, "=");
        write_escaped(&query.writer, json->members[i].value);
    }
    return query.writer.error ? NULL : query.data;
}

/* The answer of the route; its body in content. NULL: no memory. */
static struct pep_response *ask(struct pep_exchange *exchange, const struct engine *engine,
                                const struct pep_json *json, struct pep_buffer_writer *content) {
    struct pep_message message = {.method = "GET", .target = "/", .version = "1.1"};
    struct pep_request request = {.message = &message,
                                  .arena = exchange->arena,
                                  .method = PEP_GET,
                                  .path = "/",
                                  .query = query_of(exchange->arena, json)};
    struct pep_response *response = pep_arena_alloc(exchange->arena, sizeof(*response));
    if (!response || !request.query)
        return NULL;
    struct pep_exchange inside = *exchange;
    inside.request = &request;
    inside.response = response;
    pep_buffer_writer_init(content, exchange->arena);
    pep_response_init(response, exchange->response->sink);
    response->capture = content;
    response->request = &request;
    engine->handle(&inside);
    response->request = NULL;
    return response;
}

/* -- the file ------------------------------------------------------------------------------- */

static const char *suffix_of(const struct engine *engine, const struct pep_json *json) {
    static const char *const suffixes[][2] = {
        {"svg", ".svg"},   {"html", ".html"}, {"flame", ".html"}, {"collapsed", ".collapsed"},
        {"text", ".txt"},  {"top", ".txt"},   {"tree", ".txt"},   {"flat", ".txt"},
        {"json", ".json"},
    };
    const char *format = pep_json_value(json, "format"), *pprof = pep_json_value(json, "pprof");
    if (engine->product == TEXT)
        return "";
    if (engine->product == SNAPSHOT)
        return ".heapsnapshot";
    for (size_t i = 0; format && i < PEP_COUNT_OF(suffixes); i++)
        if (strcmp(suffixes[i][0], format) == 0)
            return suffixes[i][1];
    return !format && pprof && strcmp(pprof, "false") == 0 ? ".profile" : ".pb.gz";
}

/* The answer to a stage that is not there or not to be written. */
static void refuse(struct pep_exchange *exchange, const struct pep_stage *stage, int error) {
    const char *sentence = "subdir must be a directory below the stage path.";
    bool is_below = stage->below && *stage->below;
    int status = 400;
    if (is_below && (error == -ENOENT || error == -ENOTDIR)) {
        sentence = pep_response_plain(pep_arena_printf(
            exchange->arena, "Subdirectory does not exist: %s/%s", stage->directory, stage->below));
    } else if (error != -EXDEV && error != -ELOOP && error != -ENAMETOOLONG) {
        const char *why = strerrordesc_np(-error);
        status = 500;
        sentence = pep_arena_printf(exchange->arena, "No file can be made in %s: %s.",
                                    stage->directory, why ? why : "unknown error");
    }
    pep_response_error(exchange->response, status,
                       sentence ? sentence : "No file can be made in the stage path.");
}

static void write_file(struct pep_exchange *exchange, struct pep_stage *stage,
                       const struct pep_buffer_writer *content) {
    char *path = pep_arena_alloc(exchange->arena, PEP_STAGE_PATH_BYTES);
    int error = path ? pep_stage_write(stage, content->data, content->count, path) : -ENOMEM;
    if (error) {
        refuse(exchange, stage, error);
        return;
    }
    pep_response_start(exchange->response, 200, "text/plain; charset=utf-8");
    pep_write_text(&exchange->response->writer, path);
}

/* -- one request ---------------------------------------------------------------------------- */

/* What the route said against it becomes this answer's own. */
static void pass_on(struct pep_exchange *exchange, const struct pep_response *inside,
                    struct pep_buffer_writer *said) {
    struct pep_response *response = exchange->response;
    if (inside->status < 300) {
        pep_response_start(response, inside->status, "text/plain; charset=utf-8");
        pep_write(&response->writer, said->data, said->count);
        return;
    }
    while (said->count > 0 && said->data[said->count - 1] == '\n')
        said->data[--said->count] = '\0';
    pep_response_error(response, inside->status, said->data ? said->data : "");
}

static void run(struct pep_exchange *exchange, const struct engine *engine,
                const struct pep_json *json) {
    struct pep_buffer_writer content;
    char number[48];
    struct pep_stage stage = {.directory = exchange->service->stage_path,
                              .below = pep_request_param(exchange->request, "subdir"),
                              .suffix = suffix_of(engine, json)};
    int error = engine->product == SAID ? 0 : pep_stage_check(&stage);
    if (error) {
        refuse(exchange, &stage, error);
        return;
    }
    if (engine->product == SNAPSHOT) {
        snprintf(number, sizeof(number), "%d_%llu", pep_os_getpid(),
                 (unsigned long long)pep_os_clock_ns(CLOCK_REALTIME));
        stage.name = number;
    }
    struct pep_response *inside = ask(exchange, engine, json, &content);
    if (!inside)
        pep_response_error(exchange->response, 503, "Not enough memory for this request.");
    else if (inside->writer.error == -ECONNRESET)
        exchange->response->writer.error = -ECONNRESET;
    else if (inside->writer.error)
        pep_response_error(exchange->response, 500, "The answer could not be made.");
    else if (inside->status != 200 || engine->product == SAID)
        pass_on(exchange, inside, &content);
    else
        write_file(exchange, &stage, &content);
}

void pep_on_debug_engine(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    static const char needed[] =
        "Need to provide at least a `profile_type` argument in the JSON body";
    struct pep_json json;
    size_t count;
    const char *body = pep_body_read(exchange, &count);
    if (!body)
        return;
    const char *sentence = count == 0 ? needed : pep_json_read(exchange->arena, body, count, &json);
    const char *type = sentence ? NULL : pep_json_value(&json, "profile_type");
    const struct engine *engine = type ? find(type) : NULL;
    if (!sentence && !type)
        sentence = needed;
    if (!sentence && !engine)
        sentence = pep_response_plain(
            pep_arena_printf(exchange->arena, "Unknown profile_type: %.200s", type));
    if (engine)
        run(exchange, engine, &json);
    else
        pep_response_error(response, 400, sentence ? sentence : needed);
}
