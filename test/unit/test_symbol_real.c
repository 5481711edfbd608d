/* Real files against independent readers: nm, readelf and objdump of binutils. */
#include <dlfcn.h>
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

#include "encoder/symbol_file.h"
#include "encoder/symbol_load.h"
#include "encoder/symbolize.h"

struct named {
    uint64_t start, size;
    char name[256];
};

static struct named *list;
static size_t list_count;

static int by_start(const void *left, const void *right) {
    const struct named *a = left, *b = right;
    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    return strcmp(a->name, b->name);
}

static void add_named(uint64_t start, uint64_t size, const char *name) {
    list = realloc(list, (list_count + 1) * sizeof(*list));
    assert_non_null(list);
    list[list_count] = (struct named){.start = start, .size = size};
    snprintf(list[list_count].name, sizeof(list->name), "%.*s", (int)strcspn(name, "@"), name);
    list_count++;
}

static void sort_list(void) {
    qsort(list, list_count, sizeof(*list), by_start);
}

static bool is_listed(uint64_t start, const char *name) {
    struct named key = {.start = start};
    snprintf(key.name, sizeof(key.name), "%.*s", (int)strcspn(name, "@"), name);
    return list_count > 0 && bsearch(&key, list, list_count, sizeof(*list), by_start) != NULL;
}

/* Runs a reader and gives its lines one by one. */
static void read_lines(const char *command, void (*take)(char *line)) {
    static char line[70000];
    FILE *pipe = popen(command, "r"); /* NOLINT: a fixed command of this test */
    assert_non_null(pipe);
    while (fgets(line, sizeof(line), pipe) != NULL)
        take(line);
    assert_int_equal(pclose(pipe), 0);
}

static void take_nm(char *line) {
    unsigned long long start, size;
    char type, name[256];
    if (sscanf(line, "%llx %llx %c %255s", &start, &size, &type, name) == 4 &&
        strchr("tTwWi", type) != NULL && size > 0)
        add_named(start, size, name);
}

static struct pep_symbol_file *take_file(const char *path) {
    struct pep_arena arena;
    struct pep_elf elf;
    pep_arena_init(&arena, 0);
    assert_int_equal(pep_elf_open(&elf, &arena, path), 0);
    struct pep_mapping mapping = {.path = path, .limit = UINT64_C(1) << 40};
    memcpy(mapping.build_id, elf.build_id, sizeof(mapping.build_id));
    pep_elf_close(&elf);
    pep_arena_drop(&arena);
    struct pep_symbol_file *file = pep_symbol_file_take(&mapping, false);
    assert_non_null(file);
    assert_true(file->is_matched);
    return file;
}

/* Every function that nm knows has its name here, at its first and at its last byte, and every
 * name here is one that nm knows at that address. */
static void agree_with_nm(const char *path, const char *nm_command) {
    list_count = 0;
    read_lines(nm_command, take_nm);
    sort_list(); /* may be empty: sqlite3 is a shell around its library */
    struct pep_symbol_file *file = take_file(path);
    size_t inner = 0;
    for (size_t i = 0; i < list_count; i++) {
        const struct pep_symbol *first = pep_symbol_table_find(&file->symbols, list[i].start);
        const struct pep_symbol *last =
            pep_symbol_table_find(&file->symbols, list[i].start + list[i].size - 1);
        assert_non_null(first);
        assert_non_null(last);
        assert_int_equal(first->start, list[i].start);
        assert_true(last->start >= list[i].start || first->size < list[i].size);
        inner += last->start != first->start;
        assert_true(is_listed(first->start, first->name));
    }
    print_message("%s: %zu names of nm, %zu symbols, %zu nested\n", path, list_count,
                  file->symbols.count, inner);
    pep_symbol_file_drop(file);
}

static void skip_unless(const char *path) {
    if (access(path, R_OK) != 0)
        skip();
}

static void stripped_programs_agree_with_nm(void **state) {
    (void)state;
    static const char *const paths[] = {"/usr/bin/redis-server", "/usr/sbin/nginx",
                                        "/usr/bin/sqlite3", "/usr/bin/python3"};
    char command[256];
    for (size_t i = 0; i < PEP_COUNT_OF(paths); i++) {
        if (access(paths[i], R_OK) != 0)
            continue;
        snprintf(command, sizeof(command), "nm -D -S --defined-only %s", paths[i]);
        agree_with_nm(paths[i], command);
    }
}

