/*
 * Sums by stack, thread and tag: every event counts once, whoever adds it and however full it is.
 * LDFLAGS: -Wl,--wrap=pep_os_map
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sampler/cells.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

#define THREADS 8
#define ROUNDS 20000
#define SMALL 64

static int refuse_maps;
void *__real_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes) {
    return refuse_maps ? NULL : __real_pep_os_map(size_bytes);
}

static uint64_t counted_full, counted_lost;
static void note_counters(void) {
    counted_full = PEP_COUNTED(cell_table_full);
    counted_lost = PEP_COUNTED(cells_lost);
}

/* What the cells of a key hold together; *found: how many cells there are. */
static struct pep_tagged_cell sum_of(const struct pep_cells *set, uint64_t key, uint32_t *found) {
    struct pep_tagged_cell sum = {.key = key};
    *found = 0;
    for (uint32_t i = 0; i < pep_cells_count(set); i++) {
        if (set->cells[i].key != key)
            continue;
        ++*found;
        sum.count += set->cells[i].count;
        sum.weight += set->cells[i].weight;
    }
    return sum;
}

static uint64_t key_of(uint64_t stack, uint64_t identity, uint64_t tag) {
    return stack << 40 | identity << 16 | tag;
}

static void add(struct pep_cells *set, pep_stack_id stack, uint32_t identity, uint16_t tag) {
    uint64_t sums[2] = {1, 10};
    pep_cells_add(set, stack, identity, tag, sums);
}

static void before_init_events_are_lost_and_counted(void **state) {
    (void)state;
    static struct pep_cells set;
    note_counters();
    refuse_maps = 1;
    assert_int_equal(pep_cells_init(&set, SMALL), -ENOMEM);
    refuse_maps = 0;
    add(&set, 1, 1, 1);
    assert_int_equal(PEP_COUNTED(cells_lost), counted_lost + 1);
    assert_int_equal(pep_cells_count(&set), 0);
    assert_int_equal(pep_cells_init(&set, SMALL), 0);
    assert_int_equal(pep_cells_init(&set, 2 * SMALL), 0); /* it is there */
    assert_int_equal(set.capacity, SMALL);
}

static void keys_come_apart_as_they_went_in(void **state) {
    (void)state;
    uint64_t key = key_of(0xabcdef, 0x123456, 0xfedc);
    assert_int_equal(pep_cell_stack(key), 0xabcdef);
    assert_int_equal(pep_cell_identity(key), 0x123456);
    assert_int_equal(pep_cell_tag(key), 0xfedc);
}

static void one_cell_for_each_stack_thread_and_tag(void **state) {
    (void)state;
    static struct pep_cells set;
    uint32_t found;
    assert_int_equal(pep_cells_init(&set, SMALL), 0);
    note_counters();
    for (int i = 0; i < 3; i++) {
        add(&set, 5, 7, 1);
        add(&set, 5, 7, 2);
        add(&set, 5, 8, 1);
        add(&set, 6, 7, 1);
        add(&set, 5, 0, 0);
    }
    add(&set, 0, 7, 1); /* no stack: nothing happens */
    assert_int_equal(pep_cells_count(&set), 5);
    struct pep_tagged_cell sum = sum_of(&set, key_of(5, 7, 2), &found);
    assert_int_equal(found, 1);
    assert_int_equal(sum.count, 3);
    assert_int_equal(sum.weight, 30);
    sum = sum_of(&set, key_of(5, 0, 0), &found);
    assert_int_equal(sum.count, 3);
    assert_int_equal(PEP_COUNTED(cell_table_full), counted_full);
    assert_int_equal(PEP_COUNTED(cells_lost), counted_lost);
}

static void when_full_the_thread_goes_first(void **state) {
    (void)state;
    static struct pep_cells set;
    uint32_t found;
    assert_int_equal(pep_cells_init(&set, SMALL), 0);
    note_counters();
    /* Three quarters have room for threads; the next ones share the cell without. */
    for (uint32_t identity = 1; identity <= SMALL; identity++)
        add(&set, 9, identity, 3);
    assert_int_equal(PEP_COUNTED(cell_table_full), counted_full + SMALL / 4);
    assert_int_equal(PEP_COUNTED(cells_lost), counted_lost);
    assert_int_equal(sum_of(&set, key_of(9, 0, 3), &found).count, SMALL / 4);
    assert_int_equal(found, 1);
    /* Those that have a cell keep it. */
    add(&set, 9, 1, 3);
    assert_int_equal(sum_of(&set, key_of(9, 1, 3), &found).count, 2);
    assert_int_equal(PEP_COUNTED(cell_table_full), counted_full + SMALL / 4);
}

static void when_nothing_fits_events_are_counted_as_lost(void **state) {
    (void)state;
    static struct pep_cells set;
    assert_int_equal(pep_cells_init(&set, SMALL), 0);
    note_counters();
    for (pep_stack_id stack = 1; stack <= 2 * SMALL; stack++)
        add(&set, stack, 1, 0);
    uint64_t kept = 0;
    for (uint32_t i = 0; i < pep_cells_count(&set); i++)
        kept += set.cells[i].count;
    assert_int_equal(kept + PEP_COUNTED(cells_lost) - counted_lost, 2 * SMALL);
    assert_true(PEP_COUNTED(cells_lost) > counted_lost);
    add(&set, 1, 1, 0); /* what is there still takes more */
    uint32_t found;
    assert_int_equal(sum_of(&set, key_of(1, 1, 0), &found).count, 2);
}

static struct pep_cells contended;

static void *race(void *argument) {
    uint64_t random = 88172645463325252u + (uintptr_t)argument;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        /* Everybody wants the same 1,000 keys, so each is made under a race. */
        add(&contended, 1 + (uint32_t)(random % 100), 1 + (uint32_t)(random >> 20) % 10, 4);
    }
    return NULL;
}

static void in_a_race_every_event_counts_once(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    uint32_t found;
    uint64_t events = 0, weight = 0;
    assert_int_equal(pep_cells_init(&contended, 16384), 0);
    note_counters();
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, race, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < pep_cells_count(&contended); i++) {
        events += contended.cells[i].count;
        weight += contended.cells[i].weight;
        if (contended.cells[i].key != 0) {
            (void)sum_of(&contended, contended.cells[i].key, &found);
            assert_int_equal(found, 1); /* a lost race leaves an empty cell, never a twin */
        }
    }
    assert_int_equal(events, THREADS * ROUNDS);
    assert_int_equal(weight, THREADS * ROUNDS * 10);
    assert_int_equal(PEP_COUNTED(cells_lost), counted_lost);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_init_events_are_lost_and_counted),
        cmocka_unit_test(keys_come_apart_as_they_went_in),
        cmocka_unit_test(one_cell_for_each_stack_thread_and_tag),
        cmocka_unit_test(when_full_the_thread_goes_first),
        cmocka_unit_test(when_nothing_fits_events_are_counted_as_lost),
        cmocka_unit_test(in_a_race_every_event_counts_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
