/*
 * From cells to a profile: differences, labels, filters.
 * LDFLAGS: -Wl,--wrap=pep_os_map
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "sampler/profile_cells.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

static int refuse_maps;
void *__real_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes) {
    return refuse_maps ? NULL : __real_pep_os_map(size_bytes);
}

static struct pep_cells set;
static struct pep_arena arena;
static pep_stack_id stacks[3];

static int make_tables(void **state) {
    (void)state;
    uintptr_t pcs[] = {0x401000, 0x402000, 0x403000};
    assert_int_equal(pep_threads_init(), 0);
    assert_int_equal(pep_stack_table_init(), 0);
    assert_int_equal(pep_cells_init(&set, 1024), 0);
    for (int i = 0; i < 3; i++)
        stacks[i] = pep_stack_table_add(pcs, i + 1);
    return 0;
}

static int begin(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    return 0;
}

static int end(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static void add(pep_stack_id stack, uint32_t identity, uint16_t tag, uint64_t weight) {
    uint64_t sums[2] = {1, weight};
    pep_cells_add(&set, stack, identity, tag, sums);
}

static const char *state_of(uint16_t tag) {
    return tag == 1 ? "sleep" : tag == 2 ? "running" : NULL;
}

static bool is_running(uint16_t tag) {
    return tag == 2;
}

static struct pep_profile *fill(const struct pep_cells_view *view) {
    struct pep_profile *profile = pep_arena_alloc(&arena, sizeof *profile);
    assert_non_null(profile);
    profile->main_mapping = PEP_MAPPING_NONE;
    pep_profile_fill_cells(&arena, profile, view);
    assert_false(arena.is_failed);
    return profile;
}

static const struct pep_sample *sample_of(const struct pep_profile *profile, uint32_t depth) {
    for (uint32_t i = 0; i < profile->sample_count; i++)
        if (profile->samples[i].pc_count == depth)
            return &profile->samples[i];
    return NULL;
}

static void a_window_is_what_rose_in_it(void **state) {
    (void)state;
    add(stacks[0], 0, 0, 5);
    add(stacks[1], 0, 0, 7);
    struct pep_cells_snapshot *before = pep_cells_snapshot_take(&arena, &set);
    assert_non_null(before);
    assert_int_equal(before->marks[0], 0);
    add(stacks[1], 0, 0, 11);
    add(stacks[2], 0, 0, 13); /* a cell that is younger than the reading */
    struct pep_cells_view view = {.set = &set, .before = before};
    struct pep_profile *profile = fill(&view);
    assert_int_equal(profile->sample_count, 2);
    assert_null(sample_of(profile, 1));
    assert_int_equal(sample_of(profile, 2)->values[0], 1);
    assert_int_equal(sample_of(profile, 2)->values[1], 11);
    assert_int_equal(sample_of(profile, 3)->values[1], 13);
    assert_int_equal(profile->time_ns, before->realtime_ns);
    assert_true(profile->duration_ns > 0);
}

static void without_a_reading_it_is_everything(void **state) {
    (void)state;
    struct pep_profile *profile = fill(&(struct pep_cells_view){.set = &set});
    assert_int_equal(sample_of(profile, 1)->values[1], 5);
    assert_int_equal(sample_of(profile, 2)->values[0], 2);
    assert_int_equal(sample_of(profile, 2)->values[1], 18);
    assert_int_equal(profile->time_ns, 0);
    assert_int_equal(profile->duration_ns, 0);
    assert_null(sample_of(profile, 1)->state);
    assert_null(sample_of(profile, 1)->thread);
}

static void tags_become_states_and_may_be_left_out(void **state) {
    (void)state;
    struct pep_cells_snapshot *before = pep_cells_snapshot_take(&arena, &set);
    add(stacks[0], 0, 1, 3);
    add(stacks[1], 0, 2, 4);
    add(stacks[2], 0, 9, 5);
    struct pep_cells_view view = {.set = &set, .before = before, .state_of = state_of};
    struct pep_profile *profile = fill(&view);
    assert_int_equal(profile->sample_count, 3);
    assert_string_equal(sample_of(profile, 1)->state, "sleep");
    assert_string_equal(sample_of(profile, 2)->state, "running");
    assert_null(sample_of(profile, 3)->state);
    view.is_wanted = is_running;
    profile = fill(&view);
    assert_int_equal(profile->sample_count, 1);
    assert_int_equal(profile->samples[0].values[1], 4);
}

