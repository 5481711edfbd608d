#include "encoder/elf.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "sampler/rt/os.h"

#define SECTIONS_MAX 65536 /* more: a file of -ffunction-sections objects, never linked */
#define SEGMENTS_MAX 4096
#define SECTION_NAMES_MAX (4u << 20)
#define NOTES_MAX (64u << 10)
#define LOWEST_FD 100 /* shells, daemons and test suites own the numbers below */
#define CRC_BLOCK (64u << 10)
#define CRC_POLYNOMIAL 0xedb88320u /* reflected CRC-32 of IEEE 802.3 */
#define BUILD_ID_BYTES_MAX 32

static bool lies_inside(const struct pep_elf *elf, uint64_t offset, uint64_t size_bytes) {
    return offset <= elf->size_bytes && size_bytes <= elf->size_bytes - offset;
}

bool pep_elf_read(const struct pep_elf *elf, void *to, uint64_t offset, uint64_t size_bytes) {
    if (!lies_inside(elf, offset, size_bytes))
        return false;
    if (elf->memory != NULL) {
        memcpy(to, elf->memory + offset, size_bytes);
        return true;
    }
    for (uint64_t done = 0; done < size_bytes;) {
        long got =
            pep_os_pread(elf->fd, (char *)to + done, size_bytes - done, (int64_t)(offset + done));
        if (got == -EINTR)
            continue;
        if (got <= 0)
            return false; /* 0: truncated since we looked */
        done += (uint64_t)got;
    }
    return true;
}

/* A block of the file followed by a NUL byte; NULL when it does not lie in the file, is empty or
 * above limit_bytes. */
static void *load(const struct pep_elf *elf, struct pep_arena *arena, uint64_t offset,
                  uint64_t size_bytes, uint64_t limit_bytes) {
    if (size_bytes == 0 || size_bytes > limit_bytes || !lies_inside(elf, offset, size_bytes))
        return NULL;
    char *block = pep_arena_alloc(arena, size_bytes + 1);
    if (block == NULL || !pep_elf_read(elf, block, offset, size_bytes))
        return NULL;
    block[size_bytes] = '\0';
    return block;
}

void *pep_elf_load_section(const struct pep_elf *elf, struct pep_arena *arena,
                           const Elf64_Shdr *section, uint64_t limit_bytes) {
    if (section == NULL || section->sh_type == SHT_NOBITS)
        return NULL;
    return load(elf, arena, section->sh_offset, section->sh_size, limit_bytes);
}

const Elf64_Shdr *pep_elf_section_at(const struct pep_elf *elf, uint32_t index) {
    return index < elf->section_count ? &elf->sections[index] : NULL;
}

const char *pep_elf_section_name(const struct pep_elf *elf, const Elf64_Shdr *section) {
    return section->sh_name < elf->section_names_bytes ? elf->section_names + section->sh_name : "";
}

const Elf64_Shdr *pep_elf_section_named(const struct pep_elf *elf, const char *name) {
    for (uint32_t i = 0; i < elf->section_count; i++) {
        if (strcmp(pep_elf_section_name(elf, &elf->sections[i]), name) == 0)
            return &elf->sections[i];
    }
    return NULL;
}

const Elf64_Shdr *pep_elf_section_typed(const struct pep_elf *elf, uint32_t type) {
    for (uint32_t i = 0; i < elf->section_count; i++) {
        if (elf->sections[i].sh_type == type)
            return &elf->sections[i];
    }
    return NULL;
}

/* One block of notes; true when the GNU build-id was among them. */
static bool find_build_id(struct pep_elf *elf, uint64_t offset, uint64_t size_bytes) {
    uint8_t *notes = load(elf, elf->arena, offset, size_bytes, NOTES_MAX);
    if (notes == NULL)
        return false;
    for (uint64_t at = 0; at + sizeof(Elf64_Nhdr) <= size_bytes;) {
        Elf64_Nhdr note;
        memcpy(&note, notes + at, sizeof(note));
        uint64_t name = at + sizeof(note);
        uint64_t desc = name + ((note.n_namesz + UINT64_C(3)) & ~UINT64_C(3));
        uint64_t next = desc + ((note.n_descsz + UINT64_C(3)) & ~UINT64_C(3));
        if (desc + note.n_descsz > size_bytes)
            return false;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
            memcmp(notes + name, "GNU", 4) == 0 && note.n_descsz > 0) {
            uint32_t count =
                note.n_descsz < BUILD_ID_BYTES_MAX ? note.n_descsz : BUILD_ID_BYTES_MAX;
            for (uint32_t i = 0; i < count; i++) {
                elf->build_id[2 * i] = "0123456789abcdef"[notes[desc + i] >> 4];
                elf->build_id[2 * i + 1] = "0123456789abcdef"[notes[desc + i] & 15];
            }
            elf->build_id[2 * count] = '\0';
            return true;
        }
        at = next;
    }
    return false;
}

