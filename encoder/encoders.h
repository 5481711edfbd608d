/*
 * The formats: (profile, symbolizer, writer) -> bytes.
 *
 * Model:   pure functions, one file a format. No HTTP, no threads, no signals, no global state.
 * Writers: the writer that is passed in; look at its error afterwards.  [normal]
 * Readers: -
 * Memory:  the arena passed in, for the caller to drop.
 * When full: the writer's error is -ENOMEM.
 */
#ifndef PEP_ENCODER_ENCODERS_H
#define PEP_ENCODER_ENCODERS_H

#include "encoder/symbolize.h"
#include "encoder/writer.h"
#include "sampler/profile.h"

struct pep_encode_job {
    const struct pep_profile *profile;
    struct pep_symbolizer *symbolizer;
    struct pep_writer *writer;
    struct pep_arena *arena;
    const char *title; /* what a page shows on top, e.g. "redis-server 4711: CPU, 5 s at 100 Hz" */
};

/* profile.proto, NOT yet compressed (put a gzip writer in front). At most 16,000 samples and 4 MiB:
 * the lightest stacks beyond that are one sample "[other]", told in a comment. */
void pep_encode_pprof(const struct pep_encode_job *job);
/* "thread (tid);root;...;leaf weight" lines; names' ';' and newlines replaced. The weight is the
 * default value, in its unit. */
void pep_encode_collapsed(const struct pep_encode_job *job);
/* A table like `top`: flat, flat%, sum%, cum, cum%, function; header with totals and comments. */
void pep_encode_text(const struct pep_encode_job *job);
/* A heap profile with values as sampled (types inuse_objects, inuse_space, alloc_objects,
 * alloc_space, any of them) as `go tool pprof`, the perl pprof and people read it; comments and
 * mappings at the end. */
void pep_encode_legacy(const struct pep_encode_job *job);
/* Waiting (types contentions and delay; kind "mutex", else block) as the same readers know it. */
void pep_encode_contention(const struct pep_encode_job *job);
/* A profile that counts (one type; kind "goroutine" or "threadcreate") as Go prints it. */
void pep_encode_count(const struct pep_encode_job *job);
/* The interactive page, one self-contained HTML document. */
void pep_encode_flame_html(const struct pep_encode_job *job);
/* A static SVG of the same graph. */
void pep_encode_flame_svg(const struct pep_encode_job *job);

#endif