struct stranger {
    uint32_t identity;
    int tid;
    pthread_barrier_t meet;
};

static void *wait_to_be_named(void *argument) {
    struct stranger *stranger = argument;
    pthread_setname_np(pthread_self(), "stranger");
    stranger->tid = pep_os_gettid();
    pthread_barrier_wait(&stranger->meet);
    pthread_barrier_wait(&stranger->meet);
    return NULL;
}

static void threads_have_their_tid_and_name(void **state) {
    (void)state;
    struct stranger stranger;
    pthread_t thread;
    struct pep_cells_snapshot *before = pep_cells_snapshot_take(&arena, &set);
    pthread_setname_np(pthread_self(), "the teller");
    uint32_t own = pep_thread_identity(pep_thread_self());
    pthread_barrier_init(&stranger.meet, NULL, 2);
    pthread_create(&thread, NULL, wait_to_be_named, &stranger);
    pthread_barrier_wait(&stranger.meet);
    struct pep_thread *slot = pep_thread_adopt(stranger.tid);
    stranger.identity = pep_thread_identity_of_other(slot);
    assert_int_not_equal(stranger.identity, 0);
    assert_int_equal(pep_thread_identity_of_other(slot), stranger.identity);
    char name[16];
    pep_identity_name(stranger.identity, name);
    assert_string_equal(name, "stranger");
    add(stacks[0], own, 1, 1);
    add(stacks[1], stranger.identity, 1, 2);
    add(stacks[2], 0, 1, 4); /* no identity was left for it */
    struct pep_cells_view view = {.set = &set, .before = before};
    struct pep_profile *profile = fill(&view);
    assert_int_equal(profile->sample_count, 3);
    assert_int_equal(sample_of(profile, 1)->tid, pep_os_gettid());
    assert_string_equal(sample_of(profile, 1)->thread, "the teller");
    assert_int_equal(sample_of(profile, 2)->tid, stranger.tid);
    assert_string_equal(sample_of(profile, 2)->thread, "stranger");
    assert_int_equal(sample_of(profile, 3)->tid, 0);
    assert_null(sample_of(profile, 3)->thread);
    view.filter.thread = "strange";
    profile = fill(&view);
    assert_int_equal(profile->sample_count, 1);
    assert_int_equal(profile->samples[0].values[1], 2);
    view.filter.thread = "nobody";
    assert_int_equal(fill(&view)->sample_count, 0);
    pthread_barrier_wait(&stranger.meet);
    pthread_join(thread, NULL);
    pep_thread_forget(slot);
    assert_int_equal(pep_thread_identity_of_other(slot), 0);
}

static void refused_memory_is_told(void **state) {
    (void)state;
    struct pep_profile profile = {.main_mapping = PEP_MAPPING_NONE};
    refuse_maps = 1;
    assert_null(pep_cells_snapshot_take(&arena, &set));
    pep_profile_fill_cells(&arena, &profile, &(struct pep_cells_view){.set = &set});
    refuse_maps = 0;
    assert_true(arena.is_failed);
    assert_int_equal(profile.sample_count, 0);
}

static void an_empty_set_makes_an_empty_profile(void **state) {
    (void)state;
    static struct pep_cells none;
    struct pep_cells_snapshot *before = pep_cells_snapshot_take(&arena, &none);
    assert_non_null(before);
    assert_int_equal(before->cell_count, 0);
    struct pep_cells_view view = {.set = &none, .before = before};
    assert_int_equal(fill(&view)->sample_count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_window_is_what_rose_in_it, begin, end),
        cmocka_unit_test_setup_teardown(without_a_reading_it_is_everything, begin, end),
        cmocka_unit_test_setup_teardown(tags_become_states_and_may_be_left_out, begin, end),
        cmocka_unit_test_setup_teardown(threads_have_their_tid_and_name, begin, end),
        cmocka_unit_test_setup_teardown(refused_memory_is_told, begin, end),
        cmocka_unit_test_setup_teardown(an_empty_set_makes_an_empty_profile, begin, end),
    };
    return cmocka_run_group_tests(tests, make_tables, NULL);
}
