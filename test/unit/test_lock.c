/*
 * Waits and releases: who is charged with what, on a clock of our own and on the real one.
 */
/* LDFLAGS: -Wl,--wrap=pep_os_map -Wl,--wrap=pep_lock_now -rdynamic */
#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/lock.h"
#include "sampler/lock_internal.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

void *__real_pep_os_map(size_t size);
void *__wrap_pep_os_map(size_t size);
uint64_t __real_pep_lock_now(void);
uint64_t __wrap_pep_lock_now(void);
static bool has_no_memory;
static uint64_t clock_ns; /* 0: the real one */

void *__wrap_pep_os_map(size_t size) {
    return has_no_memory ? NULL : __real_pep_os_map(size);
}

uint64_t __wrap_pep_lock_now(void) {
    return clock_ns != 0 ? clock_ns : __real_pep_lock_now();
}

static struct pep_arena arena;

static int drop(void **state) {
    (void)state;
    has_no_memory = false;
    clock_ns = 0;
    pep_arena_drop(&arena);
    return 0;
}

static int every_wait(void **state) {
    (void)state;
    return pep_lock_init(1);
}

/* -- reading -------------------------------------------------------------------------------- */

struct sums {
    int64_t count, ns;
};

static struct sums sum(enum pep_lock_side side, const char *kind) {
    struct sums sums = {0, 0};
    const struct pep_profile *profile = pep_profile_lock(&arena, side, NULL, NULL);
    assert_non_null(profile);
    for (uint32_t i = 0; i < profile->sample_count; i++) {
        const struct pep_sample *sample = &profile->samples[i];
        if (kind != NULL && (sample->state == NULL || strcmp(sample->state, kind) != 0))
            continue;
        sums.count += sample->values[0];
        sums.ns += sample->values[1];
    }
    return sums;
}

static struct sums rise(struct sums before, enum pep_lock_side side, const char *kind) {
    struct sums now = sum(side, kind);
    return (struct sums){now.count - before.count, now.ns - before.ns};
}

/* -- before the first event ----------------------------------------------------------------- */

static void kinds_have_names(void **state) {
    (void)state;
    assert_null(pep_lock_kind_name(PEP_LOCK_NONE));
    assert_null(pep_lock_kind_name(PEP_LOCK_KINDS));
    assert_string_equal(pep_lock_kind_name(PEP_LOCK_MUTEX), "mutex");
    assert_string_equal(pep_lock_kind_name(PEP_LOCK_COND), "condition variable");
    for (uint16_t kind = 1; kind < PEP_LOCK_KINDS; kind++)
        assert_non_null(pep_lock_kind_name(kind));
}

static void the_finest_rate_counts(void **state) {
    (void)state;
    assert_int_equal(pep_lock_rate(), 0);
    assert_int_equal(pep_lock_init(10000), 0);
    assert_int_equal(pep_lock_rate(), 10000);
    assert_int_equal(pep_lock_begin(0), -22);
    assert_int_equal(pep_lock_begin(50000), 0);
    assert_int_equal(pep_lock_rate(), 10000);
    assert_int_equal(pep_lock_begin(100), 0);
    assert_int_equal(pep_lock_begin(100), 0);
    assert_int_equal(pep_lock_begin(7), 0);
    assert_int_equal(pep_lock_rate(), 7);
    pep_lock_end(7);
    pep_lock_end(100);
    assert_int_equal(pep_lock_rate(), 100);
    pep_lock_end(100);
    pep_lock_end(100); /* one too many: nothing */
    pep_lock_end(0);
    assert_int_equal(pep_lock_rate(), 10000);
    assert_int_equal(pep_lock_init(0), 0);
    assert_int_equal(pep_lock_rate(), 50000);
    pep_lock_end(50000);
    assert_int_equal(pep_lock_rate(), 0);
    for (int i = 0; i < 64; i++)
        assert_int_equal(pep_lock_begin(5), 0);
    assert_int_equal(pep_lock_begin(5), -16);
    for (int i = 0; i < 64; i++)
        pep_lock_end(5);
    assert_int_equal(pep_lock_rate(), 0);
}

