/*
 * The teacher: libunwind reads call frame information and says how a frame is left.
 *
 * Model:   an address of a module -> its FDE -> libunwind's register state for that address,
 *          packed to a rule where a rule can say it, applied by libunwind where not. Of
 *          libunwind only the DWARF reader takes part; what it asks of the system (memory, locks,
 *          the loader, the local address space) is answered here, by nothing that can wait.
 * Writers: one walk, on its own block.  [signal]
 * Readers: the same.
 * Memory:  inside the caller's scratch block; libunwind's few objects from a fixed array.
 * When full: the frame cannot be left; nothing is kept.
 */
#ifndef PEP_SAMPLER_UNWIND_LEARN_H
#define PEP_SAMPLER_UNWIND_LEARN_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/modules.h"
#include "sampler/unwind_memory.h"
#include "sampler/unwind_rule.h"

#define PEP_LEARNER_GREGS 17 /* REG_R8 .. REG_RIP of ucontext_t */

struct pep_learner {
    struct pep_unwind_memory *memory;
    const struct pep_module *module; /* of the address being learnt */
    uintptr_t lookup;
    uintptr_t function; /* where the function of the address begins, 0 unknown */
    bool is_signal;     /* its CIE is marked as that of a signal frame */
    bool has_state;
    uint64_t state[32];  /* struct dwarf_reg_state */
    uint64_t cursor[96]; /* struct cursor */
};

struct pep_learner_frame {
    uintptr_t pc, sp, bp;
};

/* Prepares the address space; idempotent. */
void pep_learner_init(void);
PEP_SIGNAL_SAFE void pep_learner_begin(struct pep_learner *learner,
                                       struct pep_unwind_memory *memory);
/* The rule for a look-up address inside module; kind BLIND when there is no usable call frame
 * information, NONE when it could not be read now. Its state stays for pep_learner_apply. */
PEP_SIGNAL_SAFE struct pep_rule
pep_learner_learn(struct pep_learner *learner, const struct pep_module *module, uintptr_t lookup);
/* Sets all registers: gregs in the order of ucontext_t, or NULL when only pc, sp and bp are
 * known. */
PEP_SIGNAL_SAFE void pep_learner_registers(struct pep_learner *learner,
                                           const struct pep_learner_frame *frame,
                                           const uint64_t *gregs);
/* Leaves the frame by the state learnt last; false when a register it needs is not known. A
 * second call goes on from the caller, with all that is known of its registers. */
PEP_SIGNAL_SAFE bool pep_learner_apply(struct pep_learner *learner,
                                       struct pep_learner_frame *frame);

#endif
