/*
 * Since when a thread waits, where processors are taken away: what /proc tells is made up, so that
 * each law can be told to the nanosecond, but for when our own clock was read.
 * LDFLAGS: -Wl,--wrap=pep_os_call6 -Wl,--wrap=pep_os_read_file
 */
#include <sched.h>
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
#define TICK (10 * MS)
#define OTHER_TID 4194305 /* no thread has it: one more than the kernel gives */
#define OTHER_NAME "4194305/sched"

/* What the kernel tells: when we and the other ran, and what was taken from either's processor. */
static struct {
    int64_t we_ran, other_ran;
    int stolen, other_stolen, interrupts, other_interrupts; /* ticks */
    int stat_error;
} kernel;
static int stat_reads;
static struct pep_arena arena;
static struct pep_looker *looker;
static cpu_set_t allowed;
static int ours, others; /* processors */

static int open_text(const char *text) {
    int fd = memfd_create("sched", MFD_CLOEXEC);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

long __real_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f) {
    const char *slash = nr == SYS_openat ? strrchr((const char *)b, '/') : NULL;
    if (slash == NULL || strcmp(slash, "/sched") != 0)
        return __real_pep_os_call6(nr, a, b, c, d, e, f);
    bool is_other = strstr((const char *)b, OTHER_NAME) != NULL;
    int64_t ran = is_other ? kernel.other_ran : kernel.we_ran;
    char text[200];
    snprintf(text, sizeof text,
             "name (1, #threads: 2)\n---\nse.exec_start  :  %lld.%06lld\nse.x : 7\n",
             (long long)(ran / MS), (long long)(ran % MS));
    return open_text(text);
}

long __wrap_pep_os_read_file(const char *path, char *to, size_t size_bytes);
long __wrap_pep_os_read_file(const char *path, char *to, size_t size_bytes) {
    assert_string_equal(path, "/proc/stat");
    stat_reads++;
    if (kernel.stat_error != 0)
        return kernel.stat_error;
    char lines[2][100];
    snprintf(lines[ours > others], sizeof lines[0], "cpu%d 9 9 9 9 9 %d 0 %d 9 9\n", ours,
             kernel.interrupts, kernel.stolen);
    snprintf(lines[ours < others], sizeof lines[0], "cpu%d 9 9 9 9 9 0 %d %d 9 9\n", others,
             kernel.other_interrupts, kernel.other_stolen);
    return snprintf(to, size_bytes, "cpu  8 8 8 8 8 8 8 8 8 8\n%s%sintr 5 5 5\n", lines[0],
                    lines[1]);
}

static int setup(void **state) {
    (void)state;
    cpu_set_t one;
    ours = sched_getcpu();
    others = ours == 0 ? 1 : 0;
    CPU_ZERO(&one);
    CPU_SET((size_t)ours, &one);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 ||
        sched_setaffinity(0, sizeof one, &one) != 0)
        return -1;
    memset(&kernel, 0, sizeof kernel);
    kernel.we_ran = (int64_t)pep_os_clock_ns(CLOCK_MONOTONIC);
    stat_reads = 0;
    pep_arena_init(&arena, 0);
    looker = pep_looker_open(&arena);
    return looker != NULL ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pep_looker_close(looker);
    pep_arena_drop(&arena);
    return sched_setaffinity(0, sizeof allowed, &allowed);
}

static uint64_t since_on(int processor) {
    struct pep_look look = {
        .kind = PEP_LOOK_WAITS, .tid = OTHER_TID, .state = 'S', .processor = processor};
    return pep_look_since(looker, &look);
}

/* So far from our own last run; that, by CLOCK_MONOTONIC, was between the two readings here. */
static void assert_apart(int processor, int64_t apart_ns) {
    uint64_t before = pep_os_clock_ns(CLOCK_MONOTONIC);
    uint64_t since = since_on(processor);
    uint64_t after = pep_os_clock_ns(CLOCK_MONOTONIC);
    assert_true(since >= before + (uint64_t)apart_ns);
    assert_true(since <= after + (uint64_t)apart_ns);
}

