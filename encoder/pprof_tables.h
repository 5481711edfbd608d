/*
 * What a profile.proto file refers to by number: texts, functions, places, mappings.
 *
 * Model:   every sample is packed as it comes, stacks with a common root together; functions and
 *          locations are numbered 1.. in the order they are met. Where not all fit the limits,
 *          the heaviest come first and the rest is one sample "[other]": totals stay exact.
 * Writers: pep_pprof_tables_build.  [normal]
 * Readers: pprof.c, which puts it all on the wire.
 * Memory:  an arena.
 * When full: false.
 */
#ifndef PEP_ENCODER_PPROF_TABLES_H
#define PEP_ENCODER_PPROF_TABLES_H

#include "encoder/encoders.h"
#include "encoder/intern.h"
#include "encoder/places.h"

/* What Pyroscope takes by default. */
#define PEP_PPROF_SAMPLES_MAX 16000
#define PEP_PPROF_BYTES_MAX (4u << 20)

/* Bytes ready for the wire. */
struct pep_packed {
    const uint8_t *bytes;
    size_t count;
};

struct pep_pprof_sample {
    struct pep_packed locations; /* the ids, as varints one after the other */
    struct pep_packed labels;    /* whole fields, with their tags */
    int64_t values[PEP_PROFILE_VALUES_MAX];
};

struct pep_pprof_function {
    uint32_t name, system_name, file; /* texts */
    uint32_t start_line;
};

struct pep_pprof_line {
    uint32_t function; /* its id */
    uint32_t line;
};

struct pep_pprof_location {
    const struct pep_place *place;
    uint32_t mapping; /* its id, 0: none */
    struct pep_pprof_line *lines;
    uint32_t line_count;
};

struct pep_pprof_mapping {
    const struct pep_mapping *mapping;
    uint32_t path, build_id; /* texts */
    bool is_used, has_functions, has_files, has_lines, has_inlined;
    uint32_t id; /* 0: not written */
};

/* A frame of the sample at hand; the next sample often has it too. */
struct pep_pprof_scratch {
    uintptr_t pc;
    struct pep_place *place;
    uint8_t *ids; /* packed ids of this place and of all towards the root */
};

struct pep_pprof_tables {
    const struct pep_profile *profile;
    struct pep_arena *arena;
    struct pep_places places;
    struct pep_intern texts;
    struct pep_index function_index, label_index;
    struct pep_pprof_function *functions;
    size_t function_count, function_capacity;
    struct pep_pprof_location *locations;
    size_t location_count, location_capacity;
    struct pep_pprof_sample *samples;
    size_t sample_count, sample_limit;
    bool is_tight;                     /* not everything fits: heaviest first */
    struct pep_pprof_scratch *scratch; /* the sample packed last, root first */
    uint32_t scratch_count;
    uint8_t *scratch_ids; /* room for the ids of depth places */
    uint32_t depth;       /* of the deepest sample */
    struct pep_label_set *label_sets;
    size_t label_set_count, label_set_capacity;
    struct pep_pprof_mapping *mappings; /* one for each of the profile's */
    struct pep_pprof_mapping **written; /* in file order */
    size_t written_count;
    uint64_t *comments; /* texts */
    size_t comment_count;
    uint64_t size_bytes; /* upper bound of what was accepted so far */
    size_t other_count;  /* samples merged into "[other]" */
    int64_t other_values[PEP_PROFILE_VALUES_MAX];
};

/* False when memory was refused. */
bool pep_pprof_tables_build(struct pep_pprof_tables *tables, const struct pep_encode_job *job);

/* Appends a varint (at most 10 bytes) and returns how many bytes it took. */
size_t pep_varint(uint8_t *to, uint64_t value);
/* The label fields of a sample, packed once for each set of labels. False: no memory. */
bool pep_pprof_labels(struct pep_pprof_tables *tables, const struct pep_sample *sample,
                      struct pep_packed *packed);

#endif
