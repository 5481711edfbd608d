/* From an address to a frame: this process, JIT code, replaced files, and the cache behind it. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "encoder/symbol_file.h"
#include "encoder/symbolize.h"
#include "test/unit/elf_image.h"

#define FUNC_GLOBAL ELF64_ST_INFO(STB_GLOBAL, STT_FUNC)
#define ID_A "AAAAAAAAAAAAAAAAAAAA"
#define ID_A_TEXT "4141414141414141414141414141414141414141"

static struct pep_arena arena;
static struct pep_mapping mappings[64];
static struct pep_profile profile;
static char folder[64];

static int begin(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    memset(mappings, 0, sizeof(mappings));
    profile = (struct pep_profile){
        .mappings = mappings, .main_mapping = PEP_MAPPING_NONE, .pid = getpid()};
    strcpy(folder, "/tmp/pep_test_sym.XXXXXX");
    assert_non_null(mkdtemp(folder));
    return 0;
}

static int end(void **state) {
    (void)state;
    char command[128];
    pep_arena_drop(&arena);
    snprintf(command, sizeof(command), "rm -r %s", folder);
    return system(command); /* NOLINT: a fixed command of this test */
}

/* The profile's mappings as the sampler would give them; only files with an ELF header. */
static void map_this_process(void) {
    char line[1024], path[512];
    unsigned long long start, limit, offset;
    char execute;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps) != NULL) {
        if (sscanf(line, "%llx-%llx %*c%*c%c%*c %llx %*s %*s %511s", &start, &limit, &execute,
                   &offset, path) != 5 ||
            execute != 'x' || profile.mapping_count == 64)
            continue;
        struct pep_mapping *mapping = &mappings[profile.mapping_count++];
        *mapping = (struct pep_mapping){.start = start, .limit = limit, .file_offset = offset};
        mapping->path = pep_arena_strdup(&arena, path);
        mapping->is_vdso = strcmp(path, "[vdso]") == 0;
        mapping->bias = start - offset;
        struct pep_elf elf;
        if (path[0] != '/' || pep_elf_open(&elf, &arena, path) != 0)
            continue;
        memcpy(mapping->build_id, elf.build_id, sizeof(elf.build_id));
        for (uint32_t i = 0; i < elf.segment_count; i++) {
            if (elf.segments[i].p_type == PT_LOAD && elf.segments[i].p_offset == offset)
                mapping->bias = start - elf.segments[i].p_vaddr;
        }
        pep_elf_close(&elf);
    }
    fclose(maps);
    assert_true(profile.mapping_count > 2);
}

static struct pep_frame look_up(struct pep_symbolizer *symbolizer, uintptr_t pc) {
    struct pep_frame frame;
    assert_int_equal(symbolizer->lookup(symbolizer, &profile, pc, &frame, 1), 1);
    assert_non_null(frame.name);
    assert_true(frame.name[0] != '\0');
    return frame;
}

static struct pep_frame look_up_once(uintptr_t pc) {
    struct pep_symbolizer *symbolizer = pep_symbolizer_begin(&arena);
    assert_non_null(symbolizer);
    struct pep_frame frame = look_up(symbolizer, pc);
    frame.name = pep_arena_strdup(&arena, frame.name);
    frame.system_name = pep_arena_strdup(&arena, frame.system_name);
    pep_symbolizer_end(symbolizer);
    return frame;
}

static void addresses_of_this_process_have_their_names(void **state) {
    (void)state;
    map_this_process();
    struct pep_symbolizer *symbolizer = pep_symbolizer_begin(&arena);
    struct pep_frame frame = look_up(symbolizer, (uintptr_t)map_this_process + 3);
    assert_string_equal(frame.name, "map_this_process");
    assert_string_equal(frame.system_name, "map_this_process");
    assert_int_equal(frame.start, (uintptr_t)map_this_process);
    assert_true(frame.is_known);
    frame = look_up(symbolizer, (uintptr_t)dlsym(RTLD_DEFAULT, "qsort") + 1);
    assert_string_equal(frame.name, "qsort");
    frame = look_up(symbolizer, (uintptr_t)dlsym(RTLD_DEFAULT, "malloc") + 1);
    assert_string_equal(frame.name, "malloc");
    pep_symbolizer_end(symbolizer);
    pep_symbolizer_end(NULL);
}

