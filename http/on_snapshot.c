/*
 * /heap_snapshot.
 *
 * Model:   a 501: nothing takes one.
 * Writers: the connection's thread.  [normal]
 * Readers: the client.
 * Memory:  the request's arena.
 * When full: -
 */
#include "http/routes.h"

void pep_on_heap_snapshot(struct pep_exchange *exchange) {
    pep_response_error(exchange->response, 501, "Heap snapshots are not made by this version.");
}
