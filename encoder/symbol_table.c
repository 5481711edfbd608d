#include "encoder/symbol_table.h"

#include <errno.h>
#include <string.h>

#define SYMTAB_LIMIT_BYTES (UINT64_C(128) << 20) /* five million symbols */
#define STRTAB_LIMIT_BYTES (UINT64_C(192) << 20)
#define BLOCK_SYMBOLS 4096    /* read at once */
#define SCAN_STEPS_MAX 1000   /* ranges looked at below an address; nesting is 2 or 3 deep */
#define NAME_COMPARED_MAX 256 /* bytes; bounds the sorting of a hostile table */

/* The score of a candidate, lower is better. In this order: what tells its size before what does
 * not; functions before bare labels; what other files can see before what they cannot; few
 * leading underscores, because people know read() and not __libc_read(); strong before weak. */
enum {
    SCORE_OPEN = 1 << 16, /* zero size: runs to the next one */
    SCORE_LABEL = 1 << 15,
    SCORE_LOCAL = 1 << 14,
    SCORE_UNDERSCORE = 1 << 8,
    SCORE_WEAK = 1 << 7,
};

void pep_symbol_builder_init(struct pep_symbol_builder *builder, struct pep_arena *names) {
    *builder = (struct pep_symbol_builder){.names = names};
    pep_arena_init(&builder->scratch, 0);
}

static void add(struct pep_symbol_builder *builder, const struct pep_symbol_candidate *candidate) {
    if (!PEP_ARENA_GROW(&builder->scratch, builder->candidates, builder->count, builder->capacity))
        return;
    builder->candidates[builder->count++] = *candidate;
}

void pep_symbol_builder_add(struct pep_symbol_builder *builder, uint64_t start, uint32_t size,
                            const char *name) {
    add(builder, &(struct pep_symbol_candidate){.start = start, .size = size, .name = name});
}

static uint32_t saturate(uint64_t value) {
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

static uint32_t score_of(const Elf64_Sym *symbol, const char *name) {
    uint32_t score = 0;
    if (ELF64_ST_TYPE(symbol->st_info) == STT_NOTYPE)
        score |= SCORE_LABEL;
    if (ELF64_ST_BIND(symbol->st_info) == STB_LOCAL)
        score |= SCORE_LOCAL;
    if (ELF64_ST_BIND(symbol->st_info) == STB_WEAK)
        score |= SCORE_WEAK;
    bool is_mangled = name[0] == '_' && (name[1] == 'Z' || name[1] == 'R');
    for (uint32_t i = 0; !is_mangled && name[i] == '_' && i < 15; i++)
        score += SCORE_UNDERSCORE;
    return score;
}

/* Functions, and labels that assembly left in executable sections. */
static void add_symbol(struct pep_symbol_builder *builder, const struct pep_elf *elf,
                       const Elf64_Sym *symbol, const char *name) {
    unsigned type = ELF64_ST_TYPE(symbol->st_info);
    bool is_function = type == STT_FUNC || type == STT_GNU_IFUNC;
    if (symbol->st_shndx == SHN_UNDEF || (!is_function && type != STT_NOTYPE))
        return;
    if (name[0] == '\0' || name[0] == '$') /* $x: mapping symbols, not names */
        return;
    struct pep_symbol_candidate candidate = {
        .start = symbol->st_value,
        .name = name,
        .size = saturate(symbol->st_size),
        .score = score_of(symbol, name),
    };
    const Elf64_Shdr *section = pep_elf_section_at(elf, symbol->st_shndx);
    if (section != NULL) {
        uint64_t inside = symbol->st_value - section->sh_addr;
        if (!(section->sh_flags & SHF_EXECINSTR) || symbol->st_value < section->sh_addr ||
            inside >= section->sh_size)
            return;
        uint32_t room = saturate(section->sh_size - inside);
        if (candidate.size == 0)
            candidate.score |= SCORE_OPEN;
        if (candidate.size == 0 || candidate.size > room)
            candidate.size = room;
    }
    if (candidate.size > 0 && candidate.start <= UINT64_MAX - candidate.size &&
        (section != NULL || is_function))
        add(builder, &candidate);
}

int pep_symbol_builder_add_section(struct pep_symbol_builder *builder, const struct pep_elf *elf,
                                   const Elf64_Shdr *section) {
    if (section == NULL || section->sh_type == SHT_NOBITS ||
        section->sh_entsize != sizeof(Elf64_Sym) || section->sh_size > SYMTAB_LIMIT_BYTES)
        return 0;
    const Elf64_Shdr *strings = pep_elf_section_at(elf, section->sh_link);
    const char *names = pep_elf_load_section(elf, builder->names, strings, STRTAB_LIMIT_BYTES);
    Elf64_Sym *block = pep_arena_array(&builder->scratch, BLOCK_SYMBOLS, sizeof(*block));
    if (names == NULL || block == NULL)
        return builder->names->is_failed || builder->scratch.is_failed ? -ENOMEM : 0;
    uint64_t count = section->sh_size / sizeof(Elf64_Sym);
    for (uint64_t at = 0; at < count; at += BLOCK_SYMBOLS) {
        uint64_t here = count - at < BLOCK_SYMBOLS ? count - at : BLOCK_SYMBOLS;
        uint64_t offset = section->sh_offset + at * sizeof(Elf64_Sym);
        if (!pep_elf_read(elf, block, offset, here * sizeof(Elf64_Sym)))
            return 0; /* a truncated file: what was read is good */
        for (uint64_t i = 0; i < here; i++) {
            if (block[i].st_name != 0 && block[i].st_name < strings->sh_size)
                add_symbol(builder, elf, &block[i], names + block[i].st_name);
        }
    }
    return builder->scratch.is_failed ? -ENOMEM : 0;
}

static bool is_before(const struct pep_symbol_candidate *a, const struct pep_symbol_candidate *b) {
    if (a->start != b->start)
        return a->start < b->start;
    if (a->score != b->score)
        return a->score < b->score;
    return a->name != b->name && strncmp(a->name, b->name, NAME_COMPARED_MAX) < 0;
}

static void merge(const struct pep_symbol_candidate *from, struct pep_symbol_candidate *to,
                  size_t middle, size_t count) {
    size_t a = 0, b = middle;
    if (middle < count && !is_before(&from[middle], &from[middle - 1])) {
        memcpy(to, from, count * sizeof(*to)); /* in order already */
        return;
    }
    for (size_t i = 0; i < count; i++) {
        bool take_b = a == middle || (b < count && is_before(&from[b], &from[a]));
        to[i] = take_b ? from[b++] : from[a++];
    }
}

struct pep_symbol_candidate *pep_symbol_candidates_sort(struct pep_symbol_candidate *candidates,
                                                        size_t count, struct pep_arena *arena) {
    struct pep_symbol_candidate *from = candidates;
    struct pep_symbol_candidate *to = pep_arena_array(arena, count + 1, sizeof(*to));
    if (to == NULL)
        return NULL;
    if (from == NULL)
        return to;
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t at = 0; at < count; at += 2 * width) {
            size_t here = count - at < 2 * width ? count - at : 2 * width;
            merge(from + at, to + at, width < here ? width : here, here);
        }
        struct pep_symbol_candidate *other = from;
        from = to;
        to = other;
    }
    return from;
}

