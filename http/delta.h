/*
 * Profiles that are asked for whole or as a delta: what changed in so many seconds.
 *
 * Model:   a handler names its profile, reads the parameters that all of these take, then its own;
 *          is_answered is true where no profile is needed; else the handler makes one, and answer
 *          writes it.
 * Writers: the connection's thread.  [normal]
 * Readers: on_heap.c, on_mmap.c, on_lock.c, on_threads.c.
 * Memory:  the request's arena.
 * When full: 503.
 */
#ifndef PEP_HTTP_DELTA_H
#define PEP_HTTP_DELTA_H

#include "http/render.h"
#include "http/routes.h"

struct pep_delta {
    const char *name;       /* of the file; that of a delta has "-delta" behind it */
    enum pep_format text;   /* what debug=1 makes of it */
    const char *unrecorded; /* the sentence where it cannot be recorded; NULL: it always can */
    /* What was asked: */
    uint64_t duration_ns; /* 0: the whole */
    enum pep_format format;
    struct pep_profile_filter filter;
};

/* seconds= in Go's order and words, debug=, format= (or else the Accept header) and thread=. NULL,
 * or the sentence of a 400. */
const char *pep_delta_read(const struct pep_request *request, struct pep_delta *asked);
/* inuse=, of what lives: a delta's values, or those of its end. NULL, or the sentence of a 400. */
const char *pep_delta_read_inuse(const struct pep_request *request, bool *is_absolute);
/* True: sentence, where there is one, or the head that was all that was asked for. */
bool pep_delta_is_answered(struct pep_exchange *exchange, const struct pep_delta *asked,
                           const char *sentence);
/* The profile, or what error (0 or -errno) says of it. */
void pep_delta_answer(struct pep_exchange *exchange, const struct pep_delta *asked, int error,
                      const struct pep_profile *profile);

#endif
