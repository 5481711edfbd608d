/*
 * civetweb's request parser and socket loops, behind a connection that we accepted.
 *
 * Model:   one pep_wire a connection: read the request, read its body, send bytes. civetweb's
 *          own threads, listeners, files and signal changes never run.
 * Writers: the connection's thread; pep_wire_cut from any.  [normal]
 * Readers: the connection's thread.
 * Memory:  one block from pep_malloc a connection, about 8 KiB.
 * When full: pep_wire_open returns NULL.
 */
#ifndef PEP_HTTP_CIVETWEB_GLUE_H
#define PEP_HTTP_CIVETWEB_GLUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http/fd.h"
#include "http/request.h"

#define PEP_WIRE_REQUEST_BYTES 4096
#define PEP_WIRE_TIMEOUT_MS 3000

struct pep_wire;

/* fd is a non-blocking socket that stays the caller's to drop. NULL when memory was refused. */
struct pep_wire *pep_wire_open(const struct pep_fd *fd);
void pep_wire_close(struct pep_wire *wire);
/* Makes the reading that goes on end soon, and every one and every sending from now on, until
 * mended. The wire must be open. */
void pep_wire_cut(struct pep_wire *wire);
bool pep_wire_is_cut(const struct pep_wire *wire);
void pep_wire_mend(struct pep_wire *wire);

/* Reads and parses one request; its strings live as long as the wire. 0; a positive HTTP status
 * with *sentence for the client; -ECONNRESET when nothing (more) came. */
int pep_wire_read_request(struct pep_wire *wire, struct pep_message *message,
                          const char **sentence);
/* Reads up to max bytes of the body: the number read, 0 at its end, or -errno. */
long pep_wire_read_body(struct pep_wire *wire, void *to, size_t max);
/* Sends all bytes or returns -errno. Never raises SIGPIPE. */
int pep_wire_send(struct pep_wire *wire, const void *bytes, size_t count);
/* True when the client may have sent bytes that were never read. */
bool pep_wire_is_unread(const struct pep_wire *wire);
/* The socket is still the one that was opened; otherwise counts fd_lost once. */
bool pep_wire_is_intact(struct pep_wire *wire);

/* The parser alone, for tests and the fuzzer: text is changed in place, text[count] must be
 * writable. 0 or an HTTP status. */
int pep_wire_parse(char *text, size_t count, struct pep_message *message);

#endif
