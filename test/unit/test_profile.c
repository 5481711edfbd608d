/* LDFLAGS: -Wl,--wrap=pep_os_open */
/* A profile is the difference of two readings, complete in itself, with what was lost. */
#include <errno.h>
#include <gnu/libc-version.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/cpu.h"
#include "sampler/profile_parts.h"
#include "sampler/rt/counters.h"
#include "sampler/stack_table.h"
#include "sampler/thread.h"
#include "test/unit/cpu_help.h"

static int refuse_open;
int __real_pep_os_open(const char *, int, int);
int __wrap_pep_os_open(const char *, int, int);
int __wrap_pep_os_open(const char *path, int flags, int mode) {
    return refuse_open ? -EACCES : __real_pep_os_open(path, flags, mode);
}

static struct pep_arena arena;

static int begin(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    return 0;
}

static int end(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static pep_stack_id stack_at(uintptr_t pc) {
    uintptr_t pcs[2] = {pc, pc + 0x100};
    return pep_stack_table_add(pcs, 2);
}

static const struct pep_sample *sample_at(const struct pep_profile *profile, uintptr_t pc) {
    for (uint32_t i = 0; i < profile->sample_count; i++) {
        if (profile->samples[i].pcs[0] == pc)
            return &profile->samples[i];
    }
    return NULL;
}

static bool is_told(const struct pep_profile *profile, const char *part) {
    for (uint32_t i = 0; i < profile->comment_count; i++) {
        if (strstr(profile->comments[i], part) != NULL)
            return true;
    }
    return false;
}

static void only_what_the_window_added_is_there(void **state) {
    (void)state;
    uint32_t identity = pep_thread_identity(pep_thread_self());
    pep_stack_table_charge(stack_at(0x1000000), identity, 5, 500);
    pep_stack_table_charge(stack_at(0x2000000), identity, 7, 700);
    struct pep_cpu_snapshot *before = pep_cpu_snapshot_take(&arena);
    pep_stack_table_charge(stack_at(0x2000000), identity, 2, 30);
    pep_stack_table_charge(stack_at(0x3000000), 0, 1, 10);
    pep_stack_table_charge(stack_at(0x4000000), identity, 0, 4); /* a tail: weight alone */
    struct pep_profile *profile = pep_profile_cpu(&arena, before, 100, NULL);
    assert_non_null(profile);
    assert_int_equal(profile->sample_count, 3);
    assert_null(sample_at(profile, 0x1000000));
    const struct pep_sample *sample = sample_at(profile, 0x2000000);
    assert_int_equal(sample->values[0], 2);
    assert_int_equal(sample->values[1], 30);
    assert_int_equal(sample->pc_count, 2);
    assert_int_equal(sample->tid, getpid());
    assert_string_equal(sample->thread, "tester");
    sample = sample_at(profile, 0x3000000);
    assert_int_equal(sample->tid, 0);
    assert_null(sample->thread);
    assert_int_equal(sample_at(profile, 0x4000000)->values[0], 0);
    struct pep_profile *again = pep_profile_cpu(&arena, before, 100, NULL);
    assert_int_equal(again->sample_count, 3);
    before = pep_cpu_snapshot_take(&arena);
    assert_int_equal(pep_profile_cpu(&arena, before, 100, NULL)->sample_count, 0);
}

static void the_frame_around_the_samples(void **state) {
    (void)state;
    int64_t start = (int64_t)pep_os_clock_ns(CLOCK_REALTIME);
    struct pep_cpu_snapshot *before = pep_cpu_snapshot_take(&arena);
    struct pep_profile *profile = pep_profile_cpu(&arena, before, 250, NULL);
    assert_string_equal(profile->kind, "cpu");
    assert_int_equal(profile->type_count, 2);
    assert_string_equal(profile->types[0].type, "samples");
    assert_string_equal(profile->types[0].unit, "count");
    assert_string_equal(profile->types[1].type, "cpu");
    assert_string_equal(profile->types[1].unit, "nanoseconds");
    assert_int_equal(profile->default_type, 1);
    assert_int_equal(profile->period, 4000000);
    assert_int_equal(profile->pid, getpid());
    assert_true(profile->time_ns >= start);
    assert_true(profile->duration_ns > 0);
    assert_true(is_told(profile, "CPU sampler:"));
    assert_true(is_told(profile, "No thread used enough CPU time"));
    assert_null(pep_profile_cpu(&arena, NULL, 100, NULL));
    assert_null(pep_profile_cpu(&arena, before, 0, NULL));
}

static void a_filter_keeps_a_tid_or_a_name(void **state) {
    (void)state;
    struct pep_cpu_snapshot *before = pep_cpu_snapshot_take(&arena);
    uint32_t identity = pep_thread_identity(pep_thread_self());
    pep_stack_table_charge(stack_at(0x1000000), identity, 1, 1);
    pep_stack_table_charge(stack_at(0x1000000), 0, 1, 1);
    char tid[16];
    snprintf(tid, sizeof tid, "%d", getpid());
    const struct {
        const char *thread;
        uint32_t count;
    } cases[] = {{NULL, 2},      {"", 2},    {tid, 1},
                 {"tester", 1},  {"est", 1}, {"x", 0},
                 {"testerx", 0}, {"0", 0},   {"12345678901234567890", 0}};
    for (size_t i = 0; i < PEP_COUNT_OF(cases); i++) {
        struct pep_profile_filter filter = {cases[i].thread};
        struct pep_profile *profile = pep_profile_cpu(&arena, before, 100, &filter);
        assert_int_equal(profile->sample_count, cases[i].count);
    }
}

static void losses_in_the_window_are_told(void **state) {
    (void)state;
    PEP_COUNT(timer_refused, 3);
    struct pep_cpu_snapshot *before = pep_cpu_snapshot_take(&arena);
    struct pep_profile *profile = pep_profile_cpu(&arena, before, 100, NULL);
    assert_false(is_told(profile, "timer_refused"));
    PEP_COUNT(timer_refused, 2);
    PEP_COUNT(heap_samples, 2);
    PEP_COUNT(lock_unknown_holder, 2);
    profile = pep_profile_cpu(&arena, before, 100, NULL);
    assert_true(is_told(profile, "2 threads without a timer because the kernel refused one"));
    assert_false(is_told(profile, "heap_samples"));        /* work done */
    assert_false(is_told(profile, "lock_unknown_holder")); /* another profile's loss */
}

static void the_rate_that_was_reached_is_told(void **state) {
    (void)state;
    uint64_t outer = help_cpu_ns();
    assert_int_equal(pep_cpu_begin(1000), 0);
    assert_int_equal(pep_cpu_begin(100), 0);
    struct pep_cpu_snapshot *before = pep_cpu_snapshot_take(&arena);
    uint64_t inner = help_cpu_ns();
    help_burn_ms(50);
    inner = help_cpu_ns() - inner;
    struct pep_profile *profile = pep_profile_cpu(&arena, before, 100, NULL);
    outer = help_cpu_ns() - outer;
    pep_cpu_end(1000);
    pep_cpu_end(100);
    assert_true(profile->sample_count > 0);
    assert_true(is_told(profile, "Rate asked: 100 Hz; reached: "));
    assert_true(is_told(profile, "Another window runs at 1000 Hz"));
    int64_t weight = 0;
    for (uint32_t i = 0; i < profile->sample_count; i++)
        weight += profile->samples[i].values[1];
    /* From the snapshot on, save for what is not charged before the first sample. */
    assert_in_range(weight, inner, outer + HELP_AHEAD_NS);
}

static void mappings_are_sorted_and_the_program_is_known(void **state) {
    (void)state;
    struct pep_cpu_snapshot *before = pep_cpu_snapshot_take(&arena);
    struct pep_profile *profile = pep_profile_cpu(&arena, before, 100, NULL);
    assert_true(profile->mapping_count >= 3);
    for (uint32_t i = 0; i < profile->mapping_count; i++) {
        const struct pep_mapping *mapping = &profile->mappings[i];
        assert_true(mapping->start < mapping->limit);
        assert_true(i == 0 || profile->mappings[i - 1].limit <= mapping->start);
        assert_non_null(mapping->path);
        assert_false(mapping->is_jit);
        assert_int_equal(pep_profile_mapping_of(profile, mapping->start), i);
        assert_int_equal(pep_profile_mapping_of(profile, mapping->limit - 1), i);
    }
    assert_int_equal(pep_profile_mapping_of(profile, 0x10), PEP_MAPPING_NONE);
    assert_int_equal(pep_profile_mapping_of(profile, ~0ul), PEP_MAPPING_NONE);
    uint32_t here = pep_profile_mapping_of(profile, (uintptr_t)&begin);
    assert_int_equal(here, profile->main_mapping);
    assert_non_null(strstr(profile->mappings[here].path, "test_profile"));
    uint32_t libc = pep_profile_mapping_of(profile, (uintptr_t)&gnu_get_libc_version);
    assert_non_null(strstr(profile->mappings[libc].path, "libc"));
    assert_int_equal(strlen(profile->mappings[libc].build_id), 40);
}

static void code_without_a_file_is_listed_when_it_was_hit(void **state) {
    (void)state;
    char *code = mmap(NULL, 8192, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(code, MAP_FAILED);
    struct pep_cpu_snapshot *before = pep_cpu_snapshot_take(&arena);
    pep_stack_table_charge(stack_at((uintptr_t)code + 64), 0, 1, 1);
    struct pep_profile *profile = pep_profile_cpu(&arena, before, 100, NULL);
    uint32_t found = pep_profile_mapping_of(profile, (uintptr_t)code + 64);
    assert_int_not_equal(found, PEP_MAPPING_NONE);
    assert_true(profile->mappings[found].is_jit);
    assert_string_equal(profile->mappings[found].path, "//anon");
    assert_string_equal(profile->mappings[found].build_id, "");
    refuse_open = 1; /* no /proc: the modules that were known, nothing else */
    profile = pep_profile_cpu(&arena, before, 100, NULL);
    refuse_open = 0;
    assert_non_null(profile);
    assert_int_not_equal(profile->main_mapping, PEP_MAPPING_NONE);
    assert_int_equal(pep_profile_mapping_of(profile, (uintptr_t)code), PEP_MAPPING_NONE);
    munmap(code, 8192);
}

static bool parses(const char *line, struct pep_maps_range *range) {
    return pep_maps_parse_executable(line, strlen(line), range);
}

static void lines_of_maps(void **state) {
    (void)state;
    struct pep_maps_range range;
    assert_true(parses("7f00aa000000-7f00aa021000 rwxp 00000000 00:00 0 ", &range));
    assert_int_equal(range.start, 0x7f00aa000000);
    assert_int_equal(range.limit, 0x7f00aa021000);
    assert_int_equal(range.name_bytes, 0);
    assert_true(parses("1000-2000 r-xp 00003000 fd:01 77   /tmp/a b (deleted)", &range));
    assert_int_equal(range.offset, 0x3000);
    assert_int_equal(range.name_bytes, 18);
    assert_memory_equal(range.name, "/tmp/a b (deleted)", 18);
    assert_false(parses("1000-2000 rw-p 00003000 fd:01 77 /tmp/a", &range));
    static const char *const bad[] = {"",
                                      "-",
                                      "1000",
                                      "1000-",
                                      "xyz-1",
                                      "1000-2000",
                                      "1000-2000 r-x",
                                      "1000-2000 r-xp",
                                      "1-2 ",
                                      "1000 2000 r-xp 0 0 0",
                                      "1000-2000 r-xp zz"};
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++)
        assert_false(parses(bad[i], &range));
}

static void notes_say_what_is_missing(void **state) {
    (void)state;
    assert_string_equal(pep_profile_pc_note(PEP_PC_TRUNCATED), "[truncated]");
    assert_string_equal(pep_profile_pc_note(PEP_PC_TABLE_FULL), "[profep: table full]");
    assert_string_equal(pep_profile_pc_note(PEP_PC_UNKNOWN), "[unknown]");
    assert_string_equal(pep_profile_pc_note(PEP_PC_NONE), "[unknown]");
    assert_null(pep_profile_pc_note(PEP_PC_FIRST_REAL));
}

static void a_small_arena_gives_no_profile(void **state) {
    (void)state;
    struct pep_arena small;
    pep_arena_init(&small, 1);
    assert_null(pep_cpu_snapshot_take(&small));
    struct pep_cpu_snapshot *before = pep_cpu_snapshot_take(&arena);
    pep_stack_table_charge(stack_at(0x1000000), pep_thread_identity(pep_thread_self()), 1, 1);
    assert_null(pep_profile_cpu(&small, before, 100, NULL));
    pep_arena_drop(&small);
    pep_arena_init(&small, 70000); /* no room for the names of threads */
    assert_null(pep_profile_cpu(&small, before, 100, NULL));
    pep_arena_drop(&small);
}

int main(void) {
    const struct pep_cpu_options options = {.engine = PEP_CPU_AUTO};
    prctl(PR_SET_NAME, "tester");
    if (pep_threads_init() < 0 || pep_cpu_init(&options) < 0 || pep_stack_table_init() < 0)
        return 1;
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(only_what_the_window_added_is_there),
        TEST(the_frame_around_the_samples),
        TEST(a_filter_keeps_a_tid_or_a_name),
        TEST(losses_in_the_window_are_told),
        TEST(the_rate_that_was_reached_is_told),
        TEST(mappings_are_sorted_and_the_program_is_known),
        TEST(code_without_a_file_is_listed_when_it_was_hit),
        TEST(lines_of_maps),
        TEST(notes_say_what_is_missing),
        TEST(a_small_arena_gives_no_profile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