static void the_vdso_is_read_from_memory(void **state) {
    (void)state;
    map_this_process();
    void *vdso = dlopen("linux-vdso.so.1", RTLD_NOW | RTLD_NOLOAD);
    void *function = vdso != NULL ? dlsym(vdso, "__vdso_getcpu") : NULL;
    if (function == NULL)
        skip();
    struct pep_frame frame = look_up_once((uintptr_t)function + 2);
    assert_non_null(strstr(frame.name, "getcpu"));
    assert_int_equal(frame.start, (uintptr_t)function);
}

static void notes_and_unknown_addresses_say_what_they_are(void **state) {
    (void)state;
    map_this_process();
    assert_string_equal(look_up_once(PEP_PC_TRUNCATED).name, "[truncated]");
    assert_string_equal(look_up_once(PEP_PC_TABLE_FULL).name, "[profep: table full]");
    assert_string_equal(look_up_once(PEP_PC_UNKNOWN).name, "[unknown]");
    struct pep_frame frame = look_up_once(0x5000);
    assert_string_equal(frame.name, "0x5000");
    assert_string_equal(frame.system_name, "0x5000");
    assert_false(frame.is_known);
    struct pep_symbolizer *symbolizer = pep_symbolizer_begin(&arena);
    assert_int_equal(symbolizer->lookup(symbolizer, &profile, 1, &frame, 0), 0);
    pep_symbolizer_end(symbolizer);
}

/* A file with one function f at [0x1000, 0x1010), mapped at 0x10000000. */
static const char *map_image(const char *build_id, const char *mapped_id) {
    static struct elf_image image;
    static char path[128];
    elf_image_begin(&image);
    elf_image_text(&image, 0x1000, 0x1000);
    if (build_id != NULL)
        elf_image_build_id(&image, build_id);
    elf_image_symbol(&image, "_Z1fi", 0x1000, 16, FUNC_GLOBAL);
    elf_image_finish(&image, SHT_SYMTAB);
    snprintf(path, sizeof(path), "%s/libimage.so", folder);
    elf_image_save(&image, path);
    mappings[0] = (struct pep_mapping){.start = 0x10001000,
                                       .limit = 0x10002000,
                                       .file_offset = 0x1000,
                                       .bias = 0x10000000,
                                       .path = path};
    strcpy(mappings[0].build_id, mapped_id);
    profile.mapping_count = 1;
    return path;
}

static void a_name_is_demangled_and_kept(void **state) {
    (void)state;
    map_image(ID_A, ID_A_TEXT);
    struct pep_frame frame = look_up_once(0x10001008);
    assert_string_equal(frame.name, "f");
    assert_string_equal(frame.system_name, "_Z1fi");
    assert_int_equal(frame.start, 0x10001000);
    frame = look_up_once(0x10001010);
    assert_string_equal(frame.name, "libimage.so+0x1010");
    assert_false(frame.is_known);
}

static void a_replaced_file_names_nothing(void **state) {
    (void)state;
    map_image("BBBBBBBBBBBBBBBBBBBB", ID_A_TEXT);
    assert_string_equal(look_up_once(0x10001008).name, "libimage.so+0x1008");
    map_image(NULL, ID_A_TEXT);
    assert_string_equal(look_up_once(0x10001008).name, "libimage.so+0x1008");
    map_image(ID_A, "");
    assert_string_equal(look_up_once(0x10001008).name, "libimage.so+0x1008");
    map_image(NULL, ""); /* no build-ids: headers in memory decide, and nothing is mapped there */
    assert_string_equal(look_up_once(0x10001008).name, "libimage.so+0x1008");
    mappings[0].path = "/nowhere/libimage.so (deleted)";
    assert_string_equal(look_up_once(0x10001008).name, "libimage.so+0x1008");
}

