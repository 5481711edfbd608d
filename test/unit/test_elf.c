/* The ELF reader: what it finds in good files, and that bad ones cost nothing but names. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "encoder/elf.h"
#include "encoder/symbol_table.h"
#include "test/unit/elf_image.h"

#define FUNC_GLOBAL ELF64_ST_INFO(STB_GLOBAL, STT_FUNC)
#define FUNC_LOCAL ELF64_ST_INFO(STB_LOCAL, STT_FUNC)
#define FUNC_WEAK ELF64_ST_INFO(STB_WEAK, STT_FUNC)
#define LABEL ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE)
#define OBJECT ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT)

static struct elf_image image;
static struct pep_arena arena;

static int begin(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    elf_image_begin(&image);
    elf_image_text(&image, 0x1000, 0x1000);
    return 0;
}

static int end(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static int open_image(struct pep_elf *elf) {
    return pep_elf_open_memory(elf, &arena, image.bytes, image.size);
}

static struct pep_symbol_table build(void) {
    struct pep_elf elf;
    struct pep_symbol_builder builder;
    struct pep_symbol_table table;
    struct pep_fde_table fdes;
    assert_int_equal(open_image(&elf), 0);
    assert_int_equal(pep_fde_table_read(&fdes, &elf, &arena), 0);
    pep_symbol_builder_init(&builder, &arena);
    assert_int_equal(
        pep_symbol_builder_add_section(&builder, &elf, pep_elf_section_typed(&elf, SHT_SYMTAB)), 0);
    assert_int_equal(pep_symbol_builder_finish(&builder, &fdes, &table), 0);
    return table;
}

static const char *name_at(const struct pep_symbol_table *table, uint64_t address) {
    const struct pep_symbol *symbol = pep_symbol_table_find(table, address);
    return symbol != NULL ? symbol->name : "none";
}

static void a_good_file_gives_sections_and_build_id(void **state) {
    (void)state;
    struct pep_elf elf;
    elf_image_build_id(&image, "\x01\x23\x45\x67\x89\xab\xcd\xef"
                               "0123456789ab");
    elf_image_finish(&image, SHT_SYMTAB);
    assert_int_equal(open_image(&elf), 0);
    assert_string_equal(elf.build_id, "0123456789abcdef303132333435363738396162");
    assert_non_null(pep_elf_section_named(&elf, ".text"));
    assert_null(pep_elf_section_named(&elf, ".tex"));
    assert_null(pep_elf_load_section(&elf, &arena, pep_elf_section_named(&elf, ".text"), 1 << 20));
    assert_null(pep_elf_load_section(&elf, &arena, NULL, 1 << 20));
    assert_null(pep_elf_section_at(&elf, elf.section_count));
    assert_string_equal(pep_elf_section_name(&elf, &elf.sections[1]), ".text");
}

static void a_file_that_is_not_ours_is_refused(void **state) {
    (void)state;
    struct pep_elf elf;
    elf_image_finish(&image, SHT_SYMTAB);
    for (size_t size = 0; size < sizeof(Elf64_Ehdr); size++)
        assert_int_equal(pep_elf_open_memory(&elf, &arena, image.bytes, size), -ENOEXEC);
    static const struct {
        size_t at;
        uint8_t value;
    } wrong[] = {{0, 'x'}, {EI_CLASS, ELFCLASS32}, {EI_DATA, ELFDATA2MSB}, {18, EM_AARCH64}};
    for (size_t i = 0; i < PEP_COUNT_OF(wrong); i++) {
        uint8_t good = image.bytes[wrong[i].at];
        image.bytes[wrong[i].at] = wrong[i].value;
        assert_int_equal(open_image(&elf), -ENOEXEC);
        image.bytes[wrong[i].at] = good;
    }
    assert_int_equal(open_image(&elf), 0);
}

static void impossible_section_tables_count_as_none(void **state) {
    (void)state;
    struct pep_elf elf;
    elf_image_finish(&image, SHT_SYMTAB);
    Elf64_Ehdr good = *elf_image_header(&image);
    Elf64_Ehdr *header = elf_image_header(&image);
    header->e_shoff = UINT64_MAX - 16;
    assert_int_equal(open_image(&elf), -ENOEXEC);
    *header = good;
    header->e_shentsize = 8;
    assert_int_equal(open_image(&elf), -ENOEXEC);
    *header = good;
    header->e_shnum = 60000;
    assert_int_equal(open_image(&elf), -ENOEXEC);
    *header = good;
    header->e_shstrndx = 59999; /* no names, but sections */
    assert_int_equal(open_image(&elf), 0);
    assert_null(pep_elf_section_named(&elf, ".text"));
    assert_string_equal(pep_elf_section_name(&elf, &elf.sections[1]), "");
}

