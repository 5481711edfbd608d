/*
 * Reads of a walk: the thread's own stack directly, everything else so that it cannot fault.
 *
 * Model:   addresses in [direct_lo, direct_lo + direct_bytes) are loaded as they are. Others go
 *          through pep_os_peek into small caches: whole pages of stacks, lines of call frame
 *          information. What was read once stays as it was for the rest of the walk.
 * Writers: one walk, on its own block.  [signal]
 * Readers: the same.
 * Memory:  inside the caller's scratch block.
 * When full: the reads left (peeks) run out and every further one fails: the walk ends.
 */
#ifndef PEP_SAMPLER_UNWIND_MEMORY_H
#define PEP_SAMPLER_UNWIND_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/rt/attrs.h"

#define PEP_UNWIND_PAGE_BYTES 4096
#define PEP_UNWIND_PAGES 2
#define PEP_UNWIND_LINE_BYTES 512
#define PEP_UNWIND_LINES 8

struct pep_unwind_memory {
    uintptr_t direct_lo;
    size_t direct_bytes;
    uintptr_t cfi_lo; /* call frame information that can never be unmapped is read as it is */
    size_t cfi_bytes;
    int peeks; /* system calls left */
    int loads; /* words left for call frame information: bounds loops in expressions */
    uintptr_t pages[PEP_UNWIND_PAGES]; /* page address | 1 when valid; else 0 */
    uintptr_t lines[PEP_UNWIND_LINES]; /* likewise */
    unsigned char page_bytes[PEP_UNWIND_PAGES][PEP_UNWIND_PAGE_BYTES] PEP_ALIGNED(16);
    unsigned char line_bytes[PEP_UNWIND_LINES][PEP_UNWIND_LINE_BYTES] PEP_ALIGNED(16);
};

PEP_SIGNAL_SAFE void pep_unwind_memory_begin(struct pep_unwind_memory *memory, uintptr_t direct_lo,
                                             uintptr_t direct_hi);
/* The word at an address of a stack, by way of the page cache. */
PEP_SIGNAL_SAFE bool pep_unwind_load_slow(struct pep_unwind_memory *memory, uintptr_t address,
                                          uintptr_t *value);
/* Bytes of code or call frame information, by way of the line cache. */
PEP_SIGNAL_SAFE bool pep_unwind_read(struct pep_unwind_memory *memory, uintptr_t address, void *to,
                                     size_t size_bytes);

/* True when a word at address may be loaded as it is. */
static inline bool pep_unwind_is_direct(const struct pep_unwind_memory *memory, uintptr_t address) {
    return address - memory->direct_lo < memory->direct_bytes;
}

/* The word at an address of a stack. AddressSanitizer would take the red zones of the frames
 * that are read here for mistakes. */
__attribute__((no_sanitize("address", "thread", "alignment"))) static inline bool
pep_unwind_load(struct pep_unwind_memory *memory, uintptr_t address, uintptr_t *value) {
    if (pep_likely(pep_unwind_is_direct(memory, address))) {
        *value = *(const volatile uintptr_t *)address;
        return true;
    }
    return pep_unwind_load_slow(memory, address, value);
}

#endif
