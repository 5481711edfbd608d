#include "http/routes.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "http/body.h"
#include "sampler/rt/attrs.h"

#define READ (PEP_GET | PEP_HEAD)
/* ProfileEndpoints registers its routes without a method. */
#define ANY (READ | PEP_POST | PEP_PUT | PEP_PATCH | PEP_DELETE)
#define FORMATS "pprof, svg, html, collapsed, text, top, tree, flat, json"
#define THREADS "a tid or a part of a name"

/* Parameters that several routes take. */
#define SECONDS \
    { "seconds", "1 and up", "how long to look (30)" }
#define WINDOW \
    { "seconds", "1 and up", "a window of that length instead of all since the start" }
#define CHANGE \
    { "seconds", "1 and up", "what changed in that time instead" }
#define DURATION \
    { "duration", "0.001 to 86400", "seconds to record (10)" }
#define DELAY_CPU \
    { "delay", "0.0001 to 1", "seconds between two samples of a thread (0.01)" }
#define DELAY_WALL \
    { "delay", "0.001 to 1", "seconds between two samples of a thread (0.01)" }
#define ROOM \
    { "n", "1 and up", "room for samples (1e8); of more, so many are left, spread evenly" }
#define HZ_WALL \
    { "hz", "1 to 1000", "looks a second at each thread" }
#define RATE_HEAP \
    { "rate", "1 to 1073741824", "with seconds: mean bytes between two samples" }
#define RATE_WAIT \
    { "rate", "1 to 1000000000000", "with seconds: waits from so many ns on are all recorded" }
#define PROBABILITY \
    { "sample_rate", "1e-9 to 1", "the probability of an allocation being recorded (0.0001)" }
#define EVERY_SAMPLE \
    { "pprof", "true, false", "false: every sample, as JSON lines" }
#define FORMAT \
    { "format", FORMATS, "overrides the Accept header" }
#define THREAD \
    { "thread", THREADS, "only these threads" }
#define OUTPUT FORMAT, THREAD
#define FORMAT_OF_THREADS \
    { "format", "flame, " FORMATS, "overrides the Accept header" }
#define TEXT \
    { "debug", "1", "text" }
#define TEXT_HEAP \
    { "debug", "1", "text, with what the kernel says of the memory" }
#define TEXT_THREADS \
    { "debug", "1, 2", "text: stacks counted; every thread's, with who holds which lock" }

static void on_index_without_slash(struct pep_exchange *exchange) {
    const char *query = exchange->request->query;
    char *to = pep_arena_printf(exchange->arena, "/debug/pprof/%s%s", *query ? "?" : "", query);
    pep_response_start(exchange->response, 301, "text/html; charset=utf-8");
    pep_response_header(exchange->response, "Location", to ? to : "/debug/pprof/");
}

static void on_root(struct pep_exchange *exchange) {
    pep_response_start(exchange->response, 301, "text/html; charset=utf-8");
    pep_response_header(exchange->response, "Location", "/debug/pprof/");
}

