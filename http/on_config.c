/*
 * /debug/profep/config: every setting, where its value came from, and a change of those that can
 * change while the program runs.
 *
 * Model:   JSON for programs, a page with a form for browsers. A POST carries a form or a flat
 *          JSON object of names and values; all of them are taken, or none and the reason told.
 * Writers: the connection's thread, one change at a time.  [normal]
 * Readers: -
 * Memory:  the request's arena.
 * When full: 413, or the sentence of a 400.
 */
#include <string.h>
#include <strings.h>

#include "assets.h"
#include "http/body.h"
#include "http/json.h"
#include "http/routes.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"
#include "sampler/rt/os.h"

struct changes {
    struct pep_setting_change items[PEP_JSON_MEMBERS_MAX];
    size_t count;
};

/* -- what is shown -------------------------------------------------------------------------- */

static void write_string(struct pep_writer *writer, const char *name, const char *value) {
    pep_write_printf(writer, ", \"%s\": ", name);
    if (value)
        pep_write_json_string(writer, value);
    else
        pep_write_text(writer, "null");
}

static void write_json(struct pep_writer *writer, const struct pep_server_settings *settings) {
    struct pep_setting_view view;
    pep_write_text(writer, "{\"settings\": [");
    for (size_t i = 0; settings->get(i, &view); i++) {
        pep_write_text(writer, i > 0 ? ",\n  {\"name\": " : "\n  {\"name\": ");
        pep_write_json_string(writer, view.name);
        if (view.is_number)
            pep_write_printf(writer, ", \"value\": %s, \"default\": %s", view.value, view.fallback);
        else
            write_string(writer, "value", view.value);
        if (!view.is_number)
            write_string(writer, "default", view.fallback);
        write_string(writer, "origin", view.origin);
        write_string(writer, "accepted", view.accepted);
        pep_write_printf(writer, ", \"is_changeable\": %s", view.fixed ? "false" : "true");
        write_string(writer, "why_not", view.fixed);
        write_string(writer, "help", view.help);
        pep_write_text(writer, "}");
    }
    pep_write_text(writer, "\n]}\n");
}

static void write_cell(struct pep_writer *writer, const char *text) {
    pep_write_text(writer, "<td>");
    pep_write_xml(writer, text);
    pep_write_text(writer, "</td>");
}

static void write_row(struct pep_writer *writer, const struct pep_setting_view *view) {
    const char *value = view->value ? view->value : "";
    bool is_secret = strcmp(value, "(hidden)") == 0;
    pep_write_printf(writer, "<tr><td><label for=\"%s\">%s</label></td>", view->name, view->name);
    if (view->fixed || is_secret) {
        write_cell(writer, value);
    } else {
        pep_write_printf(writer, "<td><input id=\"%s\" name=\"%s\" value=\"", view->name,
                         view->name);
        pep_write_xml(writer, value);
        pep_write_text(writer, "\"></td>");
    }
    write_cell(writer, view->origin);
    write_cell(writer, view->accepted);
    write_cell(writer, view->help);
    pep_write_text(writer, "</tr>\n");
}

static void write_page(struct pep_writer *writer, const struct pep_server_settings *settings) {
    struct pep_setting_view view;
    pep_write(writer, pep_asset_index_head_html, pep_asset_index_head_html_size);
    pep_write_text(writer, "<title>profep: settings</title>\n<h1>Settings</h1>\n"
                           "<p class=\"what\">Those in a field can be changed while the program "
                           "runs.</p>\n<form method=\"post\" action=\"config\">\n<table>\n"
                           "<tr><th>Setting</th><th>Value</th><th>From</th><th>Accepted</th>"
                           "<th>What it is</th></tr>\n");
    for (size_t i = 0; settings->get(i, &view); i++)
        write_row(writer, &view);
    pep_write_text(writer, "</table>\n<button>Change</button>\n</form>\n"
                           "<p><a href=\"../pprof/\">Profiles</a></p>\n</html>\n");
}

static void show(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    const struct pep_server_settings *settings = exchange->service->settings;
    bool is_page = pep_request_accept(exchange->request) == PEP_FORMAT_HTML;
    pep_response_start(response, 200, is_page ? "text/html; charset=utf-8" : "application/json");
    if (is_page)
        pep_response_header(response, "Content-Security-Policy",
                            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
                            "frame-ancestors 'none'");
    pep_response_header(response, "Vary", "Accept");
    pep_response_header(response, "Cache-Control", "no-store");
    if (is_page)
        write_page(&response->writer, settings);
    else
        write_json(&response->writer, settings);
}

