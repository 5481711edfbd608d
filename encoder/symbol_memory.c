/*
 * An object whose file cannot be read any more, from what the loader left in memory.
 *
 * Model:   program headers and the dynamic section say where the dynamic symbols and the unwind
 *          table lie; they are copied to a lazily touched image of the object and described by
 *          section headers made here, so that the readers of files read them.
 * Writers: pep_elf_open_process.  [normal]
 * Readers: symbol_load.c.
 * Memory:  the arena given; address space of the object's size, touched where copied.
 * When full: -ENOMEM.
 *
 * Source: System V gABI 4.1 chapter 5 (dynamic section), Linux Standard Base 5.0 core 10.6.
 */
#include <errno.h>
#include <string.h>

#include "encoder/symbol_load.h"
#include "sampler/rt/os.h"

#define SEGMENTS_MAX 64
#define DYNAMIC_MAX 512
#define IMAGE_LIMIT_BYTES (UINT64_C(1) << 30)
#define SYMBOLS_MAX (1u << 22)

/* The sections that are made; numbers as in the names below. */
enum { NONE, DYNSYM, DYNSTR, INDEX, FRAMES, SECTIONS };
static const char section_names[] = "\0.dynsym\0.dynstr\0.eh_frame_hdr\0.eh_frame";

struct object {
    struct pep_elf *elf;
    uint8_t *image;     /* of [low, low + span) of the object's own addresses */
    uint64_t low, span; /* low is the address of the ELF header */
    uint64_t base;      /* where low is in memory */
    Elf64_Phdr *segments;
    Elf64_Shdr *sections;
};

/* Bytes copied to the image from an address of the object, up to the first page that is gone. */
static uint64_t copy(const struct object *object, uint64_t address, uint64_t size) {
    uint64_t offset = address - object->low;
    if (address < object->low || offset > object->span || size > object->span - offset)
        return 0;
    long got = pep_os_peek(object->image + offset, object->base + offset, size);
    return got > 0 ? (uint64_t)got : 0;
}

static void make_section(const struct object *object, int number, uint64_t address, uint64_t size) {
    static const uint8_t name_at[SECTIONS] = {0, 1, 9, 17, 31};
    object->sections[number] = (Elf64_Shdr){
        .sh_name = name_at[number],
        .sh_type = number == DYNSYM ? SHT_DYNSYM : SHT_PROGBITS,
        .sh_flags = SHF_ALLOC,
        .sh_addr = address,
        .sh_offset = address - object->low,
        .sh_size = copy(object, address, size),
        .sh_link = DYNSTR,
        .sh_entsize = number == DYNSYM ? sizeof(Elf64_Sym) : 0,
    };
}

/* Checks the headers at an address and copies the program headers. */
static bool read_segments(struct object *object, uint64_t base, uint64_t bias) {
    Elf64_Ehdr header;
    if (pep_os_peek(&header, base, sizeof(header)) != (long)sizeof(header) ||
        memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine != EM_X86_64 ||
        header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phnum > SEGMENTS_MAX ||
        header.e_phentsize != sizeof(Elf64_Phdr))
        return false;
    long size = header.e_phnum * (long)sizeof(Elf64_Phdr);
    object->segments = pep_arena_alloc(object->elf->arena, (size_t)size);
    if (object->segments == NULL ||
        pep_os_peek(object->segments, base + header.e_phoff, (size_t)size) != size)
        return false;
    object->elf->type = header.e_type;
    object->elf->segments = object->segments;
    object->elf->segment_count = header.e_phnum;
    object->base = base;
    object->low = base - bias;
    bool has_header = false;
    for (uint32_t i = 0; i < header.e_phnum; i++) {
        const Elf64_Phdr *segment = &object->segments[i];
        if (segment->p_type != PT_LOAD)
            continue;
        has_header |= segment->p_offset == 0 && segment->p_vaddr == object->low;
        uint64_t end = segment->p_vaddr + segment->p_memsz - object->low;
        if (segment->p_vaddr < object->low || end > IMAGE_LIMIT_BYTES)
            return false;
        object->span = end > object->span ? end : object->span;
    }
    return has_header;
}

static const Elf64_Phdr *segment_typed(const struct object *object, uint32_t type) {
    for (uint32_t i = 0; i < object->elf->segment_count; i++) {
        if (object->segments[i].p_type == type)
            return &object->segments[i];
    }
    return NULL;
}

/* The notes must be those of the mapping: at this address something else may lie by now. */
static bool is_same_object(struct object *object, const struct pep_mapping *mapping) {
    for (uint32_t i = 0; i < object->elf->segment_count; i++) {
        Elf64_Phdr *segment = &object->segments[i];
        segment->p_offset = segment->p_vaddr - object->low; /* in the image */
        if (segment->p_type == PT_NOTE)
            copy(object, segment->p_vaddr, segment->p_filesz);
    }
    pep_elf_read_build_id(object->elf);
    return mapping->build_id[0] != '\0' && strcmp(object->elf->build_id, mapping->build_id) == 0;
}

