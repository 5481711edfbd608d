/*
 * Source lines and inlined calls beside addr2line, damaged files, and a child that nobody sees.
 * LDFLAGS: -Wl,--wrap=pep_os_clone_child,--wrap=pep_lines_child
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "encoder/lines_child.h"
#include "encoder/symbol_file.h"
#include "lines_help.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

int __real_pep_os_clone_child(void);
int __wrap_pep_os_clone_child(void);
void __real_pep_lines_child(const struct pep_lines_task *task) __attribute__((noreturn));
void __wrap_pep_lines_child(const struct pep_lines_task *task) __attribute__((noreturn));

enum { HONEST, DIES_OF_THE_FIRST, WRITES_JUNK, SLEEPS }; /* what lines_child_is says */
static unsigned junk_seed;

int __wrap_pep_os_clone_child(void) {
    lines_clones++;
    return __real_pep_os_clone_child();
}

static void write_junk(const struct pep_lines_task *task) {
    char *heap = pep_lines_heap(task);
    srand(junk_seed);
    for (uint32_t i = 0; i < 4096; i++)
        heap[i] = (char)(rand() % 3 == 0 ? rand() : 0);
    task->sheet->used_bytes = rand() % 2 ? 4096 : (uint32_t)rand() * 3u;
    task->sheet->file = (uint32_t)rand();
    for (uint32_t i = 0; i < task->address_count + task->file_count; i++)
        task->sheet->words[i] = (uint32_t)rand() % (rand() % 2 ? 4200 : UINT32_MAX);
}

void __wrap_pep_lines_child(const struct pep_lines_task *task) {
    if (lines_child_is == DIES_OF_THE_FIRST && task->first == 0)
        __builtin_trap();
    if (lines_child_is == WRITES_JUNK) {
        write_junk(task);
        __builtin_trap();
    }
    while (lines_child_is == SLEEPS)
        pause();
    __real_pep_lines_child(task);
}

/* "innermost mix.h:3 < middle mix.c:4 < outermost mix.c:8" */
static void write_answer(char *to, size_t size, const struct pep_lines *lines) {
    size_t used = 0;
    to[0] = '\0';
    for (uint32_t i = 0; lines != NULL && i < lines->count; i++) {
        const char *slash = lines->frames[i].file != NULL ? strrchr(lines->frames[i].file, '/') : 0;
        used += (size_t)snprintf(to + used, size - used, "%s%s %s:%u", i > 0 ? " < " : "",
                                 lines->frames[i].function, slash != NULL ? slash + 1 : "?",
                                 lines->frames[i].line);
        assert_true(used < size);
    }
}

/* The same from addr2line -a -f -i -s: an address, then a function and a place for each frame. */
static void next_of_addr2line(FILE *pipe, char *to, size_t size, char *line, size_t line_size) {
    char function[1024] = "";
    size_t used = 0;
    to[0] = '\0';
    for (;;) {
        if (fgets(line, (int)line_size, pipe) == NULL || strncmp(line, "0x", 2) == 0)
            return;
        line[strcspn(line, " \n")] = '\0';
        if (function[0] == '\0') {
            snprintf(function, sizeof(function), "%s", line);
            continue;
        }
        used += (size_t)snprintf(to + used, size - used, "%s%s %s", used > 0 ? " < " : "", function,
                                 line);
        assert_true(used < size);
        function[0] = '\0';
    }
}

static void agree_with_addr2line(const char *path, const char *symbols) {
    char ours[1024], theirs[1024], line[1024];
    struct pep_mapping mapping = lines_mapping_of(path);
    uint32_t count = lines_list_addresses(symbols), inlined = 0;
    struct pep_lines_file file = lines_read_all(&mapping, count);
    assert_int_equal(file.end, PEP_LINES_READ);
    FILE *list = fopen(lines_at("addresses"), "w");
    assert_non_null(list);
    for (uint32_t i = 0; i < count; i++)
        fprintf(list, "%llx\n", (unsigned long long)lines_addresses[i]);
    fclose(list);
    FILE *pipe = popen(pep_arena_printf(&lines_arena, "addr2line -a -f -i -s -e %s <%s", symbols,
                                        lines_at("addresses")),
                       "r"); /* NOLINT */
    assert_non_null(pipe);
    assert_non_null(fgets(line, sizeof(line), pipe));
    for (uint32_t i = 0; i < count; i++) {
        next_of_addr2line(pipe, theirs, sizeof(theirs), line, sizeof(line));
        write_answer(ours, sizeof(ours), file.answers[i]);
        assert_string_equal(ours, theirs);
        inlined += file.answers[i]->count > 1;
    }
    assert_int_equal(pclose(pipe), 0);
    assert_true(inlined > 50);
    print_message("%s: %u addresses as addr2line, %u of them inlined\n", path, count, inlined);
}

