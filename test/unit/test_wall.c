/*
 * Wall clock windows over real threads: whose time is charged, to what, and that nothing is left.
 * LDFLAGS: -Wl,--wrap=pep_os_map,--wrap=pthread_create,--wrap=pep_looker_open
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/ask.h"
#include "sampler/cpu.h"
#include "sampler/look.h"
#include "sampler/modules.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"
#include "sampler/wall.h"
#include "test/unit/waiters.h"

static int refuse_maps, refuse_threads, refuse_lookers;
void *__real_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes) {
    return refuse_maps ? NULL : __real_pep_os_map(size_bytes);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*f)(void *),
                          void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*f)(void *),
                          void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*f)(void *),
                          void *argument) {
    return refuse_threads ? EAGAIN : __real_pthread_create(thread, attributes, f, argument);
}

struct pep_looker *__real_pep_looker_open(struct pep_arena *arena);
struct pep_looker *__wrap_pep_looker_open(struct pep_arena *arena);
struct pep_looker *__wrap_pep_looker_open(struct pep_arena *arena) {
    return pep_load_relaxed(&refuse_lookers) ? NULL : __real_pep_looker_open(arena);
}

static struct pep_arena arena;

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

static uint32_t host_threads(void) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < pep_threads_limit(); i++)
        count += pep_thread_at(i)->tid != 0 && !pep_thread_at(i)->is_own;
    return count;
}

static bool has_reader(void) {
    for (uint32_t i = 0; i < pep_threads_limit(); i++)
        if (pep_thread_at(i)->tid != 0 && pep_thread_at(i)->is_own)
            return true;
    return false;
}

/* -- threads with a task -------------------------------------------------------------------- */

enum { PHASE_BORN, PHASE_GO, PHASE_END };
static int phase;

struct actor {
    pthread_t thread;
    int tid;
    int is_spinning;
};

static void *play(void *argument) {
    struct actor *actor = argument;
    pthread_setname_np(pthread_self(), actor->is_spinning ? "spins" : "rests");
    pep_thread_enter((uintptr_t)__builtin_frame_address(0), 0);
    pep_store_release(&actor->tid, pep_os_gettid());
    while (pep_load_acquire(&phase) != PHASE_END) {
        if (!actor->is_spinning)
            pep_os_futex_wait(&phase, PHASE_GO, 60000000000u);
    }
    pep_thread_leave();
    return NULL;
}

static void enter(struct actor *actor, int is_spinning) {
    *actor = (struct actor){.is_spinning = is_spinning};
    pep_store_release(&phase, PHASE_GO);
    assert_int_equal(pthread_create(&actor->thread, NULL, play, actor), 0);
    while (pep_load_acquire(&actor->tid) == 0)
        pep_os_sleep_ns(100000);
    if (!is_spinning)
        waiter_await(actor->tid, 'S');
}

static void leave(struct actor *actors, int count) {
    pep_store_release(&phase, PHASE_END);
    pep_os_futex_wake(&phase, 1000);
    for (int i = 0; i < count; i++)
        pthread_join(actors[i].thread, NULL);
}

/* Nanoseconds of a thread in a state (NULL: in any). */
static int64_t time_of(const struct pep_profile *profile, int tid, const char *state) {
    int64_t sum = 0;
    for (uint32_t i = 0; i < profile->sample_count; i++) {
        const struct pep_sample *sample = &profile->samples[i];
        if (sample->tid == tid && (!state || (sample->state && !strcmp(sample->state, state))))
            sum += sample->values[1];
    }
    return sum;
}

/* A window is open at least from its beginning's end to its reading's beginning. */
static uint64_t opened_ns, read_ns;

static int64_t least_ns(void) {
    return (int64_t)(read_ns - opened_ns);
}

/* A window's profile must say this much of a thread that lived all the time. */
static void expect_whole(const struct pep_profile *profile, int tid) {
    int64_t sum = time_of(profile, tid, NULL);
    if (sum * 100 < least_ns() * 99 || sum * 100 > profile->duration_ns * 101)
        fail_msg("%lld ns of a window of %lld", (long long)sum, (long long)profile->duration_ns);
}

/* Whoever has not been looked at yet has done nothing that is known. */
static void await_look(uint64_t looks_before) {
    while (PEP_COUNTED(looks) == looks_before)
        pep_os_sleep_ns(1000000);
}

/* Its thread starts when it gets a processor. */
static void await_reader(void) {
    while (!has_reader())
        pep_os_sleep_ns(1000000);
}

