/*
 * Take, wait, take, subtract: the shape of every timed profile.
 *
 * Model:   a window is two readings of counters that only rise, so any number may overlap.
 * Writers: the connection's thread.  [normal]
 * Readers: the same.
 * Memory:  the request's arena.
 * When full: -ENOMEM.
 */
#ifndef PEP_HTTP_WINDOW_H
#define PEP_HTTP_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/birth.h"
#include "sampler/dump.h"
#include "sampler/heap.h"
#include "sampler/lock.h"
#include "sampler/mmap.h"
#include "sampler/profile.h"

#define PEP_WINDOW_SLICE_NS 100000000ull

/* Whoever waits for the window; tests pass a fake. */
struct pep_client {
    /* Waits up to that long; false as soon as nobody wants the answer any more. */
    bool (*wait)(struct pep_client *client, uint64_t ns);
};

enum pep_window_clock { PEP_WINDOW_CPU = 0, PEP_WINDOW_WALL };

struct pep_window {
    enum pep_window_clock clock;
    uint32_t hz;
    uint64_t duration_ns;
    const char *thread; /* filter, NULL: all */
    struct pep_client *client;
};

/* Runs a window over CPU time or elapsed time and leaves its profile. 0; -ECONNRESET: the client
 * left; -ENOMEM; or what the sampler answered. The sampler is let go in every case. */
int pep_window_run(struct pep_arena *arena, const struct pep_window *window,
                   struct pep_profile **profile);
/* The same in steps, for a window that no client waits for. begin: 0 or -errno, *before is for
 * read; after 0 it needs one end. read: NULL when memory was refused. */
int pep_window_begin(struct pep_arena *arena, const struct pep_window *window, void **before);
struct pep_profile *pep_window_read(struct pep_arena *arena, const struct pep_window *window,
                                    const void *before);
void pep_window_end(const struct pep_window *window);

struct pep_heap_window {
    uint64_t duration_ns;
    uint32_t rate_bytes; /* 0: as it is */
    double probability;  /* of an allocation being recorded; 0: by bytes */
    struct pep_heap_query query;
    struct pep_client *client;
};

/* Runs a window over the heap and leaves its profile; 0 or -errno likewise. What lives is a
 * difference too, unless the query wants it absolute. */
int pep_window_heap(struct pep_arena *arena, const struct pep_heap_window *window,
                    struct pep_profile **profile);
/* Asks for the sampling that a window wants, and lets it go again. 0 or -errno. */
int pep_window_heap_begin(const struct pep_heap_window *window);
void pep_window_heap_end(const struct pep_heap_window *window);
/* Some window ever had sampling of its own: what was recorded is no longer of one rate. */
bool pep_window_heap_has_varied(void);
/* It has, by other means. */
void pep_window_heap_vary(void);

struct pep_mmap_window {
    uint64_t duration_ns; /* 0: since the start of the process, at once */
    struct pep_mmap_query query;
    struct pep_client *client;
};

/* The same over what is mapped. */
int pep_window_mmap(struct pep_arena *arena, const struct pep_mmap_window *window,
                    struct pep_profile **profile);

struct pep_lock_window {
    uint64_t duration_ns; /* 0: since the start of the process, at once */
    uint64_t rate_ns;     /* 0: as it is */
    enum pep_lock_side side;
    struct pep_profile_filter filter;
    struct pep_client *client;
};

/* The same over waiting; the rate is let go in every case. */
int pep_window_lock(struct pep_arena *arena, const struct pep_lock_window *window,
                    struct pep_profile **profile);

struct pep_threads_window {
    uint64_t duration_ns; /* 0: births since the start of the process, at once */
    bool is_live;         /* births of the threads that live now; without a duration */
    struct pep_profile_filter filter;
    struct pep_client *client;
};

/* The same over threads: what changed from one dump to the next (window_threads.c). */
int pep_window_threads(struct pep_arena *arena, const struct pep_threads_window *window,
                       struct pep_profile **profile);
/* And over their creation. */
int pep_window_births(struct pep_arena *arena, const struct pep_threads_window *window,
                      struct pep_profile **profile);

/* Waits so long, in slices. 0, or -ECONNRESET: nobody wants the answer any more. */
int pep_window_wait(struct pep_client *client, uint64_t duration_ns);

/* Windows that somebody waits for: their first reading is taken, their last is not. */
uint32_t pep_window_open_count(void);
/* Nobody waits in a forked child. */
void pep_window_after_fork_child(void);

/* A number of seconds as a duration that a wait can be held to. */
uint64_t pep_window_duration_ns(int64_t seconds);

/* The same of no time at all, without samples. */
struct pep_profile *pep_window_empty(struct pep_arena *arena, const struct pep_window *window);

/* A profile without samples: modules as they are now, for looking addresses up. */
struct pep_profile *pep_window_modules(struct pep_arena *arena);

#endif