static void at_rate_0_nothing_is_noted(void **state) {
    (void)state;
    int lock = 0;
    struct pep_lock_wait wait;
    struct pep_lock_release release;
    struct pep_lock_note note;
    pep_lock_wait_begin(&wait, &lock, PEP_LOCK_MUTEX);
    assert_false(pep_lock_is_waited(&lock));
    assert_false(pep_lock_note_of(getpid(), &note));
    pep_lock_release_begin(&release, &lock, PEP_LOCK_MUTEX);
    assert_int_equal(release.waited_ns, 0);
    pep_lock_release_end(&release, true);
    pep_lock_wait_end(&wait);
    assert_int_equal(sum(PEP_LOCK_BLOCK, NULL).count, 0);
}

static void without_a_slot_the_wait_alone_is_recorded(void **state) {
    (void)state;
    int lock = 0;
    struct pep_lock_wait wait;
    struct pep_lock_release release;
    uint64_t lost = PEP_COUNTED(cells_lost);
    has_no_memory = true; /* nor are there cells */
    clock_ns = 1000;
    pep_lock_wait_begin(&wait, &lock, PEP_LOCK_MUTEX);
    assert_false(pep_lock_is_waited(&lock));
    clock_ns = 1500;
    pep_lock_release_begin(&release, &lock, PEP_LOCK_MUTEX);
    pep_lock_release_end(&release, true);
    pep_lock_wait_end(&wait);
    has_no_memory = false;
    assert_int_equal(PEP_COUNTED(cells_lost), lost + 1);
    assert_int_equal(pep_threads_init(), 0);
}

/* -- waits ---------------------------------------------------------------------------------- */

static void a_wait_is_charged_to_both_sides(void **state) {
    (void)state;
    int lock = 0;
    struct sums block = sum(PEP_LOCK_BLOCK, "rwlock"), hold = sum(PEP_LOCK_HOLD, "rwlock");
    struct pep_lock_wait wait;
    struct pep_lock_release release;
    struct pep_lock_note note;
    clock_ns = 5000;
    pep_lock_wait_begin(&wait, &lock, PEP_LOCK_RWLOCK);
    assert_true(pep_lock_note_of(getpid(), &note));
    assert_ptr_equal(note.lock, &lock);
    assert_int_equal(note.kind, PEP_LOCK_RWLOCK);
    assert_int_equal(note.since_ns, 5000);
    assert_ptr_equal((void *)note.frame, &wait);
    assert_false(pep_lock_note_of(1 << 20, &note));
    /* Who lets go may be a thread without a slot, and stands on another stack. */
    clock_ns = 5700;
    release = (struct pep_lock_release){.lock = &lock, .kind = PEP_LOCK_RWLOCK};
    release.waited_ns = pep_lock_place_take(&lock, clock_ns);
    assert_int_equal(release.waited_ns, 700);
    pep_lock_release_end(&release, false);
    release.waited_ns = pep_lock_place_take(&lock, clock_ns);
    assert_int_equal(release.waited_ns, 700);
    pep_lock_release_end(&release, true);
    clock_ns = 5710;
    uint64_t unknown = PEP_COUNTED(lock_unknown_holder), events = PEP_COUNTED(lock_events);
    pep_lock_wait_end(&wait);
    assert_int_equal(PEP_COUNTED(lock_unknown_holder), unknown);
    assert_int_equal(PEP_COUNTED(lock_events), events + 1);
    assert_false(pep_lock_note_of(getpid(), &note));
    assert_false(pep_lock_is_waited(&lock));
    assert_int_equal(rise(block, PEP_LOCK_BLOCK, "rwlock").count, 1);
    assert_int_equal(rise(block, PEP_LOCK_BLOCK, "rwlock").ns, 710);
    assert_int_equal(rise(hold, PEP_LOCK_HOLD, "rwlock").count, 1);
    assert_int_equal(rise(hold, PEP_LOCK_HOLD, "rwlock").ns, 700);
}

