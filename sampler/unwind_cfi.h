/*
 * The short way to a rule: plain call frame information, read without libunwind.
 *
 * Model:   address -> its FDE by the search table of .eh_frame_hdr -> the row that covers it, by a
 *          loop over the instructions that compilers write. Whatever is not plain (expressions,
 *          signal frames, other registers, encodings that ld does not write) is left to the
 *          teacher (unwind_learn.h), which decides what is right: test_unwind_cfi.c compares the
 *          two over every function of large objects.
 * Writers: one walk, on its own block.  [signal]
 * Readers: the same.
 * Memory:  700 bytes of the caller's stack.
 * When full: an FDE longer than that is left to the teacher.
 *
 * Source: DWARF 5, 6.4; Linux Standard Base, "Exception Frames".
 *
 * Cost: 0.2 us in the program, libc and the loader, whose information is loaded as it is.
 */
#ifndef PEP_SAMPLER_UNWIND_CFI_H
#define PEP_SAMPLER_UNWIND_CFI_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/modules.h"
#include "sampler/unwind_memory.h"
#include "sampler/unwind_rule.h"

struct pep_cfi_found {
    struct pep_rule rule;
    uintptr_t limit; /* of the function that the FDE speaks of: one past its last byte */
};

/* False: ask the teacher. Reads are charged to memory's budget. */
PEP_SIGNAL_SAFE bool pep_cfi_find(struct pep_unwind_memory *memory, const struct pep_module *module,
                                  uintptr_t lookup, struct pep_cfi_found *found);

#endif
