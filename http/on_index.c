/*
 * /debug/pprof/: what can be asked, from the table of routes.
 *
 * Model:   all links are relative, so the page works behind a prefix.
 * Writers: the connection's thread.  [normal]
 * Readers: the client.
 * Memory:  the request's arena.
 * When full: a count that memory was refused for is 0.
 */
#include <string.h>

#include "assets.h"
#include "http/routes.h"
#include "sampler/heap.h"
#include "sampler/rt/os.h"

static void write_title(struct pep_writer *writer) {
    char comm[17] = "";
    if (pep_os_read_file("/proc/self/comm", comm, sizeof(comm)) <= 0)
        comm[0] = '\0';
    comm[strcspn(comm, "\n")] = '\0';
    pep_write_text(writer, "<title>");
    pep_write_xml(writer, comm);
    pep_write_printf(writer, " %d: profiles</title>\n<h1>", pep_os_getpid());
    pep_write_xml(writer, comm);
    pep_write_printf(writer, " %d</h1>\n", pep_os_getpid());
    pep_write_text(writer,
                   "<p class=\"what\">Profiles of the running program, by libprofep.</p>\n");
}

/* A heap profile that cannot show the program's allocations must not pass for a small heap. */
static void write_reach(struct pep_writer *writer) {
    struct pep_heap_state state = {0};
    pep_heap_state(&state);
    if (!state.unreachable)
        return;
    pep_write_text(writer, "<p class=\"reach\">");
    pep_write_xml(writer, state.unreachable);
    pep_write_text(writer, ".</p>\n");
}

/* Routes of which the index says how many there are now; 0 for the others, as Go has it for what
 * only exists while it is asked. An empty title ends them. */
static const struct {
    const char *title;
    uint64_t (*count)(struct pep_arena *arena); /* the request's */
} counted[] = {
    {"allocs", pep_on_heap_count},         {"block", pep_on_block_count},
    {"goroutine", pep_on_threads_count},   {"heap", pep_on_heap_count},
    {"mmap", pep_on_mmap_count},           {"mutex", pep_on_mutex_count},
    {"temporary", pep_on_temporary_count}, {"threadcreate", pep_on_threadcreate_count},
    {"threads", pep_on_threads_count},     {"", NULL},
};

static uint64_t count_of(const char *title, struct pep_arena *arena) {
    for (size_t i = 0; *counted[i].title; i++)
        if (strcmp(counted[i].title, title) == 0)
            return counted[i].count(arena);
    return 0;
}

/* The listed route whose title follows in the alphabet; NULL: none. */
static const struct pep_route *next_of(const char *title) {
    const struct pep_route *next = NULL;
    for (size_t i = 0; i < pep_routes_count; i++) {
        const struct pep_route *route = &pep_routes[i];
        if (route->title && strcmp(route->title, title) > 0 &&
            (!next || strcmp(route->title, next->title) < 0))
            next = route;
    }
    return next;
}

static void write_table(struct pep_writer *writer, struct pep_arena *arena) {
    pep_write_text(writer, "<h2>Profiles</h2>\n<table>\n"
                           "<tr><th class=\"count\">Count</th><th>Profile</th><th></th></tr>\n");
    for (const struct pep_route *route = next_of(""); route; route = next_of(route->title)) {
        pep_write_printf(
            writer, "<tr><td class=\"count\">%llu</td><td><a href=\"%s\">%s</a></td><td>",
            (unsigned long long)count_of(route->title, arena), route->link, route->title);
        pep_write_xml(writer, route->help);
        pep_write_text(writer, "</td></tr>\n");
    }
    pep_write_text(writer, "</table>\n");
}

/* Every path, also those that the table leaves out: the second half of a pair, other names. */
static void write_paths(struct pep_writer *writer) {
    pep_write_text(writer, "<h2>Paths</h2>\n<details>\n"
                           "<summary>All of them, with their parameters</summary>\n<dl>\n");
    for (size_t i = 0; i < pep_routes_count; i++) {
        const struct pep_route *route = &pep_routes[i];
        pep_write_printf(writer, "<dt><code>%s</code></dt>\n<dd>", route->path);
        pep_write_xml(writer, route->help);
        for (const struct pep_param *param = route->params; param->name; param++) {
            pep_write_printf(writer, "<br><code>%s</code>: ", param->name);
            pep_write_xml(writer, param->values);
            pep_write_text(writer, "; ");
            pep_write_xml(writer, param->help);
        }
        pep_write_text(writer, "</dd>\n");
    }
    pep_write_text(writer, "</dl>\n</details>\n<p>The profiler about itself: "
                           "<a href=\"../profep\">counters and settings</a>.</p>\n</html>\n");
}

void pep_on_index(struct pep_exchange *exchange) {
    struct pep_writer *writer = &exchange->response->writer;
    pep_response_start(exchange->response, 200, "text/html; charset=utf-8");
    pep_response_header(exchange->response, "Content-Security-Policy",
                        "default-src 'none'; style-src 'unsafe-inline'; img-src data:");
    pep_write(writer, pep_asset_index_head_html, pep_asset_index_head_html_size);
    write_title(writer);
    write_reach(writer);
    pep_write(writer, pep_asset_index_ask_html, pep_asset_index_ask_html_size);
    write_table(writer, exchange->arena);
    write_paths(writer);
}
