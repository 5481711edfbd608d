/*
 * Who made which thread: the creator's stack, counted once the thread really lives.
 */
/* LDFLAGS: -Wl,--wrap=pep_os_map -rdynamic */
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/birth.h"
#include "sampler/heap.h"
#include "sampler/rt/counters.h"
#include "sampler/thread.h"

void *__real_pep_os_map(size_t size);
void *__wrap_pep_os_map(size_t size);
static bool has_no_memory;

void *__wrap_pep_os_map(size_t size) {
    return has_no_memory ? NULL : __real_pep_os_map(size);
}

static struct pep_arena arena;

static int drop(void **state) {
    (void)state;
    has_no_memory = false;
    pep_arena_drop(&arena);
    return 0;
}

static int64_t total(const struct pep_profile *profile) {
    int64_t sum = 0;
    assert_non_null(profile);
    for (uint32_t i = 0; i < profile->sample_count; i++)
        sum += profile->samples[i].values[0];
    return sum;
}

static bool has_function(const struct pep_sample *sample, const char *name) {
    for (uint32_t i = 0; i < sample->pc_count; i++) {
        Dl_info info;
        if (dladdr((void *)sample->pcs[i], &info) != 0 && info.dli_sname != NULL &&
            strcmp(info.dli_sname, name) == 0)
            return true;
    }
    return false;
}

/* -- a hook, played --------------------------------------------------------------------------- */

struct play {
    struct pep_birth birth;
    struct pep_birth seen; /* of the new thread, by its tid */
    sem_t is_born, may_end;
    int tid;
    bool has_slot;
};

static void *live(void *argument) {
    struct play *play = argument;
    pthread_setname_np(pthread_self(), "born");
    if (play->has_slot)
        pep_thread_enter((uintptr_t)pthread_self(), 8u << 20);
    pep_birth_remember(&play->birth);
    play->tid = gettid();
    play->seen = pep_birth_of(play->tid);
    sem_post(&play->is_born);
    sem_wait(&play->may_end);
    if (play->has_slot)
        pep_thread_leave();
    return NULL;
}

__attribute__((noinline, visibility("default"))) pthread_t make_thread(struct play *play);
__attribute__((noinline)) pthread_t make_thread(struct play *play) {
    pthread_t thread;
    sem_init(&play->is_born, 0, 0);
    sem_init(&play->may_end, 0, 0);
    pep_birth_note(&play->birth);
    assert_int_equal(pthread_create(&thread, NULL, live, play), 0);
    sem_wait(&play->is_born);
    return thread;
}

static void end_thread(struct play *play, pthread_t thread) {
    sem_post(&play->may_end);
    pthread_join(thread, NULL);
}

/* -- tests ------------------------------------------------------------------------------------ */

static void without_tables_births_are_lost_and_counted(void **state) {
    (void)state;
    uint64_t lost = PEP_COUNTED(cells_lost);
    const struct pep_birth birth = {.stack = 1};
    pep_birth_remember(&birth);
    assert_int_equal(PEP_COUNTED(cells_lost), lost + 1);
    has_no_memory = true;
    assert_int_equal(pep_birth_init(), -12);
    has_no_memory = false;
    assert_int_equal(pep_birth_of(getpid()).stack, 0);
    assert_int_equal(pep_birth_init(), 0);
    assert_int_equal(pep_birth_init(), 0);
    assert_int_equal(pep_threads_init(), 0);
    const struct pep_heap_options options = {.rate_bytes = 0};
    assert_int_equal(pep_heap_init(&options), 0);
}