static void a_file_that_was_missing_is_found_next_time(void **state) {
    (void)state;
    const char *path = map_image(ID_A, ID_A_TEXT);
    strcpy(mappings[0].build_id, "4242424242424242424242424242424242424242");
    assert_false(look_up_once(0x10001008).is_known);
    map_image("BBBBBBBBBBBBBBBBBBBB", "4242424242424242424242424242424242424242");
    assert_string_equal(mappings[0].path, path);
    assert_string_equal(look_up_once(0x10001008).name, "f");
}

static void the_program_itself_is_found_when_its_file_is_gone(void **state) {
    (void)state;
    map_this_process();
    char path[512];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    path[length > 0 ? length : 0] = '\0';
    for (uint32_t i = 0; i < profile.mapping_count; i++) {
        if (strcmp(mappings[i].path, path) == 0) {
            profile.main_mapping = i;
            mappings[i].path = "/nowhere/program (deleted)";
        }
    }
    assert_true(profile.main_mapping != PEP_MAPPING_NONE);
    assert_string_equal(look_up_once((uintptr_t)map_this_process + 1).name, "map_this_process");
}

static void a_warm_cache_reads_no_file(void **state) {
    (void)state;
    map_image(ID_A, ID_A_TEXT);
    uint64_t loads = pep_symbol_cache_loads();
    assert_string_equal(look_up_once(0x10001001).name, "f");
    uint64_t after = pep_symbol_cache_loads();
    assert_in_range(after - loads, 0, 1);
    unlink(mappings[0].path);
    assert_string_equal(look_up_once(0x10001002).name, "f");
    assert_int_equal(pep_symbol_cache_loads(), after);
    pep_symbolizer_after_fork_child(); /* keeps what is whole */
    assert_string_equal(look_up_once(0x10001003).name, "f");
    assert_int_equal(pep_symbol_cache_loads(), after);
}

/* Files whose string tables are holes of 40 MB: two fit, the third pushes the oldest out. */
static void the_cache_keeps_its_limit(void **state) {
    (void)state;
    static struct elf_image image;
    char paths[3][128];
    for (int i = 0; i < 3; i++) {
        char id[21] = "CCCCCCCCCCCCCCCCCCCC", hex[41] = "";
        id[0] = (char)('a' + i);
        for (int k = 0; k < 20; k++)
            snprintf(hex + 2 * k, 3, "%02x", (unsigned)id[k]);
        elf_image_begin(&image);
        elf_image_text(&image, 0x1000, 0x1000);
        elf_image_build_id(&image, id);
        elf_image_symbol(&image, "g", 0x1000, 16, FUNC_GLOBAL);
        elf_image_finish(&image, SHT_SYMTAB);
        for (unsigned k = 0; k < image.section_count; k++) {
            Elf64_Shdr *section = elf_image_section_header(&image, k);
            if (section->sh_type == SHT_STRTAB && section->sh_size == image.strings_size)
                section->sh_size = 40 << 20;
        }
        snprintf(paths[i], sizeof(paths[i]), "%s/lib%d.so", folder, i);
        elf_image_save(&image, paths[i]);
        assert_int_equal(truncate(paths[i], 41 << 20), 0);
        mappings[0] = (struct pep_mapping){
            .start = 0x10001000, .limit = 0x10002000, .bias = 0x10000000, .path = paths[i]};
        strcpy(mappings[0].build_id, hex);
        profile.mapping_count = 1;
        assert_string_equal(look_up_once(0x10001008).name, "g");
        assert_true(pep_symbol_cache_bytes() <= PEP_SYMBOL_CACHE_BYTES);
    }
    uint64_t loads = pep_symbol_cache_loads();
    assert_string_equal(look_up_once(0x10001008).name, "g"); /* the newest is still there */
    assert_int_equal(pep_symbol_cache_loads(), loads);
    mappings[0].path = paths[0];
    mappings[0].build_id[1] = '1'; /* 'a' */
    assert_string_equal(look_up_once(0x10001008).name, "g");
    assert_int_equal(pep_symbol_cache_loads(), loads + 1);
}

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void jit_code_is_named_by_the_perf_map(void **state) {
    (void)state;
    char path[64];
    snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
    mappings[0] = (struct pep_mapping){
        .start = 0x20000000, .limit = 0x20010000, .path = "//anon", .is_jit = true};
    mappings[1] = (struct pep_mapping){
        .start = 0x30000000, .limit = 0x30010000, .path = "/memfd:jit", .is_jit = true};
    profile.mapping_count = 2;
    assert_string_equal(look_up_once(0x20000010).name, "[anonymous code]");
    assert_string_equal(look_up_once(0x30000010).name, "memfd:jit");
    write_file(path, "20000000 100 js::hot loop.js:3\n40000000 10 outside\n");
    struct pep_frame frame = look_up_once(0x20000010);
    struct pep_frame outside = look_up_once(0x40000001);
    unlink(path);
    assert_string_equal(frame.name, "js::hot loop.js:3");
    assert_int_equal(frame.start, 0x20000000);
    assert_true(frame.is_known);
    assert_string_equal(outside.name, "outside");
}

