#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "encoder/encoders.h"
#include "encoder/pprof_tables.h"
#include "test/unit/example_profile.h"

static struct pep_arena arena;
static char output[64 << 20]; /* what a command printed: untouched pages cost nothing */

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

/* Google's own reader, in each of its ways to print. */
static void test_go_tool_reads_it(void **state) {
    (void)state;
    static const struct {
        const char *options, *expected;
    } ways[] = {
        {"-raw", "_ZNSt6vectorIiE9push_back"},
        {"-top", "100% of 150ms total"},
        {"-top", "std::vector<int>::push_back(int const&) (inline)"},
        {"-traces", "recurse\n             recurse\n             recurse\n             main"},
        {"-tags", "140.0ms\n"},
        {"-top -tagfocus=thread=example", "110ms, 73.33% of 150ms total"},
        {"-top -tagfocus='thread_id=^4712$'", "30ms, 20.00% of 150ms total"},
        {"-top -tagfocus=tid=4712", "30ms, 20.00% of 150ms total"},
        {"-top -sample_index=samples", "100% of 15 total"},
    };
    if (example_run("go version 2>&1", output, sizeof(output)) != 0)
        skip();
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &example_profile, &arena);
    const char *path = example_file(&bytes, true, &arena);
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        char command[256];
        snprintf(command, sizeof(command), "PPROF_TMPDIR=/nonexistent go tool pprof %s %s 2>&1",
                 ways[i].options, path);
        int status = example_run(command, output, sizeof(output));
        if (status != 0 || strstr(output, ways[i].expected) == NULL)
            fail_msg("%s: status %d:\n%s", command, status, output);
    }
    unlink(path);
}

/* What is in use may have become less over a window. */
static void test_differences(void **state) {
    (void)state;
    if (example_run("go version 2>&1", output, sizeof(output)) != 0)
        skip();
    struct pep_profile profile = example_profile;
    profile.is_signed = true;
    profile.samples += profile.sample_count - 1; /* -1, alone */
    profile.sample_count = 1;
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &profile, &arena);
    const char *path = example_file(&bytes, true, &arena);
    char command[256];
    snprintf(command, sizeof(command), "go tool pprof -raw -symbolize=none %s 2>&1", path);
    assert_int_equal(example_run(command, output, sizeof(output)), 0);
    unlink(path);
    assert_non_null(strstr(output, "-1  -10000000: "));
    profile.is_signed = false;
    bytes = example_encode(pep_encode_pprof, &profile, &arena);
    assert_null(strstr(judge(&bytes), "-10000000"));
}

/* A judge that accepts everything is none. */
static void test_judge_says_no(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t count;
        const char *rule;
    } additions[] = {
        {"\x78\x01", 2, "doc_url"},
        {"\x98\x06\x01", 3, "unknown field 99"},
        {"\x32\x00", 2, "stands twice in the string table"},
        {"\x32\x01\xff", 3, "not UTF-8"},
        {"\x12\x05\x0a\x01\x01\x12\x00", 7, "0 values for 2 sample types"},
        {"\x12\x07\x0a\x01\x01\x12\x02\x00\x00", 9, "all values are 0"},
        {"\x12\x06\x08\x01\x12\x02\x01\x01", 8, "must be packed"},
        {"\x12\x07\x0a\x01\x7f\x12\x02\x01\x01", 9, "no location 127"},
        {"\x12\x10\x0a\x01\x01\x12\x0b\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 18,
         "negative value"},
        {"\x22\x04\x08\x63\x18\x05", 6, "ids must be 1..n"},
        {"\x22\x04\x08\x0c\x18\x01", 6, "address 0x1 stands twice"},
        {"\x22\x02\x08\x0c", 4, "has address 0"},
        {"\x1a\x02\x08\x05", 4, "mapping 5: filename is empty"},
        {"\x80", 1, "ends before"},
    };
    for (size_t i = 0; i < sizeof(additions) / sizeof(additions[0]); i++) {
        char command[256];
        struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &example_profile, &arena);
        pep_write(&bytes.writer, additions[i].bytes, additions[i].count);
        const char *path = example_file(&bytes, true, &arena);
        snprintf(command, sizeof(command), "python3 test/judge/pprof_strict.py %s 2>&1", path);
        int status = example_run(command, output, sizeof(output));
        unlink(path);
        if (status != 1 || strstr(output, additions[i].rule) == NULL)
            fail_msg("rule \"%s\": status %d: %s", additions[i].rule, status, output);
    }
}