static uint32_t read_u32(const struct object *object, uint64_t address) {
    uint32_t value = 0;
    if (copy(object, address, sizeof(value)) == sizeof(value))
        memcpy(&value, object->image + (address - object->low), sizeof(value));
    return value;
}

/* The number of dynamic symbols, which only the GNU hash table tells: the last chain's end. */
static uint64_t count_symbols(const struct object *object, uint64_t table) {
    uint32_t buckets = read_u32(object, table), first = read_u32(object, table + 4);
    uint64_t bucket_at = table + 16 + UINT64_C(8) * read_u32(object, table + 8);
    if (buckets > SYMBOLS_MAX || copy(object, bucket_at, 4ull * buckets) != 4ull * buckets)
        return 0;
    uint32_t last = 0;
    for (uint32_t i = 0; i < buckets; i++) {
        uint32_t symbol;
        memcpy(&symbol, object->image + (bucket_at - object->low) + 4ull * i, sizeof(symbol));
        last = symbol > last ? symbol : last;
    }
    if (last < first || last > SYMBOLS_MAX)
        return 0;
    uint64_t chain_at = bucket_at + 4ull * buckets;
    for (; last < SYMBOLS_MAX; last++) {
        if (read_u32(object, chain_at + 4ull * (last - first)) & 1)
            break;
    }
    return last + 1;
}

/* The loader turns the addresses in most dynamic sections into those of memory. */
static uint64_t own_address(const struct object *object, uint64_t value) {
    return value >= object->base && value - object->base < object->span
               ? value - object->base + object->low
               : value;
}

static void find_symbols(struct object *object) {
    const Elf64_Phdr *segment = segment_typed(object, PT_DYNAMIC);
    if (segment == NULL)
        return;
    uint64_t limit = DYNAMIC_MAX * sizeof(Elf64_Dyn), size = segment->p_memsz;
    uint64_t count = copy(object, segment->p_vaddr, size < limit ? size : limit);
    uint64_t symbols = 0, strings = 0, strings_size = 0, hash = 0;
    for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= count; at += sizeof(Elf64_Dyn)) {
        Elf64_Dyn entry;
        memcpy(&entry, object->image + segment->p_offset + at, sizeof(entry));
        if (entry.d_tag == DT_NULL)
            break;
        if (entry.d_tag == DT_SYMTAB)
            symbols = own_address(object, entry.d_un.d_ptr);
        else if (entry.d_tag == DT_STRTAB)
            strings = own_address(object, entry.d_un.d_ptr);
        else if (entry.d_tag == DT_STRSZ)
            strings_size = entry.d_un.d_val;
        else if (entry.d_tag == DT_GNU_HASH)
            hash = own_address(object, entry.d_un.d_ptr);
    }
    if (symbols == 0 || strings == 0 || hash == 0)
        return;
    make_section(object, DYNSYM, symbols, count_symbols(object, hash) * sizeof(Elf64_Sym));
    make_section(object, DYNSTR, strings, strings_size);
}

/* .eh_frame begins where its index says and ends somewhere in the same segment. */
static void find_frames(struct object *object) {
    const Elf64_Phdr *segment = segment_typed(object, PT_GNU_EH_FRAME);
    if (segment == NULL)
        return;
    uint64_t index = segment->p_vaddr;
    make_section(object, INDEX, index, segment->p_memsz);
    uint64_t frames = index + 4 + (uint64_t)(int64_t)(int32_t)read_u32(object, index + 4);
    for (uint32_t i = 0; i < object->elf->segment_count; i++) {
        const Elf64_Phdr *load = &object->segments[i];
        if (load->p_type == PT_LOAD && frames >= load->p_vaddr &&
            frames - load->p_vaddr < load->p_filesz)
            make_section(object, FRAMES, frames, load->p_filesz - (frames - load->p_vaddr));
    }
}

int pep_elf_open_process(struct pep_elf *elf, struct pep_arena *arena,
                         const struct pep_mapping *mapping) {
    *elf = (struct pep_elf){.arena = arena, .fd = -1};
    struct object object = {.elf = elf};
    if (!read_segments(&object, mapping->bias, mapping->bias) &&
        !read_segments(&object, mapping->start - mapping->file_offset, mapping->bias))
        return -ENOENT;
    object.image = pep_arena_alloc(arena, object.span);
    object.sections = pep_arena_array(arena, SECTIONS, sizeof(*object.sections));
    if (object.image == NULL || object.sections == NULL)
        return -ENOMEM;
    elf->memory = object.image;
    elf->size_bytes = object.span;
    if (!is_same_object(&object, mapping))
        return -ENOENT;
    find_symbols(&object);
    find_frames(&object);
    elf->sections = object.sections;
    elf->section_count = SECTIONS;
    elf->section_names = section_names;
    elf->section_names_bytes = sizeof(section_names);
    return 0;
}
