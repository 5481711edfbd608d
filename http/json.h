/*
 * A flat JSON object, as a request's body.
 *
 * Model:   strict (RFC 8259): one object of strings, numbers, true, false and null; no object or
 *          array inside, no name twice, nothing behind it. Every value is kept as text.
 * Writers: pep_json_read.  [normal]
 * Readers: handlers that take a body.
 * Memory:  the caller's arena.
 * When full: the sentence of a 400.
 */
#ifndef PEP_HTTP_JSON_H
#define PEP_HTTP_JSON_H

#include <stddef.h>

#include "sampler/rt/arena.h"

#define PEP_JSON_MEMBERS_MAX 64

struct pep_json_member {
    const char *name;
    const char *value; /* a string decoded, a number as it stands, "true", "false"; NULL: null */
};

struct pep_json {
    struct pep_json_member *members;
    size_t count;
};

/* NULL, or what is wrong, a sentence. text[count] is readable and NUL. */
const char *pep_json_read(struct pep_arena *arena, const char *text, size_t count,
                          struct pep_json *json);
/* The value of a member; NULL when it is not there or null. */
const char *pep_json_value(const struct pep_json *json, const char *name);

#endif