static void nobody_seen_to_let_go_is_counted(void **state) {
    (void)state;
    int lock = 0;
    struct pep_lock_wait wait;
    uint64_t unknown = PEP_COUNTED(lock_unknown_holder);
    pep_lock_wait_begin(&wait, &lock, PEP_LOCK_SEMAPHORE);
    pep_lock_wait_end(&wait);
    assert_int_equal(PEP_COUNTED(lock_unknown_holder), unknown + 1);
    pep_lock_wait_begin(&wait, &lock, PEP_LOCK_JOIN); /* nobody could */
    assert_false(pep_lock_is_waited(&lock));
    pep_lock_wait_end(&wait);
    assert_int_equal(PEP_COUNTED(lock_unknown_holder), unknown + 1);
}

/* A thread's end, a semaphore's post: each from a frame of its own. */
__attribute__((noinline)) static void leave_by_longjmp(jmp_buf *back, const void *lock) {
    struct pep_lock_wait wait;
    pep_lock_wait_begin(&wait, lock, PEP_LOCK_SEMAPHORE);
    longjmp(*back, 1);
}

static void what_longjmp_left_goes_with_the_next_call(void **state) {
    (void)state;
    static int lock;
    jmp_buf back;
    struct pep_lock_wait wait;
    struct pep_lock_release release;
    struct pep_lock_note note;
    clock_ns = 1000;
    if (setjmp(back) == 0)
        leave_by_longjmp(&back, &lock);
    assert_true(pep_lock_is_waited(&lock));
    clock_ns = 9000;
    pep_lock_release_begin(&release, &lock, PEP_LOCK_SEMAPHORE);
    assert_int_equal(release.waited_ns, 0);
    assert_false(pep_lock_is_waited(&lock));
    if (setjmp(back) == 0)
        leave_by_longjmp(&back, &lock);
    pep_lock_wait_begin(&wait, &note, PEP_LOCK_MUTEX);
    assert_false(pep_lock_is_waited(&lock));
    assert_true(pep_lock_note_of(getpid(), &note));
    assert_ptr_equal(note.lock, &note);
    pep_lock_wait_end(&wait);
    if (setjmp(back) == 0)
        leave_by_longjmp(&back, &lock);
    pep_lock_thread_leave(pep_thread_self());
    assert_false(pep_lock_is_waited(&lock));
}

/* Handlers' waits inside each other: the two innermost have notes. */
__attribute__((noinline)) static void wait_deeper(int depth) {
    int lock = 0;
    struct pep_lock_wait wait;
    struct pep_lock_note note;
    pep_lock_wait_begin(&wait, &lock, PEP_LOCK_MUTEX);
    assert_true(pep_lock_is_waited(&lock));
    assert_true(pep_lock_note_of(getpid(), &note));
    assert_ptr_equal(note.lock, &lock);
    clock_ns += 10;
    if (depth < 3)
        wait_deeper(depth + 1);
    assert_int_equal(pep_lock_is_waited(&lock), depth >= 2);
    pep_lock_wait_end(&wait);
    assert_false(pep_lock_is_waited(&lock));
}

static void waits_nest(void **state) {
    (void)state;
    struct pep_lock_note note;
    struct sums block = sum(PEP_LOCK_BLOCK, "mutex");
    clock_ns = 1000;
    wait_deeper(0);
    assert_false(pep_lock_note_of(getpid(), &note));
    assert_int_equal(rise(block, PEP_LOCK_BLOCK, "mutex").count, 4);
    assert_int_equal(rise(block, PEP_LOCK_BLOCK, "mutex").ns, 40 + 30 + 20 + 10);
}

/* -- barriers ------------------------------------------------------------------------------- */

static void the_last_at_a_barrier_let_the_others_go(void **state) {
    (void)state;
    int barrier = 0;
    struct pep_lock_wait wait;
    struct sums hold = sum(PEP_LOCK_HOLD, "barrier"), block = sum(PEP_LOCK_BLOCK, "barrier");
    uint32_t place = pep_lock_place_join(&barrier, 1000); /* two that wait */
    assert_int_equal(pep_lock_place_join(&barrier, 2000), place);
    clock_ns = 5000;
    pep_lock_wait_begin(&wait, &barrier, PEP_LOCK_BARRIER);
    clock_ns = 5001;
    pep_lock_wait_end(&wait);
    assert_int_equal(rise(hold, PEP_LOCK_HOLD, "barrier").ns, 4000 + 3000);
    assert_int_equal(rise(block, PEP_LOCK_BLOCK, "barrier").ns, 1);
    pep_lock_wait_begin(&wait, &barrier, PEP_LOCK_BARRIER);
    *pep_lock_place_last(place) = 12345; /* somebody came after */
    pep_lock_wait_end(&wait);
    assert_int_equal(rise(hold, PEP_LOCK_HOLD, "barrier").count, 1);
    pep_lock_places_clear();
}

