#include "test/unit/elf_image.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static size_t put(struct elf_image *image, const void *bytes, size_t size) {
    image->size = (image->size + 7) & ~(size_t)7;
    size_t at = image->size;
    assert_true(at + size <= sizeof(image->bytes));
    if (size > 0)
        memcpy(image->bytes + at, bytes, size);
    image->size += size;
    return at;
}

static size_t put_text(char *block, size_t *used, size_t capacity, const char *text) {
    size_t at = *used, size = strlen(text) + 1;
    assert_true(at + size <= capacity);
    memcpy(block + at, text, size);
    *used += size;
    return at;
}

void elf_image_begin(struct elf_image *image) {
    memset(image, 0, sizeof(*image));
    image->size = sizeof(Elf64_Ehdr);
    image->section_count = 1;
    image->names_size = 1;
    image->strings_size = 1;
    image->symbol_count = 1;
}

unsigned elf_image_section(struct elf_image *image, const char *name, uint32_t type,
                           const void *bytes, size_t size) {
    assert_true(image->section_count < 24);
    Elf64_Shdr *section = &image->sections[image->section_count];
    section->sh_name =
        (uint32_t)put_text(image->names, &image->names_size, sizeof(image->names), name);
    section->sh_type = type;
    section->sh_flags = SHF_ALLOC;
    section->sh_offset = put(image, bytes, size);
    section->sh_size = size;
    return image->section_count++;
}

unsigned elf_image_text(struct elf_image *image, uint64_t address, uint64_t size) {
    unsigned index = elf_image_section(image, ".text", SHT_NOBITS, NULL, 0);
    image->sections[index].sh_addr = address;
    image->sections[index].sh_size = size;
    image->sections[index].sh_flags = SHF_ALLOC | SHF_EXECINSTR;
    return index;
}

void elf_image_build_id(struct elf_image *image, const char *twenty_bytes) {
    struct {
        Elf64_Nhdr header;
        char name[4];
        char id[20];
    } note = {{4, 20, NT_GNU_BUILD_ID}, "GNU", {0}};
    memcpy(note.id, twenty_bytes, 20);
    elf_image_section(image, ".note.gnu.build-id", SHT_NOTE, &note, sizeof(note));
}

void elf_image_symbol(struct elf_image *image, const char *name, uint64_t start, uint64_t size,
                      unsigned char info) {
    assert_true(image->symbol_count < 1024);
    Elf64_Sym *symbol = &image->symbols[image->symbol_count++];
    symbol->st_name =
        (uint32_t)put_text(image->strings, &image->strings_size, sizeof(image->strings), name);
    symbol->st_value = start;
    symbol->st_size = size;
    symbol->st_info = info;
    symbol->st_shndx = 1; /* .text is made first */
}

void elf_image_finish(struct elf_image *image, uint32_t symtab_type) {
    bool is_dynamic = symtab_type == SHT_DYNSYM;
    unsigned symtab = elf_image_section(image, is_dynamic ? ".dynsym" : ".symtab", symtab_type,
                                        image->symbols, image->symbol_count * sizeof(Elf64_Sym));
    unsigned strtab = elf_image_section(image, is_dynamic ? ".dynstr" : ".strtab", SHT_STRTAB,
                                        image->strings, image->strings_size);
    image->sections[symtab].sh_link = strtab;
    image->sections[symtab].sh_entsize = sizeof(Elf64_Sym);
    put_text(image->names, &image->names_size, sizeof(image->names), ".shstrtab");
    unsigned names = image->section_count;
    elf_image_section(image, "", SHT_STRTAB, image->names, image->names_size + 1);
    Elf64_Ehdr header = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_DYN,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_shentsize = sizeof(Elf64_Shdr),
        .e_shnum = (uint16_t)image->section_count,
        .e_shstrndx = (uint16_t)names,
    };
    header.e_shoff = put(image, image->sections, image->section_count * sizeof(Elf64_Shdr));
    memcpy(image->bytes, &header, sizeof(header));
}

Elf64_Ehdr *elf_image_header(struct elf_image *image) {
    return (Elf64_Ehdr *)(void *)image->bytes;
}

Elf64_Shdr *elf_image_section_header(struct elf_image *image, unsigned index) {
    return (Elf64_Shdr *)(void *)(image->bytes + elf_image_header(image)->e_shoff) + index;
}

void elf_image_save(const struct elf_image *image, const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, image->bytes, image->size), image->size);
    close(fd);
}
