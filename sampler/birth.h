/*
 * Who made which thread: the stack of each creation.
 *
 * Model:   the creator walks its own stack in the hook and charges it; the new thread's slot
 *          remembers stack and creator for as long as it lives.
 * Writers: the hooks of pthread_create and thrd_create.  [hook]
 * Readers: the dump; the profile threadcreate.           [normal]
 * Memory:  a set of cells; two words a slot.
 * When full: cells.h.
 */
#ifndef PEP_SAMPLER_BIRTH_H
#define PEP_SAMPLER_BIRTH_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/profile.h"
#include "sampler/profile_cells.h"
#include "sampler/rt/attrs.h"
#include "sampler/stack_table.h"

struct pep_birth {
    pep_stack_id stack; /* 0 unknown */
    uint32_t creator;   /* identity, 0 unknown */
};

/* Idempotent. 0 or -errno. */
int pep_birth_init(void);
/* On the creator, before the real call: walks; charges nothing yet. */
PEP_HOOK_SAFE void pep_birth_note(struct pep_birth *birth);
/* On the new thread, whose slot is taken: remembers, and counts the birth. */
PEP_HOOK_SAFE void pep_birth_remember(const struct pep_birth *birth);
/* Of a live thread; zeros when unknown. */
struct pep_birth pep_birth_of(int tid);
/* A forked child: the births of its parent are none of its own. */
void pep_birth_after_fork_child(void);

struct pep_cells_snapshot *pep_birth_snapshot_take(struct pep_arena *arena);
/* threadcreate/count, a thread each. is_live: the threads that live now, each with its own tid and
 * name (before is not used then); else all since the start, or since before, by the thread that
 * made them. NULL when memory was refused. */
struct pep_profile *pep_profile_threadcreate(struct pep_arena *arena, bool is_live,
                                             const struct pep_cells_snapshot *before,
                                             const struct pep_profile_filter *filter);

#endif
