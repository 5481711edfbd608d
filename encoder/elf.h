/*
 * The parts of an ELF file that names are made from.
 *
 * Model:   headers are read once, by pread, into an arena; every offset, size and count is checked
 *          against the file's size and a fixed limit before it is used. Nothing is mapped: a file
 *          that somebody truncates under us gives a short read, where a mapping gives SIGBUS.
 * Writers: pep_elf_open, pep_elf_open_memory.  [normal]
 * Readers: the symbol readers, on the same thread.
 * Memory:  the caller's arena.
 * When full: -ENOMEM, or NULL from the loads.
 *
 * Source: System V gABI 4.1 chapters 4 and 5, elf(5).
 */
#ifndef PEP_ENCODER_ELF_H
#define PEP_ENCODER_ELF_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/rt/arena.h"
#include "sampler/rt/attrs.h"

#define PEP_ELF_BUILD_ID_TEXT 65

struct pep_elf {
    struct pep_arena *arena;    /* owns the headers */
    const uint8_t *memory;      /* the whole file, or NULL: read from fd */
    int fd;                     /* -1 when memory is given or closed */
    uint64_t size_bytes;        /* of the file */
    uint64_t device, inode;     /* 0, 0 for memory */
    uint16_t type;              /* ET_EXEC, ET_DYN ... */
    const Elf64_Phdr *segments; /* [segment_count] */
    uint32_t segment_count;
    const Elf64_Shdr *sections; /* [section_count], NULL when there are none */
    uint32_t section_count;
    const char *section_names; /* NUL-ended block */
    uint64_t section_names_bytes;
    char build_id[PEP_ELF_BUILD_ID_TEXT]; /* lower-case hex, "" when none */
};

/* Opens a regular file for reading, close-on-exec, on a descriptor of 100 or more where the limit
 * allows; never blocks on a FIFO. flags: 0 or O_NOFOLLOW. The descriptor or -errno. */
int pep_elf_open_file(const char *path, int flags);

/* Reads the headers. The descriptor stays open until pep_elf_close. 0 or -errno: -ENOEXEC when it
 * is not an x86-64 ELF file or its headers contradict themselves. */
PEP_MUST_CHECK int pep_elf_open(struct pep_elf *elf, struct pep_arena *arena, const char *path);
/* The same on bytes in memory, which must outlive elf. */
PEP_MUST_CHECK int pep_elf_open_memory(struct pep_elf *elf, struct pep_arena *arena,
                                       const void *bytes, size_t size_bytes);
/* Closes the descriptor; the headers live as long as the arena. Idempotent. */
void pep_elf_close(struct pep_elf *elf);

/* Looks for the build-id in the notes; for elf structs that are not made from a file. */
void pep_elf_read_build_id(struct pep_elf *elf);
/* Exactly size_bytes at offset. False when the file has less. */
bool pep_elf_read(const struct pep_elf *elf, void *to, uint64_t offset, uint64_t size_bytes);
/* The contents of a section followed by a NUL byte; NULL for NULL, and when there are none, when
 * they do not lie in the file or are above limit_bytes. Owned by the arena given. */
void *pep_elf_load_section(const struct pep_elf *elf, struct pep_arena *arena,
                           const Elf64_Shdr *section, uint64_t limit_bytes);

/* The first section of that name, or NULL. */
const Elf64_Shdr *pep_elf_section_named(const struct pep_elf *elf, const char *name);
/* The first section of that type, or NULL. */
const Elf64_Shdr *pep_elf_section_typed(const struct pep_elf *elf, uint32_t type);
/* "" when it has none; never NULL. */
const char *pep_elf_section_name(const struct pep_elf *elf, const Elf64_Shdr *section);
/* Section number index, or NULL. */
const Elf64_Shdr *pep_elf_section_at(const struct pep_elf *elf, uint32_t index);

/* CRC-32 of the whole file as .gnu_debuglink wants it. False when it cannot be read. */
bool pep_elf_crc32(const struct pep_elf *elf, uint32_t *crc);

#endif
