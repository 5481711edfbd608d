/* LDFLAGS: -Wl,--wrap=pep_os_map */
/* Stacks are kept once whoever enters them first; cells only rise; full tables say so. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/stack_table.h"
#include "sampler/unwind.h"

#define THREADS 8
#define STACKS 2000

static int refuse_maps;
void *__real_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes) {
    return refuse_maps ? NULL : __real_pep_os_map(size_bytes);
}

static int depth_of(uint64_t number) {
    return 1 + (int)(number % 60);
}

static void make_stack(uint64_t number, uintptr_t *pcs) {
    for (int i = 0; i < depth_of(number); i++)
        pcs[i] = 0x400000 + number * 4096 + (uintptr_t)i * 16;
}

static void before_init_nothing_is_kept(void **state) {
    (void)state;
    uintptr_t pc = 0x400000;
    refuse_maps = 1;
    assert_int_equal(pep_stack_table_init(), -12);
    refuse_maps = 0;
    assert_int_equal(pep_stack_table_add(&pc, 1), 0);
    pep_stack_table_charge(1, 1, 1, 1);
    assert_int_equal(pep_stack_table_cell_count(), 0);
    assert_null(pep_stack_table_get(1));
    assert_null(pep_stack_table_cell(0));
    assert_int_equal(pep_stack_table_init(), 0);
    assert_int_equal(pep_stack_table_init(), 0);
}

static void a_stack_keeps_its_id_and_its_frames(void **state) {
    (void)state;
    uintptr_t pcs[] = {0x401000, 0x402000, 0x403000};
    pep_stack_id id = pep_stack_table_add(pcs, 3);
    assert_int_not_equal(id, 0);
    assert_int_equal(pep_stack_table_add(pcs, 3), id);
    assert_int_not_equal(pep_stack_table_add(pcs, 2), id);
    assert_int_not_equal(pep_stack_table_add(pcs + 1, 2), id);
    const struct pep_stack *stack = pep_stack_table_get(id);
    assert_int_equal(stack->count, 3);
    assert_memory_equal(stack->pcs, pcs, sizeof pcs);
    assert_int_equal(pep_stack_table_add(pcs, 0), 0);
    assert_null(pep_stack_table_get(0));
    assert_null(pep_stack_table_get(PEP_STACKS_MAX));
    assert_null(pep_stack_table_get(UINT32_MAX));
    pep_stack_table_check();
}

struct visit {
    pthread_t thread;
    pep_stack_id ids[STACKS];
    uint32_t identity;
};

/* All threads enter the same stacks at the same time, and charge their own cells and a shared. */
static void *enter_all(void *argument) {
    struct visit *visit = argument;
    uintptr_t pcs[64];
    for (uint64_t i = 0; i < STACKS; i++) {
        make_stack(i, pcs);
        visit->ids[i] = pep_stack_table_add(pcs, depth_of(i));
        pep_stack_table_charge(visit->ids[i], visit->identity, 1, 10);
        pep_stack_table_charge(visit->ids[i], 99, 1, 7);
    }
    return NULL;
}

static uint64_t sum_of(uint32_t identity, uint64_t *weight) {
    uint64_t count = 0;
    *weight = 0;
    for (uint32_t i = 0; i < pep_stack_table_cell_count(); i++) {
        const struct pep_cell *cell = pep_stack_table_cell(i);
        if (cell->key != 0 && (uint32_t)cell->key == identity) {
            count += cell->count;
            *weight += cell->weight;
        }
    }
    return count;
}

static void eight_threads_agree(void **state) {
    (void)state;
    static struct visit visits[THREADS];
    uint32_t before = pep_stack_table_stack_count();
    for (uint32_t i = 0; i < THREADS; i++) {
        visits[i].identity = i + 1;
        pthread_create(&visits[i].thread, NULL, enter_all, &visits[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(visits[i].thread, NULL);
    for (int i = 1; i < THREADS; i++)
        assert_memory_equal(visits[i].ids, visits[0].ids, sizeof visits[0].ids);
    assert_int_equal(pep_stack_table_stack_count(), before + STACKS);
    uint64_t weight;
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(sum_of(i + 1, &weight), STACKS);
        assert_int_equal(weight, STACKS * 10);
    }
    assert_int_equal(sum_of(99, &weight), STACKS * THREADS);
    assert_int_equal(weight, STACKS * THREADS * 7);
    pep_stack_table_check();
}

static void full_cells_give_up_the_thread_not_the_weight(void **state) {
    (void)state;
    uintptr_t pc = 0x700000;
    pep_stack_id id = pep_stack_table_add(&pc, 1);
    uint64_t before = PEP_COUNTED(cell_table_full), weight_before, weight;
    sum_of(0, &weight_before);
    uint32_t identity = 1000;
    while (PEP_COUNTED(cell_table_full) == before && identity < 2 * PEP_CELLS_MAX)
        pep_stack_table_charge(id, identity++, 1, 3);
    assert_int_equal(PEP_COUNTED(cell_table_full), before + 1);
    sum_of(0, &weight);
    assert_int_equal(weight, weight_before + 3);
    pep_stack_table_charge(id, 1000, 1, 3); /* one that has its cell keeps it */
    assert_int_equal(PEP_COUNTED(cell_table_full), before + 1);
    pep_stack_table_check();
}

static void a_full_table_has_one_stack_for_the_rest(void **state) {
    (void)state;
    uint64_t before = PEP_COUNTED(stack_table_full);
    uintptr_t pcs[64], known[3] = {0x401000, 0x402000, 0x403000};
    pep_stack_id kept = pep_stack_table_add(known, 3), id = 0;
    uint64_t number = 1000000;
    for (; PEP_COUNTED(stack_table_full) == before && number < 1100000; number++) {
        make_stack(number, pcs);
        id = pep_stack_table_add(pcs, depth_of(number));
    }
    assert_int_equal(PEP_COUNTED(stack_table_full), before + 1);
    assert_int_equal(pep_stack_table_get(id)->count, 1);
    assert_int_equal(pep_stack_table_get(id)->pcs[0], PEP_PC_TABLE_FULL);
    assert_int_equal(pep_stack_table_add(known, 3), kept);
    assert_true(pep_stack_table_stack_count() > 60000 || number > 1000000 + 60000);
    pep_stack_table_charge(id, 0, 1, 3); /* every stack can still get its cell without thread */
    assert_int_equal(pep_stack_table_add(pcs, depth_of(number - 1)), id);
    pep_stack_table_check();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_init_nothing_is_kept),
        cmocka_unit_test(a_stack_keeps_its_id_and_its_frames),
        cmocka_unit_test(eight_threads_agree),
        cmocka_unit_test(full_cells_give_up_the_thread_not_the_weight),
        cmocka_unit_test(a_full_table_has_one_stack_for_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
