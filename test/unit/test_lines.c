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
#include "encoder/symbolize.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

#define SECOND_NS UINT64_C(1000000000)
#define ADDRESSES_MAX 4096

int __real_pep_os_clone_child(void);
int __wrap_pep_os_clone_child(void);
void __real_pep_lines_child(const struct pep_lines_task *task) __attribute__((noreturn));
void __wrap_pep_lines_child(const struct pep_lines_task *task) __attribute__((noreturn));

static struct pep_arena arena;
static char folder[64];
static int clone_error, clones;
static enum { HONEST, DIES_OF_THE_FIRST, WRITES_JUNK, SLEEPS } child_is;
static unsigned junk_seed;
static uint64_t addresses[ADDRESSES_MAX];

int __wrap_pep_os_clone_child(void) {
    clones++;
    return clone_error != 0 ? clone_error : __real_pep_os_clone_child();
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
    if (child_is == DIES_OF_THE_FIRST && task->first == 0)
        raise(SIGKILL);
    if (child_is == WRITES_JUNK) {
        write_junk(task);
        raise(SIGKILL);
    }
    while (child_is == SLEEPS)
        pause();
    __real_pep_lines_child(task);
}

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...) {
    char command[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof(command), format, list);
    va_end(list);
    if (system(command) != 0) /* NOLINT: a fixed command of this test */
        fail_msg("%s", command);
}

static const char *at(const char *name) {
    return pep_arena_printf(&arena, "%s/%s", folder, name);
}

/* Three calls deep at -O2, two files, a loop, and a function that is called and inlined. */
static void write_sources(void) {
    FILE *header = fopen(at("mix.h"), "w"), *source = fopen(at("mix.c"), "w");
    assert_non_null(header);
    assert_non_null(source);
    fputs("static inline __attribute__((always_inline)) unsigned innermost(unsigned v) {\n"
          "    for (unsigned i = 0; i < v % 7; i++)\n"
          "        v = v * 1664525u + i;\n"
          "    return v;\n"
          "}\n",
          header);
    fputs("#include \"mix.h\"\n"
          "volatile unsigned sink;\n"
          "static inline __attribute__((always_inline)) unsigned middle(unsigned v) {\n"
          "    return innermost(v) ^\n"
          "           innermost(v + 1);\n"
          "}\n"
          "__attribute__((noinline)) void outermost(unsigned v) {\n"
          "    sink += middle(v);\n"
          "    sink += innermost(v);\n"
          "}\n"
          "__attribute__((noinline)) int apart(int n) {\n"
          "    return n < 2 ? n : apart(n - 1) + (int)sink;\n"
          "}\n"
          "int main(int argc, char **argv) {\n"
          "    (void)argv;\n"
          "    outermost((unsigned)argc);\n"
          "    return apart(argc);\n"
          "}\n",
          source);
    fclose(header);
    fclose(source);
}

static int begin(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    strcpy(folder, "/tmp/pep_test_lines.XXXXXX");
    assert_non_null(mkdtemp(folder));
    write_sources();
    run("gcc -O2 -g -Wl,--build-id -o %s/mix %s/mix.c", folder, folder);
    clone_error = clones = 0;
    child_is = HONEST;
    return 0;
}

static int end(void **state) {
    (void)state;
    run("rm -r %s", folder);
    pep_arena_drop(&arena);
    return 0;
}

static struct pep_mapping mapping_of(const char *path) {
    struct pep_elf elf;
    struct pep_mapping mapping = {.path = path, .limit = UINT64_C(1) << 40};
    assert_int_equal(pep_elf_open(&elf, &arena, path), 0);
    memcpy(mapping.build_id, elf.build_id, sizeof(mapping.build_id));
    pep_elf_close(&elf);
    return mapping;
}

