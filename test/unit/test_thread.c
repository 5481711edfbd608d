/* LDFLAGS: -Wl,--wrap=pep_os_map */
/* Slots: one a thread, found by tid, reused after its end; identities outlive their threads. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

/* And above: far from where the kernel counts now. */
#define NO_TID (getpid() > 1 << 21 ? 1 << 20 : 3 << 20)

static int refuse_maps;
void *__real_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes) {
    return refuse_maps ? NULL : __real_pep_os_map(size_bytes);
}

static void init_makes_the_main_thread_known(void **state) {
    (void)state;
    refuse_maps = 1;
    assert_int_equal(pep_threads_init(), -12);
    refuse_maps = 0;
    assert_null(pep_thread_self());
    assert_null(pep_thread_check(state));
    pep_thread_enter(0, 0); /* before init: nothing */
    pep_thread_leave();
    assert_int_equal(pep_threads_init(), 0);
    assert_int_equal(pep_threads_init(), 0);
    struct pep_thread *self = pep_thread_self();
    assert_non_null(self);
    assert_int_equal(self->tid, getpid());
    assert_true(self->is_registered);
    uintptr_t here = (uintptr_t)&self;
    assert_true(self->stack.lo < here && here < self->stack.hi);
    struct rlimit limit;
    getrlimit(RLIMIT_STACK, &limit);
    assert_true(self->stack.hi - self->stack.lo <= (64u << 20) + 256);
}

static void only_slots_pass_the_check(void **state) {
    (void)state;
    struct pep_thread *self = pep_thread_self();
    assert_ptr_equal(pep_thread_check(self), self);
    assert_null(pep_thread_check((char *)self + 1));
    assert_null(pep_thread_check(NULL));
    assert_null(pep_thread_check((void *)~0ul));
    assert_ptr_equal(pep_thread_of(getpid()), self);
    assert_null(pep_thread_of(0));
    assert_null(pep_thread_of(-5));
    assert_null(pep_thread_of(1 << 30));
}

struct visit {
    int tid;
    uint32_t identity;
    uint32_t serial;
    struct pep_thread *slot;
    bool is_in_range;
};

static void *live(void *argument) {
    struct visit *visit = argument;
    pep_thread_enter((uintptr_t)pthread_self(), 8u << 20);
    pthread_setname_np(pthread_self(), "first name");
    visit->slot = pep_thread_self();
    visit->tid = visit->slot->tid;
    visit->serial = visit->slot->armed_serial;
    visit->identity = pep_thread_identity(visit->slot);
    uintptr_t here = (uintptr_t)&visit;
    visit->is_in_range = visit->slot->stack.lo < here && here < visit->slot->stack.hi;
    pthread_setname_np(pthread_self(), "last name");
    pep_thread_leave();
    return pep_thread_self();
}

static void a_thread_takes_a_slot_and_gives_it_back(void **state) {
    (void)state;
    struct visit one, two;
    pthread_t thread;
    void *after;
    pthread_create(&thread, NULL, live, &one);
    pthread_join(thread, &after);
    assert_null(after);
    assert_true(one.is_in_range);
    assert_null(pep_thread_of(one.tid));
    assert_int_equal(one.slot->tid, 0);
    pthread_create(&thread, NULL, live, &two);
    pthread_join(thread, NULL);
    assert_ptr_equal(two.slot, one.slot);
    assert_int_not_equal(two.serial, one.serial); /* what was armed for the first is stale */
    assert_int_not_equal(two.identity, one.identity);
    char name[16];
    pep_identity_name(one.identity, name);
    assert_string_equal(name, "last name");
    assert_int_equal(pep_identity_get(one.identity)->tid, one.tid);
    assert_null(pep_identity_get(0));
    assert_null(pep_identity_get(PEP_IDENTITIES_MAX));
    pep_identity_name(PEP_IDENTITIES_MAX - 1, name);
    assert_string_equal(name, "");
}

static void live_names_are_read_again(void **state) {
    (void)state;
    uint32_t identity = pep_thread_identity(pep_thread_self());
    assert_int_equal(pep_thread_identity(pep_thread_self()), identity);
    pthread_setname_np(pthread_self(), "renamed");
    pep_identities_refresh();
    char name[16];
    pep_identity_name(identity, name);
    assert_string_equal(name, "renamed");
    pthread_setname_np(pthread_self(), "fifteen letters");
    pep_identities_refresh();
    pep_identity_name(identity, name);
    assert_string_equal(name, "fifteen letters");
}

static void *churn(void *argument) {
    for (int i = 0; i < 2000; i++) {
        pep_thread_enter((uintptr_t)&i, 1u << 20);
        struct pep_thread *self = pep_thread_self();
        if (self == NULL || self->tid != pep_os_gettid() || pep_thread_of(self->tid) != self)
            return argument;
        if (i % 7 == 0)
            sched_yield();
        pep_thread_leave();
    }
    return NULL;
}