static void a_stripped_function_is_one_name(void **state) {
    (void)state;
    static const char redis[] = "/usr/bin/redis-server";
    if (access(redis, R_OK) != 0)
        skip();
    struct pep_elf elf;
    assert_int_equal(pep_elf_open(&elf, &arena, redis), 0);
    mappings[0] = (struct pep_mapping){
        .start = 0x10000000, .limit = 0x20000000, .bias = 0x10000000, .path = redis};
    memcpy(mappings[0].build_id, elf.build_id, sizeof(elf.build_id));
    pep_elf_close(&elf);
    profile.mapping_count = 1;
    struct pep_symbol_file *file = pep_symbol_file_take(&mappings[0], false);
    size_t nameless = 0;
    for (size_t i = 0; i < file->fdes.count; i++) {
        const struct pep_fde *fde = &file->fdes.fdes[i];
        if (pep_symbol_table_find(&file->symbols, fde->start) != NULL ||
            pep_symbol_table_find(&file->symbols, fde->end - 1) != NULL)
            continue;
        char expected[64];
        snprintf(expected, sizeof(expected), "redis-server!fn_0x%llx",
                 (unsigned long long)fde->start);
        assert_string_equal(look_up_once(0x10000000 + fde->start).name, expected);
        assert_string_equal(look_up_once(0x10000000 + fde->end - 1).name, expected);
        nameless++;
    }
    assert_true(nameless > 10);
    pep_symbol_file_drop(file);
}

/* Debug files beside the object, in .debug, below a root; by CRC, and refused with a wrong one. */
static void debuglink_files_are_taken_by_their_checksum(void **state) {
    (void)state;
    static struct elf_image debug_image, image;
    struct pep_elf debug, object;
    uint32_t crc = 0;
    char object_path[128], path[256], command[512];
    elf_image_begin(&debug_image);
    elf_image_text(&debug_image, 0x1000, 0x1000);
    elf_image_finish(&debug_image, SHT_SYMTAB);
    assert_int_equal(pep_elf_open_memory(&debug, &arena, debug_image.bytes, debug_image.size), 0);
    assert_true(pep_elf_crc32(&debug, &crc));
    snprintf(object_path, sizeof(object_path), "%s/object", folder);
    snprintf(command, sizeof(command), "mkdir -p %s/.debug %s/root%s", folder, folder, folder);
    assert_int_equal(system(command), 0); /* NOLINT: a fixed command of this test */
    char root[96];
    snprintf(root, sizeof(root), "%s/root", folder);
    for (int wrong = 0; wrong < 2; wrong++) {
        char link[12] = "o.debug";
        uint32_t stored = crc + (uint32_t)wrong;
        memcpy(link + 8, &stored, 4);
        elf_image_begin(&image);
        elf_image_text(&image, 0x1000, 0x1000);
        elf_image_section(&image, ".gnu_debuglink", SHT_PROGBITS, link, sizeof(link));
        elf_image_finish(&image, SHT_SYMTAB);
        assert_int_equal(pep_elf_open_memory(&object, &arena, image.bytes, image.size), 0);
        const char *const places[] = {"", "/.debug", root};
        for (int i = 0; i < 3; i++) {
            if (i == 2)
                snprintf(path, sizeof(path), "%s%s/o.debug", root, folder);
            else
                snprintf(path, sizeof(path), "%s%s/o.debug", folder, places[i]);
            assert_false(pep_debug_file_open(&debug, &object, object_path, root));
            elf_image_save(&debug_image, path);
            assert_int_equal(pep_debug_file_open(&debug, &object, object_path, root), !wrong);
            pep_elf_close(&debug);
            unlink(path);
        }
    }
}