static struct pep_profile *window(uint32_t hz, uint64_t ns, const char *thread) {
    struct pep_profile_filter filter = {.thread = thread};
    struct pep_cells_snapshot *before = pep_wall_snapshot_take(&arena);
    uint64_t looks = PEP_COUNTED(looks);
    assert_non_null(before);
    assert_int_equal(pep_wall_begin(hz), 0);
    opened_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    pep_os_sleep_ns(ns);
    if (!refuse_lookers)
        await_look(looks);
    read_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    struct pep_profile *profile = pep_profile_wall(&arena, before, hz, &filter);
    pep_wall_end(hz);
    assert_non_null(profile);
    return profile;
}

/* -- tests ---------------------------------------------------------------------------------- */

static void what_cannot_begin_says_so(void **state) {
    (void)state;
    assert_int_equal(pep_wall_begin(PEP_WALL_HZ_MIN - 1), -EINVAL);
    assert_int_equal(pep_wall_begin(PEP_WALL_HZ_MAX + 1), -EINVAL);
    refuse_maps = 1;
    assert_int_equal(pep_wall_begin(100), -ENOMEM);
    refuse_maps = 0;
    refuse_threads = 1;
    assert_int_equal(pep_wall_begin(100), -EAGAIN);
    refuse_threads = 0;
    assert_false(has_reader());
    /* The time of nobody: no window was open. */
    struct pep_cells_snapshot *before = pep_wall_snapshot_take(&arena);
    struct pep_profile *profile = pep_profile_wall(&arena, before, 100, NULL);
    assert_int_equal(profile->sample_count, 0);
    assert_null(pep_profile_wall(&arena, NULL, 100, NULL));
    assert_null(pep_profile_wall(&arena, before, 0, NULL));
    refuse_maps = 1;
    struct pep_arena none;
    pep_arena_init(&none, 0);
    assert_null(pep_wall_snapshot_take(&none));
    assert_null(pep_profile_wall(&none, before, 100, NULL));
    refuse_maps = 0;
    pep_arena_drop(&none);
}

static void every_thread_gets_the_window(void **state) {
    (void)state;
    struct actor actors[4];
    for (int i = 0; i < 4; i++)
        enter(&actors[i], i == 0);
    int sleeper = waiter_start(&waiter_kinds[3]);
    assert_non_null(pep_thread_adopt(sleeper));
    struct pep_profile *profile = window(200, 1000000000, NULL);
    assert_string_equal(profile->kind, "wall");
    assert_string_equal(profile->types[0].type, "samples");
    assert_string_equal(profile->types[1].type, "time");
    assert_string_equal(profile->period_type.type, "wallclock");
    assert_int_equal(profile->default_type, 1);
    assert_int_equal(profile->period, 5000000);
    assert_true(profile->comment_count >= 1);
    assert_non_null(strstr(profile->comments[0], "6 threads"));
    for (int i = 0; i < 4; i++)
        expect_whole(profile, actors[i].tid);
    expect_whole(profile, pep_os_gettid());
    /* One look may fall into the first moment. */
    assert_true(time_of(profile, actors[0].tid, "running") > least_ns() * 95 / 100);
    for (int i = 1; i < 4; i++)
        assert_true(time_of(profile, actors[i].tid, "futex wait") > least_ns() * 99 / 100);
    assert_true(time_of(profile, sleeper, "sleep") > least_ns() * 99 / 100);
    assert_false(has_reader());
    profile = window(200, 50000000, "spins");
    for (uint32_t i = 0; i < profile->sample_count; i++)
        assert_string_equal(profile->samples[i].thread, "spins");
    assert_true(profile->sample_count > 0);
    leave(actors, 4);
}

static void a_thread_by_raw_clone_is_met(void **state) {
    (void)state;
    /* Not through the hook: nobody told us. */
    uint32_t before = host_threads();
    struct actor actor = {.is_spinning = 1};
    pep_store_release(&phase, PHASE_GO);
    struct pep_profile *profile = window(100, 10000000, NULL);
    enter(&actor, 0);
    pep_thread_forget(pep_thread_of(actor.tid));
    assert_int_equal(host_threads(), before);
    struct pep_cells_snapshot *start = pep_wall_snapshot_take(&arena);
    assert_int_equal(pep_wall_begin(100), 0);
    int64_t met;
    do {
        pep_os_sleep_ns(1000000);
        profile = pep_profile_wall(&arena, start, 100, NULL);
    } while ((met = time_of(profile, actor.tid, "futex wait")) == 0);
    pep_os_sleep_ns(100000000);
    profile = pep_profile_wall(&arena, start, 100, NULL);
    pep_wall_end(100);
    assert_true(time_of(profile, actor.tid, "futex wait") - met >= 100000000);
    leave(&actor, 1);
}

