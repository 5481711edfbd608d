/*
 * Who may ask: Host, Origin, token.
 *
 * Model:   loopback is open to every web page of the user's browser, so a request must name us
 *          as a loopback host (DNS rebinding) and must not come from another site (CSRF).
 * Writers: -
 * Readers: the connection's thread.  [normal]
 * Memory:  none.
 * When full: -
 */
#ifndef PEP_HTTP_ACCESS_H
#define PEP_HTTP_ACCESS_H

#include <stdbool.h>

#include "http/request.h"

struct pep_access {
    const char *token;        /* NULL: none asked */
    const char *allow_host;   /* further names, comma separated; NULL: none */
    const char *allow_origin; /* comma separated; NULL: none */
    const char *own_host;     /* the address that listens, as it stands in a URL; NULL: unix */
    bool is_any;              /* listens on every address: any IP literal is a good Host */
};

struct pep_verdict {
    int status;           /* 0: come in */
    const char *sentence; /* for the client when status is not 0 */
    const char *origin;   /* to be named in Access-Control-Allow-Origin, NULL: none */
};

struct pep_verdict pep_access_check(const struct pep_access *access,
                                    const struct pep_request *request);

#endif
