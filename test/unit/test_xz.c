/* Unpacking .xz: what the xz program packs comes back, and damage never comes through. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <cmocka.h>

#include "encoder/xz.h"
#include "sampler/rt/attrs.h"

#define BLOCK_MAX (8 << 20)

static struct pep_arena arena;
static uint8_t *packed, *plain;
static size_t packed_bytes, plain_bytes;

static int begin(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    packed = malloc(BLOCK_MAX);
    plain = malloc(BLOCK_MAX);
    return packed == NULL || plain == NULL;
}

static int end(void **state) {
    (void)state;
    free(packed);
    free(plain);
    pep_arena_drop(&arena);
    return 0;
}

static size_t read_output(const char *command, uint8_t *to) {
    FILE *pipe = popen(command, "r"); /* NOLINT: a fixed command of this test */
    assert_non_null(pipe);
    size_t count = fread(to, 1, BLOCK_MAX, pipe);
    assert_int_equal(pclose(pipe), 0);
    return count;
}

/* source makes the plain bytes, options go to xz. */
static void pack(const char *source, const char *options) {
    char command[512];
    if (system("command -v xz >/dev/null") != 0) /* NOLINT: a fixed command of this test */
        skip();
    plain_bytes = read_output(source, plain);
    snprintf(command, sizeof(command), "%s | xz %s", source, options);
    packed_bytes = read_output(command, packed);
    assert_true(plain_bytes > 0 && packed_bytes > 0);
}

static void *unpack(size_t limit, size_t *count) {
    void *out = pep_xz_unpack(&arena, packed, packed_bytes, limit, count);
    return out;
}

static void make_noise(char *path) {
    static uint8_t bytes[120000];
    int fd = mkstemp(path);
    for (size_t at = 0; at < sizeof(bytes); at += 100)
        assert_int_equal(getrandom(bytes + at, 100, 0), 100);
    assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
    close(fd);
}

static void what_xz_packs_comes_back(void **state) {
    (void)state;
    char noise[] = "/tmp/pep_test_xz.XXXXXX", read_noise[64];
    make_noise(noise);
    snprintf(read_noise, sizeof(read_noise), "cat %s", noise);
    const char *const sources[] = {"printf a", "head -c 250000 /usr/bin/python3",
                                   "head -c 1000000 /dev/zero", read_noise, "seq 60000"};
    static const char *const options[] = {"",
                                          "-0",
                                          "-9e",
                                          "--check=crc32",
                                          "--check=none",
                                          "--check=sha256",
                                          "--block-size=100000",
                                          "--lzma2=lc=0,lp=4,pb=0",
                                          "--lzma2=lc=4,lp=0,pb=4,dict=4KiB"};
    for (size_t s = 0; s < PEP_COUNT_OF(sources); s++) {
        for (size_t o = 0; o < PEP_COUNT_OF(options); o++) {
            pack(sources[s], options[o]);
            size_t count = 0;
            void *out = unpack(BLOCK_MAX, &count);
            assert_non_null(out);
            assert_int_equal(count, plain_bytes);
            assert_memory_equal(out, plain, count);
            pep_arena_drop(&arena);
        }
    }
    unlink(noise);
}

static void every_damaged_bit_is_noticed_or_harmless(void **state) {
    (void)state;
    pack("seq 400", "");
    for (size_t at = 0; at < packed_bytes; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            packed[at] ^= (uint8_t)(1u << bit);
            size_t count = 0;
            void *out = unpack(1 << 16, &count);
            if (out != NULL) { /* the index and the footer are not needed */
                assert_int_equal(count, plain_bytes);
                assert_memory_equal(out, plain, count);
            }
            packed[at] ^= (uint8_t)(1u << bit);
            pep_arena_drop(&arena);
        }
    }
}

static void a_cut_file_gives_nothing(void **state) {
    (void)state;
    pack("seq 400", "--block-size=500");
    size_t whole = packed_bytes, count;
    for (packed_bytes = 0; packed_bytes < whole - 100; packed_bytes++) {
        assert_null(unpack(1 << 16, &count));
        pep_arena_drop(&arena);
    }
}

static void other_filters_and_empty_files_give_nothing(void **state) {
    (void)state;
    size_t count;
    pack("seq 400", "--x86 --lzma2");
    assert_null(unpack(1 << 16, &count));
    pack("seq 400", "--format=lzma");
    assert_null(unpack(1 << 16, &count));
    packed_bytes = read_output("printf '' | xz", packed);
    assert_null(unpack(1 << 16, &count));
}

static void the_limit_is_kept(void **state) {
    (void)state;
    size_t count = 0;
    pack("seq 400", "");
    assert_null(unpack(plain_bytes - 1, &count));
    assert_non_null(unpack(plain_bytes, &count));
    struct pep_arena small;
    pep_arena_init(&small, 1);
    assert_null(pep_xz_unpack(&small, packed, packed_bytes, 1 << 16, &count));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_xz_packs_comes_back), TEST(every_damaged_bit_is_noticed_or_harmless),
        TEST(a_cut_file_gives_nothing), TEST(other_filters_and_empty_files_give_nothing),
        TEST(the_limit_is_kept),
    };
    return cmocka_run_group_tests_name("xz", tests, NULL, NULL);
}
