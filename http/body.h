/*
 * The body of a POST, whole.
 *
 * Model:   read once, bounded; what is wrong is answered here.
 * Writers: the connection's thread.  [normal]
 * Readers: handlers.
 * Memory:  the request's arena.
 * When full: 413.
 */
#ifndef PEP_HTTP_BODY_H
#define PEP_HTTP_BODY_H

#include "http/routes.h"

/* The bytes and a NUL behind them; NULL: an error answer was made. */
char *pep_body_read(struct pep_exchange *exchange, size_t *count);
/* A form that counts as the query, and is as long as one at most; likewise. */
const char *pep_body_read_form(struct pep_exchange *exchange);

#endif
