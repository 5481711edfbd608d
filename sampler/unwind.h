/*
 * The walk from an interrupted instruction to the thread's first frame.
 *
 * Model:   PC -> rule (CFA register and offset, where RBP was saved), learnt the first time a PC
 *          is met and kept in an add-only table; from then on a frame is one probe and two bounded
 *          loads. Plain call frame information is read by unwind_cfi.c; for the rest, and for odd
 *          frames (signal trampolines, expressions, JIT), there is libunwind with accessors that
 *          cannot fault.
 * Writers: any thread's signal handler or hook, concurrently.  [signal]
 * Readers: the same.
 * Memory:  the rule table, one mapping of 4 MiB made by pep_unwind_init, touched as it fills; a
 *          scratch block a walk, owned by the caller (struct pep_unwind_scratch), 14 KiB.
 * When full: rules are not kept (rule_table_full), walks go on slower.
 *
 * Cost, 30 frames of known addresses in a known stack: 8 ns a frame; an address met for the first
 * time about 0.3 us in the program and libc, 2 to 5 elsewhere; a stack of unknown bounds one system
 * call a page (test/bench/micro_unwind.c).
 *
 * Addresses that come out are look-up addresses: the interrupted PC itself for the innermost
 * frame and for a frame that a signal interrupted, return address - 1 (inside the call) for all
 * others. Everything downstream shows them as they are. Frames of libprofep.so are left out.
 * Numbers below PEP_PC_FIRST_REAL are not addresses but say what is missing.
 */
#ifndef PEP_SAMPLER_UNWIND_H
#define PEP_SAMPLER_UNWIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/rt/attrs.h"

#define PEP_UNWIND_DEPTH_MAX 256

enum pep_pc {
    PEP_PC_NONE = 0,
    PEP_PC_TRUNCATED = 1,  /* "[truncated]": the root side was cut at the depth limit */
    PEP_PC_TABLE_FULL = 2, /* "[profep: table full]" */
    PEP_PC_UNKNOWN = 3,    /* "[unknown]": nothing could be read, not even a PC */
    PEP_PC_FIRST_REAL = 4096
};

/* Where the interrupted thread stood. */
struct pep_regs {
    uintptr_t pc, sp, bp;
    const void *ucontext; /* ucontext_t of the handler, or NULL when only pc, sp, bp are known */
    bool is_trial;        /* bp is a guess: a walk that fails is not counted */
};

/* The memory a walk may load from directly: the thread's own stack, known to be mapped as long
 * as the thread lives from sp to hi. lo == hi == 0: not known, every load goes through
 * pep_os_peek. */
struct pep_stack_range {
    uintptr_t lo, hi;
};

struct pep_unwind_scratch; /* sized by pep_unwind_scratch_bytes; contents private */

/* Maps the rule table, sets libunwind up with our accessors. Call outside of signals before the
 * first walk. 0 or -errno. */
int pep_unwind_init(void);
size_t pep_unwind_scratch_bytes(void);

/* Fills pcs, innermost first; at most max (<= PEP_UNWIND_DEPTH_MAX). The number filled, at
 * least 1 (PEP_PC_UNKNOWN when nothing else). A stack longer than max ends in
 * PEP_PC_TRUNCATED. scratch is for this walk alone. Never faults, never loops, takes no lock,
 * touches no descriptor. */
PEP_SIGNAL_SAFE int pep_unwind(const struct pep_regs *regs, const struct pep_stack_range *stack,
                               struct pep_unwind_scratch *scratch, uintptr_t *pcs, int max);
/* True when the last walk with this block reached the thread's first frame, or the depth limit. */
PEP_SIGNAL_SAFE bool pep_unwind_is_complete(const struct pep_unwind_scratch *scratch);

#endif
