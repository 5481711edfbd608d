/*
 * A page that asks a person for parameters, records, and leads to the result.
 *
 * Model:   a table of fields becomes a GET form to the same path, with links to the forms of the
 *          other events. While the browser waits for the answer the page shows how far the
 *          recording is; the answer, a flame graph, replaces it. Works without script, too.
 * Writers: the connection's thread.  [normal]
 * Readers: a browser.
 * Memory:  none.
 * When full: -
 */
#ifndef PEP_HTTP_FORM_H
#define PEP_HTTP_FORM_H

#include "http/routes.h"

struct pep_form_field {
    const char *name, *label;
    const char *value;      /* at first */
    const char *low, *high; /* what the browser accepts */
    const char *help;
    bool is_computed; /* from the others, and they from it; not sent */
};

struct pep_form {
    const char *title, *lead;
    const char *action; /* relative: the last part of the path */
    const struct pep_form_field *fields;
    size_t field_count;
};

/* True for a browser that asks without any parameter. */
bool pep_form_is_wanted(const struct pep_request *request);
void pep_form_answer(struct pep_response *response, const struct pep_form *form);

#endif
