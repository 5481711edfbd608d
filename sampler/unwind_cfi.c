#include "sampler/unwind_cfi.h"

#include "sampler/rt/attrs.h"

#define CIE_BYTES_MAX 128
#define FDE_BYTES_MAX 512
#define LENGTH_BYTES 4 /* what counts the rest */
#define LOADS_MAX 4096
#define REMEMBERED_MAX 4

/* Numbers of DWARF's x86-64 mapping (psABI, figure 3.36); the teacher knows no others. */
enum { REG_BP = 6, REG_SP = 7, REG_RA = 16 };

/* DW_EH_PE: relative to the place, or to the section; signed, 4 bytes. */
enum { PCREL_SDATA4 = 0x1b, DATAREL_SDATA4 = 0x3b, UDATA4 = 0x03 };

/* DW_CFA. The first three have an operand in their low six bits. */
enum {
    ADVANCE_LOC = 0x40,
    OFFSET = 0x80,
    RESTORE = 0xc0,
    NOP = 0x00,
    ADVANCE_LOC1 = 0x02,
    ADVANCE_LOC2 = 0x03,
    ADVANCE_LOC4 = 0x04,
    OFFSET_EXTENDED = 0x05,
    RESTORE_EXTENDED = 0x06,
    UNDEFINED = 0x07,
    SAME_VALUE = 0x08,
    REMEMBER_STATE = 0x0a,
    RESTORE_STATE = 0x0b,
    DEF_CFA = 0x0c,
    DEF_CFA_REGISTER = 0x0d,
    DEF_CFA_OFFSET = 0x0e,
    GNU_ARGS_SIZE = 0x2e
};

/* Bytes being read. is_bad: they ended, or are not plain; every later read gives 0. */
struct reader {
    const uint8_t *at, *end;
    bool is_bad;
};

enum saved { IN_REGISTER = 0, AT_CFA, IS_UNDEFINED };

struct place {
    enum saved kind;
    int64_t offset; /* AT_CFA */
};

/* One row: of the registers only those that a walk follows. */
struct row {
    uint64_t cfa_register;
    int64_t cfa_offset;
    struct place bp, ra;
};

struct function {
    uintptr_t start, limit;
    uint64_t code_align;
    int64_t data_align;
    struct row initial; /* as the CIE has it */
};

struct machine {
    const struct function *function; /* NULL in the CIE itself */
    struct row row;
    struct row remembered[REMEMBERED_MAX];
    int remembered_count;
    uint64_t code_align;
    int64_t data_align;
};

/* -- bytes ---------------------------------------------------------------------------------- */

PEP_SIGNAL_SAFE static inline uint64_t take(struct reader *reader, unsigned count) {
    uint64_t value = 0;
    if ((size_t)(reader->end - reader->at) < count) {
        reader->is_bad = true;
        return 0;
    }
    for (unsigned i = 0; i < count; i++)
        value |= (uint64_t)reader->at[i] << (8 * i);
    reader->at += count;
    return value;
}

PEP_SIGNAL_SAFE static inline uint64_t take_uleb(struct reader *reader) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 63; shift += 7) {
        uint64_t byte = take(reader, 1);
        value |= (byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return value;
    }
    reader->is_bad = true;
    return 0;
}

PEP_SIGNAL_SAFE static inline int64_t take_sleb(struct reader *reader) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 56; shift += 7) {
        uint64_t byte = take(reader, 1);
        value |= (byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return (int64_t)(byte & 0x40 ? value | ~0ull << (shift + 7) : value);
    }
    reader->is_bad = true;
    return 0;
}

/* The record (CIE or FDE) at an address, without its length; a copy where it may be unmapped
 * meanwhile. */
PEP_SIGNAL_SAFE static bool open_record(struct pep_unwind_memory *memory, uintptr_t address,
                                        uint8_t *copy, size_t copy_bytes, struct reader *reader) {
    uint32_t length;
    if (!pep_unwind_read(memory, address, &length, LENGTH_BYTES) || length < LENGTH_BYTES ||
        length > copy_bytes)
        return false;
    uintptr_t start = address + LENGTH_BYTES;
    const uint8_t *bytes = copy;
    if (start - memory->cfi_lo < memory->cfi_bytes &&
        length <= memory->cfi_bytes - (start - memory->cfi_lo))
        bytes = (const uint8_t *)start;
    else if (!pep_unwind_read(memory, start, copy, length))
        return false;
    *reader = (struct reader){.at = bytes, .end = bytes + length};
    return true;
}

/* -- the search table ----------------------------------------------------------------------- */