static void windows_share_one_reader(void **state) {
    (void)state;
    struct actor actor;
    enter(&actor, 0);
    struct pep_cells_snapshot *long_before = pep_wall_snapshot_take(&arena);
    uint64_t looks = PEP_COUNTED(looks);
    assert_int_equal(pep_wall_begin(1), 0);
    await_look(looks);
    struct pep_profile_filter all = {.thread = NULL};
    struct pep_cells_snapshot *short_before = pep_wall_snapshot_take(&arena);
    assert_int_equal(pep_wall_begin(1000), 0);
    opened_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    pep_os_sleep_ns(200000000);
    read_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    struct pep_profile *profile = pep_profile_wall(&arena, short_before, 1000, &all);
    pep_wall_end(1000);
    expect_whole(profile, actor.tid);
    assert_true(has_reader());
    profile = pep_profile_wall(&arena, long_before, 1, NULL);
    expect_whole(profile, actor.tid);
    struct pep_profile_filter filter = {.thread = NULL};
    struct pep_cells_snapshot *later = pep_wall_snapshot_take(&arena);
    assert_int_equal(pep_wall_begin(50), 0);
    pep_os_sleep_ns(20000000);
    profile = pep_profile_wall(&arena, later, 1, &filter);
    assert_int_equal(profile->period, 1000000000);
    bool is_told = false; /* that somebody asked for more */
    for (uint32_t i = 0; i < profile->comment_count; i++)
        is_told = is_told || strstr(profile->comments[i], "runs at 50 Hz");
    assert_true(is_told);
    pep_wall_end(50);
    pep_wall_end(1);
    assert_false(has_reader());
    leave(&actor, 1);
}

static void a_pause_is_charged_to_what_comes_after(void **state) {
    (void)state;
    struct actor actor;
    enter(&actor, 0);
    struct pep_cells_snapshot *before = pep_wall_snapshot_take(&arena);
    uint64_t looks = PEP_COUNTED(looks);
    assert_int_equal(pep_wall_begin(100), 0);
    opened_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    pep_os_sleep_ns(50000000);
    await_look(looks);
    pep_wall_pause();
    assert_false(has_reader());
    assert_int_equal(pep_wall_begin(200), 0); /* no thread for it either */
    assert_false(has_reader());
    pep_os_sleep_ns(50000000);
    pep_wall_resume();
    await_reader();
    pep_os_sleep_ns(50000000);
    read_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    struct pep_profile *profile = pep_profile_wall(&arena, before, 100, NULL);
    pep_wall_end(200);
    pep_wall_end(100);
    assert_false(has_reader());
    pep_wall_pause();
    pep_wall_resume(); /* without a window: nothing to read */
    assert_false(has_reader());
    expect_whole(profile, actor.tid);
    leave(&actor, 1);
}

static void without_memory_to_look_nothing_is_read(void **state) {
    (void)state;
    pep_store_relaxed(&refuse_lookers, 1);
    struct pep_profile *profile = window(100, 20000000, NULL);
    pep_store_relaxed(&refuse_lookers, 0);
    assert_int_equal(profile->sample_count, 0);
}

static void a_forked_child_has_no_window(void **state) {
    (void)state;
    assert_int_equal(pep_wall_begin(100), 0);
    await_reader();
    pid_t child = fork();
    if (child == 0) {
        pep_modules_after_fork();
        pep_threads_after_fork();
        pep_cpu_after_fork_child();
        pep_ask_after_fork_child();
        pep_wall_after_fork_child();
        pep_arena_drop(&arena);
        bool is_right = !has_reader();
        struct pep_profile *profile = window(300, 100000000, NULL);
        is_right = is_right && time_of(profile, pep_os_gettid(), NULL) > 99000000;
        _exit(is_right && !has_reader() ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(has_reader());
    pep_wall_end(100);
    assert_false(has_reader());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_cannot_begin_says_so, begin, end),
        cmocka_unit_test_setup_teardown(every_thread_gets_the_window, begin, end),
        cmocka_unit_test_setup_teardown(a_thread_by_raw_clone_is_met, begin, end),
        cmocka_unit_test_setup_teardown(windows_share_one_reader, begin, end),
        cmocka_unit_test_setup_teardown(a_pause_is_charged_to_what_comes_after, begin, end),
        cmocka_unit_test_setup_teardown(without_memory_to_look_nothing_is_read, begin, end),
        cmocka_unit_test_setup_teardown(a_forked_child_has_no_window, begin, end),
    };
    const struct pep_cpu_options options = {.engine = PEP_CPU_AUTO};
    if (pep_threads_init() != 0 || pep_cpu_init(&options) != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