/* -- what is changed ------------------------------------------------------------------------ */

/* A setting answers to the variable's name, too. */
static const char *bare(const char *name) {
    return strncasecmp(name, "PROFEP_", 7) == 0 ? name + 7 : name;
}

/* The first value of a name wins, as everywhere. */
static const char *add(struct changes *changes, const char *name, const char *value) {
    for (size_t i = 0; i < changes->count; i++)
        if (strcasecmp(bare(changes->items[i].name), bare(name)) == 0)
            return NULL;
    if (changes->count == PEP_COUNT_OF(changes->items))
        return "The body has more than 64 members.";
    changes->items[changes->count++] = (struct pep_setting_change){name, value ? value : ""};
    return NULL;
}

static const char *read_json(struct pep_arena *arena, const char *body, size_t count,
                             struct changes *changes) {
    struct pep_json json;
    const char *sentence = pep_json_read(arena, body, count, &json);
    for (size_t i = 0; !sentence && i < json.count; i++)
        sentence = add(changes, json.members[i].name, json.members[i].value);
    return sentence;
}

static const char *read_form(struct pep_arena *arena, const char *body, struct changes *changes) {
    const char *sentence = NULL;
    while (*body && !sentence) {
        size_t count = strcspn(body, "&");
        const char *equal = memchr(body, '=', count);
        size_t name_count = equal ? (size_t)(equal - body) : count;
        size_t skip = equal ? name_count + 1 : count;
        const char *name = pep_request_unescape(arena, body, name_count, true);
        const char *value = pep_request_unescape(arena, body + skip, count - skip, true);
        if (!name || !value)
            sentence = "The form is not properly escaped.";
        else if (count > 0)
            sentence = add(changes, name, value);
        body += count + (body[count] == '&');
    }
    return sentence;
}

/* A form carries every field; those as they are change nothing, and keep their origin. */
static bool is_as_it_is(const struct pep_server_settings *settings,
                        const struct pep_setting_change *change) {
    struct pep_setting_view view;
    for (size_t i = 0; settings->get(i, &view); i++)
        if (strcmp(view.name, change->name) == 0)
            return !view.fixed && strcmp(view.value ? view.value : "", change->value) == 0;
    return false;
}

static void leave_out_same(const struct pep_server_settings *settings, struct changes *changes) {
    size_t kept = 0;
    for (size_t i = 0; i < changes->count; i++)
        if (!is_as_it_is(settings, &changes->items[i]))
            changes->items[kept++] = changes->items[i];
    changes->count = kept;
}

/* NULL, or the sentence of a 400. A lock of a parent of this process binds nobody here. */
static const char *apply(struct pep_exchange *exchange, const struct changes *changes) {
    static int busy_pid;
    const int pid = pep_os_getpid();
    char *sentence = pep_arena_alloc(exchange->arena, PEP_SETTING_SENTENCE_BYTES);
    int seen = pep_load_relaxed(&busy_pid);
    if (!sentence)
        return "Not enough memory for this request.";
    if (seen == pid || !pep_cas_acq_rel(&busy_pid, &seen, pid))
        return "Somebody else is changing settings: ask again.";
    const char *refused =
        exchange->service->settings->change(changes->items, changes->count, sentence);
    pep_store_release(&busy_pid, 0);
    return refused == sentence ? pep_response_plain(sentence) : refused;
}

static void change(struct pep_exchange *exchange) {
    struct changes changes = {.count = 0};
    size_t count;
    const char *body = pep_body_read(exchange, &count);
    if (!body)
        return;
    bool is_json = body[strspn(body, " \t\r\n")] == '{';
    const char *sentence = is_json ? read_json(exchange->arena, body, count, &changes)
                                   : read_form(exchange->arena, body, &changes);
    if (!sentence && changes.count == 0)
        sentence = "The body names no setting.";
    if (!sentence && !is_json)
        leave_out_same(exchange->service->settings, &changes);
    if (!sentence && changes.count > 0)
        sentence = apply(exchange, &changes);
    if (sentence)
        pep_response_error(exchange->response, 400, sentence);
    else
        show(exchange);
}

void pep_on_config(struct pep_exchange *exchange) {
    if (!exchange->service->settings)
        pep_response_error(exchange->response, 501, "There are no settings here.");
    else if (exchange->request->method == PEP_POST)
        change(exchange);
    else
        show(exchange);
}
