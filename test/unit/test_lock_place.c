/*
 * Places of locks that are waited for: sums that releases take, windows of one hash, crowds.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sampler/lock.h"
#include "sampler/lock_internal.h"
#include "sampler/rt/counters.h"
#include "sampler/thread.h"

#define LOCK ((const void *)0x7f0012345678)

static void a_release_takes_what_all_have_waited(void **state) {
    (void)state;
    assert_int_equal(pep_lock_place_take(LOCK, 50), 0);
    uint32_t place = pep_lock_place_join(LOCK, 100);
    assert_int_not_equal(place, PEP_LOCK_NO_PLACE);
    assert_int_equal(pep_lock_place_join(LOCK, 200), place);
    assert_int_equal(pep_lock_place_join(LOCK, 250), place);
    assert_true(pep_lock_is_waited(LOCK));
    assert_int_equal(pep_lock_place_sum(LOCK, 300), 200 + 100 + 50);
    assert_int_equal(pep_lock_place_take(LOCK, 300), 200 + 100 + 50);
    assert_int_equal(pep_lock_place_take(LOCK, 300), 0);
    assert_int_equal(pep_lock_place_take(LOCK, 290), 0); /* who was later than another */
    assert_true(pep_lock_place_leave(place, LOCK, 200));
    assert_int_equal(pep_lock_place_take(LOCK, 310), 20);
    assert_int_equal(pep_lock_place_join(LOCK, 320), place);
    assert_false(pep_lock_place_leave(place, LOCK, 320)); /* gave up */
    assert_int_equal(pep_lock_place_sum(LOCK, 350), 80);
    assert_int_equal(pep_lock_place_take(LOCK, 350), 80);
    pep_lock_place_give_back(LOCK, 80);
    assert_int_equal(pep_lock_place_take(LOCK, 360), 100);
    assert_true(pep_lock_place_leave(place, LOCK, 100));
    assert_true(pep_lock_place_leave(place, LOCK, 250));
    assert_false(pep_lock_is_waited(LOCK));
    assert_int_equal(pep_lock_place_sum(LOCK, 400), 0);
    pep_lock_place_give_back(LOCK, 1); /* nobody is there */
    assert_int_equal(pep_lock_place_sum(LOCK, 400), 0);
}

/* Locks whose hash is the same. */
static const void *twin(const void *lock, uintptr_t *from) {
    do
        *from += 8;
    while (pep_lock_hash((const void *)*from) != pep_lock_hash(lock) ||
           (const void *)*from == lock);
    return (const void *)*from;
}

static void locks_of_one_hash_have_places_of_their_own(void **state) {
    (void)state;
    const void *locks[8];
    uint32_t places[8];
    uintptr_t from = 0x600000000000;
    uint64_t full = PEP_COUNTED(lock_places_full);
    assert_int_equal(pep_threads_init(), 0);
    assert_int_equal(pep_lock_init(1), 0);
    for (int i = 0; i < 8; i++) {
        locks[i] = twin(LOCK, &from);
        places[i] = pep_lock_place_join(locks[i], 100);
        assert_int_not_equal(places[i], PEP_LOCK_NO_PLACE);
    }
    assert_int_equal(pep_lock_place_join(LOCK, 100), PEP_LOCK_NO_PLACE);
    assert_int_equal(pep_lock_place_join((const void *)(1ul << 48), 100), PEP_LOCK_NO_PLACE);
    struct pep_lock_wait wait;
    pep_lock_wait_begin(&wait, LOCK, PEP_LOCK_MUTEX);
    pep_lock_wait_end(&wait);
    assert_int_equal(PEP_COUNTED(lock_places_full), full + 1);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(pep_lock_place_take(locks[i], 200 + (uint64_t)i), 100 + i);
        assert_true(pep_lock_place_leave(places[i], locks[i], 100));
    }
    assert_false(pep_lock_is_waited(LOCK));
    assert_int_not_equal(pep_lock_place_join(LOCK, 100), PEP_LOCK_NO_PLACE);
    pep_lock_places_clear();
    assert_false(pep_lock_is_waited(LOCK));
    assert_int_equal(pep_lock_place_sum(LOCK, 500), 0);
}

/* Sums are conserved: what the releases took is what was waited, whoever came between. */
#define CROWD 6
#define TURNS 20000
static pthread_mutex_t crowded = PTHREAD_MUTEX_INITIALIZER;
static uint64_t taken_ns, waited_ns;

static void *jostle(void *unused) {
    uint64_t taken = 0, waited = 0;
    for (int i = 0; i < TURNS; i++) {
        uint64_t began = pep_lock_now();
        uint32_t place = pep_lock_place_join(&crowded, began);
        pthread_mutex_lock(&crowded);
        waited += pep_lock_now() - began;
        (void)pep_lock_place_leave(place, &crowded, began);
        taken += pep_lock_place_take(&crowded, pep_lock_now());
        pthread_mutex_unlock(&crowded);
    }
    pep_add_relaxed(&taken_ns, taken);
    pep_add_relaxed(&waited_ns, waited);
    return unused;
}

static void sums_hold_in_a_crowd(void **state) {
    (void)state;
    pthread_t threads[CROWD];
    for (int i = 0; i < CROWD; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, jostle, NULL), 0);
    for (int i = 0; i < CROWD; i++)
        pthread_join(threads[i], NULL);
    print_message("  waited %lu ns, taken by releases %lu ns\n", (unsigned long)waited_ns,
                  (unsigned long)taken_ns);
    assert_true(taken_ns <= waited_ns);
    assert_false(pep_lock_is_waited(&crowded));
    assert_int_equal(pep_lock_place_sum(&crowded, pep_lock_now()), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_release_takes_what_all_have_waited),
        cmocka_unit_test(locks_of_one_hash_have_places_of_their_own),
        cmocka_unit_test(sums_hold_in_a_crowd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
