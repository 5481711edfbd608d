/* What is kept of source lines, and for how long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "encoder/line_cache.h"

static void a_full_cache_is_emptied_when_nobody_looks(void **state) {
    (void)state;
    struct pep_line_cache cache = {.at_end = PEP_LINES_UNREAD};
    pep_line_cache_init(&cache);
    const struct pep_line line = {.function = "_ZN1A1bEv", .file = "a.cc", .line = 7};
    struct pep_lines lines = {&line, 1}, *answers[] = {&lines};
    uint64_t address = 0;
    struct pep_lines_file read = {
        .addresses = &address, .count = 1, .answers = answers, .end = PEP_LINES_READ};
    while (cache.arena.total_bytes <= PEP_LINE_CACHE_BYTES) {
        address++;
        pep_line_cache_keep(&cache, &read, true);
    }
    const struct pep_line_entry *entry = pep_line_cache_find(&cache, 1);
    assert_string_equal(entry->frames[0].name, "A::b");
    assert_string_equal(entry->frames[0].system_name, "_ZN1A1bEv");
    address++;
    pep_line_cache_keep(&cache, &read, false);
    assert_null(pep_line_cache_find(&cache, address));
    pep_line_cache_keep(&cache, &read, true);
    assert_non_null(pep_line_cache_find(&cache, address));
    assert_null(pep_line_cache_find(&cache, 1));
    assert_false(pep_line_cache_is_hopeless(&cache));
    read.end = PEP_LINES_LATE;
    for (int i = 0; i < PEP_LINE_TRIES_MAX; i++)
        pep_line_cache_keep(&cache, &read, true);
    assert_true(pep_line_cache_is_hopeless(&cache));
    cache.setback_ns -= PEP_LINE_PAUSE_NS;
    assert_false(pep_line_cache_is_hopeless(&cache));
    read.end = PEP_LINES_READ;
    pep_line_cache_keep(&cache, &read, true);
    assert_int_equal(cache.late_count, 0);
    pep_arena_drop(&cache.arena);
}

static void the_pause_after_a_kill_grows(void **state) {
    (void)state;
    struct pep_line_cache cache = {.at_end = PEP_LINES_UNREAD};
    pep_line_cache_init(&cache);
    struct pep_lines_file read = {.end = PEP_LINES_ENDED};
    uint64_t pause = PEP_LINE_ENDED_PAUSE_NS;
    for (int i = 0; i < 40; i++) {
        pep_line_cache_keep(&cache, &read, true);
        cache.setback_ns -= pause - UINT64_C(9000000000);
        assert_true(pep_line_cache_is_hopeless(&cache));
        cache.setback_ns -= UINT64_C(9000000000);
        assert_false(pep_line_cache_is_hopeless(&cache));
        pause = i < PEP_LINE_ENDED_DOUBLINGS ? 2 * pause : pause;
    }
    assert_int_equal(pause, PEP_LINE_ENDED_PAUSE_NS << PEP_LINE_ENDED_DOUBLINGS);
    read.end = PEP_LINES_READ;
    pep_line_cache_keep(&cache, &read, true);
    assert_int_equal(cache.ended_count, 0);
    pep_arena_drop(&cache.arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_cache_is_emptied_when_nobody_looks),
        cmocka_unit_test(the_pause_after_a_kill_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
