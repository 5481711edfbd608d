#include "encoder/symbol_load.h"

#include <errno.h>
#include <string.h>

#include "encoder/xz.h"
#include "sampler/rt/os.h"

#define VDSO_LIMIT_BYTES (256u << 10)
#define MINI_LIMIT_BYTES (UINT64_C(64) << 20)
#define MINI_RATIO_MAX 200    /* unpacked to packed; a symbol table is at 3 to 10 */
#define HEADER_BYTES_MAX 4096 /* compared where there is no build-id */

/* An object without a build-id is known by its ELF and program headers, which stand in its first
 * page both in the file and in memory: offsets, addresses and sizes of everything. */
static bool has_same_headers(const struct pep_elf *elf, const struct pep_mapping *mapping) {
    uint8_t in_file[HEADER_BYTES_MAX], in_memory[HEADER_BYTES_MAX];
    uint64_t size = sizeof(Elf64_Ehdr) + elf->segment_count * sizeof(Elf64_Phdr);
    size = size < sizeof(in_file) ? size : sizeof(in_file);
    if (elf->build_id[0] != '\0' || !pep_elf_read(elf, in_file, 0, size))
        return false;
    for (uint32_t i = 0; i < elf->segment_count; i++) {
        const Elf64_Phdr *segment = &elf->segments[i];
        if (segment->p_type == PT_LOAD && segment->p_offset == 0)
            return pep_os_peek(in_memory, mapping->bias + segment->p_vaddr, size) == (long)size &&
                   memcmp(in_file, in_memory, size) == 0;
    }
    return false;
}

static bool belongs_to(const struct pep_elf *elf, const struct pep_mapping *mapping) {
    if (mapping->build_id[0] != '\0')
        return strcmp(elf->build_id, mapping->build_id) == 0;
    return has_same_headers(elf, mapping);
}

static bool open_and_check(struct pep_elf *elf, struct pep_arena *scratch, const char *path,
                           const struct pep_mapping *mapping) {
    if (pep_elf_open(elf, scratch, path) != 0)
        return false;
    if (belongs_to(elf, mapping))
        return true;
    pep_elf_close(elf);
    return false;
}

bool pep_symbol_open_object(struct pep_elf *elf, struct pep_arena *scratch,
                            const struct pep_mapping *mapping, bool is_main) {
    if (mapping->path[0] == '/' && open_and_check(elf, scratch, mapping->path, mapping))
        return true;
    if (is_main && open_and_check(elf, scratch, "/proc/thread-self/exe", mapping))
        return true;
    const char *link =
        pep_arena_printf(scratch, "/proc/self/map_files/%llx-%llx",
                         (unsigned long long)mapping->start, (unsigned long long)mapping->limit);
    if (link != NULL && open_and_check(elf, scratch, link, mapping))
        return true;
    return pep_elf_open_process(elf, scratch, mapping) == 0;
}

/* The vDSO is nowhere but in memory. Its section headers, which lead to the names, stand behind the
 * last segment, in the rest of the page. */
static bool copy_vdso(struct pep_elf *elf, struct pep_arena *scratch,
                      const struct pep_mapping *mapping) {
    uint64_t start = mapping->start - mapping->file_offset;
    uint64_t size = ((mapping->limit + 4095) & ~4095ull) - start;
    if (mapping->limit <= start || size > VDSO_LIMIT_BYTES)
        return false;
    void *image = pep_arena_alloc(scratch, size);
    long got = image != NULL ? pep_os_peek(image, start, size) : 0;
    return got > 0 && pep_elf_open_memory(elf, scratch, image, (size_t)got) == 0;
}

/* The functions that a distribution left in a stripped object, as a packed ELF file of their own.
 * Source: gdb manual, "Debugging information in a special section" (MiniDebugInfo). */
