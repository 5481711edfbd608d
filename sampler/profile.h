/*
 * A profile: stacks with values, the one noun that leaves this folder.
 *
 * Model:   plain data, complete in itself: whoever holds it needs no table, thread or lock. A
 *          window is snapshot B - A.
 * Writers: pep_profile_cpu, on the thread that asked.  [normal]
 * Readers: the encoders.
 * Memory:  the caller's arena, dropped whole.
 * When full: the arena says so (is_failed); the profile is NULL.
 */
#ifndef PEP_SAMPLER_PROFILE_H
#define PEP_SAMPLER_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/rt/arena.h"
#include "sampler/rt/attrs.h"
#include "sampler/unwind.h"

#define PEP_PROFILE_VALUES_MAX 4
#define PEP_MAPPING_NONE UINT32_MAX

struct pep_value_type {
    const char *type; /* "cpu" */
    const char *unit; /* "nanoseconds" */
};

struct pep_sample {
    const uintptr_t *pcs; /* innermost first; look-up addresses and enum pep_pc */
    uint32_t pc_count;    /* >= 1 */
    int tid;              /* 0: no thread label */
    const char *thread;   /* thread name, NULL: none */
    uint64_t bytes_label; /* numeric label "bytes"; 0: none */
    const char *mapping;  /* label "mapping": what was mapped; NULL: none */
    const char *state;    /* label "state": what the thread did, "futex wait"; NULL: none */
    int64_t values[PEP_PROFILE_VALUES_MAX];
};

/* One executable mapping. Mappings are sorted by start; [0] may be any: main_mapping says which
 * is the program, and encoders that need it first put it first. */
struct pep_mapping {
    uint64_t start, limit, file_offset; /* of the executable segment */
    uint64_t bias;                      /* address in memory - address in the file's headers */
    const char *path;                   /* "[vdso]", "//anon" for code without a file */
    char build_id[65];                  /* lower-case hex, "" when none */
    bool is_own;                        /* libprofep.so */
    bool is_vdso;
    bool is_jit; /* anonymous executable memory: perf-PID.map names it */
};

struct pep_profile {
    const char *kind; /* "cpu", "heap" …: the file name and the title */
    struct pep_value_type types[PEP_PROFILE_VALUES_MAX];
    uint32_t type_count;
    uint32_t default_type; /* index into types */
    struct pep_value_type period_type;
    int64_t period;
    int64_t time_ns;     /* CLOCK_REALTIME at the start of the window */
    int64_t duration_ns; /* 0: cumulative */
    bool is_exact;       /* nothing was sampled: not to be scaled by the period */
    bool is_signed;      /* values are differences and may be below 0 */
    bool is_full;        /* there was not room for all samples; a comment tells */
    struct pep_sample *samples;
    uint32_t sample_count;
    struct pep_mapping *mappings;
    uint32_t mapping_count;
    uint32_t main_mapping; /* PEP_MAPPING_NONE when not known */
    const char **comments; /* plain sentences; what was lost, which engine, the rate reached */
    uint32_t comment_count;
    int pid;
};

/* Index of the mapping that holds pc, or PEP_MAPPING_NONE. Binary search. */
uint32_t pep_profile_mapping_of(const struct pep_profile *profile, uintptr_t pc);
/* The text for an enum pep_pc below PEP_PC_FIRST_REAL, or NULL for a real address. */
const char *pep_profile_pc_note(uintptr_t pc);
/* One comment more, behind those that are there; an array that others hold stays as it is. False
 * when memory was refused: the profile is as it was. */
bool pep_profile_tell(struct pep_arena *arena, struct pep_profile *profile, const char *format, ...)
    PEP_PRINTF(3, 4);

/* What may be asked of a window. */
struct pep_profile_filter {
    const char
        *thread; /* keep threads with this tid (digits) or whose name contains it; NULL: all */
};

/* The reading at the start of a window: counters only. NULL when memory was refused. */
struct pep_cpu_snapshot;
struct pep_cpu_snapshot *pep_cpu_snapshot_take(struct pep_arena *arena);
/* The difference between now and the snapshot, which must lie in the same arena or outlive it.
 * hz is the rate this window asked for. Refreshes modules and thread names first. Stacks of
 * profep's own threads do not occur. NULL when memory was refused. */
struct pep_profile *pep_profile_cpu(struct pep_arena *arena, const struct pep_cpu_snapshot *before,
                                    uint32_t hz, const struct pep_profile_filter *filter);

#endif