/* -- sampling ------------------------------------------------------------------------------- */

#define SIGMAS 6 /* 2e-9 each: the draws are others in every run */

static void short_waits_are_right_in_the_mean(void **state) {
    (void)state;
    static const uint64_t lengths[] = {37, 300, 999, 7000};
    enum { RATE = 1000, WAITS = 80000 };
    assert_int_equal(pep_lock_init(RATE), 0);
    for (size_t k = 0; k < PEP_COUNT_OF(lengths); k++) {
        struct sums before = sum(PEP_LOCK_BLOCK, "spinlock");
        for (int i = 0; i < WAITS; i++)
            pep_lock_charge(PEP_LOCK_BLOCK, PEP_LOCK_SPIN, lengths[k]);
        struct sums found = rise(before, PEP_LOCK_BLOCK, "spinlock");
        double length = (double)lengths[k], p = fmin(length / RATE, 1);
        double bound =
            SIGMAS * sqrt(WAITS * (1 - p) / p) + 1; /* of the count; the ns are so many more */
        print_message("  %5.0f ns: count %6ld, delay %9ld of %9.0f, bound %5.2f %%\n", length,
                      (long)found.count, (long)found.ns, WAITS * length, 100 * bound / WAITS);
        assert_true(fabs((double)found.ns / length - WAITS) <= bound);
        assert_true(fabs((double)found.count - WAITS) <= bound + SIGMAS * sqrt(WAITS * p));
    }
    pep_lock_charge(PEP_LOCK_BLOCK, PEP_LOCK_SPIN, 0);
    assert_int_equal(pep_lock_init(1), 0);
}

/* -- owners --------------------------------------------------------------------------------- */

struct ending {
    sem_t is_here, may_end;
    int tid;
};

static void *end_later(void *argument) {
    struct ending *ending = argument;
    ending->tid = gettid();
    sem_post(&ending->is_here);
    sem_wait(&ending->may_end);
    return NULL;
}

static void locks_tell_their_owner(void **state) {
    (void)state;
    pthread_mutexattr_t attributes;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, robust;
    pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
    assert_int_equal(pep_lock_owner(&mutex, PEP_LOCK_MUTEX), 0);
    pthread_mutex_lock(&mutex);
    assert_int_equal(pep_lock_owner(&mutex, PEP_LOCK_MUTEX), gettid());
    pthread_mutex_unlock(&mutex);
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&robust, &attributes);
    pthread_mutex_lock(&robust);
    assert_int_equal(pep_lock_owner(&robust, PEP_LOCK_MUTEX), gettid());
    pthread_mutex_unlock(&robust);
    assert_int_equal(pep_lock_owner(&robust, PEP_LOCK_MUTEX), 0);
    pthread_rwlock_rdlock(&rwlock);
    assert_int_equal(pep_lock_owner(&rwlock, PEP_LOCK_RWLOCK), 0);
    pthread_rwlock_unlock(&rwlock);
    pthread_rwlock_wrlock(&rwlock);
    assert_int_equal(pep_lock_owner(&rwlock, PEP_LOCK_RWLOCK), gettid());
    pthread_rwlock_unlock(&rwlock);
    struct ending ending;
    pthread_t thread;
    sem_init(&ending.is_here, 0, 0);
    sem_init(&ending.may_end, 0, 0);
    pthread_create(&thread, NULL, end_later, &ending);
    sem_wait(&ending.is_here);
    assert_int_equal(pep_lock_owner((const void *)thread, PEP_LOCK_JOIN), ending.tid);
    sem_post(&ending.may_end);
    pthread_join(thread, NULL);
    for (int kind = 0; kind < PEP_LOCK_KINDS; kind++)
        assert_int_equal(pep_lock_owner((const void *)0x1000, (enum pep_lock_kind)kind), 0);
    assert_int_equal(pep_lock_owner(&ending.is_here, PEP_LOCK_SEMAPHORE), 0);
}

