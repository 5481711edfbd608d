/*
 * From a look-up address to a function.
 *
 * Model:   (mapping, address) -> frames, innermost first. Names come from .symtab, .dynsym,
 *          .gnu_debugdata, separate debug files (build-id, debuglink), perf-PID.map for JIT
 *          code, and the FDE that covers the address ("module!fn_0x4a3b0") for stripped code,
 *          so one function is one name. Demangled here; the mangled text is system_name. Source
 *          lines and inlined calls come from debug information, once prepare was called.
 * Writers: the thread that encodes; a symbolizer is used by one thread at a time.  [normal]
 * Readers: the same.
 * Memory:  parsed files are kept by (path, build-id) across requests up to a byte limit, least
 *          recently used first out; strings live until the symbolizer's pep_symbolizer_end.
 * When full: an address keeps its "module+0x1234" name.
 */
#ifndef PEP_ENCODER_SYMBOLIZE_H
#define PEP_ENCODER_SYMBOLIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/profile.h"
#include "sampler/rt/arena.h"

struct pep_frame {
    const char *name;        /* demangled, shown to people; never NULL or "" */
    const char *system_name; /* as in the file; equals name where nothing was demangled */
    const char *file;        /* source path, NULL when not known */
    uint32_t line;           /* 0 when not known */
    uint32_t start_line;     /* of the function, 0 when not known */
    uint64_t start;          /* address in memory where the function begins; 0 unknown */
    bool is_known;           /* false: name is only an address or a note */
};

/* The interface encoders see; tests pass a fake. */
struct pep_symbolizer {
    /* Fills frames (innermost inlinee first, at most max), returns how many, at least 1. Strings
     * live until pep_symbolizer_end, or for ever. pc may be an enum pep_pc. */
    int (*lookup)(struct pep_symbolizer *symbolizer, const struct pep_profile *profile,
                  uintptr_t pc, struct pep_frame *frames, int max);
    /* Reads the source lines of all of the profile's addresses at once; what is looked up before
     * is done without. A sentence when some could not be read, else NULL. May be NULL itself. */
    const char *(*prepare)(struct pep_symbolizer *symbolizer, const struct pep_profile *profile);
};

/* The real one, one request: begin, look up, end. The cache behind it is the process's. begin
 * gives NULL when memory was refused; end takes NULL. */
struct pep_symbolizer *pep_symbolizer_begin(struct pep_arena *arena);
/* Prepares it for a profile and tells in the profile's comments when lines are missing. */
void pep_symbolizer_prepare(struct pep_symbolizer *symbolizer, struct pep_arena *arena,
                            struct pep_profile *profile);
void pep_symbolizer_end(struct pep_symbolizer *symbolizer);
/* A forked child: requests of the parent do not exist here. */
void pep_symbolizer_after_fork_child(void);

/* Demangles C++ (Itanium) and Rust (legacy and v0), without parameters; of names beyond 240 bytes
 * the deepest template arguments become "...". NULL when text is not mangled. Owned by the
 * arena. */
char *pep_demangle(struct pep_arena *arena, const char *text);

#endif