static void *look_up_often(void *opaque) {
    struct pep_arena own;
    intptr_t wrong = 0;
    for (int i = 0; i < 200; i++) {
        pep_arena_init(&own, 0);
        struct pep_symbolizer *symbolizer = pep_symbolizer_begin(&own);
        struct pep_frame frame;
        for (uintptr_t pc = 0x10001000; pc < 0x10001010; pc++) {
            symbolizer->lookup(symbolizer, opaque, pc, &frame, 1);
            wrong += strcmp(frame.name, "f") != 0;
        }
        pep_symbolizer_end(symbolizer);
        pep_arena_drop(&own);
    }
    return (void *)wrong;
}

static void requests_run_side_by_side(void **state) {
    (void)state;
    map_image(ID_A, ID_A_TEXT);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look_up_often, &profile), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
}

static void without_memory_an_address_keeps_some_name(void **state) {
    (void)state;
    map_image(ID_A, ID_A_TEXT);
    struct pep_arena small;
    pep_arena_init(&small, 1);
    assert_null(pep_symbolizer_begin(&small));
    pep_arena_init(&small, 64 << 10);
    struct pep_symbolizer *symbolizer = pep_symbolizer_begin(&small);
    assert_non_null(symbolizer);
    while (pep_arena_alloc(&small, 16) != NULL)
        ;
    assert_string_equal(look_up(symbolizer, 0x10001008).name, "[unknown]");
    assert_string_equal(look_up(symbolizer, 0x5000).name, "[unknown]");
    pep_symbolizer_end(symbolizer);
    pep_arena_drop(&small);
}

/* Half a million look-ups of twenty thousand addresses give the same as one each. */
static void answers_do_not_depend_on_the_memo(void **state) {
    (void)state;
    map_this_process();
    struct pep_symbolizer *symbolizer = pep_symbolizer_begin(&arena);
    uintptr_t libc = (uintptr_t)dlsym(RTLD_DEFAULT, "qsort") & ~(uintptr_t)4095;
    for (int round = 0; round < 2; round++) {
        for (uintptr_t i = 0; i < 20000; i++) {
            struct pep_frame first = look_up(symbolizer, libc + 7 * i);
            struct pep_frame again = look_up(symbolizer, libc + 7 * i);
            assert_ptr_equal(first.name, again.name);
            assert_int_equal(first.start, again.start);
        }
    }
    pep_symbolizer_end(symbolizer);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(addresses_of_this_process_have_their_names),
        TEST(the_vdso_is_read_from_memory),
        TEST(notes_and_unknown_addresses_say_what_they_are),
        TEST(a_name_is_demangled_and_kept),
        TEST(a_replaced_file_names_nothing),
        TEST(a_file_that_was_missing_is_found_next_time),
        TEST(the_program_itself_is_found_when_its_file_is_gone),
        TEST(a_warm_cache_reads_no_file),
        TEST(the_cache_keeps_its_limit),
        TEST(jit_code_is_named_by_the_perf_map),
        TEST(a_stripped_function_is_one_name),
        TEST(debuglink_files_are_taken_by_their_checksum),
        TEST(requests_run_side_by_side),
        TEST(without_memory_an_address_keeps_some_name),
        TEST(answers_do_not_depend_on_the_memo),
    };
    return cmocka_run_group_tests_name("symbolize", tests, NULL, NULL);
}
