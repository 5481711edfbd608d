/*
 * The way out of code that has no call frame information: JIT code, hand-written assembly.
 *
 * Model:   a guess is taken only when the memory confirms it: the return address points into
 *          executable memory, behind a call instruction, and lies on the stack above; or on the
 *          goroutine's, where Go called C and kept a note of it.
 * Writers: any walk; single words.  [signal]
 * Readers: the walk.  [signal]
 * Memory:  32 KiB of confirmed return addresses, touched as they are met.
 * When full: the older address is confirmed again when it is met again.
 */
#ifndef PEP_SAMPLER_UNWIND_GUESS_H
#define PEP_SAMPLER_UNWIND_GUESS_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/unwind_learn.h"
#include "sampler/unwind_memory.h"

/* True when the instruction that ends at address is a call. */
PEP_SIGNAL_SAFE bool pep_guess_is_after_call(struct pep_unwind_memory *memory, uintptr_t address);
/* True when a walk found address to be a return address, in this version of the module table. */
PEP_SIGNAL_SAFE bool pep_guess_is_confirmed(uintptr_t address);
/* Replaces frame by its caller's. is_leaf: the frame was interrupted, so it may not have set BP
 * up. False when nothing on the stack is convincing. */
PEP_SIGNAL_SAFE bool pep_guess_caller(struct pep_unwind_memory *memory, bool is_leaf,
                                      struct pep_learner_frame *frame);
/* True when the code at pc is rt_sigreturn(2) as a handler's return address. */
PEP_SIGNAL_SAFE bool pep_guess_is_sigreturn(struct pep_unwind_memory *memory, uintptr_t pc);

#endif