static void test_judge_wants_a_whole_gzip_file(void **state) {
    (void)state;
    char command[256];
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &example_profile, &arena);
    const char *path = example_file(&bytes, true, &arena);
    assert_int_equal(truncate(path, 300), 0);
    snprintf(command, sizeof(command), "python3 test/judge/pprof_strict.py %s 2>&1", path);
    assert_int_equal(example_run(command, output, sizeof(output)), 1);
    assert_non_null(strstr(output, "cut off"));
    unlink(path);
    assert_int_equal(example_run(command, output, sizeof(output)), 2);
}

/* A profile of count samples with two addresses each; sample i has the weight i + 1. */
static struct pep_profile many(uint32_t count, uintptr_t step) {
    struct pep_profile profile = example_profile;
    struct pep_mapping *mapping = pep_arena_alloc(&arena, sizeof(*mapping));
    uintptr_t(*pcs)[2] = pep_arena_array(&arena, count, sizeof(*pcs));
    *mapping = (struct pep_mapping){.start = 0x10000000, .limit = 0x90000000, .path = "/bin/many"};
    profile.mappings = mapping;
    profile.mapping_count = 1;
    profile.samples = pep_arena_array(&arena, count, sizeof(*profile.samples));
    profile.sample_count = count;
    for (uint32_t i = 0; i < count; i++) {
        pcs[i][0] = 0x10000000 + i * step;
        pcs[i][1] = 0x20000000 + i;
        profile.samples[i] = (struct pep_sample){.pcs = pcs[i],
                                                 .pc_count = 2,
                                                 .tid = 1 + (int)(i % 7),
                                                 .thread = "many",
                                                 .values = {1, i + 1}};
    }
    return profile;
}

/* Names as long as they may be, one for each address. */
static int lookup_long(struct pep_symbolizer *symbolizer, const struct pep_profile *profile,
                       uintptr_t pc, struct pep_frame *frames, int max) {
    (void)symbolizer;
    (void)profile;
    (void)max;
    char *name = pep_arena_alloc(&arena, 5001);
    memset(name, 'x', 5000);
    snprintf(name, 20, "%lx", (unsigned long)pc);
    name[strlen(name)] = '_';
    frames[0] = (struct pep_frame){.name = name, .is_known = true};
    return 1;
}

static void test_all_fit_exactly(void **state) {
    (void)state;
    struct pep_profile profile = many(PEP_PPROF_SAMPLES_MAX, 0);
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &profile, &arena);
    const char *json = judge(&bytes);
    assert_non_null(strstr(json, "\"totals\": [16000, 128008000]"));
    assert_null(strstr(json, "[other]"));
}

static void test_lightest_are_merged(void **state) {
    (void)state;
    struct pep_profile profile = many(PEP_PPROF_SAMPLES_MAX + 500, 0);
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &profile, &arena);
    const char *json = judge(&bytes);
    assert_non_null(strstr(json, "\"totals\": [16500, 136133250]"));
    assert_non_null(
        strstr(json, "501 of 16500 stacks, as a rule the lightest, are merged into [other]: a "
                     "profile holds at most 16000 samples and 4 MiB."));
    /* 501 of them weigh 1 + 2 + ... + 501. */
    assert_non_null(strstr(json, "{\"stack\": [\"[other]\"], \"values\": [501, 125751], "
                                 "\"labels\": {}"));
}

static void test_too_many_bytes(void **state) {
    (void)state;
    struct pep_symbolizer symbolizer = {.lookup = lookup_long};
    struct pep_profile profile = many(2000, 1);
    struct pep_buffer_writer bytes;
    pep_buffer_writer_init(&bytes, &arena);
    struct pep_encode_job job = {
        .profile = &profile, .symbolizer = &symbolizer, .writer = &bytes.writer, .arena = &arena};
    pep_encode_pprof(&job);
    assert_int_equal(bytes.writer.error, 0);
    assert_true(bytes.count <= PEP_PPROF_BYTES_MAX);
    assert_true(bytes.count > PEP_PPROF_BYTES_MAX / 2);
    const char *json = judge(&bytes);
    assert_non_null(strstr(json, "\"totals\": [2000, 2001000]"));
    assert_non_null(
        strstr(json, "of 2000 stacks, as a rule the lightest, are merged into [other]"));
}