static void a_long_section_table_has_its_count_in_section_0(void **state) {
    (void)state;
    struct pep_elf elf;
    elf_image_finish(&image, SHT_SYMTAB);
    Elf64_Ehdr *header = elf_image_header(&image);
    Elf64_Shdr *first = elf_image_section_header(&image, 0);
    first->sh_size = header->e_shnum;
    first->sh_link = header->e_shstrndx;
    header->e_shnum = 0;
    header->e_shstrndx = SHN_XINDEX;
    assert_int_equal(open_image(&elf), 0);
    assert_non_null(pep_elf_section_named(&elf, ".symtab"));
    first->sh_size = UINT64_MAX;
    assert_int_equal(open_image(&elf), -ENOEXEC);
}

static void the_best_of_several_names_is_chosen(void **state) {
    (void)state;
    elf_image_symbol(&image, "__GI_read", 0x1000, 16, FUNC_LOCAL);
    elf_image_symbol(&image, "__libc_read", 0x1000, 16, FUNC_GLOBAL);
    elf_image_symbol(&image, "read", 0x1000, 16, FUNC_WEAK);
    elf_image_symbol(&image, "read_label", 0x1000, 16, LABEL);
    elf_image_symbol(&image, "b", 0x1010, 16, FUNC_GLOBAL);
    elf_image_symbol(&image, "a", 0x1010, 16, FUNC_GLOBAL);
    elf_image_symbol(&image, "sizeless", 0x1020, 0, FUNC_GLOBAL);
    elf_image_symbol(&image, "__sized", 0x1020, 4, FUNC_LOCAL);
    elf_image_symbol(&image, "data", 0x1030, 16, OBJECT);
    elf_image_symbol(&image, "outside", 0x9000, 16, FUNC_GLOBAL);
    elf_image_symbol(&image, "$x", 0x1040, 16, LABEL);
    elf_image_finish(&image, SHT_SYMTAB);
    struct pep_symbol_table table = build();
    assert_string_equal(name_at(&table, 0x0fff), "none");
    assert_string_equal(name_at(&table, 0x1000), "read");
    assert_string_equal(name_at(&table, 0x100f), "read");
    assert_string_equal(name_at(&table, 0x1010), "a");
    assert_string_equal(name_at(&table, 0x1023), "__sized");
    assert_string_equal(name_at(&table, 0x1024), "none");
    assert_string_equal(name_at(&table, 0x1030), "none");
    assert_string_equal(name_at(&table, 0x1040), "none");
    assert_string_equal(name_at(&table, 0x9000), "none");
}

static void symbols_without_size_run_to_the_next_and_no_further(void **state) {
    (void)state;
    elf_image_symbol(&image, "open", 0x1000, 0, FUNC_GLOBAL);
    elf_image_symbol(&image, "next", 0x1100, 0x80, FUNC_GLOBAL);
    elf_image_symbol(&image, "loop_inside", 0x1140, 0, LABEL);
    elf_image_symbol(&image, "entry_inside", 0x1150, 0, FUNC_GLOBAL);
    elf_image_symbol(&image, "second_entry", 0x1160, 0x20, FUNC_GLOBAL);
    elf_image_symbol(&image, "last", 0x1f00, 0, LABEL);
    elf_image_finish(&image, SHT_SYMTAB);
    struct pep_symbol_table table = build();
    assert_string_equal(name_at(&table, 0x1000), "open");
    assert_string_equal(name_at(&table, 0x10ff), "open");
    assert_string_equal(name_at(&table, 0x1145), "next");
    assert_string_equal(name_at(&table, 0x1155), "next");
    assert_string_equal(name_at(&table, 0x1165), "second_entry");
    assert_string_equal(name_at(&table, 0x1180), "none");
    assert_string_equal(name_at(&table, 0x1fff), "last");
    assert_string_equal(name_at(&table, 0x2000), "none");
}

