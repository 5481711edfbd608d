/* Arenas: alignment, limits, overflow, growth, and that dropping returns everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "sampler/rt/arena.h"
#include "sampler/rt/counters.h"

static void blocks_are_zeroed_aligned_and_apart(void **state) {
    (void)state;
    struct pep_arena arena;
    pep_arena_init(&arena, 0);
    char *last = NULL;
    for (size_t size = 0; size < 70000; size = size * 3 + 1) {
        char *block = pep_arena_alloc(&arena, size);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 16, 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(block[i], 0);
        memset(block, 0x5a, size);
        assert_ptr_not_equal(block, last);
        last = block;
    }
    pep_arena_drop(&arena);
    assert_int_equal(arena.total_bytes, 0);
}

static void a_limit_is_kept_and_remembered(void **state) {
    (void)state;
    uint64_t before = PEP_COUNTED(self_alloc_failed);
    struct pep_arena arena;
    pep_arena_init(&arena, 128 << 10);
    assert_non_null(pep_arena_alloc(&arena, 1000));
    assert_null(pep_arena_alloc(&arena, 1 << 20));
    assert_true(arena.is_failed);
    assert_int_equal(PEP_COUNTED(self_alloc_failed), before + 1);
    assert_non_null(pep_arena_alloc(&arena, 1000));
    pep_arena_drop(&arena);
    assert_false(arena.is_failed);
}

static void products_that_overflow_are_refused(void **state) {
    (void)state;
    struct pep_arena arena;
    pep_arena_init(&arena, 0);
    assert_null(pep_arena_array(&arena, SIZE_MAX / 2, 3));
    assert_null(pep_arena_alloc(&arena, SIZE_MAX - 8));
    pep_arena_drop(&arena);
}

static void text_is_copied_and_formatted(void **state) {
    (void)state;
    struct pep_arena arena;
    pep_arena_init(&arena, 0);
    assert_string_equal(pep_arena_strndup(&arena, "profile", 3), "pro");
    assert_string_equal(pep_arena_strndup(&arena, "a", 100), "a");
    assert_string_equal(pep_arena_printf(&arena, "%s/%d", "seconds", 30), "seconds/30");
    pep_arena_drop(&arena);
}

static void a_growing_array_keeps_its_items(void **state) {
    (void)state;
    struct pep_arena arena;
    pep_arena_init(&arena, 0);
    uint32_t *items = NULL;
    size_t count = 0, capacity = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        assert_true(PEP_ARENA_GROW(&arena, items, count, capacity));
        items[count++] = i;
    }
    for (uint32_t i = 0; i < 10000; i++)
        assert_int_equal(items[i], i);
    pep_arena_drop(&arena);
}

static void malloc_keeps_contents_through_realloc(void **state) {
    (void)state;
    unsigned char *block = pep_malloc(10);
    assert_non_null(block);
    memset(block, 7, 10);
    for (size_t size = 20; size < 300000; size *= 2) {
        block = pep_realloc(block, size);
        assert_non_null(block);
        for (int i = 0; i < 10; i++)
            assert_int_equal(block[i], 7);
    }
    block = pep_realloc(block, 16);
    assert_int_equal(block[9], 7);
    pep_free(block);
    pep_free(NULL);
}

static void freed_blocks_serve_again(void **state) {
    (void)state;
    void *first = pep_malloc(100);
    pep_free(first);
    void *second = pep_calloc(10, 10);
    assert_ptr_equal(first, second);
    for (int i = 0; i < 100; i++)
        assert_int_equal(((char *)second)[i], 0);
    pep_free(second);
    assert_null(pep_calloc(SIZE_MAX, 2));
    assert_null(pep_malloc(SIZE_MAX / 2));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_zeroed_aligned_and_apart),
        cmocka_unit_test(a_limit_is_kept_and_remembered),
        cmocka_unit_test(products_that_overflow_are_refused),
        cmocka_unit_test(text_is_copied_and_formatted),
        cmocka_unit_test(a_growing_array_keeps_its_items),
        cmocka_unit_test(malloc_keeps_contents_through_realloc),
        cmocka_unit_test(freed_blocks_serve_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