/* Address of the FDE of the last function that starts at or before lookup; 0: not found so. */
PEP_SIGNAL_SAFE static uintptr_t search(struct pep_unwind_memory *memory,
                                        const struct pep_module *module, uintptr_t lookup) {
    struct {
        uint8_t version, frame_encoding, count_encoding, table_encoding;
        int32_t frame;
        uint32_t count;
    } head;
    int32_t pair[2]; /* function, FDE: both relative to the section */
    uintptr_t base = module->eh_frame_hdr, table = base + sizeof(head);
    if (base == 0 || module->eh_frame_hdr_bytes < sizeof(head) ||
        !pep_unwind_read(memory, base, &head, sizeof(head)) || head.version != 1 ||
        head.frame_encoding != PCREL_SDATA4 || head.count_encoding != UDATA4 ||
        head.table_encoding != DATAREL_SDATA4 ||
        head.count > (module->eh_frame_hdr_bytes - sizeof(head)) / sizeof(pair))
        return 0;
    uint64_t lo = 0, hi = head.count;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (!pep_unwind_read(memory, table + mid * sizeof(pair), pair, sizeof(pair)))
            return 0;
        if (base + (uintptr_t)(intptr_t)pair[0] <= lookup)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0 || !pep_unwind_read(memory, table + (lo - 1) * sizeof(pair), pair, sizeof(pair)))
        return 0;
    return base + (uintptr_t)(intptr_t)pair[1];
}

/* -- instructions --------------------------------------------------------------------------- */

/* The place of a register that is followed; NULL for others. Numbers that the teacher refuses
 * are its own affair. */
PEP_SIGNAL_SAFE static inline struct place *place_of(struct reader *reader, struct row *row,
                                                     uint64_t number) {
    reader->is_bad |= number > REG_RA || number == REG_SP;
    return number == REG_BP ? &row->bp : number == REG_RA ? &row->ra : NULL;
}

PEP_SIGNAL_SAFE static inline void set_place(struct reader *reader, struct row *row,
                                             uint64_t number, struct place to) {
    struct place *place = place_of(reader, row, number);
    if (place != NULL)
        *place = to;
}

PEP_SIGNAL_SAFE static inline void restore(struct reader *reader, struct machine *machine,
                                           uint64_t number) {
    if (machine->function == NULL) {
        reader->is_bad = true;
        return;
    }
    struct row initial = machine->function->initial;
    struct place *from = place_of(reader, &initial, number);
    if (from != NULL)
        set_place(reader, &machine->row, number, *from);
}

PEP_SIGNAL_SAFE static inline void swap_state(struct reader *reader, struct machine *machine,
                                              bool is_remember) {
    if (is_remember && machine->remembered_count < REMEMBERED_MAX)
        machine->remembered[machine->remembered_count++] = machine->row;
    else if (!is_remember && machine->remembered_count > 0)
        machine->row = machine->remembered[--machine->remembered_count];
    else
        reader->is_bad = true;
}

PEP_SIGNAL_SAFE static inline struct place at_cfa(const struct machine *machine, uint64_t factor) {
    return (struct place){AT_CFA, (int64_t)factor * machine->data_align};
}

/* One instruction that does not advance. */
PEP_SIGNAL_SAFE static void execute(struct reader *reader, struct machine *machine, uint8_t op) {
    struct row *row = &machine->row;
    uint64_t number;
    switch (op) {
    case NOP:
        return;
    case OFFSET_EXTENDED:
        number = take_uleb(reader);
        set_place(reader, row, number, at_cfa(machine, take_uleb(reader)));
        return;
    case RESTORE_EXTENDED:
        restore(reader, machine, take_uleb(reader));
        return;
    case UNDEFINED:
        set_place(reader, row, take_uleb(reader), (struct place){.kind = IS_UNDEFINED});
        return;
    case SAME_VALUE:
        set_place(reader, row, take_uleb(reader), (struct place){.kind = IN_REGISTER});
        return;
    case REMEMBER_STATE:
    case RESTORE_STATE:
        swap_state(reader, machine, op == REMEMBER_STATE);
        return;
    case DEF_CFA:
        row->cfa_register = take_uleb(reader);
        row->cfa_offset = (int64_t)take_uleb(reader);
        return;
    case DEF_CFA_REGISTER:
        row->cfa_register = take_uleb(reader);
        return;
    case DEF_CFA_OFFSET:
        row->cfa_offset = (int64_t)take_uleb(reader);
        return;
    case GNU_ARGS_SIZE:
        (void)take_uleb(reader);
        return;
    default:
        reader->is_bad = true;
    }
}

/* Runs until the row that covers distance, in bytes from the function's start; or to the end. */
PEP_SIGNAL_SAFE static bool run(struct reader *reader, struct machine *machine, uint64_t distance) {
    uint64_t passed = 0;
    while (reader->at < reader->end && !reader->is_bad) {
        uint8_t op = *reader->at++;
        uint64_t low = op & 0x3f, advance = 0;
        switch (op & 0xc0) {
        case ADVANCE_LOC:
            advance = low;
            break;
        case OFFSET:
            set_place(reader, &machine->row, low, at_cfa(machine, take_uleb(reader)));
            break;
        case RESTORE:
            restore(reader, machine, low);
            break;
        default:
            if (op >= ADVANCE_LOC1 && op <= ADVANCE_LOC4)
                advance = take(reader, 1u << (op - ADVANCE_LOC1));
            else
                execute(reader, machine, op);
        }
        passed += advance * machine->code_align;
        if (passed > distance)
            break;
    }
    return !reader->is_bad;
}

