/* LDFLAGS: -Wl,--wrap=pep_os_map */
#include "sampler/rt/reserve.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sampler/rt/os.h"

#define PAGE 4096u
#define THREADS 8
#define ROUNDS 64

static size_t largest = SIZE_MAX; /* that the kernel gives */
static int mappings;

void *__real_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes) {
    __atomic_fetch_add(&mappings, 1, __ATOMIC_RELAXED);
    return size_bytes <= largest ? __real_pep_os_map(size_bytes) : NULL;
}

/* What the kernel says of the mapping at an address: smaps in proc(5), VmFlags. */
static bool has_flags(const void *address, const char *first, const char *second) {
    FILE *smaps = fopen("/proc/self/smaps", "r");
    char line[512];
    bool is_it = false, has = false;
    while (smaps && fgets(line, sizeof line, smaps)) {
        uintptr_t from, to;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2)
            is_it = (uintptr_t)address >= from && (uintptr_t)address < to;
        else if (is_it && strncmp(line, "VmFlags:", 8) == 0)
            has = strstr(line, first) != NULL && strstr(line, second) != NULL;
    }
    if (smaps)
        fclose(smaps);
    return has;
}

static void refused(void **state) {
    (void)state;
    largest = 0;
    assert_null(pep_reserve(PAGE));
    assert_null(pep_reserve_alone(PAGE));
    largest = 1u << 20; /* not enough for what the tables share */
    mappings = 0;
    char *one = pep_reserve(PAGE), *other = pep_reserve(PAGE);
    assert_non_null(one);
    assert_non_null(other);
    assert_int_equal(mappings, 4);
    largest = SIZE_MAX;
}

static void *take_many(void *to) {
    char **taken = to;
    for (int i = 0; i < ROUNDS; i++) {
        taken[i] = pep_reserve(1 + (size_t)i * 997);
        if (taken[i] != NULL)
            memset(taken[i], i + 1, 1 + (size_t)i * 997);
    }
    return NULL;
}

/* Runs before anything else has been taken of what is shared. */
static void many_at_once(void **state) {
    (void)state;
    static char *taken[THREADS][ROUNDS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_many, taken[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++)
        for (int j = 0; j < ROUNDS; j++) {
            assert_non_null(taken[i][j]);
            assert_int_equal((uintptr_t)taken[i][j] % PAGE, 0);
            for (size_t at = 0; at < 1 + (size_t)j * 997; at++)
                assert_int_equal(taken[i][j][at], j + 1);
        }
}

static void shared_and_alone(void **state) {
    (void)state;
    mappings = 0;
    char *one = pep_reserve(100), *other = pep_reserve(PAGE);
    assert_int_equal(mappings, 0);
    assert_ptr_equal(other, one + PAGE);
    assert_int_equal(one[0] | one[99], 0);
    assert_true(has_flags(one, " dd", " nh"));
    char *large = pep_reserve((size_t)1 << 30);
    assert_int_equal(mappings, 1);
    assert_int_equal(large[(1 << 30) - 1], 0);
    assert_true(has_flags(large, " dd", " nh"));
    char *own = pep_reserve_alone(PAGE);
    assert_int_equal(mappings, 2);
    assert_true(has_flags(own, " dd", " nh"));
    assert_int_equal(pep_os_unmap(own, PAGE), 0);
    assert_int_equal(pep_os_unmap(large, (size_t)1 << 30), 0);
}

/* What is left of the shared mapping is not enough: the tables that come then have their own. */
static void full(void **state) {
    (void)state;
    const size_t size = (size_t)8 << 20;
    for (int i = 0; i < 8; i++) {
        char *block = pep_reserve(size);
        assert_non_null(block);
        block[0] = block[size - 1] = 1;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(shared_and_alone),
        cmocka_unit_test(full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
