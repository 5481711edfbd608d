/*
 * Everything that has a name in one ELF object, kept across requests.
 *
 * Model:   loaded once by (path, build-id), from the object itself, its separate debug file, its
 *          embedded mini debug info and its unwind table; never changes but for the texts, which
 *          are made when a symbol is first shown.
 * Writers: pep_symbol_file_take and _text, behind one lock.  [normal]
 * Readers: whoever holds a reference.
 * Memory:  an arena a file, at most PEP_SYMBOL_CACHE_BYTES in all beside what is in use; the least
 *          recently used go first.
 * When full: NULL; addresses keep their numbers.
 */
#ifndef PEP_ENCODER_SYMBOL_FILE_H
#define PEP_ENCODER_SYMBOL_FILE_H

#include "encoder/elf.h"
#include "encoder/line_cache.h"
#include "encoder/symbol_table.h"
#include "sampler/profile.h"

#define PEP_SYMBOL_CACHE_BYTES (UINT64_C(96) << 20)

struct pep_symbol_text {
    const char *name;        /* demangled */
    const char *system_name; /* as in the file, without version */
};

struct pep_symbol_file {
    struct pep_arena arena;
    const char *path;
    char build_id[PEP_ELF_BUILD_ID_TEXT];
    struct pep_symbol_table symbols;
    struct pep_fde_table fdes;
    struct pep_symbol_text **texts; /* [symbols.count], NULL until shown; release, acquire */
    const char **fde_names;         /* [fdes.count], the same way */
    bool is_matched;                /* a file that belongs to the mapping was found */
    bool has_symtab;                /* here or in a debug file */
    bool has_debug_file;            /* there was one when this was loaded, good or not */
    bool has_lines;                 /* there is debug information, here or in a debug file */
    struct pep_line_cache lines;    /* the cache's lock */
    uint32_t references;            /* the cache's lock */
    uint64_t last_used;             /* the cache's lock */
    struct pep_symbol_file *next;   /* the cache's lock */
};

/* The names of a mapping's file, loaded when new; is_main allows /proc/self/exe. NULL only when
 * memory was refused. Give it back with pep_symbol_file_drop. */
struct pep_symbol_file *pep_symbol_file_take(const struct pep_mapping *mapping, bool is_main);
/* Gives a reference back and trims the cache. NULL is ignored. */
void pep_symbol_file_drop(struct pep_symbol_file *file);
/* The texts of a symbol of this file; live as long as the reference. NULL without memory. */
const struct pep_symbol_text *pep_symbol_file_text(struct pep_symbol_file *file,
                                                   const struct pep_symbol *symbol);
/* "module!fn_0x4a3b0" for a function of this file without a name, likewise. */
const char *pep_symbol_file_fde_name(struct pep_symbol_file *file, const struct pep_fde *fde);
/* The source lines of addresses of this file, as kept from earlier requests, in found[count];
 * NULL: not kept. They live as long as the reference. */
void pep_symbol_file_find_lines(struct pep_symbol_file *file, const uint64_t *addresses,
                                uint32_t count, const struct pep_line_entry **found);
/* Keeps what a read brought. */
void pep_symbol_file_keep_lines(struct pep_symbol_file *file, const struct pep_lines_file *read);
/* The file name in a path, without the mark of a deleted file. NULL without memory. */
const char *pep_symbol_module_name(struct pep_arena *arena, const char *path);
/* Bytes held by the cache, and how many loads there were since the start (tests, own state). */
uint64_t pep_symbol_cache_bytes(void);
uint64_t pep_symbol_cache_loads(void);
/* A forked child: forgets the lock, and all files when a thread that is gone held it. */
void pep_symbol_cache_after_fork_child(void);

/* Opens the separate debug file of an object at path: by build-id, then by .gnu_debuglink in its
 * directory, in .debug there, and below root ("/usr/lib/debug"). A file with another build-id, or
 * without one and with another CRC, is passed over. False when there is none. */
bool pep_debug_file_open(struct pep_elf *debug, const struct pep_elf *object, const char *path,
                         const char *root);
/* True when a debug file for this build-id can be read. */
bool pep_debug_file_exists(const char *build_id, const char *root);

/* What a JIT wrote to /tmp/perf-PID.map; later lines win. */
struct pep_perf_map {
    struct pep_perf_entry *entries; /* sorted by start */
    size_t count;
};
struct pep_perf_entry {
    uint64_t start;
    const char *name;
    uint32_t size, reach; /* as in struct pep_symbol */
    uint32_t line;        /* its place in the file */
};
/* Reads the map of a process. A missing file, one that is not a regular file of this user or
 * root, and malformed lines give less or nothing. 0 or -errno; the map is empty then. */
int pep_perf_map_read(struct pep_perf_map *map, struct pep_arena *arena, const char *path);
/* The entry written last that covers the address, or NULL. */
const struct pep_perf_entry *pep_perf_map_find(const struct pep_perf_map *map, uint64_t address);

#endif
