/* LDFLAGS: -Wl,--wrap=pep_os_write -Wl,--wrap=pep_render_to */
/* Where a recording goes, and that no file is ever half of one. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "encoder/writer.h"
#include "http/record_file.h"
#include "http/render.h"
#include "sampler/rt/os.h"

static char directory[] = "/tmp/profep-record.XXXXXX";
static char path[64], temporary[80];
static long write_error; /* 0: writes work; 1: they write nothing */
static int interrupted;  /* so many writes are */
static int render_error;

long __real_pep_os_write(int fd, const void *from, size_t size_bytes);
long __wrap_pep_os_write(int fd, const void *from, size_t size_bytes);
long __wrap_pep_os_write(int fd, const void *from, size_t size_bytes) {
    if (interrupted > 0) {
        interrupted--;
        return -EINTR;
    }
    if (write_error != 0)
        return write_error < 0 ? write_error : 0;
    return __real_pep_os_write(fd, from, size_bytes > 3 ? 3 : size_bytes);
}

int __wrap_pep_render_to(struct pep_writer *writer, enum pep_format format,
                         const struct pep_profile *profile, struct pep_arena *arena);
int __wrap_pep_render_to(struct pep_writer *writer, enum pep_format format,
                         const struct pep_profile *profile, struct pep_arena *arena) {
    (void)format;
    (void)arena;
    pep_write_text(writer, profile->kind);
    return render_error;
}

static void write_profile(const char *text, bool is_last) {
    struct pep_arena arena;
    pep_arena_init(&arena, 0);
    const struct pep_profile profile = {.kind = text};
    const struct pep_record_file file = {path, temporary, is_last};
    pep_record_write(&file, text != NULL ? &profile : NULL, &arena);
    pep_arena_drop(&arena);
}

static const char *content(void) {
    static char text[64];
    memset(text, 0, sizeof text);
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return "nothing";
    if (read(fd, text, sizeof text - 1) < 0)
        text[0] = '\0';
    close(fd);
    return text;
}

static void test_names(void **state) {
    (void)state;
    static const char *const names[][2] = {
        {"/a/heap.pb.gz", "/a/heap.peak.pb.gz"},
        {"/a/heap.txt", "/a/heap.peak.txt"},
        {"/a.b/heap", "/a.b/heap.peak"},
        {"/a/.hidden", "/a/.hidden.peak"},
        {"/a/x.1.svg", "/a/x.1.peak.svg"},
        {"/a/.pb.gz", "/a/.pb.peak.gz"},
        {"/a/b/", "/a/b/.peak"},
    };
    char to[64];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        pep_record_peak_path(to, sizeof to, names[i][0]);
        assert_string_equal(to, names[i][1]);
    }
    pep_record_peak_path(to, 14, "/a/heap"); /* 12 and the NUL */
    assert_string_equal(to, "/a/heap.peak");
    pep_record_peak_path(to, 12, "/a/heap");
    assert_string_equal(to, "");
    assert_int_equal(pep_record_format("/a/x.svg"), PEP_FORMAT_SVG);
    assert_int_equal(pep_record_format("/a/x.html"), PEP_FORMAT_HTML);
    assert_int_equal(pep_record_format("/a/x.txt"), PEP_FORMAT_TEXT);
    assert_int_equal(pep_record_format("/a/x.collapsed"), PEP_FORMAT_COLLAPSED);
    assert_int_equal(pep_record_format(".svg"), PEP_FORMAT_PPROF);
    assert_int_equal(pep_record_format("/a/x.svg.gz"), PEP_FORMAT_PPROF);
}

static void test_replaces(void **state) {
    (void)state;
    interrupted = 2;
    write_profile("the first of them", false);
    assert_string_equal(content(), "the first of them");
    write_profile("the second", true);
    assert_string_equal(content(), "the second");
    assert_int_not_equal(access(temporary, F_OK), 0);
}

static void test_left_over(void **state) {
    (void)state;
    close(open(temporary, O_CREAT | O_WRONLY, 0600));
    write_profile("whole", true);
    assert_string_equal(content(), "whole");
    assert_int_not_equal(access(temporary, F_OK), 0);
}

/* The old file stays, and nothing lies beside it. */
static void test_failures(void **state) {
    (void)state;
    write_profile("good", true);
    write_error = -ENOSPC;
    write_profile("bad", true);
    write_error = 1;
    write_profile("bad", true);
    write_error = 0;
    render_error = -ENOMEM;
    write_profile("bad", true);
    render_error = 0;
    write_profile(NULL, true);
    assert_string_equal(content(), "good");
    assert_int_not_equal(access(temporary, F_OK), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(temporary, 0700), 0); /* cannot be made, cannot be removed */
    write_profile("bad", true);
    assert_string_equal(content(), "nothing");
    rmdir(temporary);
}

static void test_pipe(void **state) {
    (void)state;
    (void)unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    int fd = open(path, O_RDWR | O_NONBLOCK); /* so that nobody waits for a reader */
    char text[16] = "";
    write_profile("early", false);
    assert_true(read(fd, text, sizeof text) < 0);
    write_profile("last", true);
    assert_int_equal(read(fd, text, sizeof text), 4);
    assert_memory_equal(text, "last", 4);
    close(fd);
    assert_int_equal(unlink(path), 0);
}

static int set_up(void **state) {
    (void)state;
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/file", directory);
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    (void)unlink(path);
    return rmdir(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),     cmocka_unit_test(test_replaces),
        cmocka_unit_test(test_left_over), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_pipe),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
