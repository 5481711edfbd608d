/*
 * Files of a task, and writes that end early. LDFLAGS: -Wl,--wrap=pep_os_write
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "sampler/rt/files.h"
#include "sampler/rt/os.h"

static const long *answers; /* of write, one a call; more than there is to write: all of it */
static char written[16];
static size_t written_count;

long __wrap_pep_os_write(int fd, const void *from, size_t size_bytes);
long __wrap_pep_os_write(int fd, const void *from, size_t size_bytes) {
    assert_int_equal(fd, 7);
    long answer = *answers++;
    if (answer > (long)size_bytes)
        answer = (long)size_bytes;
    if (answer > 0) {
        memcpy(written + written_count, from, (size_t)answer);
        written_count += (size_t)answer;
    }
    return answer;
}

static int write_all(const long *answers_to_come) {
    answers = answers_to_come;
    written_count = 0;
    return pep_files_write_all(7, "0123456789", 10);
}

static void everything_is_written_piece_by_piece(void **state) {
    (void)state;
    static const long pieces[] = {3, -EINTR, 1, 99};
    assert_int_equal(write_all(pieces), 0);
    assert_int_equal(written_count, 10);
    assert_memory_equal(written, "0123456789", 10);
    assert_int_equal(pep_files_write_all(7, "", 0), 0);
}

static void what_cannot_be_written_is_told(void **state) {
    (void)state;
    static const long full[] = {3, -ENOSPC}, nothing[] = {3, 0};
    assert_int_equal(write_all(full), -ENOSPC);
    assert_int_equal(write_all(nothing), -EIO);
    assert_int_equal(written_count, 3);
}

static void a_file_of_a_task_is_read(void **state) {
    (void)state;
    char text[4096], line[32];
    int tid = pep_os_gettid();
    assert_true(pep_files_read_of_task(tid, "status", text, sizeof text) > 0);
    snprintf(line, sizeof line, "\nPid:\t%d\n", tid);
    assert_non_null(strstr(text, line));
    assert_int_equal(pep_files_read_of_task(tid, "comm", text, sizeof text),
                     strlen("test_files\n"));
    assert_string_equal(text, "test_files\n");
}

static void other_tasks_and_names_are_refused(void **state) {
    (void)state;
    char text[64];
    assert_int_equal(pep_files_read_of_task(INT_MAX, "comm", text, sizeof text), -ENOENT);
    assert_int_equal(pep_files_read_of_task(0, "comm", text, sizeof text), -ESRCH);
    assert_int_equal(pep_files_read_of_task(-1, "comm", text, sizeof text), -ESRCH);
    int tid = pep_os_gettid();
    assert_int_equal(pep_files_read_of_task(tid, "fifteen_letters", text, sizeof text), -ENOENT);
    assert_int_equal(pep_files_read_of_task(tid, "sixteen__letters", text, sizeof text),
                     -ENAMETOOLONG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_written_piece_by_piece),
        cmocka_unit_test(what_cannot_be_written_is_told),
        cmocka_unit_test(a_file_of_a_task_is_read),
        cmocka_unit_test(other_tasks_and_names_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
