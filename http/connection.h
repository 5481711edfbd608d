/*
 * The connections being served: a slot and a short-lived thread each.
 *
 * Model:   free -> reading -> serving -> free. When every slot is taken and somebody waits, the
 *          connection that has been reading longest is cut, so clients that never finish their
 *          request cannot keep others out.
 * Writers: the listening thread takes slots; a slot's thread frees it.  [normal]
 * Readers: exit and fork.
 * Memory:  PEP_SERVER_CONNECTIONS_MAX slots; a 256 KiB stack a connection.
 * When full: the listening thread waits for a slot.
 */
#ifndef PEP_HTTP_CONNECTION_H
#define PEP_HTTP_CONNECTION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "http/fd.h"
#include "http/routes.h"

/* A client may take this long with its request while others wait for a slot. */
#define PEP_CONNECTION_GRACE_NS 25000000ull

/* Serves an accepted socket on a thread of its own; on the caller's where none can be made. Takes
 * the descriptor over. */
void pep_connection_start(struct pep_fd fd, const struct pep_service *service, uid_t euid);
/* Returns when a slot is free. */
void pep_connections_wait_free(void);
/* Leaves three stacks in libc's cache, so that connections can be served while the host's malloc is
 * stuck. */
void pep_connections_warm(void);
uint32_t pep_connections_count(void);
/* Cuts what is being read or waited for; waits until all have ended, at most that long. Nothing
 * new may be started until pep_connections_resume. */
void pep_connections_stop(uint64_t ns);
void pep_connections_resume(void);
/* Drops our copies of the sockets; the threads do not exist. */
void pep_connections_after_fork_child(void);

#endif
