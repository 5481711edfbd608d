/*
 * ELF files made by tests, to the byte.
 *
 * Model:   sections are appended; finish writes the tables. Offsets stay known, so that a test can
 *          break one field.
 * Writers: one test.
 * Readers: the same.
 * Memory:  a fixed array inside the image.
 * When full: the test stops.
 */
#ifndef PEP_TEST_ELF_IMAGE_H
#define PEP_TEST_ELF_IMAGE_H

#include <elf.h>
#include <stddef.h>
#include <stdint.h>

struct elf_image {
    uint8_t bytes[256 << 10] __attribute__((aligned(16)));
    size_t size;
    Elf64_Shdr sections[24];
    unsigned section_count;
    char names[1024];
    size_t names_size;
    Elf64_Sym symbols[1024];
    size_t symbol_count;
    char strings[32 << 10];
    size_t strings_size;
};

void elf_image_begin(struct elf_image *image);
/* Appends bytes as a section at address 0; its number. */
unsigned elf_image_section(struct elf_image *image, const char *name, uint32_t type,
                           const void *bytes, size_t size);
/* .text: executable, without bytes, [address, address + size). */
unsigned elf_image_text(struct elf_image *image, uint64_t address, uint64_t size);
void elf_image_build_id(struct elf_image *image, const char *twenty_bytes);
void elf_image_symbol(struct elf_image *image, const char *name, uint64_t start, uint64_t size,
                      unsigned char info);
/* Writes .symtab (or .dynsym), the section names and the headers. */
void elf_image_finish(struct elf_image *image, uint32_t symtab_type);
Elf64_Ehdr *elf_image_header(struct elf_image *image);
/* The header of a section in the finished bytes. */
Elf64_Shdr *elf_image_section_header(struct elf_image *image, unsigned index);
/* Writes the image to a file. */
void elf_image_save(const struct elf_image *image, const char *path);

#endif
