/*
 * Many requests read lines at once, and the kernel holds children that were told to end.
 * LDFLAGS: -Wl,--wrap=pep_os_clone_child,--wrap=pep_lines_child,--wrap=pep_os_kill
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "encoder/lines_child.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

#define CROWD 12
#define CHILDREN_MAX 4 /* as in lines_parent.c */
#define SECOND_NS UINT64_C(1000000000)

int __real_pep_os_clone_child(void);
int __wrap_pep_os_clone_child(void);
int __real_pep_os_kill(int pid, int sig);
int __wrap_pep_os_kill(int pid, int sig);
void __wrap_pep_lines_child(const struct pep_lines_task *task) __attribute__((noreturn));

static bool are_held, is_slow; /* held: they do not even die when they are told */
static int made;
static int pids[64];

int __wrap_pep_os_clone_child(void) {
    int pid = __real_pep_os_clone_child();
    if (pid > 0)
        pids[pep_add_relaxed(&made, 1) % 64] = pid;
    return pid;
}

int __wrap_pep_os_kill(int pid, int sig) {
    return are_held ? 0 : __real_pep_os_kill(pid, sig);
}

void __wrap_pep_lines_child(const struct pep_lines_task *task) {
    while (are_held || is_slow)
        pause();
    pep_store_release(&task->sheet->is_done, 1u);
    _exit(0);
}

static int read_within(uint64_t ns) {
    static const uint64_t address = 0x1000;
    struct pep_arena arena;
    pep_arena_init(&arena, 0);
    struct pep_lines_file file = {.addresses = &address, .count = 1};
    int error = pep_lines_read(&arena, &file, 1, pep_os_clock_ns(CLOCK_MONOTONIC) + ns);
    pep_arena_drop(&arena);
    return error;
}

static void *read_one(void *error) {
    *(int *)error = read_within(are_held ? SECOND_NS / 20 : 60 * SECOND_NS);
    return NULL;
}

static void crowd(int errors[CROWD]) {
    pthread_t threads[CROWD];
    made = 0;
    for (size_t i = 0; i < CROWD; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_one, &errors[i]), 0);
    for (size_t i = 0; i < CROWD; i++)
        pthread_join(threads[i], NULL);
}

static void nobody_is_left(void) {
    assert_int_equal(waitpid(-1, NULL, __WALL | WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

/* What the kernel held is dead now, and nobody has waited for it. */
static void let_go(void) {
    are_held = false;
    for (int i = 0; i < made; i++) {
        siginfo_t info;
        assert_int_equal(kill(pids[i], SIGKILL), 0);
        assert_int_equal(waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOWAIT | __WALL), 0);
    }
}

static void a_crowd_is_served_in_turn(void **state) {
    (void)state;
    int errors[CROWD];
    crowd(errors);
    for (size_t i = 0; i < CROWD; i++)
        assert_int_equal(errors[i], 0);
    assert_int_equal(made, CROWD);
    nobody_is_left();
}

static void no_child_is_forgotten(void **state) {
    (void)state;
    int errors[CROWD];
    are_held = true;
    crowd(errors);
    for (size_t i = 0; i < CROWD; i++)
        assert_true(errors[i] == -ETIME || errors[i] == -EBUSY);
    assert_int_equal(made, CHILDREN_MAX);
    assert_int_equal(read_within(SECOND_NS), -EBUSY);
    assert_int_equal(made, CHILDREN_MAX);
    let_go();
    assert_int_equal(read_within(60 * SECOND_NS), 0);
    nobody_is_left();
}

static void a_forked_child_has_places_of_its_own(void **state) {
    (void)state;
    int errors[CROWD], status;
    are_held = true;
    crowd(errors);
    int pid = fork();
    if (pid == 0) {
        are_held = false;
        pep_lines_after_fork_child();
        _exit(read_within(60 * SECOND_NS) == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    let_go();
    assert_int_equal(read_within(60 * SECOND_NS), 0);
    nobody_is_left();
}

static void *read_long(void *error) {
    *(int *)error = read_within(60 * SECOND_NS);
    return NULL;
}

static void before_an_exec_none_is_left(void **state) {
    (void)state;
    pthread_t threads[CROWD];
    int errors[CROWD];
    made = 0;
    is_slow = true;
    for (size_t i = 0; i < CROWD; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_long, &errors[i]), 0);
    while (pep_load_acquire(&made) < CHILDREN_MAX)
        pep_os_sleep_ns(1000000);
    pep_lines_recall();
    nobody_is_left();
    assert_int_equal(made, CHILDREN_MAX);
    for (size_t i = 0; i < CROWD; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(errors[i], -ECANCELED);
    }
    assert_int_equal(read_within(60 * SECOND_NS), -ECANCELED);
    nobody_is_left();
    is_slow = false;
    pep_lines_recall_end(); /* the exec failed */
    assert_int_equal(read_within(60 * SECOND_NS), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crowd_is_served_in_turn),
        cmocka_unit_test(no_child_is_forgotten),
        cmocka_unit_test(before_an_exec_none_is_left),
        cmocka_unit_test(a_forked_child_has_places_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
