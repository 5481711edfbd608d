/*
 * A way to ask the routes: everything but the socket.
 *
 * Model:   a request line goes through the parser, the routes and the response; what would go over
 *          the wire is kept until the next question.
 * Writers: -
 * Readers: the tests of routes.  [normal]
 * Memory:  static.
 * When full: the answer is cut with -EPIPE, at send_limit.
 */
#ifndef PEP_TEST_ASK_ROUTES_H
#define PEP_TEST_ASK_ROUTES_H

#include "http/routes.h"

struct asked {
    struct pep_arena arena; /* the test begins and drops it */
    struct pep_service service;
    char wire[400000], *body; /* of the last answer; body: NULL when there was none */
    size_t count;             /* bytes of the last answer */
    size_t send_limit;
    int writer_error; /* of the last answer, before its end */
    int end_error;    /* how it ended */
    const char *form; /* the body of the next request; NULL: it does not arrive */
    size_t form_left;
    size_t piece_max;          /* so much of it arrives at once; 0: all that is read for */
    struct pep_client *client; /* who waits, when the test has one */
};

extern struct asked asked;

/* Sends "METHOD target HTTP/x" and header lines; the status. */
int ask_routes(const char *line, const char *headers);
/* The same, with a body of count bytes. */
int ask_routes_with(const char *line, const char *headers, const char *form, size_t count);
/* Before each test. */
void ask_routes_reset(void);

#endif
