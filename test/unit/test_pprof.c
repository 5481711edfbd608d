#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "encoder/encoders.h"
#include "encoder/pprof_tables.h"
#include "test/unit/example_profile.h"

static struct pep_arena arena;
static char output[1 << 20];

static int start(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    return 0;
}

static int end(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

/* What the strict reader says; the test fails unless it accepts the file. */
static const char *judge(const struct pep_buffer_writer *bytes) {
    char command[256];
    const char *path = example_file(bytes, true, &arena);
    snprintf(command, sizeof(command), "python3 test/judge/pprof_strict.py --json %s 2>&1", path);
    int status = example_run(command, output, sizeof(output));
    unlink(path);
    if (status != 0)
        fail_msg("%s", output);
    return output;
}

static void test_exact_bytes(void **state) {
    (void)state;
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &example_profile, &arena);
    example_golden("example.pb", &bytes);
}

static void test_every_rule_holds(void **state) {
    (void)state;
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &example_profile, &arena);
    const char *json = judge(&bytes);
    assert_non_null(strstr(json, "\"totals\": [15, 150000000]"));
    assert_non_null(strstr(json, "\"stack\": [\"memcpy\", \"std::vector<int>::push_back(int "
                                 "const&)\", \"work\", \"main\"]"));
    assert_non_null(strstr(json, "\"labels\": {\"thread\": \"example\", \"thread_name\": "
                                 "\"example\", \"thread_id\": \"4711\", \"tid\": 4711}"));
    assert_non_null(strstr(json, "\"system_name\": \"_ZNSt6vectorIiE9push_back\""));
    assert_non_null(strstr(json, "[truncated]"));
    assert_null(strstr(json, "pep_hook"));
    assert_null(strstr(json, "nameless+"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_exact_bytes, start, end),
        cmocka_unit_test_setup_teardown(test_every_rule_holds, start, end),
    };
    return cmocka_run_group_tests_name("pprof", tests, NULL, NULL);
}