/* Keeps the first of each start. Labels and open symbols inside a function are places in it, not
 * functions; open ones end where the next range or the unwind table says. */
static size_t choose(struct pep_symbol_candidate *sorted, size_t count,
                     const struct pep_fde_table *fdes) {
    size_t kept = 0;
    uint64_t covered = 0; /* end of the sized functions so far */
    for (size_t i = 0; i < count; i++) {
        struct pep_symbol_candidate *one = &sorted[i];
        if (kept > 0 && sorted[kept - 1].start == one->start)
            continue;
        if (one->start < covered && (one->score & (SCORE_OPEN | SCORE_LABEL)))
            continue;
        if (kept > 0 && (sorted[kept - 1].score & SCORE_OPEN)) {
            uint64_t room = one->start - sorted[kept - 1].start;
            if (sorted[kept - 1].size > room)
                sorted[kept - 1].size = (uint32_t)room;
        }
        if (one->score & SCORE_OPEN)
            one->size = saturate(pep_fde_table_end_of(fdes, one->start, one->start + one->size) -
                                 one->start);
        else if (!(one->score & SCORE_LABEL) && one->start + one->size > covered)
            covered = one->start + one->size;
        sorted[kept++] = *one;
    }
    return kept;
}

int pep_symbol_builder_finish(struct pep_symbol_builder *builder, const struct pep_fde_table *fdes,
                              struct pep_symbol_table *table) {
    int err = -ENOMEM;
    *table = (struct pep_symbol_table){0};
    struct pep_symbol_candidate *sorted =
        pep_symbol_candidates_sort(builder->candidates, builder->count, &builder->scratch);
    if (sorted == NULL)
        goto out;
    size_t count = choose(sorted, builder->count, fdes);
    table->symbols = pep_arena_array(builder->names, count + 1, sizeof(*table->symbols));
    if (table->symbols == NULL)
        goto out;
    uint64_t reach = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t end = sorted[i].start + sorted[i].size;
        reach = end > reach ? end : reach;
        table->symbols[i] = (struct pep_symbol){.start = sorted[i].start,
                                                .name = sorted[i].name,
                                                .size = sorted[i].size,
                                                .reach = saturate(reach - sorted[i].start)};
    }
    table->count = count;
    err = 0;
out:
    pep_arena_drop(&builder->scratch);
    return err;
}

const struct pep_symbol *pep_symbol_table_find(const struct pep_symbol_table *table,
                                               uint64_t address) {
    size_t low = 0, high = table->count; /* invariant: [low-1].start <= address < [high].start */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (table->symbols[middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    for (size_t step = 0; low > 0 && step < SCAN_STEPS_MAX; step++, low--) {
        const struct pep_symbol *symbol = &table->symbols[low - 1];
        if (address - symbol->start < symbol->size)
            return symbol;
        if (address - symbol->start >= symbol->reach)
            return NULL;
    }
    return NULL;
}
