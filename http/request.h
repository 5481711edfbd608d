/*
 * One request, taken apart and held to its limits.
 *
 * Model:   a message (what the parser saw) becomes a request: method, decoded path, headers,
 *          parameters. First value of a name wins, as in Go.
 * Writers: pep_request_init.  [normal]
 * Readers: access control and handlers.
 * Memory:  the request's arena and the connection's buffer.
 * When full: 413, 414 or 431 in one sentence.
 */
#ifndef PEP_HTTP_REQUEST_H
#define PEP_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/rt/arena.h"

#define PEP_MESSAGE_HEADERS_MAX 64 /* one fewer is accepted */
#define PEP_REQUEST_BODY_MAX 65536
#define PEP_REQUEST_THREAD_MAX 64
#define PEP_REQUEST_SECONDS 30

enum pep_method {
    PEP_GET = 1,
    PEP_HEAD = 2,
    PEP_POST = 4,
    PEP_OPTIONS = 8,
    PEP_PUT = 16,
    PEP_PATCH = 32,
    PEP_DELETE = 64
};
enum pep_format {
    PEP_FORMAT_PPROF,
    PEP_FORMAT_SVG,
    PEP_FORMAT_HTML,
    PEP_FORMAT_COLLAPSED,
    PEP_FORMAT_TEXT,
    PEP_FORMAT_TREE, /* Julia's reports */
    PEP_FORMAT_FLAT,
    PEP_FORMAT_JSON,       /* every sample, a line each */
    PEP_FORMAT_LEGACY,     /* debug=1 of the heap; not a word of format= */
    PEP_FORMAT_CONTENTION, /* debug=1 of block and mutex; likewise */
    PEP_FORMAT_COUNT       /* debug=1 of threads and threadcreate; likewise */
};

struct pep_header {
    const char *name, *value;
};

/* What the parser hands over; the strings are its. */
struct pep_message {
    const char *method, *target, *version; /* "GET", "/a?b", "1.1" */
    struct pep_header headers[PEP_MESSAGE_HEADERS_MAX];
    int header_count;
    bool has_body;
};

struct pep_request {
    const struct pep_message *message;
    struct pep_arena *arena;
    unsigned method;       /* enum pep_method; 0: one we do not know */
    bool is_old;           /* HTTP/1.0: no chunks, Host not required */
    const char *path;      /* decoded, begins with '/' */
    const char *query;     /* raw, without '?'; "" when there is none */
    const char *authority; /* of an absolute target, NULL otherwise */
    const char *body;      /* NULL unless a handler that takes one was asked */
    size_t body_bytes;
};

/* 0, or an HTTP status with *sentence for the client. */
int pep_request_init(struct pep_request *request, const struct pep_message *message,
                     struct pep_arena *arena, const char **sentence);

/* The value of a header (name in any case), NULL when absent. *count: how often it stands there;
 * may be NULL. */
const char *pep_request_header(const struct pep_request *request, const char *name, int *count);

/* The first value of a query parameter, decoded, NULL when absent or not decodable. */
const char *pep_request_param(const struct pep_request *request, const char *name);

/* Go's rule for `seconds`: a base-10 integer above 0; anything else, or nothing, is 30. */
int64_t pep_request_seconds(const char *text);
/* Go's rule for `debug` and `gc`: a base-10 integer; anything else, or nothing, is 0. */
int64_t pep_request_atoi(const char *text);
/* A base-10 integer above 0 that 64 bits hold; false otherwise. */
bool pep_request_positive(const char *text, int64_t *number);
/* A plain decimal number such as 10, 0.25 or 1e-4 in [low, high], in any locale of the host; false
 * otherwise. */
bool pep_request_decimal(const char *text, double low, double high, double *number);
/* A plain decimal integer in [low, high]; false otherwise. */
bool pep_request_number(const char *text, int64_t low, int64_t high, int64_t *number);
/* "pprof", "svg" ...; false when not one of them. */
bool pep_request_format(const char *text, enum pep_format *format);
/* What the Accept headers prefer among pprof, html and svg; pprof where there are none. */
enum pep_format pep_request_accept(const struct pep_request *request);
/* One of the Accept headers names application/json. */
bool pep_request_wants_json(const struct pep_request *request);

/* Decodes %XX, and '+' as a space when is_query, into the arena. NULL when malformed (bad escape,
 * a NUL byte) or memory was refused. */
char *pep_request_unescape(struct pep_arena *arena, const char *text, size_t count, bool is_query);

#endif
