/*
 * Files below the stage path: where they come to be, and everything that must not lead out.
 * LDFLAGS: -Wl,--wrap=pep_os_call6,--wrap=pep_os_write
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "http/stage.h"
#include "sampler/rt/os.h"

long __real_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
long __real_pep_os_write(int fd, const void *from, size_t size);
long __wrap_pep_os_write(int fd, const void *from, size_t size);

static char base[64];
static char path[PEP_STAGE_PATH_BYTES];
static long openat2_error, random_error, write_error;
static int randoms, is_short;

long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f) {
    if (nr == SYS_openat2 && openat2_error)
        return openat2_error;
    if (nr == SYS_getrandom) {
        memset((void *)a, randoms++ / 2, (size_t)b); /* each number twice */
        return random_error ? random_error : b;
    }
    return __real_pep_os_call6(nr, a, b, c, d, e, f);
}

long __wrap_pep_os_write(int fd, const void *from, size_t size) {
    if (is_short == 1) {
        is_short = 2;
        return -EINTR;
    }
    if (is_short == 2 && size > 1)
        size = 1;
    return write_error ? write_error : __real_pep_os_write(fd, from, size);
}

static int make_stage(void **state) {
    (void)state;
    char text[128];
    snprintf(base, sizeof(base), "/tmp/profep-test-stage.XXXXXX");
    assert_non_null(mkdtemp(base));
    static const char *const directories[] = {"top", "top/sub", "top/sub/deep", "beside"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(text, sizeof(text), "%s/%s", base, directories[i]);
        assert_int_equal(mkdir(text, 0700), 0);
    }
    static const char *const links[][2] = {
        {"sub", "top/in"}, {"../beside", "top/out"}, {"/tmp", "top/absolute"}};
    for (size_t i = 0; i < 3; i++) {
        snprintf(text, sizeof(text), "%s/%s", base, links[i][1]);
        assert_int_equal(symlink(links[i][0], text), 0);
    }
    openat2_error = random_error = write_error = randoms = is_short = 0;
    return 0;
}

static int remove_stage(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", base);
    return system(command);
}

static struct pep_stage stage_of(const char *below) {
    static char top[80];
    snprintf(top, sizeof(top), "%s/top", base);
    return (struct pep_stage){.directory = top, .below = below, .suffix = ".x"};
}

static void expect_file(const char *wanted_path, const char *content) {
    struct stat status;
    char text[64] = "";
    if (wanted_path)
        assert_string_equal(path, wanted_path);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fread(text, 1, sizeof(text) - 1, file), strlen(content));
    fclose(file);
    assert_string_equal(text, content);
}

static void test_files(void **state) {
    (void)state;
    static const char *const below[] = {NULL, "", "sub", "sub/deep", "sub/", "in"};
    char wanted[256];
    for (size_t i = 0; i < 6; i++) {
        struct pep_stage stage = stage_of(below[i]);
        assert_int_equal(pep_stage_check(&stage), 0);
        assert_int_equal(pep_stage_write(&stage, "content", 7, path), 0);
        expect_file(NULL, "content");
        assert_null(strstr(path, "//"));
        stage.name = "12_34";
        int error = pep_stage_write(&stage, "c", 1, path);
        if (i == 1 || i == 4 || i == 5) { /* there already: never written over */
            assert_int_equal(error, -EEXIST);
            continue;
        }
        assert_int_equal(error, 0);
        snprintf(wanted, sizeof(wanted), "%s/top%s%s/12_34.x", base, below[i] ? "/" : "",
                 below[i] ? below[i] : "");
        expect_file(wanted, "c");
    }
}

static void test_a_taken_name_is_not_written_over(void **state) {
    (void)state;
    struct pep_stage stage = stage_of("sub");
    char first[PEP_STAGE_PATH_BYTES];
    assert_int_equal(pep_stage_write(&stage, "one", 3, path), 0);
    strcpy(first, path);
    assert_int_equal(pep_stage_write(&stage, "two", 3, path), 0); /* the name came twice */
    assert_string_not_equal(first, path);
    expect_file(NULL, "two");
    strcpy(path, first);
    expect_file(NULL, "one");
}

static void test_nothing_leads_out(void **state) {
    (void)state;
    static const struct {
        const char *below;
        int error, old_error; /* old: of kernels that cannot tell */
    } cases[] = {
        {"..", -EXDEV, -EXDEV},
        {"../beside", -EXDEV, -EXDEV},
        {"sub/../../beside", -EXDEV, -EXDEV},
        {"/tmp", -EXDEV, -EXDEV},
        {"/", -EXDEV, -EXDEV},
        {"out", -EXDEV, -ENOTDIR},
        {"absolute", -EXDEV, -ENOTDIR},
        {"sub/../..", -EXDEV, -EXDEV},
        {"no", -ENOENT, -ENOENT},
        {"sub/no", -ENOENT, -ENOENT},
    };
    static const long errors[] = {0, -ENOSYS, -EPERM};
    for (size_t round = 0; round < 3; round++) {
        openat2_error = errors[round];
        for (size_t i = 0; i < PEP_COUNT_OF(cases); i++) {
            struct pep_stage stage = stage_of(cases[i].below);
            int wanted = round ? cases[i].old_error : cases[i].error;
            assert_int_equal(pep_stage_check(&stage), wanted);
            assert_int_equal(pep_stage_write(&stage, "c", 1, path), wanted);
        }
        struct pep_stage good = stage_of("sub//deep/");
        assert_int_equal(pep_stage_write(&good, "c", 1, path), 0);
    }
    char longest[NAME_MAX + 8];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    struct pep_stage stage = stage_of(longest);
    assert_int_equal(pep_stage_check(&stage), -ENAMETOOLONG);
    stage = (struct pep_stage){.directory = "/no/such/place", .suffix = ""};
    assert_int_equal(pep_stage_check(&stage), -ENOENT);
}

static void test_a_relative_stage(void **state) {
    (void)state;
    char wanted[256];
    struct pep_stage stage = {.directory = "top/", .below = "sub", .name = "n", .suffix = ""};
    int before = open(".", O_RDONLY | O_DIRECTORY);
    assert_int_equal(chdir(base), 0);
    assert_int_equal(pep_stage_write(&stage, "c", 1, path), 0);
    assert_int_equal(fchdir(before), 0);
    close(before);
    snprintf(wanted, sizeof(wanted), "%s/top/sub/n", base);
    expect_file(wanted, "c");
}

static void test_failures_leave_nothing(void **state) {
    (void)state;
    struct pep_stage stage = stage_of("sub");
    is_short = 1;
    assert_int_equal(pep_stage_write(&stage, "bit by bit", 10, path), 0);
    expect_file(NULL, "bit by bit");
    is_short = 0;
    stage.name = "gone";
    write_error = -ENOSPC;
    assert_int_equal(pep_stage_write(&stage, "c", 1, path), -ENOSPC);
    snprintf(path, sizeof(path), "%s/top/sub/gone.x", base);
    assert_int_equal(access(path, F_OK), -1);
    stage.name = NULL;
    random_error = -EAGAIN;
    assert_int_equal(pep_stage_write(&stage, "c", 1, path), -EAGAIN);
}

int main(void) {
#define STAGE_TEST(f) cmocka_unit_test_setup_teardown(f, make_stage, remove_stage)
    const struct CMUnitTest tests[] = {
        STAGE_TEST(test_files),
        STAGE_TEST(test_a_taken_name_is_not_written_over),
        STAGE_TEST(test_nothing_leads_out),
        STAGE_TEST(test_a_relative_stage),
        STAGE_TEST(test_failures_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