static void on_our_processor_nothing_is_uncertain(void **state) {
    (void)state;
    kernel.stolen = 70;
    kernel.other_ran = kernel.we_ran - SECOND - 1;
    assert_apart(ours, -SECOND - 1);
}

static void where_nothing_is_taken_nothing_is_uncertain(void **state) {
    (void)state;
    kernel.other_ran = kernel.we_ran - SECOND - 1;
    assert_apart(others, -SECOND - 1);
}

/* 0.3 s more were taken from the other: its clock is behind ours by so much. */
static void on_another_what_is_untold_makes_it_shorter(void **state) {
    (void)state;
    kernel.stolen = 20;
    kernel.other_stolen = 50;
    kernel.other_ran = kernel.we_ran - SECOND;
    assert_apart(others, -SECOND + 30 * TICK + 2 * TICK);
}

static void interrupts_count_where_the_clocks_say_so(void **state) {
    (void)state;
    kernel.stolen = 20;
    kernel.interrupts = 50;
    kernel.other_interrupts = 90;
    kernel.other_stolen = 10;
    kernel.we_ran -= 70 * TICK;
    kernel.other_ran = kernel.we_ran - SECOND;
    assert_apart(others, -SECOND + 30 * TICK + 4 * TICK);
}

static void what_waits_since_long_needs_no_other_reading(void **state) {
    (void)state;
    kernel.stolen = kernel.other_stolen = 50;
    kernel.other_ran = kernel.we_ran - SECOND;
    uint64_t since = since_on(others);
    kernel.other_stolen = 60;
    assert_int_equal(since_on(others), since);
    assert_int_equal(stat_reads, 1);
}

/* As long as it is not, a wait that began behind it might be told too long. */
static void what_was_taken_after_the_reading_is_read(void **state) {
    (void)state;
    kernel.stolen = kernel.other_stolen = 50;
    kernel.other_ran = kernel.we_ran - SECOND;
    assert_true(since_on(others) > 0);
    assert_int_equal(stat_reads, 1);
    kernel.other_stolen += 40;
    kernel.other_ran = kernel.we_ran + SECOND; /* it ran after us ... */
    kernel.we_ran += 3 * SECOND;               /* ... and we again after it */
    assert_apart(others, -2 * SECOND + 40 * TICK + 2 * TICK);
    assert_int_equal(stat_reads, 2);
}

static void nobody_waits_since_later_than_now(void **state) {
    (void)state;
    kernel.other_ran = kernel.we_ran + SECOND;
    uint64_t before = pep_os_clock_ns(CLOCK_MONOTONIC);
    uint64_t since = since_on(ours);
    assert_true(since >= before);
    assert_true(since <= pep_os_clock_ns(CLOCK_MONOTONIC));
}

static void what_is_not_known_is_not_told(void **state) {
    (void)state;
    kernel.other_ran = kernel.we_ran - SECOND;
    assert_true(since_on(ours) > 0);
    assert_int_equal(since_on(-1), 0);
    assert_int_equal(since_on(1 + (ours > others ? ours : others)), 0);
    kernel.other_ran = 0; /* it has moved to another processor and not run there */
    assert_int_equal(since_on(ours), 0);
}

static void without_the_times_of_the_processors_nothing_is_told(void **state) {
    (void)state;
    kernel.other_ran = kernel.we_ran - SECOND;
    kernel.stat_error = -13;
    assert_int_equal(since_on(ours), 0);
}

int main(void) {
    if (pep_threads_init() < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(on_our_processor_nothing_is_uncertain, setup, teardown),
        cmocka_unit_test_setup_teardown(where_nothing_is_taken_nothing_is_uncertain, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(on_another_what_is_untold_makes_it_shorter, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(interrupts_count_where_the_clocks_say_so, setup, teardown),
        cmocka_unit_test_setup_teardown(what_waits_since_long_needs_no_other_reading, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_was_taken_after_the_reading_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_waits_since_later_than_now, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_known_is_not_told, setup, teardown),
        cmocka_unit_test_setup_teardown(without_the_times_of_the_processors_nothing_is_told, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