static void lines_agree_with_addr2line(void **state) {
    (void)state;
    agree_with_addr2line(lines_at("mix"), lines_at("mix"));
    static const char *const options[] = {"-gdwarf-4", "-gz", "-no-pie", "-O1 -g3", "-Os"};
    for (size_t i = 0; i < PEP_COUNT_OF(options); i++) {
        lines_run("gcc -O2 -g %s -Wl,--build-id -o %s/other %s/mix.c", options[i], lines_folder,
                  lines_folder);
        agree_with_addr2line(lines_at("other"), lines_at("other"));
    }
}

static void a_separate_debug_file_is_found(void **state) {
    (void)state;
    lines_run("cd %s && objcopy --only-keep-debug mix mix.debug && cp mix whole && "
              "strip --strip-all mix && objcopy --add-gnu-debuglink=mix.debug mix",
              lines_folder);
    agree_with_addr2line(lines_at("mix"), lines_at("whole"));
    lines_run("rm %s", lines_at("mix.debug"));
    struct pep_mapping mapping = lines_mapping_of(lines_at("mix"));
    struct pep_lines_file file = lines_read_all(&mapping, 3);
    assert_int_equal(file.end, PEP_LINES_READ);
    assert_int_equal(file.answers[0]->count, 0);
}

static void a_file_of_another_build_is_not_read(void **state) {
    (void)state;
    struct pep_mapping mapping = lines_mapping_of(lines_at("mix"));
    lines_list_addresses(lines_at("mix"));
    mapping.build_id[0] = mapping.build_id[0] == '0' ? '1' : '0';
    struct pep_lines_file file = lines_read_all(&mapping, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(file.answers[i]->count, 0);
}

/* Where the debug sections lie in the file. */
static void find_sections(const char *path, long *from, long *to) {
    struct pep_elf elf;
    assert_int_equal(pep_elf_open(&elf, &lines_arena, path), 0);
    *from = LONG_MAX;
    *to = 0;
    for (uint32_t i = 0; i < elf.section_count; i++) {
        const Elf64_Shdr *section = &elf.sections[i];
        if (strncmp(pep_elf_section_name(&elf, section), ".debug_", 7) != 0)
            continue;
        *from = (long)section->sh_offset < *from ? (long)section->sh_offset : *from;
        if ((long)(section->sh_offset + section->sh_size) > *to)
            *to = (long)(section->sh_offset + section->sh_size);
    }
    pep_elf_close(&elf);
    assert_true(*from < *to);
}

static void no_damaged_file_ends_more_than_its_child(void **state) {
    (void)state;
    long from, to;
    find_sections(lines_at("mix"), &from, &to);
    struct pep_mapping mapping = lines_mapping_of(lines_at("mix"));
    uint32_t count = lines_list_addresses(lines_at("mix")), ends[PEP_LINES_DAMAGED + 1] = {0};
    for (unsigned round = 0; round < 200; round++) {
        lines_run("cp %s %s", lines_at("mix"), lines_at("bad"));
        FILE *file = fopen(lines_at("bad"), "r+");
        assert_non_null(file);
        srand(round);
        for (unsigned flips = 1 + round % 20; flips > 0 && round % 10 != 9; flips--) {
            fseek(file, from + rand() % (to - from), SEEK_SET);
            fputc(rand(), file);
        }
        if (round % 10 == 9)
            assert_int_equal(ftruncate(fileno(file), from + rand() % (to - from)), 0);
        fclose(file);
        mapping.path = lines_at("bad");
        struct pep_lines_file bad = {
            .mapping = &mapping, .addresses = lines_addresses, .count = count};
        int error = pep_lines_read(&lines_arena, &bad, 1,
                                   pep_os_clock_ns(CLOCK_MONOTONIC) + LINES_SECOND_NS);
        assert_true(error == 0 || error == -ETIME);
        ends[bad.end]++;
    }
    print_message("200 damaged files: %u read, %u in parts, %u late, %u ended their child\n",
                  ends[PEP_LINES_READ], ends[PEP_LINES_PARTLY], ends[PEP_LINES_LATE],
                  ends[PEP_LINES_DAMAGED]);
}

static void what_the_child_writes_is_not_believed(void **state) {
    (void)state;
    struct pep_mapping mapping = lines_mapping_of(lines_at("mix"));
    uint32_t count = lines_list_addresses(lines_at("mix"));
    uint64_t damaged = PEP_COUNTED(lines_damaged), records = 0;
    lines_child_is = WRITES_JUNK;
    for (junk_seed = 1; junk_seed <= 300; junk_seed++) {
        struct pep_lines_file file = lines_read_all(&mapping, count);
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t j = 0; file.answers[i] != NULL && j < file.answers[i]->count;
                 j++, records++)
                (void)(file.answers[i]->frames[j].file != NULL &&
                       strlen(file.answers[i]->frames[j].file));
        assert_int_equal(file.end, PEP_LINES_DAMAGED);
    }
    assert_int_equal(PEP_COUNTED(lines_damaged), damaged + 300);
    assert_true(records > 0);
}