static void the_inner_of_nested_functions_wins(void **state) {
    (void)state;
    elf_image_symbol(&image, "outer", 0x1000, 0x800, FUNC_GLOBAL);
    elf_image_symbol(&image, "inner", 0x1100, 0x100, FUNC_GLOBAL);
    elf_image_symbol(&image, "small", 0x1300, 0x10, FUNC_GLOBAL);
    elf_image_finish(&image, SHT_SYMTAB);
    struct pep_symbol_table table = build();
    assert_string_equal(name_at(&table, 0x1050), "outer");
    assert_string_equal(name_at(&table, 0x1180), "inner");
    assert_string_equal(name_at(&table, 0x1280), "outer");
    assert_string_equal(name_at(&table, 0x1308), "small");
    assert_string_equal(name_at(&table, 0x1400), "outer");
    assert_string_equal(name_at(&table, 0x1800), "none");
}

static void hostile_symbols_name_nothing(void **state) {
    (void)state;
    elf_image_symbol(&image, "wraps", 0x1000, UINT64_MAX, FUNC_GLOBAL);
    elf_image_symbol(&image, "", 0x1000, 16, FUNC_GLOBAL);
    elf_image_symbol(&image, "fine", 0x1800, 16, FUNC_GLOBAL);
    elf_image_finish(&image, SHT_SYMTAB);
    Elf64_Shdr *symtab = elf_image_section_header(&image, 2);
    assert_int_equal(symtab->sh_type, SHT_SYMTAB);
    struct pep_symbol_table table = build();
    assert_string_equal(name_at(&table, 0x1808), "fine");

    Elf64_Shdr good = *symtab;
    symtab->sh_link = 4711;
    table = build();
    assert_int_equal(table.count, 0);
    *symtab = good;
    symtab->sh_entsize = 0;
    table = build();
    assert_int_equal(table.count, 0);
    *symtab = good;
    symtab->sh_offset = UINT64_MAX - 4;
    table = build();
    assert_int_equal(table.count, 0);
    *symtab = good;
    symtab->sh_size = UINT64_C(1) << 40;
    table = build();
    assert_int_equal(table.count, 0);
    *symtab = good;
    Elf64_Sym *symbols = (Elf64_Sym *)(void *)(image.bytes + symtab->sh_offset);
    symbols[3].st_name = UINT32_MAX;
    table = build();
    assert_string_equal(name_at(&table, 0x1808), "wraps");
}

/* Writes an .eh_frame with one CIE and functions of the given starts, and its search table. */
static void add_frames(const uint32_t *starts, uint32_t count, uint32_t length) {
    static uint8_t frame[1024], index[256];
    const uint64_t frame_at = 0x4000, index_at = 0x3000;
    static const uint8_t cie[] = {20, 0,    0,    0, 0,    0,    0, 0, 1,    'z', 'R', 0,
                                  1,  0x78, 0x10, 1, 0x1b, 0x0c, 7, 8, 0x90, 1,   0,   0};
    memcpy(frame, cie, sizeof(cie));
    size_t at = sizeof(cie);
    const uint8_t head[] = {1, 0x1b, 3, 0x3b};
    memcpy(index, head, 4);
    memcpy(index + 8, &count, 4);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t record[5] = {16, (uint32_t)at + 4, starts[i] - (uint32_t)(frame_at + at + 8),
                              length, 0};
        uint32_t row[2] = {starts[i] - (uint32_t)index_at,
                           (uint32_t)(frame_at + at) - (uint32_t)index_at};
        memcpy(frame + at, record, sizeof(record));
        memcpy(index + 12 + 8 * i, row, sizeof(row));
        at += sizeof(record);
    }
    unsigned number =
        elf_image_section(&image, ".eh_frame_hdr", SHT_PROGBITS, index, 12 + 8 * count);
    image.sections[number].sh_addr = index_at;
    number = elf_image_section(&image, ".eh_frame", SHT_PROGBITS, frame, at + 4);
    image.sections[number].sh_addr = frame_at;
}

