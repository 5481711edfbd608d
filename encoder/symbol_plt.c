/*
 * Names for the stubs through which calls to other objects go.
 *
 * Model:   a stub jumps through a slot of the GOT; the relocation of that slot names the symbol.
 *          So the code itself is read, and no layout of any linker is assumed.
 * Writers: pep_symbol_builder_add_plt.  [normal]
 * Readers: -
 * Memory:  names in the file's arena, the rest in a scratch arena.
 * When full: -ENOMEM.
 *
 * Source: System V ABI, AMD64 supplement, 5.2 (procedure linkage table).
 */
#include <errno.h>
#include <string.h>

#include "encoder/symbol_table.h"

#define PLT_LIMIT_BYTES (UINT64_C(4) << 20)
#define RELA_LIMIT_BYTES (UINT64_C(16) << 20)
#define DYNSYM_LIMIT_BYTES (UINT64_C(32) << 20)
#define NAME_MAX_BYTES 4096
#define SLOTS_MAX (1u << 20)

struct slot {
    uint64_t address; /* of the GOT entry */
    const char *name;
};

/* An open-addressing table: address -> name. */
struct slots {
    struct slot *table;
    size_t mask, count;
};

static struct slot *slot_of(const struct slots *slots, uint64_t address) {
    size_t at = (size_t)((address >> 3) * UINT64_C(0x9e3779b97f4a7c15) >> 32) & slots->mask;
    while (slots->table[at].name != NULL && slots->table[at].address != address)
        at = (at + 1) & slots->mask;
    return &slots->table[at];
}

static void add_relocations(struct slots *slots, const struct pep_elf *elf,
                            struct pep_arena *scratch, const char *section_name) {
    const Elf64_Shdr *section = pep_elf_section_named(elf, section_name);
    if (section == NULL || section->sh_entsize != sizeof(Elf64_Rela))
        return;
    const Elf64_Shdr *symtab = pep_elf_section_at(elf, section->sh_link);
    const Elf64_Shdr *strtab = symtab ? pep_elf_section_at(elf, symtab->sh_link) : NULL;
    const Elf64_Rela *relas = pep_elf_load_section(elf, scratch, section, RELA_LIMIT_BYTES);
    const Elf64_Sym *symbols = pep_elf_load_section(elf, scratch, symtab, DYNSYM_LIMIT_BYTES);
    const char *names = pep_elf_load_section(elf, scratch, strtab, DYNSYM_LIMIT_BYTES);
    if (relas == NULL || symbols == NULL || names == NULL)
        return;
    uint64_t count = section->sh_size / sizeof(Elf64_Rela);
    for (uint64_t i = 0; i < count && slots->count < slots->mask / 2; i++) {
        uint64_t type = ELF64_R_TYPE(relas[i].r_info), index = ELF64_R_SYM(relas[i].r_info);
        if ((type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT) || index == 0 ||
            index >= symtab->sh_size / sizeof(Elf64_Sym) ||
            symbols[index].st_name >= strtab->sh_size || names[symbols[index].st_name] == '\0')
            continue;
        struct slot *slot = slot_of(slots, relas[i].r_offset);
        slots->count += slot->name == NULL;
        *slot = (struct slot){.address = relas[i].r_offset, .name = names + symbols[index].st_name};
    }
}

/* Where a stub jumps through: [bnd] jmp *disp32(%rip), maybe behind endbr64. 0: no such stub. */
static uint64_t target_of(const uint8_t *code, size_t size, uint64_t address) {
    static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
    size_t at = size >= 4 && memcmp(code, endbr64, 4) == 0 ? 4 : 0;
    at += at < size && code[at] == 0xf2;
    if (size < at + 6 || code[at] != 0xff || code[at + 1] != 0x25)
        return 0;
    int32_t displacement;
    memcpy(&displacement, code + at + 2, sizeof(displacement));
    return address + at + 6 + (uint64_t)(int64_t)displacement;
}

static void add_stubs(struct pep_symbol_builder *builder, const struct pep_elf *elf,
                      const Elf64_Shdr *section, const struct slots *slots) {
    struct pep_arena scratch;
    pep_arena_init(&scratch, 0);
    const uint8_t *code = pep_elf_load_section(elf, &scratch, section, PLT_LIMIT_BYTES);
    uint64_t width = section->sh_entsize == 8 ? 8 : 16;
    for (uint64_t at = 0; code != NULL && at + width <= section->sh_size; at += width) {
        uint64_t target = target_of(code + at, width, section->sh_addr + at);
        const char *name = target != 0 ? slot_of(slots, target)->name : NULL;
        if (name == NULL)
            continue;
        char *text = pep_arena_printf(builder->names, "%.*s@plt", NAME_MAX_BYTES, name);
        if (text == NULL)
            break;
        pep_symbol_builder_add(builder, section->sh_addr + at, (uint32_t)width, text);
    }
    pep_arena_drop(&scratch);
}

int pep_symbol_builder_add_plt(struct pep_symbol_builder *builder, const struct pep_elf *elf) {
    static const char *const stubs[] = {".plt", ".plt.sec", ".plt.got"};
    static const char *const relocations[] = {".rela.plt", ".rela.dyn"};
    struct pep_arena scratch;
    pep_arena_init(&scratch, 0);
    uint64_t wanted = 1;
    for (size_t i = 0; i < PEP_COUNT_OF(relocations); i++) {
        const Elf64_Shdr *section = pep_elf_section_named(elf, relocations[i]);
        if (section != NULL)
            wanted += section->sh_size / sizeof(Elf64_Rela);
    }
    size_t capacity = 16;
    while (capacity < 2 * wanted && capacity < SLOTS_MAX)
        capacity *= 2;
    struct slots slots = {.table = pep_arena_array(&scratch, capacity, sizeof(struct slot)),
                          .mask = capacity - 1};
    if (slots.table != NULL) {
        for (size_t i = 0; i < PEP_COUNT_OF(relocations); i++)
            add_relocations(&slots, elf, &scratch, relocations[i]);
        for (size_t i = 0; i < PEP_COUNT_OF(stubs); i++) {
            const Elf64_Shdr *section = pep_elf_section_named(elf, stubs[i]);
            if (section != NULL && section->sh_type == SHT_PROGBITS)
                add_stubs(builder, elf, section, &slots);
        }
    }
    int err = scratch.is_failed || builder->scratch.is_failed ? -ENOMEM : 0;
    pep_arena_drop(&scratch);
    return err;
}
