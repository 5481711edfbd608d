/*
 * Who allocates, and what of it still lives: sampled by bytes, unbiased on reading.
 *
 * Model:   a Poisson process over the bytes of all allocations: each thread counts down an
 *          exponentially distributed number of bytes; the block in which it ends is sampled with
 *          its stack and stands for 1/(1 - exp(-size/rate)) blocks. Sums only rise: allocated and
 *          freed, by (stack, thread); what lives is their difference. A sampled block is found
 *          again at its free through the live map (live_map.h) or a small table.
 * Writers: hooks of the malloc family, any thread, inside the host's malloc.  [hook]
 * Readers: profile.h, on profep's threads.  [normal]
 * Memory:  fixed mappings made at the first sample, <= 16 MB touched however long the host runs.
 * When full: heap_cells_full, heap_live_full: the sample counts as allocated under
 *          [profep: table full], or is not followed to its free; told in the profile.
 */
#ifndef PEP_SAMPLER_HEAP_H
#define PEP_SAMPLER_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/profile.h"
#include "sampler/rt/arena.h"
#include "sampler/rt/attrs.h"

#define PEP_HEAP_RATE_DEFAULT 524288u
#define PEP_HEAP_RATE_MAX (1u << 30)

struct pep_heap_options {
    uint32_t rate_bytes;     /* mean bytes between samples; 1: every block; 0: off */
    bool has_live_map;       /* PROFEP_LIVE_MAP */
    uint64_t live_map_bytes; /* PROFEP_LIVE_MAP_MAX */
    bool is_recording_all;   /* --heap=all: rate 1, and peaks are kept */
};

struct pep_heap_state {
    uint32_t rate_bytes; /* in force now; the smallest that an open window asks for */
    bool has_live_map;
    uint64_t live_blocks;      /* counted in the live map; 0 without it */
    uint64_t uncovered_blocks; /* allocated outside the map's bound since the start */
    uint64_t map_bytes;        /* touched by the map */
    const char *unreachable;   /* what of the host's is out of reach and why, a sentence, or NULL */
};

/* Constructor, before the first hook records. 0 or -errno (then hooks pass through). */
int pep_heap_init(const struct pep_heap_options *options);
/* Why the host's malloc does not come by the hooks: static text, told by the state. */
void pep_heap_set_unreachable(const char *why);
void pep_heap_state(struct pep_heap_state *state);

/* Another standing rate than that of the options; 0: off. 0 or -errno. */
int pep_heap_set_rate(uint32_t rate_bytes);
/* A window with a rate of its own: the smallest rate of all open windows and the standing one is
 * in force. rate_bytes in [1, PEP_HEAP_RATE_MAX]. 0 or -errno. Each begin needs one end. */
int pep_heap_begin(uint32_t rate_bytes);
void pep_heap_end(uint32_t rate_bytes);
/* The same for windows that record an allocation with a probability, whatever its size
 * (ProfileEndpoints' sample_rate), in (0, 1]. */
int pep_heap_begin_probability(double probability);
void pep_heap_end_probability(double probability);

/* For good, before a filter of system calls that may kill for ours: from here on the hooks make no
 * system call. What was recorded can be read; the live map goes on. */
void pep_heap_retire(void);
/* There is no filter after all. */
void pep_heap_unretire(void);

/* In a forked child: what was recorded stays true (the blocks are there); locks are forgotten. */
void pep_heap_after_fork_child(void);

/* ---- reading ---------------------------------------------------------------------------------
 * Sample types of every profile made here, in this order: alloc_objects/count, alloc_space/bytes,
 * inuse_objects/count, inuse_space/bytes; period_type space/bytes, period = rate; numeric label
 * "bytes" = average block; thread labels. kind "heap" or "allocs" (default type inuse_space or
 * alloc_space). */
enum pep_heap_view {
    PEP_HEAP_INUSE,     /* /debug/pprof/heap: all four, default inuse_space */
    PEP_HEAP_ALLOCS,    /* /debug/pprof/allocs: all four, default alloc_space */
    PEP_HEAP_TEMPORARY, /* blocks freed within temporary_ns: alloc_objects, alloc_space only */
    PEP_HEAP_PEAK /* recording all: what lived at the peak, in inuse_*; since start in alloc_* */
};

struct pep_heap_query {
    enum pep_heap_view view;
    bool is_raw;             /* debug=1: sampled values as they are, readers unsample them */
    bool has_absolute_inuse; /* a window's inuse_* as at its end instead of the difference */
    struct pep_profile_filter filter;
};

struct pep_heap_snapshot;
struct pep_heap_snapshot *pep_heap_snapshot_take(struct pep_arena *arena);
/* before NULL: since the start of the process. NULL when memory was refused. */
struct pep_profile *pep_profile_heap(struct pep_arena *arena,
                                     const struct pep_heap_snapshot *before,
                                     const struct pep_heap_query *query);
/* How many samples that view has since the start: stacks by thread. Takes no copy, no lock. */
uint32_t pep_heap_record_count(enum pep_heap_view view);

#endif