/* -- profile, fork -------------------------------------------------------------------------- */

static void a_window_is_a_difference(void **state) {
    (void)state;
    struct pep_cells_snapshot *before = pep_lock_snapshot_take(&arena, PEP_LOCK_BLOCK);
    pep_lock_charge(PEP_LOCK_BLOCK, PEP_LOCK_FUTEX, 123456);
    const struct pep_profile *profile = pep_profile_lock(&arena, PEP_LOCK_BLOCK, before, NULL);
    assert_non_null(profile);
    assert_string_equal(profile->kind, "block");
    assert_string_equal(profile->types[0].type, "contentions");
    assert_string_equal(profile->types[1].unit, "nanoseconds");
    assert_int_equal(profile->sample_count, 1);
    assert_string_equal(profile->samples[0].state, "futex");
    assert_int_equal(profile->samples[0].values[0], 1);
    assert_int_equal(profile->samples[0].values[1], 123456);
    assert_int_equal(profile->samples[0].tid, getpid());
    assert_true(profile->comment_count >= 3);
    const struct pep_profile_filter nobody = {.thread = "nobody"};
    profile = pep_profile_lock(&arena, PEP_LOCK_HOLD, NULL, &nobody);
    assert_string_equal(profile->kind, "mutex");
    assert_int_equal(profile->sample_count, 0);
    struct pep_arena small;
    pep_arena_init(&small, 64);
    assert_null(pep_profile_lock(&small, PEP_LOCK_BLOCK, NULL, NULL));
    assert_null(pep_lock_snapshot_take(&small, PEP_LOCK_BLOCK));
    pep_arena_drop(&small);
}

static void in_a_forked_child_nobody_waits(void **state) {
    (void)state;
    int lock = 0, status;
    struct pep_lock_wait wait;
    struct pep_lock_note note;
    assert_int_equal(pep_lock_begin(1), 0);
    pep_lock_wait_begin(&wait, &lock, PEP_LOCK_MUTEX);
    pid_t child = fork();
    if (child == 0) {
        pep_lock_after_fork_child();
        pep_threads_after_fork();
        bool is_clean = !pep_lock_is_waited(&lock) && !pep_lock_note_of(gettid(), &note) &&
                        sum(PEP_LOCK_BLOCK, NULL).count == 0 && pep_lock_rate() == 1;
        pep_lock_wait_end(&wait); /* the call that the child returns from */
        _exit(is_clean && sum(PEP_LOCK_BLOCK, NULL).count == 1 && !pep_lock_is_waited(&lock) ? 0
                                                                                             : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(pep_lock_is_waited(&lock));
    pep_lock_wait_end(&wait);
    assert_false(pep_lock_is_waited(&lock));
    pep_lock_end(1);
}

static void the_clock_is_the_monotonic_one(void **state) {
    (void)state;
    for (int i = 0; i < 1000; i++) {
        uint64_t low = pep_os_clock_ns(CLOCK_MONOTONIC), now = __real_pep_lock_now();
        assert_true(low <= now && now <= pep_os_clock_ns(CLOCK_MONOTONIC));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds_have_names),
        cmocka_unit_test(the_finest_rate_counts),
        cmocka_unit_test_teardown(at_rate_0_nothing_is_noted, drop),
        cmocka_unit_test_setup_teardown(without_a_slot_the_wait_alone_is_recorded, every_wait,
                                        drop),
        cmocka_unit_test_teardown(a_wait_is_charged_to_both_sides, drop),
        cmocka_unit_test_teardown(nobody_seen_to_let_go_is_counted, drop),
        cmocka_unit_test_teardown(what_longjmp_left_goes_with_the_next_call, drop),
        cmocka_unit_test_teardown(waits_nest, drop),
        cmocka_unit_test_teardown(the_last_at_a_barrier_let_the_others_go, drop),
        cmocka_unit_test_teardown(short_waits_are_right_in_the_mean, drop),
        cmocka_unit_test_teardown(locks_tell_their_owner, drop),
        cmocka_unit_test_teardown(a_window_is_a_difference, drop),
        cmocka_unit_test_teardown(in_a_forked_child_nobody_waits, drop),
        cmocka_unit_test(the_clock_is_the_monotonic_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