static void our_own_symbols_agree_with_nm(void **state) {
    (void)state;
    char path[512], command[1024];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    assert_true(length > 0);
    path[length] = '\0';
    snprintf(command, sizeof(command), "nm -S --defined-only '%s'", path);
    agree_with_nm(path, command);
}

/* libc's own debug package names the static functions too. */
static void a_debug_file_by_build_id_agrees_with_nm(void **state) {
    (void)state;
    static const char libc[] = "/lib/x86_64-linux-gnu/libc.so.6";
    skip_unless(libc);
    struct pep_symbol_file *file = take_file(libc);
    bool has_debug_file = pep_debug_file_exists(file->build_id, "/usr/lib/debug");
    char command[256];
    snprintf(command, sizeof(command),
             "nm -S --defined-only /usr/lib/debug/.build-id/%.2s/%s.debug", file->build_id,
             file->build_id + 2);
    assert_int_equal(file->has_symtab, has_debug_file);
    pep_symbol_file_drop(file);
    if (!has_debug_file)
        skip();
    agree_with_nm(libc, command);
}

/* "... FDE cie=00000000 pc=000000000005f020..00000000000601a0" */
static void take_frame(char *line) {
    unsigned long long start, limit;
    char *pc = strstr(line, " FDE ") != NULL ? strstr(line, " pc=") : NULL;
    if (pc != NULL && sscanf(pc, " pc=%llx..%llx", &start, &limit) == 2)
        add_named(start, limit - start, "");
}

static void function_bounds_agree_with_readelf(void **state) {
    (void)state;
    static const char redis[] = "/usr/bin/redis-server";
    skip_unless(redis);
    list_count = 0;
    read_lines("readelf --debug-dump=frames /usr/bin/redis-server", take_frame);
    sort_list();
    struct pep_symbol_file *file = take_file(redis);
    assert_int_equal(file->fdes.count, list_count);
    for (size_t i = 0; i < list_count; i++) {
        assert_int_equal(file->fdes.fdes[i].start, list[i].start);
        assert_int_equal(file->fdes.fdes[i].end - file->fdes.fdes[i].start, list[i].size);
    }
    pep_symbol_file_drop(file);
}

/* "000000000005f030 <getsockname@plt>:" */
static void take_stub(char *line) {
    unsigned long long start;
    char name[256];
    if (sscanf(line, "%llx <%255[^>]>:", &start, name) == 2 && strstr(name, "@plt") != NULL &&
        strncmp(name, "*ABS*", 5) != 0 && strstr(name, "-0x") == NULL)
        add_named(start, 16, name);
}

static void stubs_agree_with_objdump(void **state) {
    (void)state;
    static const char redis[] = "/usr/bin/redis-server";
    skip_unless(redis);
    list_count = 0;
    read_lines("objdump -d -j .plt -j .plt.got /usr/bin/redis-server", take_stub);
    assert_true(list_count > 100);
    sort_list();
    struct pep_symbol_file *file = take_file(redis);
    for (size_t i = 0; i < list_count; i++) {
        const struct pep_symbol *symbol = pep_symbol_table_find(&file->symbols, list[i].start);
        assert_non_null(symbol);
        assert_int_equal(symbol->start, list[i].start);
        assert_non_null(strstr(symbol->name, "@plt"));
        assert_true(is_listed(symbol->start, symbol->name));
    }
    pep_symbol_file_drop(file);
}

/* What c++filt -p -i writes for the same symbols; it is the same library, so this tests our way of
 * calling it on a stack of its own. */
