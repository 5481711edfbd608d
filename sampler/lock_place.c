#include "sampler/lock_internal.h"
#include "sampler/rt/atomics.h"

#define WINDOW 8u /* places that a lock may have, from its hash on */
#define MASK (PEP_LOCK_PLACES - 1)
#define TRIES 4
#define WAITERS_MAX 0xffffu

/* Changed as one. */
struct state {
    uint64_t who; /* lock << 16 | how many wait; 0: free */
    uint64_t sum; /* of the times at which their waits began, or were charged last; wraps */
} PEP_ALIGNED(16);

struct place {
    struct state state;
    uint64_t released_ns; /* when the lock was let go last; may be of the place's lock before */
    uint32_t last;        /* of a barrier: who came last, a slot's number + 1 */
};

uint16_t pep_lock_waiting[PEP_LOCK_PLACES] PEP_LARGE;
static struct place places[PEP_LOCK_PLACES] PEP_LARGE;

/* cmpxchg16b: every x86-64 processor since 2006. */
PEP_HOOK_SAFE static inline bool exchange(struct state *at, struct state *expected,
                                          struct state value) {
    bool is_done;
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(is_done), "+m"(*at), "+a"(expected->who), "+d"(expected->sum)
                     : "b"(value.who), "c"(value.sum)
                     : "memory");
    return is_done;
}

/* May be torn: then the exchange fails and brings what is there. */
PEP_HOOK_SAFE static inline struct state read(const struct place *place) {
    return (struct state){.who = pep_load_relaxed(&place->state.who),
                          .sum = pep_load_relaxed(&place->state.sum)};
}

PEP_HOOK_SAFE static inline bool is_of(struct state state, const void *lock) {
    return state.who >> 16 == (uintptr_t)lock;
}

PEP_HOOK_SAFE static inline uint32_t number_of(const void *lock, uint32_t i) {
    return (pep_lock_hash(lock) + i) & MASK;
}

/* One look at the window: joins who waits there, else takes the first free place. */
PEP_HOOK_SAFE static uint32_t try_join(const void *lock, uint64_t now_ns, bool *is_full) {
    uint32_t empty = PEP_LOCK_NO_PLACE;
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct place *place = &places[number_of(lock, i)];
        struct state seen = read(place);
        while (is_of(seen, lock) && (seen.who & WAITERS_MAX) != WAITERS_MAX) {
            struct state next = {seen.who + 1, seen.sum + now_ns};
            if (exchange(&place->state, &seen, next))
                return number_of(lock, i);
        }
        if (seen.who == 0 && empty == PEP_LOCK_NO_PLACE)
            empty = number_of(lock, i);
    }
    struct state none = {0, 0}, mine = {(uintptr_t)lock << 16 | 1, now_ns};
    *is_full = empty == PEP_LOCK_NO_PLACE;
    return !*is_full && exchange(&places[empty].state, &none, mine) ? empty : PEP_LOCK_NO_PLACE;
}

PEP_HOOK_SAFE uint32_t pep_lock_place_join(const void *lock, uint64_t now_ns) {
    uint32_t place = PEP_LOCK_NO_PLACE;
    bool is_full = (uintptr_t)lock >> 48 != 0;
    for (int i = 0; i < TRIES && place == PEP_LOCK_NO_PLACE && !is_full; i++)
        place = try_join(lock, now_ns, &is_full);
    if (place != PEP_LOCK_NO_PLACE)
        (void)pep_add_acq_rel(&pep_lock_waiting[pep_lock_hash(lock)], (uint16_t)1);
    return place;
}

PEP_HOOK_SAFE bool pep_lock_place_leave(uint32_t number, const void *lock, uint64_t began_ns) {
    struct place *place = &places[number];
    struct state seen = read(place);
    uint64_t released_ns = 0;
    (void)pep_sub_acq_rel(&pep_lock_waiting[pep_lock_hash(lock)], (uint16_t)1);
    while (is_of(seen, lock)) {
        /* A release writes its time before it takes the sum. Should it come between this and the
         * exchange, the time until then counts for it, as it should. */
        released_ns = pep_load_acquire(&place->released_ns);
        uint64_t since_ns = released_ns > began_ns ? released_ns : began_ns;
        struct state next = {seen.who - 1, seen.sum - since_ns};
        if ((next.who & WAITERS_MAX) == 0)
            next = (struct state){0, 0};
        if (exchange(&place->state, &seen, next))
            break;
    }
    return released_ns > began_ns;
}

/* Below 0: somebody took it at a later time. */
PEP_HOOK_SAFE static int64_t sum_of(struct state state, uint64_t now_ns) {
    return (int64_t)((state.who & WAITERS_MAX) * now_ns - state.sum);
}

PEP_HOOK_SAFE uint64_t pep_lock_place_sum(const void *lock, uint64_t now_ns) {
    uint64_t sum_ns = 0;
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct state seen = read(&places[number_of(lock, i)]);
        if (is_of(seen, lock) && sum_of(seen, now_ns) > 0)
            sum_ns += (uint64_t)sum_of(seen, now_ns);
    }
    return sum_ns;
}

PEP_HOOK_SAFE uint64_t pep_lock_place_take(const void *lock, uint64_t now_ns) {
    uint64_t taken_ns = 0;
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct place *place = &places[number_of(lock, i)];
        struct state seen = read(place);
        while (is_of(seen, lock) && sum_of(seen, now_ns) > 0) {
            struct state next = {seen.who, (seen.who & WAITERS_MAX) * now_ns};
            uint64_t sum_ns = (uint64_t)sum_of(seen, now_ns);
            pep_store_release(&place->released_ns, now_ns); /* pairs with leave */
            if (exchange(&place->state, &seen, next)) {
                taken_ns += sum_ns;
                break;
            }
        }
    }
    return taken_ns;
}

PEP_HOOK_SAFE void pep_lock_place_give_back(const void *lock, uint64_t waited_ns) {
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct place *place = &places[number_of(lock, i)];
        struct state seen = read(place);
        while (is_of(seen, lock)) {
            if (exchange(&place->state, &seen, (struct state){seen.who, seen.sum - waited_ns}))
                return;
        }
    }
}

PEP_HOOK_SAFE uint32_t *pep_lock_place_last(uint32_t place) {
    return &places[place].last;
}

/* Most of it was never touched, and reading does not change that. */
void pep_lock_places_clear(void) {
    for (uint32_t i = 0; i < PEP_LOCK_PLACES; i++) {
        if (pep_lock_waiting[i] != 0)
            pep_lock_waiting[i] = 0;
        if (places[i].state.who != 0)
            places[i].state = (struct state){0, 0};
    }
}
