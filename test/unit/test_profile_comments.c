/*
 * Comments: each behind the others, losses since a window's start and since the process's, and an
 * arena that refuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sampler/profile_parts.h"

static struct pep_arena arena;

static int setup(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static void test_the_array_of_others_stays(void **state) {
    (void)state;
    const char *theirs[] = {"first", "not to be touched"};
    struct pep_profile profile = {.comments = theirs, .comment_count = 1};
    assert_true(pep_profile_tell(&arena, &profile, "%u%%", 7u));
    assert_true(pep_profile_tell(&arena, &profile, "third"));
    assert_int_equal(profile.comment_count, 3);
    assert_string_equal(profile.comments[0], "first");
    assert_string_equal(profile.comments[1], "7%");
    assert_string_equal(profile.comments[2], "third");
    assert_string_equal(theirs[1], "not to be touched");
}

static void test_losses(void **state) {
    (void)state;
    static const enum pep_counter losses[] = {PEP_COUNTER_fd_lost, PEP_COUNTER_peeks,
                                              PEP_COUNTER_asks};
    uint64_t before[PEP_COUNTER_COUNT] = {0};
    struct pep_profile profile = {0};
    pep_counter_values[PEP_COUNTER_fd_lost] = before[PEP_COUNTER_fd_lost] = 3;
    pep_counter_values[PEP_COUNTER_asks] = 7;
    before[PEP_COUNTER_asks] = 2;
    pep_profile_tell_losses(&arena, &profile, losses, PEP_COUNT_OF(losses), before);
    assert_int_equal(profile.comment_count, 1);
    assert_string_equal(profile.comments[0], "5 running threads asked for their stack (asks).");
    profile.comment_count = 0;
    pep_profile_tell_losses(&arena, &profile, losses, PEP_COUNT_OF(losses), NULL);
    assert_int_equal(profile.comment_count, 2);
    assert_string_equal(profile.comments[0], "3 own descriptors found closed or replaced by the "
                                             "host (fd_lost), since the start.");
    assert_string_equal(profile.comments[1],
                        "7 running threads asked for their stack (asks), since the start.");
}

static void test_refused_memory(void **state) {
    (void)state;
    const char *theirs[] = {"first"};
    struct pep_profile profile = {.comments = theirs, .comment_count = 1};
    arena.limit_bytes = 1;
    assert_false(pep_profile_tell(&arena, &profile, "second"));
    assert_true(arena.is_failed);
    assert_ptr_equal(profile.comments, theirs);
    assert_int_equal(profile.comment_count, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_array_of_others_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_losses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_memory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
