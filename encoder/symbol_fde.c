/*
 * Function boundaries from the unwind tables that every binary keeps when it is stripped.
 *
 * Model:   .eh_frame_hdr lists the start of every FDE, sorted; each FDE tells its length.
 * Writers: pep_fde_table_read.  [normal]
 * Readers: pep_fde_table_find, any thread once built.
 * Memory:  16 bytes a function in the file's arena; .eh_frame itself in a scratch arena.
 * When full: -ENOMEM, empty table.
 *
 * Source: Linux Standard Base 5.0 core, 10.6 (.eh_frame, .eh_frame_hdr), 10.5 (DW_EH_PE).
 */
#include <errno.h>
#include <string.h>

#include "encoder/symbol_table.h"

#define EH_FRAME_LIMIT_BYTES (UINT64_C(128) << 20)
#define FDES_MAX (4u << 20)

enum { PE_ABSPTR = 0x00, PE_UDATA4 = 0x03, PE_UDATA8 = 0x04, PE_SDATA4 = 0x0b, PE_SDATA8 = 0x0c };
enum { PE_FORMAT = 0x0f, PE_PCREL = 0x10, PE_DATAREL = 0x30, PE_TABLE = PE_DATAREL | PE_SDATA4 };

struct frames {
    const uint8_t *bytes; /* .eh_frame */
    uint64_t address, size_bytes;
    uint64_t cie_at;  /* the CIE that cie_encoding belongs to */
    int cie_encoding; /* of addresses in its FDEs, or -1 */
};

static uint32_t read_u32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static uint64_t read_u64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

/* Steps over a LEB128 number; false at the end of the record. */
static bool skip_leb(const uint8_t *bytes, uint64_t *at, uint64_t end) {
    while (*at < end) {
        if (!(bytes[(*at)++] & 0x80))
            return true;
    }
    return false;
}

static int encoded_bytes(int encoding) {
    switch (encoding & PE_FORMAT) {
    case PE_ABSPTR:
    case PE_UDATA8:
    case PE_SDATA8:
        return 8;
    case PE_UDATA4:
    case PE_SDATA4:
        return 4;
    default:
        return -1;
    }
}

/* [*body, *end) of the record at an offset; false when it is not inside or ends the section. */
static bool find_record(const struct frames *frames, uint64_t at, uint64_t *body, uint64_t *end) {
    if (at > frames->size_bytes || frames->size_bytes - at < 8)
        return false;
    uint64_t length = read_u32(frames->bytes + at);
    if (length == 0 || length == UINT32_MAX) /* terminator; 64-bit records: no linker writes them */
        return false;
    *body = at + 4;
    *end = *body + length;
    return length >= 4 && *end <= frames->size_bytes;
}

/* How the FDEs of a CIE encode addresses, from the 'R' of its augmentation; -1 when unclear. */
static int read_cie(const struct frames *frames, uint64_t cie) {
    uint64_t at, end;
    if (!find_record(frames, cie, &at, &end) || end - at < 6 || read_u32(frames->bytes + at) != 0)
        return -1;
    const uint8_t *bytes = frames->bytes;
    uint8_t version = bytes[at + 4];
    const char *augmentation = (const char *)bytes + at + 5;
    size_t letters = strnlen(augmentation, end - at - 5);
    at += 5 + letters + 1;
    if (at >= end || augmentation[0] != 'z')
        return letters == 0 ? PE_ABSPTR : -1;
    if (!skip_leb(bytes, &at, end) || !skip_leb(bytes, &at, end)) /* the two alignment factors */
        return -1;
    if (version == 1)
        at++;
    else if (!skip_leb(bytes, &at, end))
        return -1;
    if (!skip_leb(bytes, &at, end))
        return -1;
    for (size_t i = 1; i < letters; i++) {
        if (at >= end)
            return -1;
        if (augmentation[i] == 'R')
            return bytes[at];
        if (augmentation[i] == 'L') {
            at++;
        } else if (augmentation[i] == 'P') {
            int skip = encoded_bytes(bytes[at]);
            if (skip < 0)
                return -1;
            at += 1 + (uint64_t)skip;
        } else if (augmentation[i] != 'S' && augmentation[i] != 'B') {
            return -1;
        }
    }
    return PE_ABSPTR;
}

