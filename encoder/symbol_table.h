/*
 * Address ranges with names, and address ranges of functions whose name is not known.
 *
 * Model:   candidates from any number of sources are collected, sorted, and the best name of each
 *          start is kept; after that a table never changes. Addresses are those of the file.
 * Writers: the builder, on the thread that loads a file.  [normal]
 * Readers: any number of threads once built.
 * Memory:  table and names: the arena of the file; candidates: the builder's own.
 * When full: -ENOMEM; the table stays empty.
 */
#ifndef PEP_ENCODER_SYMBOL_TABLE_H
#define PEP_ENCODER_SYMBOL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "encoder/elf.h"
#include "sampler/rt/arena.h"

struct pep_symbol {
    uint64_t start;
    const char *name; /* as in the file, with its version suffix if it has one */
    uint32_t size;    /* > 0; cut to 4 GiB */
    uint32_t reach;   /* end of the furthest range that starts at or below start, minus start */
};

struct pep_symbol_table {
    struct pep_symbol *symbols; /* sorted by start, no start twice */
    size_t count;
};

/* A function by its unwind table entry. */
struct pep_fde {
    uint64_t start, end;
};

struct pep_fde_table {
    struct pep_fde *fdes; /* sorted by start */
    size_t count;
};

struct pep_symbol_candidate {
    uint64_t start;
    const char *name;
    uint32_t size;
    uint32_t score; /* lower is better; see symbol_table.c */
};

struct pep_symbol_builder {
    struct pep_arena *names;  /* string tables go here; lives as long as the table */
    struct pep_arena scratch; /* candidates; dropped by finish */
    struct pep_symbol_candidate *candidates;
    size_t count, capacity;
};

void pep_symbol_builder_init(struct pep_symbol_builder *builder, struct pep_arena *names);
/* One range under a name that outlives the table, such as a PLT stub; better than any other. */
void pep_symbol_builder_add(struct pep_symbol_builder *builder, uint64_t start, uint32_t size,
                            const char *name);
/* The functions of a SHT_SYMTAB or SHT_DYNSYM section; NULL adds nothing. 0 or -errno. */
int pep_symbol_builder_add_section(struct pep_symbol_builder *builder, const struct pep_elf *elf,
                                   const Elf64_Shdr *section);
/* Builds the table and drops what the builder holds, also on failure. fdes bound symbols without
 * a size. 0 or -errno. */
int pep_symbol_builder_finish(struct pep_symbol_builder *builder, const struct pep_fde_table *fdes,
                              struct pep_symbol_table *table);

/* Sorts by start, then score, then name; the sorted array lies in the arena. NULL without memory.
 * Not libc's qsort, which may call the host's malloc. */
struct pep_symbol_candidate *pep_symbol_candidates_sort(struct pep_symbol_candidate *candidates,
                                                        size_t count, struct pep_arena *arena);

/* The innermost symbol that covers the address, or NULL. */
const struct pep_symbol *pep_symbol_table_find(const struct pep_symbol_table *table,
                                               uint64_t address);

/* Reads .eh_frame_hdr and .eh_frame. An object without them, or with tables that make no sense,
 * gives an empty table. 0 or -ENOMEM. Source: Linux Standard Base 5.0 core, 10.6. */
int pep_fde_table_read(struct pep_fde_table *table, const struct pep_elf *elf,
                       struct pep_arena *arena);
/* The function that covers the address, or NULL. */
const struct pep_fde *pep_fde_table_find(const struct pep_fde_table *table, uint64_t address);
/* Where a symbol of unknown size that starts at address must end, at most limit. */
uint64_t pep_fde_table_end_of(const struct pep_fde_table *table, uint64_t address, uint64_t limit);

/* Adds "name@plt" for every stub of .plt, .plt.sec and .plt.got. 0 or -ENOMEM. */
int pep_symbol_builder_add_plt(struct pep_symbol_builder *builder, const struct pep_elf *elf);

#endif