static void test_nothing_measured(void **state) {
    (void)state;
    struct pep_profile profile = example_profile;
    profile.sample_count = 0;
    profile.comment_count = 0;
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &profile, &arena);
    const char *json = judge(&bytes);
    assert_non_null(strstr(json, "\"samples\": []"));
    assert_non_null(strstr(json, "\"file\": \"/usr/bin/example\""));
}

/* The program is named first wherever it lies; a cumulative profile has no duration. */
static void test_main_mapping_first(void **state) {
    (void)state;
    struct pep_profile profile = example_profile;
    profile.main_mapping = 1;
    profile.duration_ns = 0;
    profile.default_type = 0;
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &profile, &arena);
    const char *json = judge(&bytes);
    assert_non_null(strstr(json, "\"mappings\": [{\"file\": \"/lib/x86_64-linux-gnu/libc.so.6\""));
    assert_non_null(strstr(json, "\"duration_nanos\": 0"));
    assert_non_null(strstr(json, "\"default_sample_type\": \"samples\""));
}

static void test_bytes_label(void **state) {
    (void)state;
    struct pep_sample samples[2] = {example_profile.samples[0], example_profile.samples[0]};
    struct pep_profile profile = example_profile;
    samples[0].bytes_label = 4096;
    samples[1].bytes_label = 8192;
    samples[1].tid = 0;
    samples[1].thread = NULL;
    profile.samples = samples;
    profile.sample_count = 2;
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &profile, &arena);
    const char *json = judge(&bytes);
    assert_non_null(strstr(json, "\"tid\": 4711, \"bytes\": 4096}"));
    assert_non_null(strstr(json, "\"labels\": {\"bytes\": 8192}"));
}

static void test_mapping_label(void **state) {
    (void)state;
    struct pep_sample samples[2] = {example_profile.samples[0], example_profile.samples[0]};
    struct pep_profile profile = example_profile;
    samples[0].mapping = "/usr/lib/libz.so.1";
    samples[1].mapping = "[anon]";
    for (int i = 0; i < 2; i++) {
        samples[i].tid = 0;
        samples[i].thread = NULL;
    }
    profile.samples = samples;
    profile.sample_count = 2;
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &profile, &arena);
    const char *json = judge(&bytes);
    assert_non_null(strstr(json, "\"labels\": {\"mapping\": \"/usr/lib/libz.so.1\"}"));
    assert_non_null(strstr(json, "\"labels\": {\"mapping\": \"[anon]\"}"));
}

static void test_deep_stack(void **state) {
    (void)state;
    enum { DEPTH = 1000 };
    uintptr_t pcs[DEPTH];
    struct pep_sample sample = example_profile.samples[0];
    struct pep_profile profile = example_profile;
    for (int i = 0; i < DEPTH; i++)
        pcs[i] = 0x7f0000001000u + (uintptr_t)i;
    sample.pcs = pcs;
    sample.pc_count = DEPTH;
    profile.samples = &sample;
    profile.sample_count = 1;
    struct pep_buffer_writer bytes = example_encode(pep_encode_pprof, &profile, &arena);
    assert_non_null(strstr(judge(&bytes), "\"totals\": [5, 50000000]"));
}

static uint32_t seed;

