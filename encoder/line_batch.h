/*
 * The addresses of one request whose source lines are asked for.
 *
 * Model:   addresses are collected by mapping, each once; those that the files keep are left out,
 *          the rest is read together and kept by the files.
 * Writers: one symbolizer.  [normal]
 * Readers: the same.
 * Memory:  an arena.
 * When full: the address has no line.
 */
#ifndef PEP_ENCODER_LINE_BATCH_H
#define PEP_ENCODER_LINE_BATCH_H

#include "encoder/index.h"
#include "encoder/symbol_file.h"

struct pep_line_list {
    struct pep_symbol_file *file; /* NULL: nothing was asked for */
    uint64_t *addresses;
    size_t count, capacity;
};

struct pep_line_batch {
    struct pep_arena *arena;
    const struct pep_profile *profile;
    struct pep_line_list *lists; /* [profile->mapping_count] */
    struct pep_index seen;
    uint32_t seen_count;
};

void pep_line_batch_init(struct pep_line_batch *batch, struct pep_arena *arena,
                         const struct pep_profile *profile);
/* True the first time. */
bool pep_line_batch_is_new(struct pep_line_batch *batch, uintptr_t pc);
void pep_line_batch_add(struct pep_line_batch *batch, uint32_t mapping,
                        struct pep_symbol_file *file, uint64_t address);
/* Reads what is not kept; the files keep it. A sentence of what is missing, or NULL. */
const char *pep_line_batch_run(struct pep_line_batch *batch, uint64_t deadline_ns);

#endif
