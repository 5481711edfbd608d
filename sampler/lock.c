#include "sampler/lock.h"

#include "sampler/lock_internal.h"
#include "sampler/rt/counters.h"
#include "sampler/thread.h"

#define NESTED 2u /* a wait, and one of a signal handler inside it */
#define SAME_STACK \
    (1ul << 20) /* as near as that: frames of one stack, when its bounds are not known */

/* A note: what its thread waits for. began_ns is written last and cleared first. */
struct pep_lock_slot {
    uint64_t began_ns; /* 0: free */
    const void *lock;
    uintptr_t frame; /* the address of the wait */
    int tid;         /* whose it is: slots of threads are used again */
    uint16_t place;
    uint8_t has_place, kind;
};

_Static_assert(PEP_LOCK_PLACES <= UINT16_MAX + 1, "a place's number fits a note");

static struct pep_lock_slot notes[PEP_THREADS_MAX][NESTED] PEP_LARGE PEP_ALIGNED(64);

/* -- notes ---------------------------------------------------------------------------------- */

PEP_HOOK_SAFE static bool drop_note(struct pep_lock_slot *note) {
    uint64_t began_ns = note->began_ns;
    pep_store_release(&note->began_ns, 0);
    return note->has_place && pep_lock_place_leave(note->place, note->lock, began_ns);
}

/* The frame was left without our return: by longjmp, by cancellation or by an exception. Who stands
 * at or above it on the same stack shows that. */
PEP_HOOK_SAFE static bool is_stale(const struct pep_lock_slot *note,
                                   const struct pep_thread *thread, uintptr_t sp) {
    const struct pep_stack_range *stack = &thread->stack;
    if (note->tid != thread->tid)
        return true;
    bool is_note_inside = note->frame >= stack->lo && note->frame < stack->hi;
    bool is_inside = sp >= stack->lo && sp < stack->hi;
    if (is_inside && is_note_inside)
        return note->frame <= sp;
    if (is_inside != is_note_inside)
        return is_inside; /* a handler on a stack of its own; or that was left */
    return note->frame <= sp && sp - note->frame < SAME_STACK;
}

PEP_HOOK_SAFE static void drop_stale(struct pep_lock_slot *mine, const struct pep_thread *thread,
                                     uintptr_t sp) {
    for (uint32_t i = 0; i < NESTED; i++)
        if (pep_unlikely(mine[i].began_ns != 0) && is_stale(&mine[i], thread, sp))
            (void)drop_note(&mine[i]);
}

PEP_HOOK_SAFE static struct pep_thread *this_thread(void) {
    struct pep_thread *thread = pep_thread_mine();
    return thread != NULL ? thread : pep_thread_self();
}

PEP_HOOK_SAFE static struct pep_lock_slot *free_note(const struct pep_thread *thread,
                                                     uintptr_t sp) {
    struct pep_lock_slot *mine = notes[pep_thread_index(thread)];
    drop_stale(mine, thread, sp);
    for (uint32_t i = 0; i < NESTED; i++)
        if (mine[i].began_ns == 0)
            return &mine[i];
    /* Handlers that deep are rarer than stacks that were given up, which do not show it. */
    struct pep_lock_slot *older = mine[0].began_ns <= mine[1].began_ns ? &mine[0] : &mine[1];
    (void)drop_note(older);
    return older;
}

PEP_HOOK_SAFE void pep_lock_thread_leave(struct pep_thread *thread) {
    struct pep_lock_slot *mine = notes[pep_thread_index(thread)];
    for (uint32_t i = 0; i < NESTED; i++)
        if (pep_unlikely(mine[i].began_ns != 0))
            (void)drop_note(&mine[i]);
}

void pep_lock_after_fork_child(void) {
    pep_lock_places_clear();
    pep_lock_cells_forget();
    for (uint32_t i = 0, limit = pep_threads_limit(); i < limit; i++)
        for (uint32_t k = 0; k < NESTED; k++)
            if (notes[i][k].began_ns != 0)
                notes[i][k].began_ns = 0;
}

bool pep_lock_note_of(int tid, struct pep_lock_note *to) {
    const struct pep_thread *thread = pep_thread_of(tid);
    if (thread == NULL)
        return false;
    const struct pep_lock_slot *mine = notes[pep_thread_index(thread)];
    to->since_ns = 0;
    for (uint32_t i = 0; i < NESTED; i++) {
        /* acquire: pairs with the release of who wrote the note */
        uint64_t began_ns = pep_load_acquire(&mine[i].began_ns);
        struct pep_lock_slot note = mine[i];
        pep_fence_acquire();
        if (began_ns <= to->since_ns || note.tid != tid ||
            pep_load_relaxed(&mine[i].began_ns) != began_ns)
            continue;
        *to =
            (struct pep_lock_note){note.lock, (enum pep_lock_kind)note.kind, began_ns, note.frame};
    }
    return to->since_ns != 0;
}

