/*
 * What the tests of the walker share: a walk from a signal, beside backtrace(3)'s.
 *
 * Model:   walk_trap raises SIGUSR1; its handler walks from the interrupted context and asks
 *          backtrace(3) too.
 * Writers: the handler.
 * Readers: the test that trapped.
 * Memory:  static; one thread at a time.
 * When full: -
 */
#ifndef PEP_TEST_UNIT_WALK_H
#define PEP_TEST_UNIT_WALK_H

#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

#include "sampler/unwind.h"

/* Sanitizers make functions long, add frames of their own and replace malloc. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WALK_IS_SANITIZED 1
#define WALK_FUNCTION_BYTES 2048
#else
#define WALK_IS_SANITIZED 0
#define WALK_FUNCTION_BYTES 256
#endif

/* ThreadSanitizer runs handlers later, from elsewhere: backtrace(3) sees another stack then. */
#if defined(__SANITIZE_THREAD__)
#define WALK_IS_DEFERRED 1
#else
#define WALK_IS_DEFERRED 0
#endif

struct walk_result {
    uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
    int count;
    bool is_partial;                       /* unwind_partial rose */
    bool is_truncated;                     /* unwind_truncated rose */
    void *trace[PEP_UNWIND_DEPTH_MAX + 8]; /* backtrace(3), from the interrupted frame on */
    int trace_count;
};

extern struct pep_stack_range walk_range; /* of the stack that is walked; {0, 0}: not known */
extern int walk_max;                      /* frames asked for */
extern struct walk_result walk_last;

/* Refreshes the modules, makes the table, installs the handler; a cmocka group set-up. */
int walk_setup(void **state);
/* The stack of the calling (main) thread, from well below here to its end. */
void walk_know_stack(void);
void walk_forget_stack(void);
/* Walks from a context into walk_last. */
void walk_context(const ucontext_t *context);
void walk_registers(const struct pep_regs *regs);
/* Traps and walks. Always 1, so that callers can use it in an expression. */
int walk_trap(void);
/* Fails unless walk_last tells the same frames as backtrace(3), to the last one. */
void walk_assert_same(void);
/* True when a frame of walk_last lies in [function, function + WALK_FUNCTION_BYTES). */
bool walk_has(const void *function);

#endif
