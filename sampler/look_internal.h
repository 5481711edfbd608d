/*
 * What the parts of look.h share: look.c (the files of /proc), look_walk.c, look_since.c.
 *
 * Model:   one looker a thread; it keeps /proc/self/task open where no host can reach its number.
 * Writers: the thread that opened it.  [normal]
 * Readers: the same.
 * Memory:  some 74 KiB of the caller's arena.
 * When full: -
 */
#ifndef PEP_SAMPLER_LOOK_INTERNAL_H
#define PEP_SAMPLER_LOOK_INTERNAL_H

#include "sampler/look.h"
#include "sampler/unwind_learn.h"
#include "sampler/unwind_memory.h"

#define PEP_LOOK_TEXT_BYTES 32768
#define PEP_LOOK_PROCESSORS 512

struct pep_looker {
    int tasks; /* /proc/self/task; -1: not kept, files are opened by their whole paths */
    struct pep_unwind_scratch *scratch;
    /* For the frames below the one that needs a base pointer. */
    struct pep_unwind_memory memory;
    struct pep_learner learner;
    /* look_since.c: CLOCK_MONOTONIC - the scheduler's clock of a processor, INT64_MAX: not known;
     * and when that was measured, 0: not yet. */
    int64_t ahead_ns[PEP_LOOK_PROCESSORS];
    uint64_t measured_ns[PEP_LOOK_PROCESSORS];
    char text[PEP_LOOK_TEXT_BYTES];
};

/* Reads /proc/self/task/<tid>/<name> whole, as far as it fits, into looker->text, NUL-ended. Bytes
 * or -errno. */
long pep_look_read(struct pep_looker *looker, int tid, const char *name);
/* look_walk.c: the stack as it stands, without a look whether it still does. The number of pcs. */
int pep_look_stack(struct pep_looker *looker, const struct pep_look *look, uintptr_t *pcs, int max);

#endif
