/* Any bytes as an ELF file: headers, symbols, unwind table, stubs; look-ups all over it. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "encoder/symbol_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_around(const struct pep_symbol_table *table, const struct pep_fde_table *fdes) {
    for (size_t i = 0; i < table->count && i < 1000; i++) {
        const struct pep_symbol *symbol = &table->symbols[i];
        const struct pep_symbol *found = pep_symbol_table_find(table, symbol->start);
        if (found != symbol || symbol->size == 0 || symbol->size > symbol->reach ||
            (i > 0 && symbol[-1].start >= symbol->start) || strlen(symbol->name) == 0)
            __builtin_trap();
        (void)pep_symbol_table_find(table, symbol->start + symbol->size);
    }
    for (size_t i = 0; i < fdes->count && i < 1000; i++) {
        const struct pep_fde *found = pep_fde_table_find(fdes, fdes->fdes[i].start);
        if (found == NULL || found->start != fdes->fdes[i].start)
            __builtin_trap();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct pep_arena arena;
    struct pep_elf elf;
    pep_arena_init(&arena, 0);
    if (pep_elf_open_memory(&elf, &arena, data, size) == 0) {
        struct pep_fde_table fdes;
        struct pep_symbol_table table;
        struct pep_symbol_builder builder;
        uint32_t crc;
        (void)pep_elf_crc32(&elf, &crc);
        (void)pep_fde_table_read(&fdes, &elf, &arena);
        pep_symbol_builder_init(&builder, &arena);
        for (uint32_t i = 0; i < elf.section_count && i < 64; i++) {
            uint32_t type = elf.sections[i].sh_type;
            if (type == SHT_SYMTAB || type == SHT_DYNSYM)
                (void)pep_symbol_builder_add_section(&builder, &elf, &elf.sections[i]);
        }
        (void)pep_symbol_builder_add_plt(&builder, &elf);
        if (pep_symbol_builder_finish(&builder, &fdes, &table) == 0)
            look_around(&table, &fdes);
    }
    pep_arena_drop(&arena);
    return 0;
}