static void names_of_a_cpp_library_agree_with_cxxfilt(void **state) {
    (void)state;
    static const char library[] = "/usr/lib/x86_64-linux-gnu/libstdc++.so.6";
    skip_unless(library);
    struct pep_symbol_file *file = take_file(library);
    char path[] = "/tmp/pep_test_names.XXXXXX", command[128], expected[70000];
    int fd = mkstemp(path);
    FILE *names = fdopen(fd, "w");
    for (size_t i = 0; i < file->symbols.count; i++) {
        const struct pep_symbol_text *text = pep_symbol_file_text(file, &file->symbols.symbols[i]);
        if (strstr(text->system_name, "@plt") == NULL)
            fprintf(names, "%s\n", text->system_name);
    }
    fclose(names);
    snprintf(command, sizeof(command), "c++filt -p -i < %s", path);
    FILE *pipe = popen(command, "r"); /* NOLINT: a fixed command of this test */
    size_t demangled = 0;
    for (size_t i = 0; i < file->symbols.count; i++) {
        const struct pep_symbol_text *text = pep_symbol_file_text(file, &file->symbols.symbols[i]);
        if (strstr(text->system_name, "@plt") != NULL)
            continue;
        assert_non_null(fgets(expected, sizeof(expected), pipe));
        expected[strcspn(expected, "\n")] = '\0';
        if (strlen(expected) > 240 && strchr(expected, '<') != NULL)
            assert_memory_equal(text->name, expected, strcspn(expected, "<"));
        else
            assert_string_equal(text->name, expected);
        demangled += strcmp(text->name, text->system_name) != 0;
    }
    assert_int_equal(pclose(pipe), 0);
    unlink(path);
    assert_true(demangled > 1000);
    pep_symbol_file_drop(file);
}

static void read_dynamic(const struct pep_elf *elf, struct pep_arena *arena,
                         struct pep_symbol_table *table, struct pep_fde_table *fdes) {
    struct pep_symbol_builder builder;
    pep_symbol_builder_init(&builder, arena);
    assert_int_equal(pep_fde_table_read(fdes, elf, arena), 0);
    const Elf64_Shdr *section = pep_elf_section_typed(elf, SHT_DYNSYM);
    assert_int_equal(pep_symbol_builder_add_section(&builder, elf, section), 0);
    assert_int_equal(pep_symbol_builder_finish(&builder, fdes, table), 0);
}

/* What the loader left of libraries is what their files say; another build-id is refused. */
static void objects_in_memory_are_read_like_their_files(void **state) {
    (void)state;
    void *const functions[] = {dlsym(RTLD_DEFAULT, "qsort"),
                               dlsym(RTLD_DEFAULT, "_cmocka_run_group_tests")};
    for (size_t i = 0; i < PEP_COUNT_OF(functions); i++) {
        struct pep_arena arena;
        struct pep_elf file, memory;
        Dl_info info;
        assert_true(functions[i] != NULL && dladdr(functions[i], &info) != 0);
        pep_arena_init(&arena, 0);
        assert_int_equal(pep_elf_open(&file, &arena, info.dli_fname), 0);
        uint64_t base = (uint64_t)(uintptr_t)info.dli_fbase;
        struct pep_mapping mapping = {.start = base, .bias = base, .path = "/gone"};
        assert_int_equal(pep_elf_open_process(&memory, &arena, &mapping), -ENOENT);
        memcpy(mapping.build_id, file.build_id, sizeof(mapping.build_id));
        assert_int_equal(pep_elf_open_process(&memory, &arena, &mapping), 0);
        assert_string_equal(memory.build_id, file.build_id);
        struct pep_symbol_table from_file, from_memory;
        struct pep_fde_table file_fdes, memory_fdes;
        read_dynamic(&file, &arena, &from_file, &file_fdes);
        read_dynamic(&memory, &arena, &from_memory, &memory_fdes);
        assert_true(from_file.count > 10 && file_fdes.count > 10);
        assert_int_equal(from_memory.count, from_file.count);
        for (size_t k = 0; k < from_file.count; k++) {
            assert_int_equal(from_memory.symbols[k].start, from_file.symbols[k].start);
            assert_int_equal(from_memory.symbols[k].size, from_file.symbols[k].size);
            assert_string_equal(from_memory.symbols[k].name, from_file.symbols[k].name);
        }
        assert_int_equal(memory_fdes.count, file_fdes.count);
        assert_memory_equal(memory_fdes.fdes, file_fdes.fdes,
                            file_fdes.count * sizeof(struct pep_fde));
        pep_elf_close(&file);
        pep_arena_drop(&arena);
        mapping.start = mapping.bias = 0x1000; /* nothing is mapped there */
        assert_int_equal(pep_elf_open_process(&memory, &arena, &mapping), -ENOENT);
        pep_arena_drop(&arena);
    }
}

