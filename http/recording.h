/*
 * A recording without a client: begun by one request, ended and answered by a later one.
 *
 * Model:   a start forgets what was there before; the first stop ends the recording and leaves its
 *          profile, later stops answer the same. Whoever answers from a recording holds it, so a
 *          start may come while a slow client reads.
 * Writers: the connections' threads, one at a time under the lock.  [normal]
 * Readers: whoever holds it.
 * Memory:  an arena for each recording, until it is forgotten and nobody holds it.
 * When full: -ENOMEM.
 */
#ifndef PEP_HTTP_RECORDING_H
#define PEP_HTTP_RECORDING_H

#include "sampler/profile.h"

struct pep_recording {
    struct pep_arena arena;
    double wanted;               /* what start was asked for */
    void *before;                /* the reading at its start */
    struct pep_profile *profile; /* NULL while it runs */
    int holders;                 /* `current` is one; under the lock */
};

/* What is recorded. Static storage, zero but for the functions. */
struct pep_recordings {
    /* Asks for the sampling and takes the first reading. 0 or -errno, and then nothing is asked. */
    int (*begin)(struct pep_recording *recording);
    /* The profile up to now, in the recording's arena; NULL when memory was refused. */
    struct pep_profile *(*read)(struct pep_recording *recording);
    void (*end)(struct pep_recording *recording);
    struct pep_recording *current;
    int lock;
};

/* 0 or -errno; then what was there before is there still. */
int pep_recording_start(struct pep_recordings *recordings, double wanted);
/* The recording, ended and held until drop. NULL: *error is -ENOENT without a start, or -ENOMEM
 * while it runs on: another stop may find memory. */
struct pep_recording *pep_recording_stop(struct pep_recordings *recordings, int *error);
void pep_recording_drop(struct pep_recordings *recordings, struct pep_recording *recording);
/* In a forked child: what the parent recorded is its own, and may have been half way through
 * anything. */
void pep_recording_after_fork_child(struct pep_recordings *recordings);

#endif