const struct pep_route pep_routes[] = {
    {"/", READ, NULL, NULL, "Leads to the index.", {{0}}, on_root},
    {"/debug/pprof", READ, NULL, NULL, "Leads to the index.", {{0}}, on_index_without_slash},
    {"/debug/pprof/", READ, NULL, NULL, "The index of profiles.", {{0}}, pep_on_index},
    {"/debug/pprof/cmdline",
     READ,
     "cmdline",
     "cmdline",
     "The command line of this program, its arguments separated by NUL bytes.",
     {{0}},
     pep_on_cmdline},
    {"/debug/pprof/profile",
     READ,
     "profile",
     "profile",
     "Where the CPU time goes. A browser gets the flame graph, a tool gets profile.proto.",
     {SECONDS,
      {"hz", "1 to 10000", "samples a second of CPU time, for each thread; also frequency"},
      OUTPUT},
     pep_on_profile},
    {"/debug/pprof/wall",
     READ,
     "wall",
     "wall",
     "Where the time of every thread goes, running and waiting; the label state tells which.",
     {SECONDS, HZ_WALL, OUTPUT},
     pep_on_wall},
    {"/debug/fgprof",
     READ,
     NULL,
     NULL,
     "The same under the name that scrapers know.",
     {SECONDS, HZ_WALL, OUTPUT},
     pep_on_fgprof},
    {"/debug/pprof/heap",
     READ,
     "heap",
     "heap",
     "What memory is in use, by who allocated it, and what was allocated since the start.",
     {WINDOW,
      RATE_HEAP,
      {"inuse", "absolute, difference", "with seconds: what is in use at the end, or the change"},
      {"gc", "1", "first gives free memory back to the system: malloc_trim(0)"},
      OUTPUT,
      TEXT_HEAP},
     pep_on_heap},
    {"/debug/pprof/allocs",
     READ,
     "allocs",
     "allocs",
     "What was allocated, freed since or not; otherwise as heap.",
     {WINDOW,
      {"rate", "1 to 1073741824",
       "with seconds: mean bytes between two samples; also interval, for 30 s"},
      OUTPUT,
      TEXT_HEAP},
     pep_on_allocs},
    {"/debug/pprof/temporary",
     READ,
     "temporary",
     "temporary",
     "Blocks that were freed soon after: the allocations worth removing.",
     {WINDOW, RATE_HEAP, OUTPUT, TEXT_HEAP},
     pep_on_temporary},
    {"/debug/pprof/mmap",
     READ,
     "mmap",
     "mmap",
     "What is mapped outside of malloc, by who mapped it: mmap, mremap, brk.",
     {WINDOW,
      {"inuse", "absolute, difference", "with seconds: what is mapped at the end, or the change"},
      {"mapping", "[anon], [reserved], a path", "only what has this in its mapping label"},
      OUTPUT,
      TEXT},
     pep_on_mmap},
    {"/debug/pprof/block",
     READ,
     "block",
     "block",
     "Where threads wait for each other: locks, conditions, semaphores, barriers, joins.",
     {WINDOW, RATE_WAIT, OUTPUT, TEXT},
     pep_on_block},
    {"/debug/pprof/mutex",
     READ,
     "mutex",
     "mutex",
     "Who made others wait: the code that let go, with the time they had waited for it.",
     {WINDOW, RATE_WAIT, OUTPUT, TEXT},
     pep_on_mutex},
    {"/profile",
     ANY,
     NULL,
     NULL,
     "CPU time of a time to come, in ProfileEndpoints' words.",
     {DURATION, DELAY_CPU, ROOM, EVERY_SAMPLE, OUTPUT},
     pep_on_endpoint_profile},
    {"/profile_start",
     ANY,
     NULL,
     NULL,
     "The same from here to profile_stop.",
     {DELAY_CPU, ROOM},
     pep_on_endpoint_profile_start},
    {"/profile_stop",
     ANY,
     NULL,
     NULL,
     "Ends the recording and answers it; asked again, answers it again.",
     {EVERY_SAMPLE, FORMAT},
     pep_on_endpoint_profile_stop},
    {"/profile_wall",
     ANY,
     "profile_wall",
     "../../profile_wall",
     "Elapsed time of every thread, in the same words.",
     {DURATION, DELAY_WALL, ROOM, EVERY_SAMPLE, OUTPUT},
     pep_on_endpoint_wall},
    {"/profile_wall_start",
     ANY,
     NULL,
     NULL,
     "The same from here to profile_wall_stop.",
     {DELAY_WALL, ROOM},
     pep_on_endpoint_wall_start},
    {"/profile_wall_stop",
     ANY,
     NULL,
     NULL,
     "Ends the recording and answers it; asked again, answers it again.",
     {EVERY_SAMPLE, FORMAT},
     pep_on_endpoint_wall_stop},
    {"/profile_callers",
     READ | PEP_POST,
     NULL,
     NULL,
     "Who called a function, of the last recording, the most frequent caller first.",
     {{"func", "a function", "its whole name, or what follows the last ::"},
      {"file", "a path or the end of one", "only where the function stands in that file"},
      {"lines", "10 or 10:20", "only at these lines"},
      {"duration", "0.001 to 86400", "seconds of CPU time to record first"},
      {"delay", "0.0001 to 1", "with duration, as in profile"},
      {"n", "1 and up", "with duration, as in profile"},
      {"format", "text, json", "overrides the Accept header"},
      {"thread", THREADS, "with duration: only these threads"}},
     pep_on_callers},
    {"/profile_fetch",
     READ | PEP_POST,
     NULL,
     NULL,
     "The last recording of profile or profile_wall once more, in any format.",
     {FORMAT},
     pep_on_recorded_fetch},
    {"/profile_init",
     READ | PEP_POST,
     NULL,
     NULL,
     "Sets what profile and profile_wall take where a request does not say; tells what is set.",
     {{"delay", "0.0001 to 1", "seconds between two samples of a thread"},
      {"n", "1 and up", "room for samples"}},
     pep_on_recorded_init},
    {"/profile_clear",
     READ | PEP_POST,
     NULL,
     NULL,
     "Ends recordings of profile and profile_wall and forgets what they recorded.",
     {{0}},
     pep_on_recorded_clear},
    {"/allocs_profile",
     ANY,
     "allocs_profile",
     "../../allocs_profile",
     "Allocations of a time to come, each recorded with the same probability.",
     {DURATION, PROBABILITY, OUTPUT},
     pep_on_allocs_profile},
    {"/allocs_profile_start",
     ANY,
     NULL,
     NULL,
     "The same from here to allocs_profile_stop.",
     {PROBABILITY},
     pep_on_allocs_start},
    {"/allocs_profile_stop",
     ANY,
     NULL,
     NULL,
     "Ends the recording and answers it; asked again, answers it again.",
     {FORMAT},
     pep_on_allocs_stop},
    {"/debug/pprof/goroutine",
     READ,
     "goroutine",
     "goroutine?debug=2",
     "What every thread does now and where it stands; the name that Go's tools ask for.",
     {TEXT_THREADS, CHANGE, FORMAT_OF_THREADS, THREAD},
     pep_on_goroutine},
    {"/debug/pprof/threads",
     READ,
     "threads",
     "threads",
     "What every thread does now, who waits for whom, deadlocks. A browser gets a page.",
     {TEXT_THREADS, CHANGE, FORMAT_OF_THREADS, THREAD},
     pep_on_threads},
    {"/debug/pprof/threadcreate",
     READ,
     "threadcreate",
     "threadcreate?debug=1",
     "Who made the threads: all since the start, by the thread and the code that made them.",
     {{"live", "0, 1", "1: only threads that live now, each with its own name"},
      WINDOW,
      FORMAT,
      {"thread", THREADS, "only those made by these threads; with live, only these"},
      TEXT},
     pep_on_threadcreate},
    {"/task_backtraces",
     ANY,
     "task_backtraces",
     "../../task_backtraces",
     "The stacks of all threads as Julia prints those of its tasks.",
     {THREAD},
     pep_on_task_backtraces},
    {"/heap_snapshot",
     ANY,
     NULL,
     NULL,
     "A snapshot of the heap; not made by this version.",
     {{0}},
     pep_on_heap_snapshot},
    {"/debug_engine",
     ANY,
     NULL,
     NULL,
     "Any of ProfileEndpoints' profiles into a file, by a JSON body; answers the file's path.",
     {{"subdir", "a directory", "below PROFEP_STAGE_PATH"}},
     pep_on_debug_engine},
    {"/debug/pprof/symbol",
     READ | PEP_POST,
     "symbol",
     "symbol",
     "Names for addresses: 0x401136+0x401150 as the query or as the body of a POST.",
     {{0}},
     pep_on_symbol},
    {"/debug/profep",
     READ,
     NULL,
     NULL,
     "The profiler about itself, as JSON: counters of every loss, sampler, settings.",
     {{0}},
     pep_on_self},
    {"/debug/profep/config",
     READ | PEP_POST,
     NULL,
     NULL,
     "Every setting, its value and where that is from; a POST changes what can change at run time.",
     {{0}},
     pep_on_config},
    {"/healthz", READ, NULL, NULL, "Says ok.", {{0}}, pep_on_health},
    {"/health", READ, NULL, NULL, "Says OK.", {{0}}, pep_on_health_iox},
};
const size_t pep_routes_count = PEP_COUNT_OF(pep_routes);