/* Every address of the program's own functions. */
static uint32_t list_addresses(const char *path) {
    char line[256], name[128];
    unsigned long long start, size;
    uint32_t count = 0;
    FILE *nm = popen(pep_arena_printf(&arena, "nm -S %s", path), "r"); /* NOLINT */
    assert_non_null(nm);
    while (fgets(line, sizeof(line), nm) != NULL) {
        if (sscanf(line, "%llx %llx %*c %127s", &start, &size, name) != 3 ||
            (strcmp(name, "outermost") != 0 && strcmp(name, "apart") != 0 &&
             strcmp(name, "main") != 0))
            continue;
        for (uint64_t i = 0; i < size; i++)
            addresses[count++] = start + i;
        assert_true(count < ADDRESSES_MAX - 1024);
    }
    assert_int_equal(pclose(nm), 0);
    assert_true(count > 100);
    return count;
}

static struct pep_lines_file read_all(const struct pep_mapping *mapping, uint32_t count) {
    struct pep_lines_file file = {.mapping = mapping, .addresses = addresses, .count = count};
    uint64_t deadline = pep_os_clock_ns(CLOCK_MONOTONIC) + 20 * SECOND_NS;
    assert_int_equal(pep_lines_read(&arena, &file, 1, deadline), 0);
    return file;
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
    struct pep_mapping mapping = mapping_of(path);
    uint32_t count = list_addresses(symbols), inlined = 0;
    struct pep_lines_file file = read_all(&mapping, count);
    assert_int_equal(file.end, PEP_LINES_READ);
    FILE *list = fopen(at("addresses"), "w");
    assert_non_null(list);
    for (uint32_t i = 0; i < count; i++)
        fprintf(list, "%llx\n", (unsigned long long)addresses[i]);
    fclose(list);
    FILE *pipe =
        popen(pep_arena_printf(&arena, "addr2line -a -f -i -s -e %s <%s", symbols, at("addresses")),
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
    agree_with_addr2line(at("mix"), at("mix"));
    static const char *const options[] = {"-gdwarf-4", "-gz", "-no-pie", "-O1 -g3", "-Os"};
    for (size_t i = 0; i < PEP_COUNT_OF(options); i++) {
        run("gcc -O2 -g %s -Wl,--build-id -o %s/other %s/mix.c", options[i], folder, folder);
        agree_with_addr2line(at("other"), at("other"));
    }
}

static void a_separate_debug_file_is_found(void **state) {
    (void)state;
    run("cd %s && objcopy --only-keep-debug mix mix.debug && cp mix whole && "
        "strip --strip-all mix && objcopy --add-gnu-debuglink=mix.debug mix",
        folder);
    agree_with_addr2line(at("mix"), at("whole"));
    run("rm %s", at("mix.debug"));
    struct pep_mapping mapping = mapping_of(at("mix"));
    struct pep_lines_file file = read_all(&mapping, 3);
    assert_int_equal(file.end, PEP_LINES_READ);
    assert_int_equal(file.answers[0]->count, 0);
}

static void a_file_of_another_build_is_not_read(void **state) {
    (void)state;
    struct pep_mapping mapping = mapping_of(at("mix"));
    list_addresses(at("mix"));
    mapping.build_id[0] = mapping.build_id[0] == '0' ? '1' : '0';
    struct pep_lines_file file = read_all(&mapping, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(file.answers[i]->count, 0);
}

/* Where the debug sections lie in the file. */
static void find_sections(const char *path, long *from, long *to) {
    struct pep_elf elf;
    assert_int_equal(pep_elf_open(&elf, &arena, path), 0);
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
    find_sections(at("mix"), &from, &to);
    struct pep_mapping mapping = mapping_of(at("mix"));
    uint32_t count = list_addresses(at("mix")), ends[PEP_LINES_DAMAGED + 1] = {0};
    for (unsigned round = 0; round < 200; round++) {
        run("cp %s %s", at("mix"), at("bad"));
        FILE *file = fopen(at("bad"), "r+");
        assert_non_null(file);
        srand(round);
        for (unsigned flips = 1 + round % 20; flips > 0 && round % 10 != 9; flips--) {
            fseek(file, from + rand() % (to - from), SEEK_SET);
            fputc(rand(), file);
        }
        if (round % 10 == 9)
            assert_int_equal(ftruncate(fileno(file), from + rand() % (to - from)), 0);
        fclose(file);
        mapping.path = at("bad");
        struct pep_lines_file bad = {.mapping = &mapping, .addresses = addresses, .count = count};
        int error = pep_lines_read(&arena, &bad, 1, pep_os_clock_ns(CLOCK_MONOTONIC) + SECOND_NS);
        assert_true(error == 0 || error == -ETIME);
        ends[bad.end]++;
    }
    print_message("200 damaged files: %u read, %u in parts, %u late, %u ended their child\n",
                  ends[PEP_LINES_READ], ends[PEP_LINES_PARTLY], ends[PEP_LINES_LATE],
                  ends[PEP_LINES_DAMAGED]);
}

static void what_the_child_writes_is_not_believed(void **state) {
    (void)state;
    struct pep_mapping mapping = mapping_of(at("mix"));
    uint32_t count = list_addresses(at("mix"));
    uint64_t damaged = PEP_COUNTED(lines_damaged), records = 0;
    child_is = WRITES_JUNK;
    for (junk_seed = 1; junk_seed <= 300; junk_seed++) {
        struct pep_lines_file file = read_all(&mapping, count);
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
    struct pep_mapping mapping = mapping_of(at("mix"));
    list_addresses(at("mix"));
    struct pep_lines_file files[] = {
        {.mapping = &mapping, .addresses = addresses, .count = 3},
        {.mapping = &mapping, .addresses = addresses + 3, .count = 4},
    };
    child_is = DIES_OF_THE_FIRST;
    uint64_t deadline = pep_os_clock_ns(CLOCK_MONOTONIC) + 20 * SECOND_NS;
    assert_int_equal(pep_lines_read(&arena, files, 2, deadline), 0);
    assert_int_equal(files[0].end, PEP_LINES_DAMAGED);
    assert_int_equal(files[1].end, PEP_LINES_READ);
    assert_null(files[0].answers[2]);
    assert_true(files[1].answers[0]->count > 0);
    assert_int_equal(clones, 2);
}

static void a_late_child_is_ended(void **state) {
    (void)state;
    struct pep_mapping mapping = mapping_of(at("mix"));
    struct pep_lines_file file = {.mapping = &mapping, .addresses = addresses, .count = 3};
    uint64_t late = PEP_COUNTED(lines_late);
    child_is = SLEEPS;
    uint64_t deadline = pep_os_clock_ns(CLOCK_MONOTONIC) + SECOND_NS / 20;
    assert_int_equal(pep_lines_read(&arena, &file, 1, deadline), -ETIME);
    assert_int_equal(file.end, PEP_LINES_LATE);
    assert_null(file.answers[0]);
    assert_int_equal(PEP_COUNTED(lines_late), late + 1);
    assert_int_equal(waitpid(-1, NULL, __WALL), -1);
    assert_int_equal(errno, ECHILD);
}

static volatile sig_atomic_t told;

static void on_child(int sig) {
    (void)sig;
    told++;
}

static void the_host_sees_no_child(void **state) {
    (void)state;
    struct pep_mapping mapping = mapping_of(at("mix"));
    list_addresses(at("mix"));
    void (*const answers[])(int) = {on_child, SIG_IGN, SIG_DFL};
    for (size_t i = 0; i < PEP_COUNT_OF(answers); i++) {
        signal(SIGCHLD, answers[i]);
        struct pep_lines_file file = read_all(&mapping, 3);
        assert_true(file.answers[0]->count > 0);
        assert_int_equal(waitpid(-1, NULL, __WALL), -1); /* not even a dead one is left */
        assert_int_equal(errno, ECHILD);
    }
    assert_int_equal(told, 0);
}

/* -- the symbolizer -------------------------------------------------------------------------- */

#define BIAS UINT64_C(0x10000000)

struct subject {
    struct pep_mapping mapping;
    struct pep_sample sample;
    struct pep_profile profile;
    uintptr_t pcs[ADDRESSES_MAX];
};

static void make_subject(struct subject *subject, uint32_t count) {
    *subject = (struct subject){.mapping = mapping_of(at("mix"))};
    subject->mapping.start = subject->mapping.bias = BIAS;
    subject->mapping.limit = BIAS + (1 << 20);
    for (uint32_t i = 0; i < count; i++)
        subject->pcs[i] = BIAS + addresses[i];
    subject->sample = (struct pep_sample){.pcs = subject->pcs, .pc_count = count};
    subject->profile = (struct pep_profile){.samples = &subject->sample,
                                            .sample_count = 1,
                                            .mappings = &subject->mapping,
                                            .mapping_count = 1,
                                            .main_mapping = PEP_MAPPING_NONE};
}

static uint32_t count_inlined(struct subject *subject, uint32_t count) {
    struct pep_symbolizer *symbolizer = pep_symbolizer_begin(&arena);
    assert_non_null(symbolizer);
    pep_symbolizer_prepare(symbolizer, &arena, &subject->profile);
    struct pep_frame frames[PEP_LINES_FRAMES_MAX], outer;
    uint32_t inlined = 0;
    for (uint32_t i = 0; i < count; i++) {
        int found = symbolizer->lookup(symbolizer, &subject->profile, subject->pcs[i], frames,
                                       PEP_LINES_FRAMES_MAX);
        assert_true(found >= 1);
        const char *name = frames[found - 1].name;
        assert_true(!strcmp(name, "outermost") || !strcmp(name, "apart") || !strcmp(name, "main"));
        assert_int_equal(
            symbolizer->lookup(symbolizer, &subject->profile, subject->pcs[i], &outer, 1), 1);
        assert_string_equal(outer.name, name);
        if (strcmp(name, "outermost") == 0 && frames[found - 1].line != 0)
            assert_int_equal(frames[found - 1].start_line, 7);
        inlined += found > 1;
    }
    pep_symbolizer_end(symbolizer);
    return inlined;
}

static void lines_are_kept_for_the_next_request(void **state) {
    (void)state;
    static struct subject subject;
    uint32_t count = list_addresses(at("mix"));
    make_subject(&subject, count);
    uint32_t inlined = count_inlined(&subject, count);
    assert_true(inlined > 50);
    assert_int_equal(clones, 1);
    assert_int_equal(count_inlined(&subject, count), inlined);
    assert_int_equal(clones, 1);
    assert_int_equal(subject.profile.comment_count, 0);
}

static void without_a_child_there_are_names(void **state) {
    (void)state;
    static struct subject subject;
    uint32_t count = list_addresses(at("mix"));
    uint64_t refused = PEP_COUNTED(lines_refused);
    make_subject(&subject, count);
    clone_error = -EAGAIN;
    assert_int_equal(count_inlined(&subject, count), 0);
    assert_int_equal(PEP_COUNTED(lines_refused), refused + 1);
    assert_int_equal(subject.profile.comment_count, 1);
    assert_non_null(strstr(subject.profile.comments[0], "no process to read them"));
    clone_error = 0;
    make_subject(&subject, count);
    assert_true(count_inlined(&subject, count) > 50);
    assert_int_equal(subject.profile.comment_count, 0);
}

static void a_deadly_file_is_tried_once(void **state) {
    (void)state;
    static struct subject subject;
    uint32_t count = list_addresses(at("mix"));
    child_is = DIES_OF_THE_FIRST;
    for (int i = 0; i < 2; i++) {
        make_subject(&subject, count);
        assert_int_equal(count_inlined(&subject, count), 0);
        assert_int_equal(clones, 1);
        assert_int_equal(subject.profile.comment_count, 1);
        assert_non_null(strstr(subject.profile.comments[0], "mix are missing: its debug"));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(lines_agree_with_addr2line),
        TEST(a_separate_debug_file_is_found),
        TEST(a_file_of_another_build_is_not_read),
        TEST(no_damaged_file_ends_more_than_its_child),
        TEST(what_the_child_writes_is_not_believed),
        TEST(the_files_after_a_deadly_one_are_read),
        TEST(a_late_child_is_ended),
        TEST(the_host_sees_no_child),
        TEST(lines_are_kept_for_the_next_request),
        TEST(without_a_child_there_are_names),
        TEST(a_deadly_file_is_tried_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
