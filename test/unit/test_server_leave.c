/* LDFLAGS: -Wl,--wrap=pep_runfile_write */
/* How the listening thread is left at the end of a process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "http/runfile.h"
#include "http/server.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define SECOND_NS 1000000000ull

static char dir[] = "/tmp/test_leave.XXXXXX";

static char socket_path[64], socket_listen[80];
static uint64_t write_ns; /* how long a run file takes to be written */
static int writes;

int __real_pep_runfile_write(const char *rundir, const char *runtime_dir,
                             const struct pep_runfile *content, struct pep_runfile_handle *handle);
int __wrap_pep_runfile_write(const char *rundir, const char *runtime_dir,
                             const struct pep_runfile *content, struct pep_runfile_handle *handle);
int __wrap_pep_runfile_write(const char *rundir, const char *runtime_dir,
                             const struct pep_runfile *content, struct pep_runfile_handle *handle) {
    (void)pep_add_acq_rel(&writes, 1);
    pep_os_sleep_ns(write_ns);
    return __real_pep_runfile_write(rundir, runtime_dir, content, handle);
}

static void start_on(const char *listen, uint64_t delay_ns) {
    const struct pep_server_options options = {
        .listen = listen, .rundir = dir, .hz = 100, .delay_ns = delay_ns};
    assert_int_equal(pep_server_start(&options), 0);
}

static void start(uint64_t delay_ns) {
    start_on(":0", delay_ns);
}

/* Returns while it is on its way to be found. */
static void start_slowly(void) {
    const int before = pep_load_acquire(&writes);
    write_ns = SECOND_NS / 200;
    start_on(socket_listen, 0);
    while (pep_load_acquire(&writes) == before)
        pep_os_sleep_ns(100000);
    write_ns = 0;
}

static void stop_whole(void) {
    do
        pep_server_stop();
    while (!pep_server_is_stopped());
}

static bool has_run_file(void) {
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "%s/%d.json", dir, getpid());
    return stat(path, &status) == 0;
}

/* Nothing that starts with a dot either: a run file in the making. */
static bool has_any_file(void) {
    DIR *opened = opendir(dir);
    assert_non_null(opened);
    bool has = false;
    for (struct dirent *entry; !has && (entry = readdir(opened));)
        has = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(opened);
    return has;
}

static int thread_count(void) {
    struct stat status;
    return stat("/proc/self/task", &status) == 0 ? (int)status.st_nlink - 2 : -1;
}

/* One that would begin in an hour is left where it is, and can be stopped all the same. */
static void before_it_listens(void **state) {
    (void)state;
    start(3600 * SECOND_NS);
    pep_server_leave();
    assert_false(pep_server_is_stopped());
    assert_int_equal(thread_count(), 2);
    assert_null(pep_server_url());
    stop_whole();
    assert_false(has_run_file());
}

/* Left behind, it ends by itself when its time has come, and opens nothing. */
static void its_time_comes(void **state) {
    (void)state;
    start(SECOND_NS / 5);
    pep_server_leave();
    while (thread_count() > 1)
        pep_os_sleep_ns(1000000);
    assert_null(pep_server_url());
    assert_false(has_run_file());
    stop_whole();
}

static void while_it_listens(void **state) {
    (void)state;
    start(0);
    while (!pep_server_url())
        pep_os_sleep_ns(1000000);
    assert_true(has_run_file());
    pep_server_leave();
    assert_false(has_run_file());
    stop_whole();
    assert_null(pep_server_url());
}

/* At any moment of its beginning: nothing is left of it, and another one can be started. */
static void at_any_moment(void **state) {
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        start(0);
        pep_os_sleep_ns(1900000 + i * 2000);
        pep_server_leave();
        stop_whole();
        assert_false(has_run_file());
    }
    start(0);
    while (!pep_server_url())
        pep_os_sleep_ns(1000000);
    stop_whole();
}

/* Told to stop while it writes what it is found by, it takes that back, the socket's path too. */
static void stopped_on_its_way(void **state) {
    (void)state;
    start_slowly();
    pep_server_leave();
    stop_whole();
    assert_false(has_any_file());
}

/* An exit that waits for no thread: it ends by itself, and nothing is left. */
static void unpublished_on_its_way(void **state) {
    (void)state;
    start_slowly();
    pep_server_unpublish();
    for (int tries = 0; tries < 5000 && thread_count() > 1; tries++)
        pep_os_sleep_ns(1000000);
    assert_int_equal(thread_count(), 1);
    assert_false(has_any_file());
    stop_whole();
}

static void unpublished_before_it_listens(void **state) {
    (void)state;
    start(SECOND_NS / 20);
    pep_server_unpublish();
    while (thread_count() > 1)
        pep_os_sleep_ns(1000000);
    assert_false(has_any_file());
    stop_whole();
    pep_server_unpublish();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_it_listens),
        cmocka_unit_test(its_time_comes),
        cmocka_unit_test(while_it_listens),
        cmocka_unit_test(at_any_moment),
        cmocka_unit_test(stopped_on_its_way),
        cmocka_unit_test(unpublished_on_its_way),
        cmocka_unit_test(unpublished_before_it_listens),
    };
    if (!mkdtemp(dir) || pep_threads_init() != 0)
        return 1;
    snprintf(socket_path, sizeof socket_path, "%s/socket", dir);
    snprintf(socket_listen, sizeof socket_listen, "unix:%s", socket_path);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
