/*
 * The ELF objects of this process, including ones since unloaded.
 *
 * Model:   an array that only grows; a module keeps its number until exit. Learnt from
 *          /proc/self/maps and the ELF headers in memory, so no loader lock is ever taken and
 *          libraries that libc opens behind everybody's back are seen too. A second array,
 *          sorted by address and replaced as a whole, finds the module of a PC.
 * Writers: pep_modules_refresh, one at a time behind a lock that no hook waits for.  [normal]
 * Readers: the unwinder at any instruction (sorted array, no lock); the profile.  [signal]
 * Memory:  fixed mappings made at the first refresh; PEP_MODULES_MAX objects.
 * When full: further objects are not listed, counted modules_full; their frames stay addresses.
 *
 * The sorted array has a few copies, written in turn. A reader looks whether
 * the copy it read was being rewritten meanwhile and starts over, at most a few times; it never
 * waits, because a writer it interrupted never works on the newest copy. So 10^5 loads and
 * unloads need no more memory than one. An object that comes back to its old place with the same
 * contents gets its old number.
 */
#ifndef PEP_SAMPLER_MODULES_H
#define PEP_SAMPLER_MODULES_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"

#define PEP_MODULES_MAX 8192
#define PEP_BUILD_ID_MAX 32
typedef uint32_t pep_module_id; /* 1..; 0 means none */

struct pep_module {
    pep_module_id id;
    uintptr_t start;           /* lowest mapped address */
    uintptr_t limit;           /* one past the highest executable address */
    uintptr_t exec_start;      /* the executable segment: [exec_start, limit) */
    uint64_t exec_file_offset; /* file offset of exec_start */
    uintptr_t bias;            /* address in memory - address in the file's headers */
    uintptr_t eh_frame_hdr;    /* in memory, 0 when the object has none */
    uint64_t eh_frame_hdr_bytes;
    /* The segment that holds the call frame information, where it can never be unmapped: in the
     * program, in libc, in the loader and in libprofep.so; else 0, 0. */
    uintptr_t cfi_start, cfi_limit;
    uint8_t build_id[PEP_BUILD_ID_MAX];
    uint8_t build_id_bytes; /* 0: the object has none */
    bool is_main;           /* the program itself */
    bool is_own;            /* libprofep.so: its frames are never shown */
    bool is_vdso;
    bool is_go;       /* made by Go's linker */
    bool is_libc;     /* libc.so.6 or the loader */
    int is_unloaded;  /* pep_store_release: its addresses may be reused */
    const char *path; /* as in /proc/self/maps; "[vdso]" for the vDSO; never NULL */
};

/* Reads the maps again when they changed; cheap enough for every window. 0 or -errno (what was
 * known stays). Bumps the generation when an object went away. */
int pep_modules_refresh(void);
/* The same for hooks: -EBUSY at once when somebody reads them already. */
PEP_HOOK_SAFE int pep_modules_try_refresh(void);
/* The hook of dlclose calls it after the real one: marks every object that is gone. Does nothing
 * before the first refresh. */
void pep_modules_closed(void);
/* True once the table was filled; hooks use it to stay free until somebody profiles. */
PEP_HOOK_SAFE bool pep_modules_is_armed(void);

/* True when a walk met code that the last refresh did not know: a library that libc loaded by
 * itself (gconv, NSS), new JIT code. Whoever sweeps while a window is open asks, and refreshes. */
PEP_HOOK_SAFE bool pep_modules_is_stale(void);
/* The walk says so. */
PEP_SIGNAL_SAFE void pep_modules_note_unknown(void);

/* The loaded module whose executable addresses hold pc, or NULL (JIT code, no module). O(log n),
 * no lock. The pointer stays valid for ever. */
PEP_SIGNAL_SAFE const struct pep_module *pep_modules_find(uintptr_t pc);
/* Rises whenever an object was unloaded; frame rules learnt before must be checked again. */
PEP_SIGNAL_SAFE uint32_t pep_modules_generation(void);
/* Rises with every refresh; what was found out about code without an object is good until then. */
PEP_SIGNAL_SAFE uint32_t pep_modules_version(void);
/* [*start, *limit) of libprofep.so's code; 0, 0 when there is none, as before the first refresh. */
PEP_SIGNAL_SAFE void pep_modules_own_range(uintptr_t *start, uintptr_t *limit);
/* True when pc lay in executable memory at the last refresh: an object's code or JIT code. */
PEP_SIGNAL_SAFE bool pep_modules_is_executable(uintptr_t pc);

/* 1 for the ids of unloaded objects; what is_unloaded says, dense enough for the hot path. */
extern uint8_t pep_modules_gone[PEP_MODULES_MAX + 1];
static inline bool pep_modules_is_gone(pep_module_id id) {
    return pep_load_relaxed(&pep_modules_gone[id]) != 0;
}

/* Module number i+1, for i in [0, count). */
uint32_t pep_modules_count(void);
const struct pep_module *pep_modules_get(pep_module_id id);
/* Forked child: a lock held by a thread that does not exist here is forgotten. */
void pep_modules_after_fork(void);

#endif
