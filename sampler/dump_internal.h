/*
 * What the parts of dump.h share: dump.c (who there is, in which order), dump_read.c (stacks),
 * dump_doing.c (words and locks), dump_cycles.c.
 *
 * Model:   the look of each thread is kept beside its task until the dump is complete.
 * Writers: the thread that takes the dump.  [normal]
 * Readers: the same.
 * Memory:  the dump's arena.
 * When full: is_failed of the arena.
 */
#ifndef PEP_SAMPLER_DUMP_INTERNAL_H
#define PEP_SAMPLER_DUMP_INTERNAL_H

#include "sampler/dump.h"
#include "sampler/look.h"

struct pep_dump_work {
    struct pep_arena *arena;
    struct pep_looker *looker;
    struct pep_dump *dump;
    struct pep_look *looks; /* looks[i] is of dump->tasks[i] */
    struct pep_sample *samples;
    int leaving_tid;
    uint64_t deadline_ns; /* how long running threads are waited for */
};

/* The task of a tid, or NULL. */
struct pep_task *pep_dump_task_of(const struct pep_dump *dump, int tid);
/* Looks, walks and asks: fills looks, state, is_blocked, waited_ns, note and the samples' stacks.
 * Tasks that are gone have state 0 afterwards. */
void pep_dump_read(struct pep_dump_work *work);
/* False when the thread has moved since it was looked at: what was read after that of the lock it
 * waited for need not be true of it. */
bool pep_dump_has_stood_still(struct pep_dump_work *work, uint32_t index);
/* Says what each thread does and whom it waits for. */
void pep_dump_explain(struct pep_dump_work *work);
/* Finds those that wait for each other, by owner_tid, and looks again whether they still do. */
void pep_dump_find_cycles(struct pep_dump_work *work);

#endif