static void a_birth_is_counted_with_its_creators_stack(void **state) {
    (void)state;
    struct play play = {.has_slot = true};
    pthread_t thread = make_thread(&play);
    assert_int_not_equal(play.birth.stack, 0);
    assert_int_not_equal(play.birth.creator, 0);
    assert_int_equal(play.seen.stack, play.birth.stack);
    assert_int_equal(play.seen.creator, play.birth.creator);
    struct pep_profile *profile = pep_profile_threadcreate(&arena, false, NULL, NULL);
    assert_int_equal(total(profile), 1);
    assert_string_equal(profile->kind, "threadcreate");
    assert_string_equal(profile->types[0].type, "threadcreate");
    assert_string_equal(profile->period_type.unit, "count");
    assert_int_equal(profile->period, 1);
    assert_int_equal(profile->duration_ns, 0);
    assert_true(has_function(&profile->samples[0], "make_thread"));
    assert_int_equal(profile->samples[0].tid, gettid());
    end_thread(&play, thread);
    assert_int_equal(pep_birth_of(play.tid).stack, 0);
}

static void live_threads_have_their_own_names(void **state) {
    (void)state;
    struct play play = {.has_slot = true};
    pthread_t thread = make_thread(&play);
    struct pep_profile *profile = pep_profile_threadcreate(&arena, true, NULL, NULL);
    assert_int_equal(total(profile), 1);
    assert_int_equal(profile->samples[0].tid, play.tid);
    assert_string_equal(profile->samples[0].thread, "born");
    assert_true(has_function(&profile->samples[0], "make_thread"));
    assert_int_equal(profile->comment_count, 0);
    const struct pep_profile_filter other = {.thread = "somebody"};
    assert_int_equal(total(pep_profile_threadcreate(&arena, true, NULL, &other)), 0);
    const struct pep_profile_filter same = {.thread = "bor"};
    assert_int_equal(total(pep_profile_threadcreate(&arena, true, NULL, &same)), 1);
    end_thread(&play, thread);
    assert_int_equal(total(pep_profile_threadcreate(&arena, true, NULL, NULL)), 0);
}

static void a_window_shows_what_came_in_it(void **state) {
    (void)state;
    struct pep_cells_snapshot *before = pep_birth_snapshot_take(&arena);
    assert_non_null(before);
    for (int i = 0; i < 3; i++) {
        struct play play = {.has_slot = i > 0}; /* one finds no slot: born all the same */
        pthread_t thread = make_thread(&play);
        assert_int_equal(play.seen.stack, i > 0 ? play.birth.stack : 0);
        end_thread(&play, thread);
    }
    struct pep_profile *profile = pep_profile_threadcreate(&arena, false, before, NULL);
    assert_int_equal(total(profile), 3);
    assert_int_equal(profile->sample_count, 1);
    assert_true(profile->duration_ns > 0);
    const struct pep_profile_filter other = {.thread = "somebody"};
    assert_int_equal(total(pep_profile_threadcreate(&arena, false, before, &other)), 0);
}

static void a_thread_of_unknown_birth_is_told(void **state) {
    (void)state;
    struct pep_thread *thread = pep_thread_adopt(getpid() == 1 ? 2 : 1);
    assert_non_null(thread);
    struct pep_profile *profile = pep_profile_threadcreate(&arena, true, NULL, NULL);
    assert_int_equal(total(profile), 0);
    assert_int_equal(profile->comment_count, 1);
    assert_non_null(strstr(profile->comments[0], "1 more threads"));
    pep_thread_forget(thread);
}

static void a_child_has_no_births(void **state) {
    (void)state;
    pep_birth_after_fork_child();
    assert_int_equal(total(pep_profile_threadcreate(&arena, false, NULL, NULL)), 0);
}

static void refused_memory_is_no_profile(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    has_no_memory = true;
    assert_null(pep_birth_snapshot_take(&arena));
    assert_null(pep_profile_threadcreate(&arena, false, NULL, NULL));
    assert_null(pep_profile_threadcreate(&arena, true, NULL, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_tables_births_are_lost_and_counted),
        cmocka_unit_test_teardown(a_birth_is_counted_with_its_creators_stack, drop),
        cmocka_unit_test_teardown(live_threads_have_their_own_names, drop),
        cmocka_unit_test_teardown(a_window_shows_what_came_in_it, drop),
        cmocka_unit_test_teardown(a_thread_of_unknown_birth_is_told, drop),
        cmocka_unit_test_teardown(a_child_has_no_births, drop),
        cmocka_unit_test_teardown(refused_memory_is_no_profile, drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
