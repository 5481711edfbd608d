/* Tables of the heap sampler that are full: what does not fit is counted, and nothing ages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "heap_help.h"
#include "sampler/heap.h"
#include "sampler/heap_hook.h"
#include "sampler/heap_internal.h"
#include "sampler/rt/counters.h"

static uintptr_t next_base = 0x100000000000ul;

static void before_init_nothing_is_kept(void **state) {
    (void)state;
    const struct pep_heap_taken sample = {.what = PEP_LIVE_SAMPLED, .size_bytes = 1};
    struct pep_heap_taken taken;
    assert_false(pep_heap_live_put(next_base, &sample));
    assert_false(pep_heap_live_take(next_base, &taken));
    assert_int_equal(PEP_COUNTED(heap_live_full), 1);
    assert_int_equal(pep_heap_live_count(), 0);
    assert_int_equal(pep_heap_cell_count(), 0);
    PEP_COUNT(heap_live_full, -1);
    const struct pep_heap_options options = {.rate_bytes = 524288};
    assert_int_equal(pep_heap_init(&options), 0);
    assert_int_equal(pep_heap_tables_init(3), 0);
}

static void more_live_samples_than_fit_are_counted(void **state) {
    (void)state;
    enum { ROOM = 262144 + 1024, MORE = 300000 };
    assert_int_equal(PEP_COUNTED(heap_live_full), 0);
    assert_int_equal(pep_heap_begin(1), 0);
    struct help_sums before = help_sum(PEP_HEAP_INUSE, 0);
    uint64_t lost = 0, held = 0;
    for (uintptr_t i = 0; i < MORE; i++) {
        help_allocate(next_base + i * 16, 32);
        if (lost == 0 && PEP_COUNTED(heap_live_full) != 0) {
            lost = 1;
            held = pep_heap_live_count();
        }
    }
    print_message("first refusal at %.1f %%\n", 100 * (double)held / ROOM);
    lost = PEP_COUNTED(heap_live_full);
    held = pep_heap_live_count();
    print_message("%llu held, %llu not followed\n", (unsigned long long)held,
                  (unsigned long long)lost);
    assert_true(lost > 0 && held > 250000 && held <= ROOM);
    assert_int_equal(help_sum(PEP_HEAP_INUSE, 0).values[0] - before.values[0], MORE);
    uintptr_t own = next_base + MORE * 16;
    while (pep_heap_keep_own(own)) /* may still find a place, and another */
        own += 16;
    pep_heap_end(1);
    for (uintptr_t i = 0; i < MORE; i++)
        help_free(next_base + i * 16);
    lost = PEP_COUNTED(heap_live_full) - 1;
    assert_int_equal(help_sum(PEP_HEAP_INUSE, 0).values[2] - before.values[2], (int64_t)lost);
    for (uintptr_t block = next_base + MORE * 16; block < own; block += 16)
        assert_int_equal(pep_heap_take_out(block).what, PEP_LIVE_OWN);
    next_base = own + 16;
}

/* No tombstones: a table through which 10^7 samples went is as good as new. */
static void the_table_does_not_age(void **state) {
    (void)state;
    uint64_t lost = PEP_COUNTED(heap_live_full), held = pep_heap_live_count();
    const struct pep_heap_taken sample = {.what = PEP_LIVE_SAMPLED, .size_bytes = 1};
    struct pep_heap_taken taken;
    for (uintptr_t i = 0; i < 10000000; i++) {
        assert_true(pep_heap_live_put(next_base + i * 16, &sample));
        if (i >= 10000)
            assert_true(pep_heap_live_take(next_base + (i - 10000) * 16, &taken));
    }
    assert_int_equal(PEP_COUNTED(heap_live_full), lost);
    assert_int_equal(pep_heap_live_count(), held + 10000);
}

static void more_cells_than_fit_go_to_table_full(void **state) {
    (void)state;
    uint32_t first = pep_heap_cell_of(1, 0);
    uint32_t last = 0;
    for (uint32_t i = 1; i <= PEP_HEAP_CELLS_MAX; i++)
        last = pep_heap_cell_of(1, i);
    assert_int_equal(last, first);
    assert_true(PEP_COUNTED(heap_cells_full) > 0);
    assert_int_equal(pep_heap_cell_count(), PEP_HEAP_CELLS_MAX);
    assert_int_equal(pep_heap_cell_of(1, 1), pep_heap_cell_of(1, 1));
    assert_int_not_equal(pep_heap_cell_of(1, 1), first);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_init_nothing_is_kept),
        cmocka_unit_test(more_live_samples_than_fit_are_counted),
        cmocka_unit_test(the_table_does_not_age),
        cmocka_unit_test(more_cells_than_fit_go_to_table_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