static struct pep_fde_table read_frames(void) {
    struct pep_elf elf;
    struct pep_fde_table table;
    assert_int_equal(open_image(&elf), 0);
    assert_int_equal(pep_fde_table_read(&table, &elf, &arena), 0);
    return table;
}

static void unwind_tables_give_function_bounds(void **state) {
    (void)state;
    const uint32_t starts[] = {0x1000, 0x1100, 0x1400};
    add_frames(starts, 3, 0x80);
    elf_image_symbol(&image, "asm_function", 0x1100, 0, FUNC_GLOBAL);
    elf_image_symbol(&image, "asm_without_frame", 0x1200, 0, FUNC_GLOBAL);
    elf_image_finish(&image, SHT_SYMTAB);
    struct pep_fde_table table = read_frames();
    assert_int_equal(table.count, 3);
    assert_null(pep_fde_table_find(&table, 0xfff));
    assert_int_equal(pep_fde_table_find(&table, 0x107f)->start, 0x1000);
    assert_null(pep_fde_table_find(&table, 0x1080));
    assert_int_equal(pep_fde_table_find(&table, 0x1400)->end, 0x1480);
    assert_null(pep_fde_table_find(&table, UINT64_MAX));
    struct pep_symbol_table symbols = build();
    assert_string_equal(name_at(&symbols, 0x117f), "asm_function");
    assert_string_equal(name_at(&symbols, 0x1180), "none");
    assert_string_equal(name_at(&symbols, 0x13ff), "asm_without_frame");
    assert_string_equal(name_at(&symbols, 0x1400), "none");
}

static void broken_unwind_tables_give_nothing(void **state) {
    (void)state;
    const uint32_t unsorted[] = {0x1100, 0x1000};
    add_frames(unsorted, 2, 0x80);
    elf_image_finish(&image, SHT_SYMTAB);
    assert_int_equal(read_frames().count, 0);
    Elf64_Shdr *index = elf_image_section_header(&image, 2);
    uint8_t *bytes = image.bytes + index->sh_offset;
    uint32_t many = UINT32_MAX;
    memcpy(bytes + 8, &many, 4);
    assert_int_equal(read_frames().count, 0);
    bytes[0] = 7;
    assert_int_equal(read_frames().count, 0);
    index->sh_size = 3;
    assert_int_equal(read_frames().count, 0);
}

static void every_broken_byte_of_the_frames_is_survived(void **state) {
    (void)state;
    const uint32_t starts[] = {0x1000, 0x1100};
    add_frames(starts, 2, 0x80);
    elf_image_finish(&image, SHT_SYMTAB);
    size_t first = elf_image_section_header(&image, 2)->sh_offset;
    size_t last = elf_image_section_header(&image, 3)->sh_offset +
                  elf_image_section_header(&image, 3)->sh_size;
    for (size_t at = first; at < last; at++) {
        uint8_t good = image.bytes[at];
        for (unsigned value = 0; value < 256; value += 51) {
            image.bytes[at] = (uint8_t)value;
            assert_true(read_frames().count <= 2);
        }
        image.bytes[at] = good;
    }
    assert_int_equal(read_frames().count, 2);
}

