/*
 * The answer: status, headers, and a body that an encoder writes.
 *
 * Model:   the head is collected, the body goes through a buffer. A body that fits the buffer is
 *          sent with Content-Length, a longer one in chunks (HTTP/1.0: until the connection
 *          closes). One that fails half way ends without the last chunk, so nobody takes it for
 *          whole.
 * Writers: one handler.  [normal]
 * Readers: the client.
 * Memory:  the struct itself, about 10 KiB; owned by the connection.
 * When full: headers beyond PEP_RESPONSE_HEAD_BYTES make the answer a 500.
 */
#ifndef PEP_HTTP_RESPONSE_H
#define PEP_HTTP_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "encoder/writer.h"

#define PEP_RESPONSE_HEAD_BYTES 1536
#define PEP_RESPONSE_BODY_BYTES 8192

struct pep_request;

/* Where the bytes go; tests pass a fake. */
struct pep_sink {
    int (*send)(struct pep_sink *sink, const void *bytes, size_t count); /* 0 or -errno */
};

struct pep_response {
    struct pep_writer writer; /* the body */
    struct pep_sink *sink;
    struct pep_buffer_writer *capture; /* takes the body, and nothing is sent; NULL: none */
    bool is_head;                      /* the request was HEAD: no body */
    bool is_old;                       /* HTTP/1.0 */
    bool is_begun;                     /* the head is on its way */
    bool is_length_unknown;            /* HEAD only: do not claim a length */
    const struct pep_request *request; /* what is answered; NULL: nothing is known of it */
    const char *origin;                /* named in Access-Control-Allow-Origin, NULL: none */
    int status;
    size_t head_count, body_count;
    char head[PEP_RESPONSE_HEAD_BYTES];
    char body[PEP_RESPONSE_BODY_BYTES];
};

void pep_response_init(struct pep_response *response, struct pep_sink *sink);
/* Starts (again, while nothing was sent) with the headers every answer has. */
void pep_response_start(struct pep_response *response, int status, const char *content_type);
/* Adds a header; the value's control characters are dropped. */
void pep_response_header(struct pep_response *response, const char *name, const char *value);
/* A whole error answer with Go's headers: one sentence, to which the newline is added; or, where
 * the client asked for JSON, {"code": ..., "message": sentence}. Further
 * headers may be added after it. When the head has gone out, the answer is cut instead. */
void pep_response_error(struct pep_response *response, int status, const char *sentence);
/* The text with a question mark for every control character, so that what a client sent can be part
 * of one sentence. NULL stays NULL. */
char *pep_response_plain(char *sentence);
/* Sends what is left. 0, or the error that cut the answer. */
int pep_response_end(struct pep_response *response);

/* "Sun, 06 Nov 1994 08:49:37 GMT" for a time in seconds; to holds at least 30 bytes. */
void pep_response_date(int64_t seconds, char *to, size_t size_bytes);

#endif
