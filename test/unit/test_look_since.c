/*
 * Since when a thread waits, where processors are taken away: what the kernel tells is made up, so
 * that each law can be told to the nanosecond, but for when our own clock was read.
 * LDFLAGS: -Wl,--wrap=pep_os_call6
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/look_internal.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define MS 1000000ll
#define SECOND (1000 * MS)
#define OTHER_TID 4194305 /* no thread has it: one more than the kernel gives */
#define OTHER_NAME "4194305/sched"
#define HOME 3 /* where our thread is */
#define AWAY 9

/* What the kernel tells, made up. */
static struct {
    int64_t other_ran, we_ran[PEP_LOOK_PROCESSORS];
    uint64_t allowed[16], bound[16]; /* processors */
    int processor;                   /* where we are */
    int binds;
    bool is_refused, is_elsewhere; /* asked to go to another processor; and, it does not happen */
} kernel;
static struct pep_arena arena;
static struct pep_looker *looker;

static int open_text(const char *text) {
    int fd = memfd_create("sched", MFD_CLOEXEC);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static int open_sched(bool is_other) {
    int64_t ran = is_other ? kernel.other_ran : kernel.we_ran[kernel.processor];
    char text[200];
    snprintf(text, sizeof text,
             "name (1, #threads: 2)\n---\nse.exec_start  :  %lld.%06lld\nse.x : 7\n",
             (long long)(ran / MS), (long long)(ran % MS));
    return open_text(text);
}

static long bind_us(size_t bytes, const void *mask) {
    if (kernel.is_refused)
        return -EPERM;
    kernel.binds++;
    memcpy(kernel.bound, mask, bytes);
    for (int i = 0; i < 1024 && !kernel.is_elsewhere; i++)
        if (kernel.bound[i / 64] == 1ull << i % 64)
            kernel.processor = i;
    return 0;
}

long __real_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f) {
    switch (nr) {
    case SYS_openat: {
        const char *slash = strrchr((const char *)b, '/');
        if (slash == NULL || strcmp(slash, "/sched") != 0)
            break;
        return open_sched(strstr((const char *)b, OTHER_NAME) != NULL);
    }
    case SYS_sched_getaffinity:
        assert_true((size_t)b >= sizeof kernel.allowed);
        memcpy((void *)c, kernel.allowed, sizeof kernel.allowed);
        return sizeof kernel.allowed;
    case SYS_sched_setaffinity:
        return bind_us((size_t)b, (const void *)c);
    case SYS_getcpu:
        *(unsigned *)a = (unsigned)kernel.processor;
        return 0;
    default:
        break;
    }
    return __real_pep_os_call6(nr, a, b, c, d, e, f);
}

static int setup(void **state) {
    (void)state;
    memset(&kernel, 0, sizeof kernel);
    kernel.processor = HOME;
    kernel.allowed[0] = 1ull << HOME | 1ull << AWAY;
    memcpy(kernel.bound, kernel.allowed, sizeof kernel.bound);
    int64_t now = (int64_t)pep_os_clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < PEP_LOOK_PROCESSORS; i++)
        kernel.we_ran[i] = now - i * 100 * MS; /* so much was taken from each */
    pep_arena_init(&arena, 0);
    looker = pep_looker_open(&arena);
    return looker != NULL ? 0 : -1;
}

/* Wherever it went, our thread may again run where it might before. */
static int teardown(void **state) {
    (void)state;
    pep_looker_close(looker);
    pep_arena_drop(&arena);
    return memcmp(kernel.bound, kernel.allowed, sizeof kernel.bound);
}

static uint64_t since_on(int processor) {
    struct pep_look look = {
        .kind = PEP_LOOK_WAITS, .tid = OTHER_TID, .state = 'S', .processor = processor};
    return pep_look_since(looker, &look);
}

/* So far from our own last run there; that was between the two readings here. */
static void assert_apart(int processor, int64_t apart_ns) {
    uint64_t before = pep_os_clock_ns(CLOCK_MONOTONIC);
    uint64_t since = since_on(processor);
    uint64_t after = pep_os_clock_ns(CLOCK_MONOTONIC);
    assert_true(since >= before + (uint64_t)apart_ns);
    assert_true(since <= after + (uint64_t)apart_ns);
}

static void each_processor_is_asked_for_its_own_clock(void **state) {
    (void)state;
    kernel.other_ran = kernel.we_ran[HOME] - SECOND - 1;
    assert_apart(HOME, -SECOND - 1);
    kernel.other_ran = kernel.we_ran[AWAY] - SECOND - 1;
    assert_apart(AWAY, -SECOND - 1);
}

static void a_processor_is_measured_once(void **state) {
    (void)state;
    kernel.other_ran = kernel.we_ran[AWAY] - SECOND;
    uint64_t since = since_on(AWAY);
    assert_int_equal(kernel.binds, 2); /* there, and free again */
    kernel.we_ran[AWAY] += 50 * MS;
    assert_int_equal(since_on(AWAY), since);
    assert_int_equal(kernel.binds, 2);
}

/* With the old measure it might be told too long. */
static void a_wait_that_began_later_is_measured_anew(void **state) {
    (void)state;
    kernel.other_ran = kernel.we_ran[AWAY] - SECOND;
    assert_true(since_on(AWAY) > 0);
    kernel.other_ran += 2 * SECOND;
    kernel.we_ran[AWAY] += 3 * SECOND;
    assert_apart(AWAY, -2 * SECOND);
    assert_int_equal(kernel.binds, 4);
}

static void nobody_waits_since_later_than_now(void **state) {
    (void)state;
    kernel.other_ran = kernel.we_ran[HOME] + SECOND;
    uint64_t before = pep_os_clock_ns(CLOCK_MONOTONIC);
    uint64_t since = since_on(HOME);
    assert_true(since >= before);
    assert_true(since <= pep_os_clock_ns(CLOCK_MONOTONIC));
}

static void where_we_may_not_go_nothing_is_told(void **state) {
    (void)state;
    kernel.other_ran = kernel.we_ran[AWAY] - SECOND;
    kernel.allowed[0] = kernel.bound[0] = 1ull << HOME;
    assert_int_equal(since_on(AWAY), 0);
    assert_int_equal(kernel.binds, 0);
    assert_int_equal(since_on(-1), 0);
    assert_int_equal(since_on(PEP_LOOK_PROCESSORS), 0);
    assert_int_equal(since_on(PEP_LOOK_PROCESSORS - 1), 0);
    kernel.is_refused = true;
    assert_int_equal(since_on(HOME), 0);
}

static void where_we_do_not_arrive_nothing_is_told(void **state) {
    (void)state;
    kernel.other_ran = kernel.we_ran[AWAY] - SECOND;
    kernel.is_elsewhere = true;
    assert_int_equal(since_on(AWAY), 0);
}

static void who_has_not_run_there_is_not_told(void **state) {
    (void)state;
    assert_int_equal(since_on(HOME), 0);
    assert_int_equal(kernel.binds, 0);
}

int main(void) {
    if (pep_threads_init() < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_processor_is_asked_for_its_own_clock, setup, teardown),
        cmocka_unit_test_setup_teardown(a_processor_is_measured_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wait_that_began_later_is_measured_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_waits_since_later_than_now, setup, teardown),
        cmocka_unit_test_setup_teardown(where_we_may_not_go_nothing_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(where_we_do_not_arrive_nothing_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(who_has_not_run_there_is_not_told, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
