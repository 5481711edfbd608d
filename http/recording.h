/*
 * A recording without a client: begun by one request, ended and answered by a later one.
 *
 * Model:   a start forgets what was there before; the first stop ends the recording and leaves its
 *          profile, later stops answer the same. Whoever answers from a recording holds it, so a
 *          start may come while a slow client reads. Of those that are kept, whatever was recorded,
 *          the last can be had once more.
 * Writers: the connections' threads, one at a time under one lock.  [normal]
 * Readers: whoever holds it.
 * Memory:  an arena for each recording, until it is forgotten and nobody holds it.
 * When full: -ENOMEM.
 */
#ifndef PEP_HTTP_RECORDING_H
#define PEP_HTTP_RECORDING_H

#include "sampler/profile.h"

struct pep_recordings;

struct pep_recording {
    struct pep_arena arena;
    double wanted;               /* what start was asked for */
    uint64_t room;               /* for samples; 0: no limit */
    void *before;                /* the reading at its start */
    struct pep_profile *profile; /* NULL while it runs */
    struct pep_recordings *of;   /* whose it is; NULL: of one request */
    int holders;                 /* `current` is one; under the lock */
};

/* What is recorded. Static storage, zero but for the functions. */
struct pep_recordings {
    /* Asks for the sampling and takes the first reading. 0 or -errno, and then nothing is asked. */
    int (*begin)(struct pep_recording *recording);
    /* The profile up to now, in the recording's arena; NULL when memory was refused. */
    struct pep_profile *(*read)(struct pep_recording *recording);
    void (*end)(struct pep_recording *recording);
    bool is_kept; /* a stop keeps what it ended */
    struct pep_recording *current;
};

/* 0 or -errno; then what was before is there still. */
int pep_recording_start(struct pep_recordings *recordings, double wanted, uint64_t room);
/* The recording, ended and held until drop. NULL: *error is -ENOENT without a start, or -ENOMEM
 * while it runs on: another stop may find memory. */
struct pep_recording *pep_recording_stop(struct pep_recordings *recordings, int *error);
void pep_recording_drop(struct pep_recording *recording);
/* Ends what runs and forgets it. */
void pep_recording_forget(struct pep_recordings *recordings);

/* A recording of one request, held; its maker fills arena and profile. NULL: no memory. */
struct pep_recording *pep_recording_make(void);
/* From here on it is the last one. NULL: there is none. */
void pep_recording_keep(struct pep_recording *recording);
/* The last one that was kept, held until drop; NULL: none. */
struct pep_recording *pep_recording_last(void);

/* In a forked child: what the parent recorded is its own, and may have been half way through
 * anything. */
void pep_recording_after_fork_child(struct pep_recordings *recordings);

#endif