static void a_file_is_opened_high_and_closed(void **state) {
    (void)state;
    struct pep_elf elf;
    assert_int_equal(pep_elf_open(&elf, &arena, "/proc/self/exe"), 0);
    assert_true(elf.fd >= 100);
    assert_true(fcntl(elf.fd, F_GETFD) & FD_CLOEXEC);
    int fd = elf.fd;
    pep_elf_close(&elf);
    pep_elf_close(&elf);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(pep_elf_open(&elf, &arena, "/nonexistent"), -ENOENT);
    assert_int_equal(elf.fd, -1);
    assert_int_equal(pep_elf_open(&elf, &arena, "/tmp"), -EINVAL);
    assert_int_equal(pep_elf_open(&elf, &arena, "/etc/passwd"), -ENOEXEC);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void a_fifo_and_a_truncated_file_do_no_harm(void **state) {
    (void)state;
    struct pep_elf elf;
    char path[] = "/tmp/pep_test_elf.XXXXXX";
    assert_non_null(mkdtemp(path));
    char name[64];
    snprintf(name, sizeof(name), "%s/file", path);
    assert_int_equal(mkfifo(name, 0600), 0);
    assert_int_equal(pep_elf_open(&elf, &arena, name), -EINVAL);
    unlink(name);
    elf_image_finish(&image, SHT_SYMTAB);
    elf_image_save(&image, name);
    assert_int_equal(pep_elf_open(&elf, &arena, name), 0);
    assert_int_equal(truncate(name, 70), 0);
    assert_null(pep_elf_load_section(&elf, &arena, pep_elf_section_typed(&elf, SHT_STRTAB), 4096));
    uint32_t crc;
    assert_false(pep_elf_crc32(&elf, &crc));
    pep_elf_close(&elf);
    unlink(name);
    rmdir(path);
}

static void the_checksum_is_the_known_one(void **state) {
    (void)state;
    /* CRC-32 of "123456789" is the check value of the algorithm; a file needs no ELF header. */
    struct pep_elf elf = {
        .arena = &arena, .fd = -1, .memory = (const void *)"123456789", .size_bytes = 9};
    uint32_t crc = 0;
    assert_true(pep_elf_crc32(&elf, &crc));
    assert_int_equal(crc, 0xcbf43926);
}

static void refused_memory_is_told(void **state) {
    (void)state;
    struct pep_elf elf;
    struct pep_arena small;
    elf_image_symbol(&image, "f", 0x1000, 16, FUNC_GLOBAL);
    elf_image_finish(&image, SHT_SYMTAB);
    pep_arena_init(&small, 1);
    assert_int_equal(pep_elf_open_memory(&elf, &small, image.bytes, image.size), -ENOEXEC);
    assert_true(small.is_failed);
    assert_int_equal(open_image(&elf), 0);
    struct pep_symbol_builder builder;
    struct pep_symbol_table table;
    pep_symbol_builder_init(&builder, &small);
    assert_int_equal(
        pep_symbol_builder_add_section(&builder, &elf, pep_elf_section_typed(&elf, SHT_SYMTAB)),
        -ENOMEM);
    assert_int_equal(pep_symbol_builder_finish(&builder, &(struct pep_fde_table){0}, &table),
                     -ENOMEM);
    assert_int_equal(table.count, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_good_file_gives_sections_and_build_id),
        TEST(a_file_that_is_not_ours_is_refused),
        TEST(impossible_section_tables_count_as_none),
        TEST(a_long_section_table_has_its_count_in_section_0),
        TEST(the_best_of_several_names_is_chosen),
        TEST(symbols_without_size_run_to_the_next_and_no_further),
        TEST(the_inner_of_nested_functions_wins),
        TEST(hostile_symbols_name_nothing),
        TEST(unwind_tables_give_function_bounds),
        TEST(broken_unwind_tables_give_nothing),
        TEST(every_broken_byte_of_the_frames_is_survived),
        TEST(a_file_is_opened_high_and_closed),
        TEST(a_fifo_and_a_truncated_file_do_no_harm),
        TEST(the_checksum_is_the_known_one),
        TEST(refused_memory_is_told),
    };
    return cmocka_run_group_tests_name("elf", tests, NULL, NULL);
}