static void the_files_after_a_deadly_one_are_read(void **state) {
    (void)state;
    struct pep_mapping mapping = lines_mapping_of(lines_at("mix"));
    lines_list_addresses(lines_at("mix"));
    struct pep_lines_file files[] = {
        {.mapping = &mapping, .addresses = lines_addresses, .count = 3},
        {.mapping = &mapping, .addresses = lines_addresses + 3, .count = 4},
    };
    lines_child_is = DIES_OF_THE_FIRST;
    uint64_t deadline = pep_os_clock_ns(CLOCK_MONOTONIC) + 20 * LINES_SECOND_NS;
    assert_int_equal(pep_lines_read(&lines_arena, files, 2, deadline), 0);
    assert_int_equal(files[0].end, PEP_LINES_DAMAGED);
    assert_int_equal(files[1].end, PEP_LINES_READ);
    assert_null(files[0].answers[2]);
    assert_true(files[1].answers[0]->count > 0);
    assert_int_equal(lines_clones, 2);
}

static void a_late_child_is_ended(void **state) {
    (void)state;
    struct pep_mapping mapping = lines_mapping_of(lines_at("mix"));
    struct pep_lines_file file = {.mapping = &mapping, .addresses = lines_addresses, .count = 3};
    uint64_t late = PEP_COUNTED(lines_late);
    lines_child_is = SLEEPS;
    uint64_t deadline = pep_os_clock_ns(CLOCK_MONOTONIC) + LINES_SECOND_NS / 20;
    assert_int_equal(pep_lines_read(&lines_arena, &file, 1, deadline), -ETIME);
    assert_int_equal(file.end, PEP_LINES_LATE);
    assert_null(file.answers[0]);
    assert_int_equal(PEP_COUNTED(lines_late), late + 1);
    assert_int_equal(waitpid(-1, NULL, __WALL), -1);
    assert_int_equal(errno, ECHILD);
}

#define DEPTH 80

/* DEPTH calls, all inlined into one function. */
static void calls_beyond_the_limit_are_told(void **state) {
    (void)state;
    FILE *source = fopen(lines_at("deep.c"), "w");
    assert_non_null(source);
    fputs("volatile unsigned sink;\n"
          "#define F static inline __attribute__((always_inline)) void\n"
          "F f0(void) { for (int i = 0; i < 9; i++) sink += sink; }\n",
          source);
    for (int i = 1; i < DEPTH; i++)
        fprintf(source, "F f%d(void) { f%d(); }\n", i, i - 1);
    fprintf(source,
            "__attribute__((noinline)) void outermost(void) { f%d(); }\n"
            "int main(void) { outermost(); return (int)sink; }\n",
            DEPTH - 1);
    fclose(source);
    lines_run("gcc -O2 -g -Wl,--build-id -o %s/deep %s/deep.c", lines_folder, lines_folder);
    struct pep_mapping mapping = lines_mapping_of(lines_at("deep"));
    uint32_t count = lines_list_addresses(lines_at("deep")), cut = 0;
    struct pep_lines_file file = lines_read_all(&mapping, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct pep_lines *lines = file.answers[i];
        if (lines->count < PEP_LINES_FRAMES_MAX)
            continue;
        assert_string_equal(lines->frames[0].function, "f0");
        assert_string_equal(lines->frames[PEP_LINES_FRAMES_MAX - 3].function, "f61");
        assert_string_equal(lines->frames[PEP_LINES_FRAMES_MAX - 2].function, "[truncated]");
        assert_null(lines->frames[PEP_LINES_FRAMES_MAX - 2].file);
        assert_string_equal(lines->frames[PEP_LINES_FRAMES_MAX - 1].function, "outermost");
        cut++;
    }
    assert_true(cut > 0);
}

static volatile sig_atomic_t told;

static void on_child(int sig) {
    (void)sig;
    told++;
}

static void the_host_sees_no_child(void **state) {
    (void)state;
    struct pep_mapping mapping = lines_mapping_of(lines_at("mix"));
    lines_list_addresses(lines_at("mix"));
    void (*const answers[])(int) = {on_child, SIG_IGN, SIG_DFL};
    for (size_t i = 0; i < PEP_COUNT_OF(answers); i++) {
        signal(SIGCHLD, answers[i]);
        struct pep_lines_file file = lines_read_all(&mapping, 3);
        assert_true(file.answers[0]->count > 0);
        assert_int_equal(waitpid(-1, NULL, __WALL), -1); /* not even a dead one is left */
        assert_int_equal(errno, ECHILD);
    }
    assert_int_equal(told, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, lines_begin, lines_end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(lines_agree_with_addr2line),
        TEST(a_separate_debug_file_is_found),
        TEST(a_file_of_another_build_is_not_read),
        TEST(no_damaged_file_ends_more_than_its_child),
        TEST(what_the_child_writes_is_not_believed),
        TEST(the_files_after_a_deadly_one_are_read),
        TEST(a_late_child_is_ended),
        TEST(calls_beyond_the_limit_are_told),
        TEST(the_host_sees_no_child),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
