#include "http/recording.h"

#include <errno.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

static struct pep_recording *last; /* held */
static int lock;

static void take_lock(void) {
    while (pep_swap_acq_rel(&lock, 1))
        (void)pep_os_futex_wait(&lock, 1, 1000000);
}

static void drop_lock(void) {
    pep_store_release(&lock, 0);
    (void)pep_os_futex_wake(&lock, 1);
}

/* Under the lock. */
static void let_go(struct pep_recording *recording) {
    if (!recording || --recording->holders > 0)
        return;
    if (!recording->profile && recording->of)
        recording->of->end(recording);
    pep_arena_drop(&recording->arena);
    pep_free(recording);
}

/* Under the lock: puts one where another was. */
static void replace(struct pep_recording **place, struct pep_recording *fresh) {
    struct pep_recording *old = *place;
    if (fresh)
        fresh->holders++;
    *place = fresh;
    let_go(old);
}

struct pep_recording *pep_recording_make(void) {
    struct pep_recording *fresh = pep_calloc(1, sizeof(*fresh));
    if (!fresh)
        return NULL;
    fresh->holders = 1;
    pep_arena_init(&fresh->arena, 0);
    return fresh;
}

int pep_recording_start(struct pep_recordings *recordings, double wanted, uint64_t room) {
    struct pep_recording *fresh = pep_recording_make();
    if (!fresh)
        return -ENOMEM;
    fresh->wanted = wanted;
    fresh->room = room;
    int error = recordings->begin(fresh);
    if (!error)
        fresh->of = recordings;
    take_lock();
    if (!error)
        replace(&recordings->current, fresh);
    let_go(fresh);
    drop_lock();
    return error;
}

struct pep_recording *pep_recording_stop(struct pep_recordings *recordings, int *error) {
    take_lock();
    struct pep_recording *recording = recordings->current;
    *error = recording ? 0 : -ENOENT;
    if (recording && !recording->profile) {
        recording->profile = recordings->read(recording);
        if (recording->profile)
            recordings->end(recording);
        else
            *error = -ENOMEM;
        if (recording->profile && recordings->is_kept)
            replace(&last, recording);
    }
    if (*error)
        recording = NULL;
    else
        recording->holders++;
    drop_lock();
    return recording;
}

void pep_recording_drop(struct pep_recording *recording) {
    take_lock();
    let_go(recording);
    drop_lock();
}

void pep_recording_forget(struct pep_recordings *recordings) {
    take_lock();
    replace(&recordings->current, NULL);
    drop_lock();
}

void pep_recording_keep(struct pep_recording *recording) {
    take_lock();
    replace(&last, recording);
    drop_lock();
}

struct pep_recording *pep_recording_last(void) {
    take_lock();
    if (last)
        last->holders++;
    struct pep_recording *recording = last;
    drop_lock();
    return recording;
}

void pep_recording_after_fork_child(struct pep_recordings *recordings) {
    recordings->current = NULL;
    last = NULL;
    lock = 0;
}
