#include "lines_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "encoder/elf.h"
#include "sampler/rt/os.h"

struct pep_arena lines_arena;
char lines_folder[64];
uint64_t lines_addresses[LINES_ADDRESSES_MAX];
int lines_clones, lines_clone_error, lines_child_is;

void lines_run(const char *format, ...) {
    char command[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof(command), format, list);
    va_end(list);
    if (system(command) != 0) /* NOLINT: a fixed command of this test */
        fail_msg("%s", command);
}

const char *lines_at(const char *name) {
    return pep_arena_printf(&lines_arena, "%s/%s", lines_folder, name);
}

/* Three calls deep at -O2, two files, a loop, and a function that is called and inlined. */
static void write_sources(void) {
    FILE *header = fopen(lines_at("mix.h"), "w"), *source = fopen(lines_at("mix.c"), "w");
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

struct pep_mapping lines_mapping_of(const char *path) {
    struct pep_elf elf;
    struct pep_mapping mapping = {.path = path, .limit = UINT64_C(1) << 40};
    assert_int_equal(pep_elf_open(&elf, &lines_arena, path), 0);
    memcpy(mapping.build_id, elf.build_id, sizeof(mapping.build_id));
    pep_elf_close(&elf);
    return mapping;
}

uint32_t lines_list_addresses(const char *path) {
    char line[256], name[128];
    unsigned long long start, size;
    uint32_t count = 0;
    FILE *nm = popen(pep_arena_printf(&lines_arena, "nm -S %s", path), "r"); /* NOLINT */
    assert_non_null(nm);
    while (fgets(line, sizeof(line), nm) != NULL) {
        if (sscanf(line, "%llx %llx %*c %127s", &start, &size, name) != 3 ||
            (strcmp(name, "outermost") != 0 && strcmp(name, "apart") != 0 &&
             strcmp(name, "main") != 0))
            continue;
        for (uint64_t i = 0; i < size; i++)
            lines_addresses[count++] = start + i;
        assert_true(count < LINES_ADDRESSES_MAX - 1024);
    }
    assert_int_equal(pclose(nm), 0);
    assert_true(count > 30);
    return count;
}

int lines_begin(void **state) {
    (void)state;
    lines_clones = lines_clone_error = lines_child_is = 0;
    pep_arena_init(&lines_arena, 0);
    strcpy(lines_folder, "/tmp/pep_test_lines.XXXXXX");
    assert_non_null(mkdtemp(lines_folder));
    write_sources();
    lines_run("gcc -O2 -g -Wl,--build-id -o %s/mix %s/mix.c", lines_folder, lines_folder);
    return 0;
}

int lines_end(void **state) {
    (void)state;
    lines_run("rm -r %s", lines_folder);
    pep_arena_drop(&lines_arena);
    return 0;
}

struct pep_lines_file lines_read_all(const struct pep_mapping *mapping, uint32_t count) {
    struct pep_lines_file file = {.mapping = mapping, .addresses = lines_addresses, .count = count};
    uint64_t deadline = pep_os_clock_ns(CLOCK_MONOTONIC) + 20 * LINES_SECOND_NS;
    assert_int_equal(pep_lines_read(&lines_arena, &file, 1, deadline), 0);
    return file;
}