/* The length of the function whose FDE lies at an address; 0 when it cannot be told. */
static uint64_t read_fde_length(struct frames *frames, uint64_t address) {
    uint64_t body, end;
    if (address < frames->address || !find_record(frames, address - frames->address, &body, &end))
        return 0;
    uint64_t back = read_u32(frames->bytes + body);
    if (back == 0 || back > body)
        return 0;
    if (frames->cie_at != body - back) {
        frames->cie_at = body - back;
        frames->cie_encoding = read_cie(frames, frames->cie_at);
    }
    int width = frames->cie_encoding < 0 ? -1 : encoded_bytes(frames->cie_encoding);
    if (width < 0 || end - body < 4 + 2 * (uint64_t)width)
        return 0;
    const uint8_t *length = frames->bytes + body + 4 + width;
    return width == 4 ? read_u32(length) : read_u64(length);
}

/* The rows of the search table: (function, FDE), both relative to the header's own address. */
static int read_rows(struct pep_fde_table *table, struct frames *frames, const uint8_t *rows,
                     uint64_t count, uint64_t base) {
    uint64_t last = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = base + (uint64_t)(int64_t)(int32_t)read_u32(rows + 8 * i);
        uint64_t fde = base + (uint64_t)(int64_t)(int32_t)read_u32(rows + 8 * i + 4);
        uint64_t length = read_fde_length(frames, fde);
        if (start < last) { /* not sorted: not a table anybody can search */
            table->count = 0;
            return 0;
        }
        last = start;
        if (length == 0 || length > UINT64_MAX - start)
            continue;
        table->fdes[table->count++] = (struct pep_fde){.start = start, .end = start + length};
    }
    return 0;
}

int pep_fde_table_read(struct pep_fde_table *table, const struct pep_elf *elf,
                       struct pep_arena *arena) {
    *table = (struct pep_fde_table){0};
    const Elf64_Shdr *index = pep_elf_section_named(elf, ".eh_frame_hdr");
    const Elf64_Shdr *section = pep_elf_section_named(elf, ".eh_frame");
    if (index == NULL || section == NULL)
        return 0;
    struct pep_arena scratch;
    pep_arena_init(&scratch, 0);
    const uint8_t *bytes = pep_elf_load_section(elf, &scratch, index, EH_FRAME_LIMIT_BYTES);
    struct frames frames = {
        .bytes = pep_elf_load_section(elf, &scratch, section, EH_FRAME_LIMIT_BYTES),
        .address = section->sh_addr,
        .size_bytes = section->sh_size,
        .cie_at = UINT64_MAX,
    };
    int err = scratch.is_failed ? -ENOMEM : 0;
    /* version 1, any pointer to .eh_frame of 4 bytes, a count of 4 bytes, a table of sdata4 */
    if (bytes == NULL || frames.bytes == NULL || index->sh_size < 12 || bytes[0] != 1 ||
        encoded_bytes(bytes[1]) != 4 || bytes[2] != PE_UDATA4 || bytes[3] != PE_TABLE)
        goto out;
    uint64_t count = read_u32(bytes + 8);
    if (count > FDES_MAX || count > (index->sh_size - 12) / 8)
        goto out;
    table->fdes = pep_arena_array(arena, count + 1, sizeof(*table->fdes));
    err = table->fdes == NULL ? -ENOMEM
                              : read_rows(table, &frames, bytes + 12, count, index->sh_addr);
out:
    pep_arena_drop(&scratch);
    return err;
}

/* The number of FDEs that start at or below an address. */
static size_t count_up_to(const struct pep_fde_table *table, uint64_t address) {
    size_t low = 0, high = table->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (table->fdes[middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct pep_fde *pep_fde_table_find(const struct pep_fde_table *table, uint64_t address) {
    size_t count = count_up_to(table, address);
    if (count == 0 || address >= table->fdes[count - 1].end)
        return NULL;
    return &table->fdes[count - 1];
}

uint64_t pep_fde_table_end_of(const struct pep_fde_table *table, uint64_t address, uint64_t limit) {
    size_t count = count_up_to(table, address);
    uint64_t end = limit;
    if (count > 0 && address < table->fdes[count - 1].end)
        end = table->fdes[count - 1].end;
    else if (count < table->count)
        end = table->fdes[count].start;
    return end < limit ? end : limit;
}