static void eight_threads_churn(void **state) {
    (void)state;
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, churn, threads);
    for (int i = 0; i < 8; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    uint32_t used = 0;
    for (uint32_t i = 0; i < pep_threads_limit(); i++)
        used += pep_thread_at(i)->tid != 0;
    assert_int_equal(used, 1);
    assert_true(pep_threads_limit() <= 9);
}

static void *be_own(void *argument) {
    (void)argument;
    pep_thread_become_own();
    struct pep_thread *self = pep_thread_self();
    pep_thread_enter(1u << 20, 1u << 16); /* does nothing here */
    bool is_right = pep_thread_is_own() && self != NULL && self->is_own && !self->is_registered;
    pep_thread_leave();
    return is_right ? (void *)1 : NULL;
}

static void own_threads_are_marked(void **state) {
    (void)state;
    pthread_t thread;
    void *is_right;
    pthread_create(&thread, NULL, be_own, NULL);
    pthread_join(thread, &is_right);
    assert_non_null(is_right);
    assert_false(pep_thread_is_own());
}

static void *inherit(void *argument) {
    (void)argument;
    pep_thread_adopt(gettid())->is_own = true;
    pep_thread_enter((uintptr_t)pthread_self(), 8u << 20);
    void *seen = pep_thread_self()->is_own ? NULL : pep_thread_self();
    pep_thread_leave();
    return seen;
}

static void the_tid_of_a_dead_thread_of_ours_is_the_hosts(void **state) {
    (void)state;
    pthread_t thread;
    void *seen;
    pthread_create(&thread, NULL, inherit, NULL);
    pthread_join(thread, &seen);
    assert_non_null(seen);
}

static void unknown_threads_are_adopted_and_forgotten(void **state) {
    (void)state;
    int tid = NO_TID; /* a raw clone's, already gone */
    struct pep_thread *thread = pep_thread_adopt(tid);
    assert_non_null(thread);
    assert_false(thread->is_registered);
    assert_int_equal(thread->stack.hi, 0);
    assert_ptr_equal(pep_thread_adopt(tid), thread);
    pep_thread_forget(thread);
    assert_null(pep_thread_of(tid));
    pep_thread_forget(thread);
    assert_null(pep_thread_adopt(0));
}

static void a_forked_child_has_one_thread(void **state) {
    (void)state;
    struct pep_thread *other = pep_thread_adopt(NO_TID + 1);
    uint32_t identity = pep_thread_identity(pep_thread_self());
    struct pep_stack_range stack = pep_thread_self()->stack;
    pid_t child = fork();
    if (child == 0) {
        pep_threads_after_fork();
        struct pep_thread *self = pep_thread_self();
        bool is_right = self != NULL && self->tid == getpid() && self->identity == 0 &&
                        self->stack.hi == stack.hi && pep_thread_of(NO_TID + 1) == NULL &&
                        pep_thread_of(getppid()) == NULL && pep_identity_get(identity) != NULL;
        _exit(is_right ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    pep_thread_forget(other);
}

static void full_tables_are_counted(void **state) {
    (void)state;
    uint64_t before = PEP_COUNTED(thread_slots_full);
    int tid = NO_TID;
    for (int i = 0; i < PEP_THREADS_MAX - 1; i++)
        assert_non_null(pep_thread_adopt(tid + i));
    assert_int_equal(PEP_COUNTED(thread_slots_full), before);
    assert_null(pep_thread_adopt(tid + PEP_THREADS_MAX));
    assert_int_equal(PEP_COUNTED(thread_slots_full), before + 1);
    struct pep_thread *one = pep_thread_of(tid);
    before = PEP_COUNTED(thread_identities_full);
    for (int i = 0; i < PEP_IDENTITIES_MAX; i++) {
        one->identity = 0;
        if (pep_thread_identity(one) == 0)
            break;
    }
    assert_int_equal(PEP_COUNTED(thread_identities_full), before + 1);
    assert_int_equal(pep_thread_identity(one), 0);
    for (int i = 0; i < PEP_THREADS_MAX - 1; i++)
        pep_thread_forget(pep_thread_of(tid + i));
    assert_non_null(pep_thread_self());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_makes_the_main_thread_known),
        cmocka_unit_test(only_slots_pass_the_check),
        cmocka_unit_test(a_thread_takes_a_slot_and_gives_it_back),
        cmocka_unit_test(live_names_are_read_again),
        cmocka_unit_test(eight_threads_churn),
        cmocka_unit_test(own_threads_are_marked),
        cmocka_unit_test(the_tid_of_a_dead_thread_of_ours_is_the_hosts),
        cmocka_unit_test(unknown_threads_are_adopted_and_forgotten),
        cmocka_unit_test(a_forked_child_has_one_thread),
        cmocka_unit_test(full_tables_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
