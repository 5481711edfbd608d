/*
 * Where to listen: the grammar of PROFEP_LISTEN and the socket that comes of it.
 *
 * Model:   "127.0.0.1:16825+", "127.0.0.1:0", "[::1]:0", "localhost:16825", ":0", "unix:/path". The
 *          plus says that the next free port is as good; without it that is still what happens,
 *          but the log says so. No host name means 127.0.0.1, never every address.
 * Writers: the listening thread; fork.  [normal]
 * Readers: the same.
 * Memory:  the struct.
 * When full: -EADDRINUSE when no port is free.
 */
#ifndef PEP_HTTP_LISTEN_H
#define PEP_HTTP_LISTEN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/un.h>

#include "http/fd.h"

#define PEP_LISTEN_URL_BYTES 160

struct pep_listen {
    int family; /* AF_INET, AF_INET6 or AF_UNIX */
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un path;
    } address;
    uint16_t port; /* asked for; after opening, the one we have */
    bool is_any;   /* every address: only when somebody wrote it */
    bool is_next_good;
};

bool pep_listen_parse(const char *text, struct pep_listen *where);
/* Opens a non-blocking listener. 0 or -errno. Says in the log when the place was taken. */
int pep_listen_open(struct pep_listen *where, struct pep_fd *fd);
/* "http://127.0.0.1:16825/" or "unix:/path". */
void pep_listen_url(const struct pep_listen *where, char *to, size_t size_bytes);
/* "127.0.0.1:16825", and without its port; "unix:/path" for both. */
void pep_listen_target(const struct pep_listen *where, bool with_port, char *to, size_t size_bytes);
/* Removes the socket's path if it is still the one we made. */
void pep_listen_unlink(const struct pep_listen *where, const struct pep_fd *fd);

#endif