/* A stripped program whose static function is named by its mini debug info alone, made by the
 * steps of the gdb manual. */
static void packed_symbols_inside_a_program_are_found(void **state) {
    (void)state;
    char folder[] = "/tmp/pep_test_mini.XXXXXX", command[1024], path[128];
    assert_non_null(mkdtemp(folder));
    snprintf(
        command, sizeof(command),
        "cd %s && echo 'static int __attribute__((noipa)) hidden(int x) { return x + 1; }"
        "int shown(int x) { return hidden(x); } int main(int c, char **v) "
        "{ (void)v; return shown(c); }' > m.c && gcc -O1 -rdynamic -Wl,--build-id -o m m.c && "
        "nm m -f posix --defined-only | grep ' [Tt] ' | cut -d' ' -f1 | grep -v shown > keep && "
        "objcopy --only-keep-debug m d && "
        "objcopy -S --remove-section .gdb_index --remove-section .comment "
        "--keep-symbols=keep d mini 2>/dev/null && strip --strip-all -R .comment m && "
        "xz mini && objcopy --add-section .gnu_debugdata=mini.xz m",
        folder);
    bool is_made = system(command) == 0; /* NOLINT: a fixed command of this test */
    snprintf(path, sizeof(path), "%s/m", folder);
    bool has_hidden = false, has_shown = false;
    if (is_made) {
        struct pep_symbol_file *file = take_file(path);
        for (size_t i = 0; i < file->symbols.count; i++) {
            has_hidden |= strcmp(file->symbols.symbols[i].name, "hidden") == 0;
            has_shown |= strcmp(file->symbols.symbols[i].name, "shown") == 0;
        }
        pep_symbol_file_drop(file);
    }
    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(system(command), 0); /* NOLINT: a fixed command of this test */
    assert_true(is_made);
    assert_true(has_hidden);
    assert_true(has_shown);
}

static void build_rust(const char *mangling_option, const char *expected) {
    char folder[] = "/tmp/pep_test_rust.XXXXXX", command[512], path[128];
    assert_non_null(mkdtemp(folder));
    snprintf(command, sizeof(command),
             "cd %s && echo '#[inline(never)] fn hot<T: std::fmt::Debug>(x: T) -> usize "
             "{ format!(\"{:?}\", x).len() } fn main() { println!(\"{}\", hot(1)); }' > r.rs && "
             "PATH=$PATH:$HOME/.cargo/bin rustc -O -C link-arg=-Wl,--build-id "
             "%s r.rs 2>/dev/null",
             folder, mangling_option);
    bool is_built = system(command) == 0; /* NOLINT: a fixed command of this test */
    snprintf(path, sizeof(path), "%s/r", folder);
    bool is_found = false;
    if (is_built) {
        struct pep_symbol_file *file = take_file(path);
        for (size_t i = 0; i < file->symbols.count; i++) {
            const struct pep_symbol_text *text =
                pep_symbol_file_text(file, &file->symbols.symbols[i]);
            is_found |= strcmp(text->name, expected) == 0;
        }
        pep_symbol_file_drop(file);
    }
    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(system(command), 0); /* NOLINT: a fixed command of this test */
    if (!is_built)
        skip();
    assert_true(is_found);
}

static void rust_names_are_readable_legacy(void **state) {
    (void)state;
    build_rust("", "r::hot");
}

static void rust_names_are_readable_v0(void **state) {
    (void)state;
    build_rust("-C symbol-mangling-version=v0", "r::hot::<i32>");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stripped_programs_agree_with_nm),
        cmocka_unit_test(our_own_symbols_agree_with_nm),
        cmocka_unit_test(a_debug_file_by_build_id_agrees_with_nm),
        cmocka_unit_test(function_bounds_agree_with_readelf),
        cmocka_unit_test(stubs_agree_with_objdump),
        cmocka_unit_test(names_of_a_cpp_library_agree_with_cxxfilt),
        cmocka_unit_test(objects_in_memory_are_read_like_their_files),
        cmocka_unit_test(packed_symbols_inside_a_program_are_found),
        cmocka_unit_test(rust_names_are_readable_legacy),
        cmocka_unit_test(rust_names_are_readable_v0),
    };
    int failed = cmocka_run_group_tests_name("symbol_real", tests, NULL, NULL);
    free(list);
    return failed;
}