/* -- records -------------------------------------------------------------------------------- */

/* What a letter of the augmentation stands for; true for the encoding of the FDEs' pointers. */
PEP_SIGNAL_SAFE static bool take_augmentation(struct reader *reader, uint8_t letter) {
    uint64_t encoding = take(reader, 1);
    if (letter == 'P') { /* a handler: 4 bytes in each encoding that ends so */
        reader->is_bad |= (encoding & 0x0f) != (PCREL_SDATA4 & 0x0f);
        (void)take(reader, 4);
    } else if (letter == 'R') {
        reader->is_bad |= encoding != PCREL_SDATA4;
        return true;
    } else if (letter != 'L') {
        reader->is_bad = true; /* S, a signal frame, and whatever else there may be */
    }
    return false;
}

PEP_SIGNAL_SAFE static bool read_cie(struct pep_unwind_memory *memory, uintptr_t address,
                                     struct function *function) {
    uint8_t copy[CIE_BYTES_MAX], letters[8] = {0};
    struct reader reader;
    if (!open_record(memory, address, copy, sizeof(copy), &reader) || take(&reader, 4) != 0 ||
        take(&reader, 1) != 1)
        return false;
    for (unsigned i = 0; (letters[i] = (uint8_t)take(&reader, 1)) != 0; i++)
        if (i + 1 == sizeof(letters))
            return false;
    struct machine machine = {.function = NULL};
    machine.code_align = take_uleb(&reader);
    machine.data_align = take_sleb(&reader);
    if (take(&reader, 1) != REG_RA || letters[0] != 'z')
        return false;
    uint64_t bytes = take_uleb(&reader);
    const uint8_t *end = reader.at + bytes;
    if (reader.is_bad || bytes > (uint64_t)(reader.end - reader.at))
        return false;
    bool has_encoding = false;
    for (unsigned i = 1; letters[i] != 0; i++)
        has_encoding |= take_augmentation(&reader, letters[i]);
    if (!has_encoding || reader.is_bad || reader.at != end || !run(&reader, &machine, UINT64_MAX))
        return false;
    function->code_align = machine.code_align;
    function->data_align = machine.data_align;
    function->initial = machine.row;
    return machine.remembered_count == 0;
}

PEP_SIGNAL_SAFE static bool pack(const struct row *row, struct pep_rule *rule) {
    if (row->ra.kind == IS_UNDEFINED) {
        rule->kind = PEP_RULE_END;
        return true;
    }
    int64_t cfa = row->cfa_offset, bp = row->bp.kind == AT_CFA ? row->bp.offset : 0;
    if (row->ra.kind != AT_CFA || row->ra.offset != -8 || cfa % 8 != 0 || bp % 8 != 0 ||
        cfa / 8 >= 1 << 23 || cfa / 8 < -(1 << 23) || bp / 8 >= 1 << 13 || bp / 8 < -(1 << 13) ||
        (row->cfa_register != REG_SP && row->cfa_register != REG_BP))
        return false;
    rule->kind = row->cfa_register == REG_SP ? PEP_RULE_SP : PEP_RULE_BP;
    rule->cfa = cfa / 8;
    rule->bp_kind = row->bp.kind == AT_CFA        ? PEP_RULE_BP_CFA
                    : row->bp.kind == IN_REGISTER ? PEP_RULE_BP_SAME
                                                  : PEP_RULE_BP_LOST;
    rule->bp = bp / 8;
    return true;
}

PEP_SIGNAL_SAFE bool pep_cfi_find(struct pep_unwind_memory *memory, const struct pep_module *module,
                                  uintptr_t lookup, struct pep_cfi_found *found) {
    memory->loads = LOADS_MAX;
    memory->cfi_lo = module->cfi_start;
    memory->cfi_bytes = module->cfi_limit - module->cfi_start;
    uintptr_t at = search(memory, module, lookup);
    uint8_t copy[FDE_BYTES_MAX];
    struct reader reader;
    if (at == 0 || !open_record(memory, at, copy, sizeof(copy), &reader))
        return false;
    uintptr_t pointer = at + LENGTH_BYTES; /* to the CIE, backwards from itself */
    uintptr_t cie = pointer - take(&reader, 4);
    struct function function;
    function.start = pointer + 4 + (uintptr_t)(intptr_t)(int32_t)take(&reader, 4);
    function.limit = function.start + take(&reader, 4);
    uint64_t augmentation_bytes = take_uleb(&reader);
    if (reader.is_bad || cie == pointer || lookup < function.start || lookup >= function.limit ||
        augmentation_bytes > (uint64_t)(reader.end - reader.at) ||
        !read_cie(memory, cie, &function))
        return false;
    reader.at += augmentation_bytes;
    struct machine machine = {.function = &function,
                              .row = function.initial,
                              .code_align = function.code_align,
                              .data_align = function.data_align};
    found->rule = (struct pep_rule){.module = module->id};
    found->limit = function.limit;
    return run(&reader, &machine, lookup - function.start) && pack(&machine.row, &found->rule);
}