static uint32_t next_random(uint32_t below) {
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

/* Any bytes as a name; up to three frames; known or not; with or without files and lines. */
static int lookup_junk(struct pep_symbolizer *symbolizer, const struct pep_profile *profile,
                       uintptr_t pc, struct pep_frame *frames, int max) {
    (void)symbolizer;
    (void)profile;
    (void)pc;
    int count = (int)next_random(4); /* 0 breaks the promise of at least one */
    for (int i = 0; i < count && i < max; i++) {
        char *name = pep_arena_alloc(&arena, 64);
        for (uint32_t at = 0, length = next_random(63); at < length; at++)
            name[at] = (char)next_random(256);
        frames[i] = (struct pep_frame){.name = name, .is_known = next_random(2) == 0};
        frames[i].system_name = next_random(3) == 0 ? "_Zname" : name;
        frames[i].file = next_random(3) == 0 ? name : NULL;
        frames[i].line = next_random(3);
    }
    return count;
}

static void test_junk(void **state) {
    (void)state;
    struct pep_symbolizer symbolizer = {.lookup = lookup_junk};
    for (int round = 0; round < 12; round++) {
        seed = (uint32_t)round;
        uint32_t count = 1 + next_random(100);
        struct pep_profile profile = example_profile;
        profile.samples = pep_arena_array(&arena, count, sizeof(*profile.samples));
        profile.sample_count = count;
        profile.main_mapping = next_random(2) == 0 ? next_random(5) : PEP_MAPPING_NONE;
        int64_t total = 0;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t depth = 1 + next_random(20);
            uintptr_t *pcs = pep_arena_array(&arena, depth, sizeof(*pcs));
            for (uint32_t at = 0; at < depth; at++)
                pcs[at] = next_random(10) == 0
                              ? next_random(5000)
                              : profile.mappings[next_random(5)].start - 50 + next_random(200);
            int64_t value = (int64_t)next_random(1000) - 100;
            total += value > 0 ? value : 0;
            profile.samples[i] = (struct pep_sample){.pcs = pcs,
                                                     .pc_count = depth,
                                                     .tid = (int)next_random(3),
                                                     .thread = next_random(2) ? "t\xff" : "",
                                                     .bytes_label = next_random(2),
                                                     .values = {value > 0, value}};
        }
        struct pep_buffer_writer bytes;
        pep_buffer_writer_init(&bytes, &arena);
        struct pep_encode_job job = {.profile = &profile,
                                     .symbolizer = &symbolizer,
                                     .writer = &bytes.writer,
                                     .arena = &arena};
        pep_encode_pprof(&job);
        assert_int_equal(bytes.writer.error, 0);
        char expected[64];
        snprintf(expected, sizeof(expected), ", %lld], \"mappings\"", (long long)total);
        if (strstr(judge(&bytes), expected) == NULL)
            fail_msg("round %d: not %s", round, expected);
    }
}

/* Whatever allocation is refused: an error, and no byte that looks like a whole profile. */
static void test_without_memory(void **state) {
    (void)state;
    struct pep_profile profile = many(3000, 1);
    bool was_enough = false;
    int refused = 0;
    for (size_t limit = 1; !was_enough; limit += 64 * 1024) {
        struct pep_arena small;
        struct pep_buffer_writer bytes;
        pep_arena_init(&small, limit);
        pep_buffer_writer_init(&bytes, &arena);
        struct pep_encode_job job = {.profile = &profile,
                                     .symbolizer = &example_symbolizer,
                                     .writer = &bytes.writer,
                                     .arena = &small};
        pep_encode_pprof(&job);
        was_enough = bytes.writer.error == 0;
        if (!was_enough) {
            assert_int_equal(bytes.writer.error, -ENOMEM);
            refused++;
        }
        pep_arena_drop(&small);
    }
    assert_true(refused > 5);
}

static int write_never(struct pep_writer *writer, const void *bytes, size_t count) {
    (void)writer;
    (void)bytes;
    (void)count;
    return -EPIPE;
}

static void test_writer_fails(void **state) {
    (void)state;
    struct pep_writer writer = {.write = write_never};
    struct pep_encode_job job = {.profile = &example_profile,
                                 .symbolizer = &example_symbolizer,
                                 .writer = &writer,
                                 .arena = &arena};
    pep_encode_pprof(&job);
    assert_int_equal(writer.error, -EPIPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_exact_bytes, start, end),
        cmocka_unit_test_setup_teardown(test_every_rule_holds, start, end),
        cmocka_unit_test_setup_teardown(test_go_tool_reads_it, start, end),
        cmocka_unit_test_setup_teardown(test_differences, start, end),
        cmocka_unit_test_setup_teardown(test_judge_says_no, start, end),
        cmocka_unit_test_setup_teardown(test_judge_wants_a_whole_gzip_file, start, end),
        cmocka_unit_test_setup_teardown(test_all_fit_exactly, start, end),
        cmocka_unit_test_setup_teardown(test_lightest_are_merged, start, end),
        cmocka_unit_test_setup_teardown(test_too_many_bytes, start, end),
        cmocka_unit_test_setup_teardown(test_nothing_measured, start, end),
        cmocka_unit_test_setup_teardown(test_main_mapping_first, start, end),
        cmocka_unit_test_setup_teardown(test_bytes_label, start, end),
        cmocka_unit_test_setup_teardown(test_mapping_label, start, end),
        cmocka_unit_test_setup_teardown(test_deep_stack, start, end),
        cmocka_unit_test_setup_teardown(test_junk, start, end),
        cmocka_unit_test_setup_teardown(test_without_memory, start, end),
        cmocka_unit_test_setup_teardown(test_writer_fails, start, end),
    };
    return cmocka_run_group_tests_name("pprof", tests, NULL, NULL);
}
