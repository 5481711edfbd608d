/*
 * What may be asked here: one table.
 *
 * Model:   path, methods, parameters, handler, help. The index page, the 404s, the 405s and the
 *          documentation come from it.
 * Writers: -
 * Readers: the connection's thread; the index page.  [normal]
 * Memory:  static.
 * When full: -
 */
#ifndef PEP_HTTP_ROUTES_H
#define PEP_HTTP_ROUTES_H

#include <stddef.h>

#include "http/access.h"
#include "http/request.h"
#include "http/response.h"
#include "http/server.h"
#include "http/window.h"

/* What handlers may know of the server. */
struct pep_service {
    uint32_t hz;                                /* default rate of CPU profiles */
    const char *url;                            /* where we listen */
    const char *stage_path;                     /* for files of debug_engine */
    const char *(*describe)(void);              /* JSON object, or NULL */
    const struct pep_server_settings *settings; /* NULL: none */
    int (*peek_signal)(void); /* what asks for a peek now, 0: nothing does; or NULL */
    struct pep_access access;
    uint32_t connections; /* being served now */
};

/* One request and its answer. */
struct pep_exchange {
    const struct pep_service *service;
    struct pep_request *request;
    struct pep_response *response;
    struct pep_arena *arena;
    struct pep_client *client;
    /* Reads the body of a POST: bytes, 0 at the end, or -errno. */
    long (*read_body)(struct pep_exchange *exchange, void *to, size_t max);
};

struct pep_param {
    const char *name, *values, *help; /* name NULL ends a list */
};

#define PEP_ROUTE_PARAMS_MAX 9

struct pep_route {
    const char *path;
    unsigned methods;  /* enum pep_method */
    const char *title; /* in the index; NULL: not listed there */
    const char *link;  /* relative to the index */
    const char *help;  /* one sentence */
    struct pep_param params[PEP_ROUTE_PARAMS_MAX];
    void (*handle)(struct pep_exchange *exchange);
};

extern const struct pep_route pep_routes[];
extern const size_t pep_routes_count;

/* Checks access, finds the route, runs its handler. The answer still has to be ended. */
void pep_routes_serve(struct pep_exchange *exchange);

/* Handlers, one group a file: on_pprof.c, on_heap.c, on_allocs.c, on_mmap.c, on_symbol.c,
 * on_lock.c, on_threads.c, on_endpoints.c, on_recorded.c, on_engine.c, on_snapshot.c, on_index.c,
 * on_self.c. */
void pep_on_index(struct pep_exchange *exchange);
void pep_on_profile(struct pep_exchange *exchange);
void pep_on_wall(struct pep_exchange *exchange);
void pep_on_fgprof(struct pep_exchange *exchange);
void pep_on_endpoint_profile(struct pep_exchange *exchange);
void pep_on_endpoint_profile_start(struct pep_exchange *exchange);
void pep_on_endpoint_profile_stop(struct pep_exchange *exchange);
void pep_on_endpoint_wall(struct pep_exchange *exchange);
void pep_on_endpoint_wall_start(struct pep_exchange *exchange);
void pep_on_endpoint_wall_stop(struct pep_exchange *exchange);
void pep_on_heap(struct pep_exchange *exchange);
void pep_on_allocs(struct pep_exchange *exchange);
void pep_on_temporary(struct pep_exchange *exchange);
void pep_on_allocs_profile(struct pep_exchange *exchange);
void pep_on_allocs_start(struct pep_exchange *exchange);
void pep_on_allocs_stop(struct pep_exchange *exchange);
void pep_on_mmap(struct pep_exchange *exchange);
void pep_on_block(struct pep_exchange *exchange);
void pep_on_mutex(struct pep_exchange *exchange);
void pep_on_goroutine(struct pep_exchange *exchange);
void pep_on_threads(struct pep_exchange *exchange);
void pep_on_threadcreate(struct pep_exchange *exchange);
void pep_on_task_backtraces(struct pep_exchange *exchange);
void pep_on_heap_snapshot(struct pep_exchange *exchange);
void pep_on_debug_engine(struct pep_exchange *exchange);
void pep_on_cmdline(struct pep_exchange *exchange);
void pep_on_symbol(struct pep_exchange *exchange);
void pep_on_self(struct pep_exchange *exchange);
void pep_on_config(struct pep_exchange *exchange);
void pep_on_health(struct pep_exchange *exchange);
void pep_on_health_iox(struct pep_exchange *exchange);
void pep_on_callers(struct pep_exchange *exchange);
void pep_on_recorded_clear(struct pep_exchange *exchange);
void pep_on_recorded_init(struct pep_exchange *exchange);
void pep_on_recorded_fetch(struct pep_exchange *exchange);

/* The answer to an error of a window over the heap. */
void pep_on_heap_error(struct pep_response *response, int error);
/* Stacks of these profiles, for the index; the arena is the request's. heap's are those of allocs
 * too. */
uint64_t pep_on_heap_count(struct pep_arena *arena);
uint64_t pep_on_temporary_count(struct pep_arena *arena);
uint64_t pep_on_mmap_count(struct pep_arena *arena);
uint64_t pep_on_block_count(struct pep_arena *arena);
uint64_t pep_on_mutex_count(struct pep_arena *arena);
/* Threads now, and births since the start, for the index. */
uint64_t pep_on_threads_count(struct pep_arena *arena);
uint64_t pep_on_threadcreate_count(struct pep_arena *arena);
/* The answer to an error of a window over CPU time or elapsed time. */
void pep_on_window_error(struct pep_response *response, enum pep_window_clock clock, int error);
/* In a forked child: the parent's recordings are not here. */
void pep_on_endpoints_after_fork_child(void);
void pep_on_allocs_after_fork_child(void);

#endif