static int add_mini_symbols(struct pep_symbol_builder *builder, const struct pep_elf *elf) {
    const Elf64_Shdr *section = pep_elf_section_named(elf, ".gnu_debugdata");
    const void *packed = pep_elf_load_section(elf, elf->arena, section, MINI_LIMIT_BYTES);
    if (packed == NULL)
        return 0;
    size_t size = 0, limit = section->sh_size * MINI_RATIO_MAX;
    limit = limit < MINI_LIMIT_BYTES ? limit : MINI_LIMIT_BYTES;
    const void *image = pep_xz_unpack(elf->arena, packed, section->sh_size, limit, &size);
    struct pep_elf mini;
    if (image == NULL || pep_elf_open_memory(&mini, elf->arena, image, size) != 0 ||
        (mini.build_id[0] != '\0' && strcmp(mini.build_id, elf->build_id) != 0))
        return 0;
    return pep_symbol_builder_add_section(builder, &mini, pep_elf_section_typed(&mini, SHT_SYMTAB));
}

bool pep_symbol_has_lines(const struct pep_elf *elf) {
    const Elf64_Shdr *section = pep_elf_section_named(elf, ".debug_info");
    if (section == NULL)
        section = pep_elf_section_named(elf, ".zdebug_info");
    return elf->fd >= 0 && section != NULL && section->sh_type != SHT_NOBITS &&
           section->sh_size > 0;
}

/* .symtab, here or in the debug file, holds all that .dynsym does; mini symbols leave it out. */
static int add_symbols(struct pep_symbol_file *file, struct pep_symbol_builder *builder,
                       const struct pep_elf *elf) {
    const Elf64_Shdr *symtab = pep_elf_section_typed(elf, SHT_SYMTAB);
    struct pep_elf debug = {.fd = -1};
    file->has_debug_file = pep_debug_file_exists(elf->build_id, PEP_DEBUG_ROOT);
    file->has_lines = pep_symbol_has_lines(elf);
    int err = pep_symbol_builder_add_section(builder, elf, symtab);
    if ((symtab == NULL || !file->has_lines) &&
        pep_debug_file_open(&debug, elf, file->path, PEP_DEBUG_ROOT)) {
        file->has_lines = file->has_lines || pep_symbol_has_lines(&debug);
        if (symtab == NULL)
            err = pep_symbol_builder_add_section(builder, &debug,
                                                 pep_elf_section_typed(&debug, SHT_SYMTAB));
        pep_elf_close(&debug);
    }
    file->has_symtab = builder->count > 0;
    if (err == 0 && !file->has_symtab)
        err = add_mini_symbols(builder, elf);
    if (err == 0 && !file->has_symtab)
        err = pep_symbol_builder_add_section(builder, elf, pep_elf_section_typed(elf, SHT_DYNSYM));
    if (err == 0)
        err = pep_symbol_builder_add_plt(builder, elf);
    return err;
}

int pep_symbol_file_load(struct pep_symbol_file *file, const struct pep_mapping *mapping,
                         bool is_main) {
    struct pep_arena scratch;
    struct pep_elf elf;
    pep_arena_init(&scratch, 0);
    int err = -ENOENT;
    file->is_matched = mapping->is_vdso ? copy_vdso(&elf, &scratch, mapping)
                                        : pep_symbol_open_object(&elf, &scratch, mapping, is_main);
    if (file->is_matched) {
        struct pep_symbol_builder builder;
        pep_symbol_builder_init(&builder, &file->arena);
        err = pep_fde_table_read(&file->fdes, &elf, &file->arena);
        if (err == 0)
            err = add_symbols(file, &builder, &elf);
        int finished = pep_symbol_builder_finish(&builder, &file->fdes, &file->symbols);
        err = err != 0 ? err : finished;
        pep_elf_close(&elf);
        file->texts = pep_arena_array(&file->arena, file->symbols.count + 1, sizeof(void *));
        file->fde_names = pep_arena_array(&file->arena, file->fdes.count + 1, sizeof(void *));
        if (file->texts == NULL || file->fde_names == NULL)
            err = -ENOMEM;
    }
    pep_arena_drop(&scratch);
    return err;
}
