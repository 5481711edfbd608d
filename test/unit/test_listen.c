/*
 * Where to listen, and the file that says so: grammar, URLs, directories that are refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "http/listen.h"
#include "http/runfile.h"
#include "http/server.h"
#include "sampler/rt/attrs.h"

static char dir[] = "/tmp/test_listen.XXXXXX";

static void test_grammar(void **state) {
    (void)state;
    static const char *const good[] = {"127.0.0.1:16825+", "127.0.0.1:0", ":0",     ":16825+",
                                       "localhost:1",      "[::1]:0",     "[::]:1", "0.0.0.0:1",
                                       "10.0.0.1:65535",   "unix:/a"};
    static const char *const bad[] = {
        "",      "16825",       "127.0.0.1", "127.0.0.1:",    ":65536",  ":1x",
        ":1++",  ":-1",         "::1:80",    "host:80",       "unix:",   "unix:relative",
        "[::1]", "256.0.0.1:1", ":+",        "[127.0.0.1]:1", ":123456", NULL};
    for (size_t i = 0; i < PEP_COUNT_OF(good); i++)
        if (!pep_server_listen_is_valid(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++)
        if (pep_server_listen_is_valid(bad[i]))
            fail_msg("taken: %s", bad[i]);
    char path[200] = "unix:/";
    memset(path + 6, 'a', 150);
    assert_false(pep_server_listen_is_valid(path));
}

static void url_is(const char *text, const char *url) {
    struct pep_listen where;
    char found[PEP_LISTEN_URL_BYTES];
    assert_true(pep_listen_parse(text, &where));
    pep_listen_url(&where, found, sizeof(found));
    assert_string_equal(found, url);
}

static void test_urls(void **state) {
    (void)state;
    url_is(":80", "http://127.0.0.1:80/");
    url_is("0.0.0.0:80", "http://127.0.0.1:80/");
    url_is("[::]:80", "http://[::1]:80/");
    url_is("[::1]:80+", "http://[::1]:80/");
    url_is("10.1.2.3:80", "http://10.1.2.3:80/");
    url_is("unix:/x/y", "unix:/x/y");
}

static void test_bad_rundirs(void **state) {
    (void)state;
    struct pep_runfile content = {.target = "x"};
    struct pep_runfile_handle handle;
    char path[80], link[80];
    snprintf(path, sizeof(path), "%s/missing/deep", dir);
    assert_int_equal(pep_runfile_write(path, NULL, &content, &handle), -ENOENT);
    assert_string_equal(handle.path, "");
    snprintf(path, sizeof(path), "%s/open", dir);
    mkdir(path, 0700);
    snprintf(link, sizeof(link), "%s/link", dir);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(pep_runfile_write(link, NULL, &content, &handle), -ENOTDIR);
    /* Writable by others: not there, but in the place of one's own. */
    chmod(path, 0777);
    assert_int_equal(pep_runfile_write(path, dir, &content, &handle), 0);
    assert_null(strstr(handle.path, "/open/"));
    assert_non_null(strstr(handle.path, "/profep/"));
    pep_runfile_remove(&handle);
    char own[96];
    snprintf(own, sizeof(own), "%s/profep", dir);
    rmdir(own);
    rmdir(path);
    unlink(link);
}

static void test_relative_rundir(void **state) {
    (void)state;
    struct pep_runfile content = {.target = "x"};
    struct pep_runfile_handle handle;
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(pep_runfile_write("relative", NULL, &content, &handle), 0);
    assert_int_equal(handle.path[0], '/');
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(access(handle.path, F_OK), 0);
    char path[PATH_MAX];
    strcpy(path, handle.path);
    pep_runfile_remove(&handle);
    assert_int_equal(access(path, F_OK), -1);
    snprintf(path, sizeof(path), "%s/relative", dir);
    assert_int_equal(rmdir(path), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grammar),
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_bad_rundirs),
        cmocka_unit_test(test_relative_rundir),
    };
    if (!mkdtemp(dir))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