/* -- waiting -------------------------------------------------------------------------------- */

/* Whoever comes to a barrier last lets all others go; that it was the last is known only when it
 * leaves and nobody came after it. */
PEP_HOOK_SAFE static void arrive(struct pep_lock_wait *wait, const struct pep_thread *thread,
                                 uint32_t place) {
    wait->thread = pep_thread_index(thread) + 1;
    wait->others_ns = pep_lock_place_sum(wait->lock, wait->began_ns); /* its own is 0 yet */
    pep_store_relaxed(pep_lock_place_last(place), wait->thread);
}

PEP_HOOK_SAFE void pep_lock_wait_begin(struct pep_lock_wait *wait, const void *lock,
                                       enum pep_lock_kind kind) {
    wait->began_ns = 0;
    if (pep_load_relaxed(&pep_lock_rate_ns) == 0)
        return;
    (void)pep_lock_warm_up();
    *wait = (struct pep_lock_wait){.began_ns = pep_lock_now(), .lock = lock, .kind = kind};
    struct pep_thread *thread = this_thread();
    struct pep_lock_slot *note = thread != NULL ? free_note(thread, (uintptr_t)wait) : NULL;
    if (note == NULL)
        return;
    uint32_t place = PEP_LOCK_NO_PLACE;
    if (kind != PEP_LOCK_JOIN) {
        place = pep_lock_place_join(lock, wait->began_ns);
        if (place == PEP_LOCK_NO_PLACE)
            PEP_COUNT(lock_places_full, 1);
        else if (kind == PEP_LOCK_BARRIER)
            arrive(wait, thread, place);
    }
    note->lock = lock;
    note->frame = (uintptr_t)wait;
    note->tid = thread->tid;
    note->kind = (uint8_t)kind;
    note->has_place = place != PEP_LOCK_NO_PLACE;
    note->place = (uint16_t)place;
    pep_store_release(&note->began_ns, wait->began_ns); /* pairs with pep_lock_note_of */
    wait->note = note;
}

/* The note may have been taken for stale and be another's. */
PEP_HOOK_SAFE static bool is_mine(const struct pep_lock_wait *wait) {
    return wait->note != NULL && wait->note->began_ns == wait->began_ns &&
           wait->note->frame == (uintptr_t)wait;
}

PEP_HOOK_SAFE void pep_lock_wait_end(struct pep_lock_wait *wait) {
    if (wait->began_ns == 0)
        return;
    uint64_t waited_ns = pep_lock_now() - wait->began_ns;
    bool is_last = false;
    if (is_mine(wait)) {
        bool has_place = wait->note->has_place;
        is_last = wait->thread != 0 && has_place &&
                  pep_load_relaxed(pep_lock_place_last(wait->note->place)) == wait->thread;
        bool is_released = drop_note(wait->note);
        if (has_place && !is_released && wait->kind != PEP_LOCK_BARRIER)
            PEP_COUNT(lock_unknown_holder, 1);
    }
    if (is_last && wait->others_ns != 0)
        pep_lock_charge(PEP_LOCK_HOLD, wait->kind, wait->others_ns);
    pep_lock_charge(PEP_LOCK_BLOCK, wait->kind, waited_ns);
}

/* -- letting go ----------------------------------------------------------------------------- */

PEP_HOOK_SAFE void pep_lock_release_begin(struct pep_lock_release *release, const void *lock,
                                          enum pep_lock_kind kind) {
    *release = (struct pep_lock_release){.lock = lock, .kind = kind};
    if (pep_load_relaxed(&pep_lock_rate_ns) == 0)
        return;
    struct pep_thread *thread = this_thread();
    if (thread != NULL)
        drop_stale(notes[pep_thread_index(thread)], thread, (uintptr_t)release);
    release->waited_ns = pep_lock_place_take(lock, pep_lock_now());
}

PEP_HOOK_SAFE void pep_lock_release_end(const struct pep_lock_release *release, bool is_done) {
    if (release->waited_ns == 0)
        return;
    if (is_done)
        pep_lock_charge(PEP_LOCK_HOLD, release->kind, release->waited_ns);
    else
        pep_lock_place_give_back(release->lock, release->waited_ns);
}