/* Sections first: the segments of a separate debug file point at bytes that were left out. */
void pep_elf_read_build_id(struct pep_elf *elf) {
    bool has_sections = false;
    for (uint32_t i = 0; i < elf->section_count; i++) {
        const Elf64_Shdr *section = &elf->sections[i];
        if (section->sh_type != SHT_NOTE)
            continue;
        has_sections = true;
        if (find_build_id(elf, section->sh_offset, section->sh_size))
            return;
    }
    for (uint32_t i = 0; !has_sections && i < elf->segment_count; i++) {
        const Elf64_Phdr *segment = &elf->segments[i];
        if (segment->p_type == PT_NOTE && find_build_id(elf, segment->p_offset, segment->p_filesz))
            return;
    }
}

/* A section table that makes no sense counts as none: segments may still serve. */
static void read_sections(struct pep_elf *elf, const Elf64_Ehdr *header) {
    if (header->e_shoff == 0 || header->e_shentsize != sizeof(Elf64_Shdr))
        return;
    Elf64_Shdr first;
    if (!pep_elf_read(elf, &first, header->e_shoff, sizeof(first)))
        return;
    /* gABI: counts that do not fit into 16 bits stand in section 0. */
    uint64_t count = header->e_shnum != 0 ? header->e_shnum : first.sh_size;
    uint32_t names = header->e_shstrndx != SHN_XINDEX ? header->e_shstrndx : first.sh_link;
    if (count == 0 || count > SECTIONS_MAX)
        return;
    const Elf64_Shdr *sections =
        load(elf, elf->arena, header->e_shoff, count * sizeof(Elf64_Shdr), UINT64_MAX);
    if (sections == NULL)
        return;
    elf->sections = sections;
    elf->section_count = (uint32_t)count;
    const Elf64_Shdr *strings = pep_elf_section_at(elf, names);
    elf->section_names = pep_elf_load_section(elf, elf->arena, strings, SECTION_NAMES_MAX);
    elf->section_names_bytes = elf->section_names != NULL ? strings->sh_size : 0;
}

static int read_headers(struct pep_elf *elf) {
    Elf64_Ehdr header;
    if (!pep_elf_read(elf, &header, 0, sizeof(header)))
        return -ENOEXEC;
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
        header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_machine != EM_X86_64)
        return -ENOEXEC;
    elf->type = header.e_type;
    if (header.e_phoff != 0 && header.e_phentsize == sizeof(Elf64_Phdr) && header.e_phnum > 0 &&
        header.e_phnum <= SEGMENTS_MAX) {
        elf->segments =
            load(elf, elf->arena, header.e_phoff, header.e_phnum * sizeof(Elf64_Phdr), UINT64_MAX);
        elf->segment_count = elf->segments != NULL ? header.e_phnum : 0;
    }
    read_sections(elf, &header);
    if (elf->segment_count == 0 && elf->section_count == 0)
        return -ENOEXEC;
    pep_elf_read_build_id(elf);
    return elf->arena->is_failed ? -ENOMEM : 0;
}

int pep_elf_open_file(const char *path, int flags) {
    int fd = pep_os_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags, 0);
    if (fd < 0)
        return fd;
    if (fd < LOWEST_FD) {
        int high = pep_os_fcntl(fd, F_DUPFD_CLOEXEC, LOWEST_FD);
        if (high >= 0) { /* else a small RLIMIT_NOFILE: the low number has to do */
            pep_os_close(fd);
            fd = high;
        }
    }
    return fd;
}

int pep_elf_open(struct pep_elf *elf, struct pep_arena *arena, const char *path) {
    *elf = (struct pep_elf){.arena = arena, .fd = -1};
    int fd = pep_elf_open_file(path, 0);
    if (fd < 0)
        return fd;
    elf->fd = fd;
    struct stat status;
    int err = pep_os_fstat(fd, &status);
    if (err == 0 && !S_ISREG(status.st_mode))
        err = -EINVAL;
    if (err == 0) {
        elf->size_bytes = (uint64_t)status.st_size;
        elf->device = status.st_dev;
        elf->inode = status.st_ino;
        err = read_headers(elf);
    }
    if (err != 0)
        pep_elf_close(elf);
    return err;
}

int pep_elf_open_memory(struct pep_elf *elf, struct pep_arena *arena, const void *bytes,
                        size_t size_bytes) {
    *elf = (struct pep_elf){.arena = arena, .fd = -1, .memory = bytes, .size_bytes = size_bytes};
    return read_headers(elf);
}

void pep_elf_close(struct pep_elf *elf) {
    if (elf->fd >= 0)
        pep_os_close(elf->fd);
    elf->fd = -1;
}

bool pep_elf_crc32(const struct pep_elf *elf, uint32_t *crc) {
    uint32_t *table = pep_arena_array(elf->arena, 256, sizeof(*table));
    uint8_t *block = pep_arena_alloc(elf->arena, CRC_BLOCK);
    if (table == NULL || block == NULL)
        return false;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = (value >> 1) ^ (value & 1 ? CRC_POLYNOMIAL : 0);
        table[i] = value;
    }
    uint32_t value = UINT32_MAX;
    for (uint64_t at = 0; at < elf->size_bytes;) {
        uint64_t left = elf->size_bytes - at;
        uint64_t count = left < CRC_BLOCK ? left : CRC_BLOCK;
        if (!pep_elf_read(elf, block, at, count))
            return false;
        for (uint64_t i = 0; i < count; i++)
            value = (value >> 8) ^ table[(value ^ block[i]) & 255];
        at += count;
    }
    *crc = ~value;
    return true;
}
