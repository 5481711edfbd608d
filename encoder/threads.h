/*
 * The dump of threads, written for people and for the tools that read Go's and Julia's.
 *
 * Model:   pure functions: (dump, symbolizer, writer) -> bytes.
 * Writers: the writer that is passed in; look at its error afterwards.  [normal]
 * Readers: -
 * Memory:  the arena passed in, for the caller to drop.
 * When full: the writer's error is -ENOMEM.
 */
#ifndef PEP_ENCODER_THREADS_H
#define PEP_ENCODER_THREADS_H

#include "encoder/places.h"
#include "encoder/symbolize.h"
#include "encoder/writer.h"
#include "sampler/dump.h"

/* Go's limit for such a text. */
#define PEP_THREADS_TEXT_MAX (64u << 20)

struct pep_threads_job {
    const struct pep_dump *dump;
    struct pep_symbolizer *symbolizer;
    struct pep_writer *writer;
    struct pep_arena *arena;
    const char *title; /* what a page shows on top, e.g. "redis-server 4711" */
};

/* Prepares the symbolizer for all that is shown of the dump: births lie beside its profile. */
void pep_threads_prepare(const struct pep_threads_job *job);
/* Go's text of a panic (debug=2): "goroutine TID [state, N minutes, locked to thread]:". */
void pep_encode_threads_text(const struct pep_threads_job *job);
/* Julia's backtraces of all tasks: a thread of ours is a thread with one task there. */
void pep_encode_threads_julia(const struct pep_threads_job *job);
/* The same stacks alone, the main thread's last, each below a line that says whose it is. */
void pep_encode_threads_peek(const struct pep_threads_job *job);
/* A page for a person, one self-contained HTML document. */
void pep_encode_threads_html(const struct pep_threads_job *job);

/* -- parts -------------------------------------------------------------------------------- */

/* "thread 12 (worker)"; name NULL: without. The arena's, or "" when memory was refused. */
const char *pep_threads_who(struct pep_arena *arena, int tid, const char *name);
/* The task with that tid; NULL when there is none. */
const struct pep_task *pep_threads_find(const struct pep_dump *dump, int tid);
/* How long it has waited: "12 ms", "3 s", "2 min", "5 h", "3 d"; "" when not known. */
void pep_threads_waited(char text[24], uint64_t ns);
/* Code that everybody's calls go through (libc, the C++ library): says little about the program. */
bool pep_threads_is_between(const struct pep_place *place);
/* The place that made a thread: the innermost one that is not between, else the innermost. NULL
 * when memory was refused or nothing is known. */
struct pep_place *pep_threads_maker(struct pep_places *places, const struct pep_task *task);

#endif
