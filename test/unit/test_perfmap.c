/* Perf maps: overlapping and malformed lines, and files that are not to be trusted. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "encoder/symbol_file.h"

static struct pep_arena arena;
static char folder[64], path[128], link_path[128];

static void begin_case(void) {
    pep_arena_init(&arena, 0);
    strcpy(folder, "/tmp/pep_test_map.XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chmod(folder, 0755), 0);
    snprintf(path, sizeof(path), "%s/map", folder);
    snprintf(link_path, sizeof(link_path), "%s/link", folder);
}

static void end_case(void) {
    unlink(path);
    unlink(link_path);
    assert_int_equal(rmdir(folder), 0);
    pep_arena_drop(&arena);
}

static void write_file(const char *name, const char *text) {
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void a_perf_map_takes_what_is_well_formed(void **state) {
    (void)state;
    struct pep_perf_map map;
    begin_case();
    write_file(path, "1000 100 first\n"
                     "0x1080 0x100 second over the end of first\n"
                     "0fc0 60 third over the start of first\n"
                     "3000 0 empty\nno numbers here\n4000 10\n4000 10 \n4000\n\n"
                     "11112222333344445 10 too long\n5000 ffffffffffffffff too big\n"
                     "ffffffffffffffff 10 wraps\n-6000 10 negative\n"
                     "7000 10 whole\n7010 10 cut in the mid");
    assert_int_equal(pep_perf_map_read(&map, &arena, path), 0);
    assert_int_equal(map.count, 4);
    assert_string_equal(pep_perf_map_find(&map, 0xfc0)->name, "third over the start of first");
    assert_string_equal(pep_perf_map_find(&map, 0x1010)->name, "third over the start of first");
    assert_string_equal(pep_perf_map_find(&map, 0x1020)->name, "first");
    assert_string_equal(pep_perf_map_find(&map, 0x10ff)->name, "second over the end of first");
    assert_string_equal(pep_perf_map_find(&map, 0x117f)->name, "second over the end of first");
    assert_null(pep_perf_map_find(&map, 0x1180));
    assert_null(pep_perf_map_find(&map, 0x3000));
    assert_null(pep_perf_map_find(&map, 0x4000));
    assert_string_equal(pep_perf_map_find(&map, 0x700f)->name, "whole");
    assert_null(pep_perf_map_find(&map, 0x7010));
    assert_null(pep_perf_map_find(&map, 0));
    end_case();
}

static void a_file_of_somebody_else_is_not_read(void **state) {
    (void)state;
    struct pep_perf_map map;
    begin_case();
    write_file(path, "1000 100 first\n");
    assert_int_equal(symlink(path, link_path), 0);
    assert_int_equal(pep_perf_map_read(&map, &arena, link_path), -ELOOP);
    assert_int_equal(map.count, 0);
    assert_int_equal(pep_perf_map_read(&map, &arena, folder), -EPERM);
    assert_int_equal(pep_perf_map_read(&map, &arena, "/tmp/pep_test_sym.none"), -ENOENT);
    unlink(link_path);
    assert_int_equal(mkfifo(link_path, 0600), 0);
    assert_int_equal(pep_perf_map_read(&map, &arena, link_path), -EPERM);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 4711, 4711), 0);
        assert_int_equal(seteuid(4712), 0);
        int refused = pep_perf_map_read(&map, &arena, path);
        assert_int_equal(seteuid(0), 0);
        assert_int_equal(refused, -EPERM);
    }
    struct pep_arena small;
    pep_arena_init(&small, 1);
    unlink(path);
    write_file(path, "1000 100 first\n");
    assert_int_equal(pep_perf_map_read(&map, &small, path), -ENOMEM);
    end_case();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_perf_map_takes_what_is_well_formed),
        cmocka_unit_test(a_file_of_somebody_else_is_not_read),
    };
    return cmocka_run_group_tests_name("perfmap", tests, NULL, NULL);
}
