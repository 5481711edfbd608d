#include "http/form.h"

#include <string.h>

#include "assets.h"
#include "sampler/rt/attrs.h"

/* Of form.html: what stands between the two is made from the table. */
static const char begin_mark[] = "<!-- begin -->";
static const char end_mark[] = "<!-- end -->";

bool pep_form_is_wanted(const struct pep_request *request) {
    return !*request->query && pep_request_accept(request) == PEP_FORMAT_HTML;
}

static void write_attribute(struct pep_writer *writer, const char *name, const char *value) {
    pep_write_printf(writer, " %s=\"", name);
    pep_write_xml(writer, value);
    pep_write_text(writer, "\"");
}

static void write_element(struct pep_writer *writer, const char *element, const char *text) {
    pep_write_printf(writer, "<%s>", element);
    pep_write_xml(writer, text);
    pep_write_printf(writer, "</%s>\n", element);
}

static void write_field(struct pep_writer *writer, const struct pep_form_field *field) {
    pep_write_text(writer, field->is_computed ? "<label class=\"computed\">" : "<label>");
    write_element(writer, "span", field->label);
    pep_write_text(writer, "<input type=\"number\" step=\"any\" required");
    write_attribute(writer, field->is_computed ? "id" : "name", field->name);
    write_attribute(writer, "value", field->value);
    write_attribute(writer, "min", field->low);
    write_attribute(writer, "max", field->high);
    pep_write_text(writer, ">\n");
    write_element(writer, "small", field->help);
    pep_write_text(writer, "</label>\n");
}

/* What else can be recorded. */
static void write_events(struct pep_writer *writer, const char *action) {
    static const char *const events[][2] = {{"profile", "CPU time"},
                                            {"profile_wall", "Elapsed time"},
                                            {"allocs_profile", "Allocations"}};
    pep_write_text(writer, "<nav aria-label=\"What to record\">\n");
    for (size_t i = 0; i < PEP_COUNT_OF(events); i++) {
        bool is_this = strcmp(events[i][0], action) == 0;
        pep_write_printf(writer, "<a href=\"%s\"%s>%s</a>\n", events[i][0],
                         is_this ? " aria-current=\"page\"" : "", events[i][1]);
    }
    pep_write_text(writer, "</nav>\n");
}

static void write_form(struct pep_writer *writer, const struct pep_form *form) {
    write_element(writer, "title", form->title);
    write_element(writer, "h1", form->title);
    pep_write_text(writer, "<p class=\"lead\">");
    pep_write_xml(writer, form->lead);
    pep_write_text(writer, "</p>\n");
    write_events(writer, form->action);
    pep_write_text(writer, "<form id=\"form\" method=\"get\"");
    write_attribute(writer, "action", form->action);
    pep_write_text(writer, ">\n");
    for (size_t i = 0; i < form->field_count; i++)
        write_field(writer, &form->fields[i]);
}

void pep_form_answer(struct pep_response *response, const struct pep_form *form) {
    const char *page = pep_asset_form_html;
    const char *begin = strstr(page, begin_mark), *end = strstr(page, end_mark);
    if (!begin || !end) {
        pep_response_error(response, 500, "The form cannot be shown."); /* asset and code differ */
        return;
    }
    pep_response_start(response, 200, "text/html; charset=utf-8");
    pep_response_header(response, "Content-Security-Policy",
                        "default-src 'none'; script-src 'unsafe-inline'; "
                        "style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
                        "frame-ancestors 'none'");
    pep_response_header(response, "Vary", "Accept");
    pep_response_header(response, "Cache-Control", "no-store");
    pep_write(&response->writer, page, (size_t)(begin - page));
    write_form(&response->writer, form);
    end += sizeof(end_mark) - 1;
    pep_write(&response->writer, end, pep_asset_form_html_size - (size_t)(end - page));
}
