/*
 * The heap's sampler and the encoders as fakes, and a way to ask the routes.
 *
 * Model:   each test names the functions it replaces by --wrap; the fakes note what they were
 *          asked, in order, a letter a call: begin, end, snapshot, profile, trim.
 * Writers: -
 * Readers: test_on_heap, test_on_allocs.  [normal]
 * Memory:  static.
 * When full: -
 */
#ifndef PEP_TEST_HEAP_WEB_H
#define PEP_TEST_HEAP_WEB_H

#include "http/routes.h"

/* What the fakes saw since the last question; comments one a line. */
struct heap_web_seen {
    char calls[64];
    uint64_t waited_ns;
    int waits;
    uint32_t rate_bytes;
    double probability;
    struct pep_heap_query query;
    bool has_before, was_signed, was_exact;
    enum pep_format format;
    char thread[64], comments[4096];
};

/* What the fakes are to do. */
struct heap_web_plan {
    int begin_error;
    char failing;     /* the letter of the call that gets no memory */
    int leaves_after; /* so many waits; 0: the client stays */
    struct pep_heap_state state;
};

extern struct heap_web_seen seen;
extern struct heap_web_plan plan;
extern int open_rates; /* begun and not ended */
extern char *body;     /* of the last answer */

/* Sends "METHOD target" with header lines through everything but the socket; the status, or the
 * error that cut the answer. */
int ask_with(const char *line, const char *headers);
int ask(const char *line);
/* The head of the last answer has this text. */
bool has(const char *header);
int count_of(const char *header); /* how often */
/* Asks; the answer is an error with Go's headers and this sentence, and nothing stays open. */
void refuses(const char *line, int status, const char *sentence);

/* Around each test. */
int heap_web_setup(void **state);
int heap_web_teardown(void **state);

#endif