static const struct pep_route *find(const char *path) {
    for (size_t i = 0; i < pep_routes_count; i++)
        if (strcmp(pep_routes[i].path, path) == 0)
            return &pep_routes[i];
    return NULL;
}

static const char *allow_of(unsigned methods) {
    if (methods & PEP_DELETE)
        return "GET, HEAD, POST, PUT, PATCH, DELETE";
    return methods & PEP_POST ? "GET, HEAD, POST" : "GET, HEAD";
}

/* What a browser asks before a request with a token, from an origin that was allowed by name. */
static void answer_preflight(struct pep_exchange *exchange, const struct pep_route *route) {
    pep_response_start(exchange->response, 204, NULL);
    pep_response_header(exchange->response, "Access-Control-Allow-Methods",
                        allow_of(route->methods));
    pep_response_header(exchange->response, "Access-Control-Allow-Headers", "Authorization");
}

static void refuse_method(struct pep_exchange *exchange, const struct pep_route *route) {
    char sentence[96];
    snprintf(sentence, sizeof(sentence), "This path answers %s only.", allow_of(route->methods));
    pep_response_error(exchange->response, 405, sentence);
    pep_response_header(exchange->response, "Allow", allow_of(route->methods));
}

static bool reads_body(const struct pep_route *route) {
    return route->handle == pep_on_symbol || route->handle == pep_on_config ||
           route->handle == pep_on_debug_engine;
}

