#include "http/recording.h"

#include <errno.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

static void take_lock(struct pep_recordings *recordings) {
    while (pep_swap_acq_rel(&recordings->lock, 1))
        (void)pep_os_futex_wait(&recordings->lock, 1, 1000000);
}

static void drop_lock(struct pep_recordings *recordings) {
    pep_store_release(&recordings->lock, 0);
    (void)pep_os_futex_wake(&recordings->lock, 1);
}

/* Under the lock. */
static void let_go(const struct pep_recordings *recordings, struct pep_recording *recording) {
    if (!recording || --recording->holders > 0)
        return;
    if (!recording->profile)
        recordings->end(recording);
    pep_arena_drop(&recording->arena);
    pep_free(recording);
}

int pep_recording_start(struct pep_recordings *recordings, double wanted) {
    struct pep_recording *fresh = pep_calloc(1, sizeof(*fresh));
    if (!fresh)
        return -ENOMEM;
    fresh->wanted = wanted;
    fresh->holders = 1;
    pep_arena_init(&fresh->arena, 0);
    int error = recordings->begin(fresh);
    if (error) {
        pep_arena_drop(&fresh->arena);
        pep_free(fresh);
        return error;
    }
    take_lock(recordings);
    let_go(recordings, recordings->current);
    recordings->current = fresh;
    drop_lock(recordings);
    return 0;
}

struct pep_recording *pep_recording_stop(struct pep_recordings *recordings, int *error) {
    take_lock(recordings);
    struct pep_recording *recording = recordings->current;
    *error = recording ? 0 : -ENOENT;
    if (recording && !recording->profile) {
        recording->profile = recordings->read(recording);
        if (recording->profile)
            recordings->end(recording);
        else
            *error = -ENOMEM;
    }
    if (*error)
        recording = NULL;
    else
        recording->holders++;
    drop_lock(recordings);
    return recording;
}

void pep_recording_drop(struct pep_recordings *recordings, struct pep_recording *recording) {
    take_lock(recordings);
    let_go(recordings, recording);
    drop_lock(recordings);
}

void pep_recording_after_fork_child(struct pep_recordings *recordings) {
    recordings->current = NULL;
    recordings->lock = 0;
}