static bool has_form(const struct pep_request *request) {
    static const char form[] = "application/x-www-form-urlencoded";
    const char *type = pep_request_header(request, "Content-Type", NULL);
    return (request->method & (PEP_POST | PEP_PUT | PEP_PATCH)) && type &&
           strncasecmp(type, form, sizeof(form) - 1) == 0 && strchr("; \t", type[sizeof(form) - 1]);
}

/* As Go's FormValue: what the body says stands before what the query says. */
static void handle_form(struct pep_exchange *exchange, const struct pep_route *route) {
    const char *form = pep_body_read_form(exchange), *query = exchange->request->query;
    if (!form)
        return;
    if (*form)
        query = pep_arena_printf(exchange->arena, "%s%s%s", form, *query ? "&" : "", query);
    if (!query) {
        pep_response_error(exchange->response, 503, "Not enough memory for this request.");
        return;
    }
    exchange->request->query = query;
    route->handle(exchange);
}

static void dispatch(struct pep_exchange *exchange, const struct pep_verdict *verdict) {
    const struct pep_request *request = exchange->request;
    const struct pep_route *route = find(request->path);
    if (!route && strncmp(request->path, "/debug/pprof/", 13) == 0)
        pep_response_error(exchange->response, 404, "Unknown profile");
    else if (!route)
        pep_response_error(exchange->response, 404,
                           "There is nothing at this path; /debug/pprof/ lists what there is.");
    else if (request->method == PEP_OPTIONS && verdict->origin)
        answer_preflight(exchange, route);
    else if (!(request->method & route->methods))
        refuse_method(exchange, route);
    else if (has_form(request) && !reads_body(route))
        handle_form(exchange, route);
    else
        route->handle(exchange);
}

void pep_routes_serve(struct pep_exchange *exchange) {
    struct pep_verdict verdict = pep_access_check(&exchange->service->access, exchange->request);
    struct pep_response *response = exchange->response;
    response->request = exchange->request;
    if (verdict.status) {
        pep_response_error(response, verdict.status, verdict.sentence);
        if (verdict.status == 401)
            pep_response_header(response, "WWW-Authenticate", "Bearer");
    } else {
        response->origin = verdict.origin;
        dispatch(exchange, &verdict);
    }
}
