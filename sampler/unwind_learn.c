#include "sampler/unwind_learn.h"
#include "sampler/rt/attrs.h"

#include "sampler/rt/os.h"

#define HAVE_CONFIG_H 1
#define NDEBUG 1 /* its headers assert */
#include "dwarf_i.h"
#include "libunwind_i.h"

/* Numbers of DWARF's x86-64 mapping (psABI, figure 3.36). */
enum { DWARF_BP = 6, DWARF_SP = 7, DWARF_RA = 16, REGISTERS = DWARF_NUM_PRESERVED_REGS };

#define FDE_LOADS_MAX 65536 /* words one FDE may take to read; bounds loops in expressions */

_Static_assert(sizeof(struct cursor) <= sizeof(((struct pep_learner *)0)->cursor), "cursor");
_Static_assert(sizeof(dwarf_reg_state_t) <= sizeof(((struct pep_learner *)0)->state), "state");

/* -- what libunwind's reader would take from the rest of libunwind ----------------------- */

/* Its objects come from one array each: a bit is taken by the lock-free or of a word. */
#define POOL_WORDS 4
#define OBJECT_BYTES 256

struct pool {
    uint64_t used[POOL_WORDS];
    unsigned char objects[POOL_WORDS * 64][OBJECT_BYTES] PEP_ALIGNED(16);
};
_Static_assert(sizeof(struct dwarf_cie_info) <= OBJECT_BYTES, "CIE");
_Static_assert(sizeof(dwarf_stackable_reg_state_t) <= OBJECT_BYTES, "remembered state");

static struct pool pool PEP_LARGE;
static struct unw_addr_space space PEP_LARGE;

HIDDEN struct mempool dwarf_reg_state_pool;
HIDDEN struct mempool dwarf_cie_info_pool;
HIDDEN unw_addr_space_t unw_local_addr_space; /* NULL: there is none */

HIDDEN const uint8_t dwarf_to_unw_regnum_map[DWARF_REGNUM_MAP_LENGTH] = {
    UNW_X86_64_RAX, UNW_X86_64_RDX, UNW_X86_64_RCX, UNW_X86_64_RBX, UNW_X86_64_RSI, UNW_X86_64_RDI,
    UNW_X86_64_RBP, UNW_X86_64_RSP, UNW_X86_64_R8,  UNW_X86_64_R9,  UNW_X86_64_R10, UNW_X86_64_R11,
    UNW_X86_64_R12, UNW_X86_64_R13, UNW_X86_64_R14, UNW_X86_64_R15, UNW_X86_64_RIP};

PEP_SIGNAL_SAFE HIDDEN void *mempool_alloc(struct mempool *which) {
    (void)which;
    for (int w = 0; w < POOL_WORDS; w++) {
        uint64_t used = pep_load_relaxed(&pool.used[w]);
        while (used != UINT64_MAX) {
            int bit = __builtin_ctzll(~used);
            uint64_t before =
                __atomic_fetch_or(&pool.used[w], UINT64_C(1) << bit, __ATOMIC_ACQ_REL);
            if (!(before >> bit & 1))
                return pool.objects[w * 64 + bit];
            used = before | UINT64_C(1) << bit;
        }
    }
    return NULL;
}

PEP_SIGNAL_SAFE HIDDEN void mempool_free(struct mempool *which, void *object) {
    (void)which;
    size_t index = (size_t)((unsigned char *)object - pool.objects[0]) / OBJECT_BYTES;
    if (index < POOL_WORDS * 64)
        __atomic_fetch_and(&pool.used[index / 64], ~(UINT64_C(1) << (index % 64)),
                           __ATOMIC_ACQ_REL);
}

PEP_SIGNAL_SAFE HIDDEN int unwi_find_dynamic_proc_info(unw_addr_space_t as, unw_word_t ip,
                                                       unw_proc_info_t *pi, int need, void *arg) {
    (void)as, (void)ip, (void)pi, (void)need, (void)arg;
    return -UNW_ENOINFO;
}

PEP_SIGNAL_SAFE HIDDEN void unwi_put_dynamic_unwind_info(unw_addr_space_t as, unw_proc_info_t *pi,
                                                         void *arg) {
    (void)as, (void)pi, (void)arg;
}

PEP_SIGNAL_SAFE HIDDEN unw_accessors_t *unw_get_accessors_int(unw_addr_space_t as) {
    return &as->acc;
}

PEP_SIGNAL_SAFE HIDDEN void tdep_fetch_frame(struct dwarf_cursor *c, unw_word_t ip, int need) {
    (void)c, (void)ip, (void)need;
}

PEP_SIGNAL_SAFE HIDDEN int tdep_cache_frame(struct dwarf_cursor *c) {
    (void)c;
    return 0;
}

PEP_SIGNAL_SAFE HIDDEN void tdep_reuse_frame(struct dwarf_cursor *c, int frame) {
    (void)c, (void)frame;
}

PEP_SIGNAL_SAFE HIDDEN void tdep_stash_frame(struct dwarf_cursor *c, struct dwarf_reg_state *rs) {
    (void)c, (void)rs;
}

/* -- accessors --------------------------------------------------------------------------- */

PEP_SIGNAL_SAFE static int access_mem(unw_addr_space_t as, unw_word_t address, unw_word_t *value,
                                      int is_write, void *arg) {
    struct pep_learner *learner = arg;
    (void)as;
    if (is_write)
        return -UNW_EINVAL;
    if (learner->memory->loads-- <= 0)
        return -UNW_EINVAL;
    if (pep_unwind_is_direct(learner->memory, address))
        return pep_unwind_load(learner->memory, address, value) ? 0 : -UNW_EINVAL;
    return pep_unwind_read(learner->memory, address, value, sizeof(*value)) ? 0 : -UNW_EINVAL;
}

PEP_SIGNAL_SAFE static int access_reg(unw_addr_space_t as, unw_regnum_t reg, unw_word_t *value,
                                      int is_write, void *arg) {
    (void)as, (void)reg, (void)value, (void)is_write, (void)arg;
    return -UNW_EBADREG;
}

/* The search table of .eh_frame_hdr: pairs of (function, FDE), both relative to the section. */
struct search_table {
    uintptr_t at;
    uint64_t count;
};

PEP_SIGNAL_SAFE static bool find_table(struct pep_learner *learner, struct search_table *table) {
    const struct pep_module *module = learner->module;
    struct dwarf_eh_frame_hdr {
        uint8_t version, frame_encoding, count_encoding, table_encoding;
    } head;
    unw_word_t frame, count, at = module->eh_frame_hdr + sizeof(head);
    unw_proc_info_t none = {0};
    if (module->eh_frame_hdr == 0 ||
        !pep_unwind_read(learner->memory, module->eh_frame_hdr, &head, sizeof(head)))
        return false;
    if (head.version != 1 || head.table_encoding != (DW_EH_PE_datarel | DW_EH_PE_sdata4) ||
        head.count_encoding == DW_EH_PE_omit)
        return false;
    if (dwarf_read_encoded_pointer(&space, &space.acc, &at, head.frame_encoding, &none, &frame,
                                   learner) < 0 ||
        dwarf_read_encoded_pointer(&space, &space.acc, &at, head.count_encoding, &none, &count,
                                   learner) < 0)
        return false;
    uint64_t header_bytes = at - module->eh_frame_hdr;
    if (header_bytes > module->eh_frame_hdr_bytes ||
        count > (module->eh_frame_hdr_bytes - header_bytes) / 8)
        return false;
    table->at = at;
    table->count = count;
    return true;
}

PEP_SIGNAL_SAFE static uintptr_t find_fde(struct pep_learner *learner, uintptr_t ip) {
    struct search_table table;
    int32_t pair[2];
    uintptr_t base = learner->module->eh_frame_hdr;
    if (!find_table(learner, &table))
        return 0;
    uint64_t lo = 0, hi = table.count;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (!pep_unwind_read(learner->memory, table.at + mid * 8, pair, sizeof(pair)))
            return 0;
        if (base + (uintptr_t)(intptr_t)pair[0] <= ip)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0 || !pep_unwind_read(learner->memory, table.at + (lo - 1) * 8, pair, sizeof(pair)))
        return 0;
    return base + (uintptr_t)(intptr_t)pair[1];
}

/* Everything that libunwind later uses without looking is looked at here. */
PEP_SIGNAL_SAFE static int find_proc_info(unw_addr_space_t as, unw_word_t ip, unw_proc_info_t *pi,
                                          int need, void *arg) {
    struct pep_learner *learner = arg;
    unw_word_t fde = find_fde(learner, ip);
    if (fde == 0)
        return -UNW_ENOINFO;
    int r = dwarf_extract_proc_info_from_fde(as, &as->acc, &fde, pi, 0, need, 0, arg);
    if (r < 0)
        return r;
    const struct dwarf_cie_info *cie = pi->unwind_info;
    if (cie == NULL || pi->format != UNW_INFO_FORMAT_TABLE || ip < pi->start_ip ||
        ip >= pi->end_ip || cie->ret_addr_column != DWARF_RA)
        return -UNW_ENOINFO;
    learner->is_signal = cie->signal_frame;
    learner->function = pi->start_ip;
    return 0;
}

void pep_learner_init(void) {
    space.acc.find_proc_info = find_proc_info;
    space.acc.access_mem = access_mem;
    space.acc.access_reg = access_reg;
    space.caching_policy = UNW_CACHE_NONE;
}

/* -- learning ---------------------------------------------------------------------------- */

PEP_SIGNAL_SAFE void pep_learner_begin(struct pep_learner *learner,
                                       struct pep_unwind_memory *memory) {
    learner->memory = memory;
    learner->module = NULL;
    learner->has_state = false;
}

/* libunwind tells the state of each row of the FDE; the one that covers our address is kept. */
PEP_SIGNAL_SAFE static int take_row(void *token, void *state, size_t size, unw_word_t start,
                                    unw_word_t end) {
    struct pep_learner *learner = token;
    if (learner->lookup < start || learner->lookup >= end)
        return 0;
    if (size <= sizeof(learner->state)) {
        pep_copy(learner->state, state, size);
        learner->has_state = true;
    }
    return -UNW_ESTOPUNWIND;
}

/* Register numbers that libunwind uses as indexes without a check. */
PEP_SIGNAL_SAFE static bool is_sane(const dwarf_reg_state_t *state) {
    if (state->ret_addr_column != DWARF_RA)
        return false;
    for (int i = 0; i < REGISTERS; i++)
        if (state->reg.where[i] == DWARF_WHERE_REG && state->reg.val[i] >= REGISTERS)
            return false;
    int cfa = state->reg.where[DWARF_CFA_REG_COLUMN];
    return cfa == DWARF_WHERE_EXPR ||
           (cfa == DWARF_WHERE_REG && state->reg.val[DWARF_CFA_REG_COLUMN] < REGISTERS);
}

/* An expression of the form "register + offset", with what follows it. */
struct expression {
    int base; /* DWARF_BP, DWARF_SP, or -1 */
    int64_t offset;
    uint8_t rest[16];
    int rest_count;
};

PEP_SIGNAL_SAFE static bool read_expression(struct pep_learner *learner, uintptr_t at,
                                            struct expression *e) {
    uint8_t bytes[17];
    if (!pep_unwind_read(learner->memory, at, bytes, 1) || bytes[0] < 2 || bytes[0] > 16 ||
        !pep_unwind_read(learner->memory, at + 1, bytes + 1, bytes[0]))
        return false;
    e->base = bytes[1] == DW_OP_breg0 + DWARF_BP   ? DWARF_BP
              : bytes[1] == DW_OP_breg0 + DWARF_SP ? DWARF_SP
                                                   : -1;
    int i = 2, shift = 0, count = bytes[0] + 1;
    for (e->offset = 0; i < count; shift += 7) {
        uint8_t byte = bytes[i++];
        e->offset |= (int64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            if (byte & 0x40)
                e->offset |= -((int64_t)1 << (shift + 7));
            break;
        }
    }
    e->rest_count = count - i;
    pep_copy(e->rest, bytes + i, (size_t)e->rest_count);
    return e->base >= 0;
}

/* What ld writes for a PLT: 8 + (((rip & 15) >= n) << 3). */
PEP_SIGNAL_SAFE static bool is_plt(const struct expression *e, int *limit) {
    static const uint8_t form[9] = {DW_OP_breg0 + DWARF_RA,
                                    0,
                                    DW_OP_lit15,
                                    DW_OP_and,
                                    0,
                                    DW_OP_ge,
                                    DW_OP_lit3,
                                    DW_OP_shl,
                                    DW_OP_plus};
    if (e->base != DWARF_SP || e->rest_count != (int)sizeof(form))
        return false;
    for (int i = 0; i < (int)sizeof(form); i++)
        if (i != 4 && e->rest[i] != form[i])
            return false;
    *limit = e->rest[4] - DW_OP_lit0;
    return *limit >= 0 && *limit < 16;
}

PEP_SIGNAL_SAFE static bool set_cfa(struct pep_rule *rule, enum pep_rule_kind kind,
                                    int64_t offset) {
    if (offset % 8 != 0 || offset / 8 >= 1 << 23 || offset / 8 < -(1 << 23))
        return false;
    rule->kind = kind;
    rule->cfa = offset / 8;
    return true;
}

PEP_SIGNAL_SAFE static bool pack_cfa_expression(struct pep_learner *learner, uintptr_t at,
                                                struct pep_rule *rule) {
    struct expression e;
    int limit;
    if (!read_expression(learner, at, &e))
        return false;
    if (is_plt(&e, &limit))
        return set_cfa(rule, PEP_RULE_SP,
                       e.offset + ((int)(learner->lookup & 15) >= limit ? 8 : 0));
    if (e.rest_count < 1 || e.rest[0] != DW_OP_deref)
        return false;
    if (e.rest_count == 3 && e.rest[1] == DW_OP_plus_uconst && e.rest[2] % 8 == 0 &&
        e.rest[2] / 8 < 16)
        rule->plus = e.rest[2] / 8;
    else if (e.rest_count != 1)
        return false;
    if (learner->is_signal && e.base == DWARF_SP && e.offset == 160)
        return set_cfa(rule, PEP_RULE_SIGNAL, 0);
    return set_cfa(rule, e.base == DWARF_SP ? PEP_RULE_SP_DEREF : PEP_RULE_BP_DEREF, e.offset);
}

PEP_SIGNAL_SAFE static bool pack_cfa(struct pep_learner *learner, const dwarf_reg_only_state_t *reg,
                                     struct pep_rule *rule) {
    if (reg->where[DWARF_CFA_REG_COLUMN] == DWARF_WHERE_EXPR)
        return pack_cfa_expression(learner, reg->val[DWARF_CFA_REG_COLUMN], rule);
    int64_t offset = (int64_t)reg->val[DWARF_CFA_OFF_COLUMN];
    if (reg->val[DWARF_CFA_REG_COLUMN] == DWARF_SP)
        return set_cfa(rule, PEP_RULE_SP, offset);
    if (reg->val[DWARF_CFA_REG_COLUMN] == DWARF_BP)
        return set_cfa(rule, PEP_RULE_BP, offset);
    return false;
}

PEP_SIGNAL_SAFE static bool set_bp(struct pep_rule *rule, enum pep_rule_bp kind, int64_t offset) {
    if (offset % 8 != 0 || offset / 8 >= 1 << 13 || offset / 8 < -(1 << 13))
        return false;
    rule->bp_kind = kind;
    rule->bp = offset / 8;
    return true;
}

PEP_SIGNAL_SAFE static bool pack_bp(struct pep_learner *learner, const dwarf_reg_only_state_t *reg,
                                    struct pep_rule *rule) {
    struct expression e;
    switch (reg->where[DWARF_BP]) {
    case DWARF_WHERE_SAME:
        return set_bp(rule, PEP_RULE_BP_SAME, 0);
    case DWARF_WHERE_CFAREL:
        return set_bp(rule, PEP_RULE_BP_CFA, (int64_t)reg->val[DWARF_BP]);
    case DWARF_WHERE_UNDEF:
        return set_bp(rule, PEP_RULE_BP_LOST, 0);
    case DWARF_WHERE_EXPR:
        if (!read_expression(learner, reg->val[DWARF_BP], &e) || e.rest_count != 0)
            return false;
        if (e.base == DWARF_SP)
            return rule->kind == PEP_RULE_SP &&
                   set_bp(rule, PEP_RULE_BP_CFA, e.offset - rule->cfa * 8);
        return set_bp(rule, PEP_RULE_BP_BP, e.offset);
    default:
        return false;
    }
}

PEP_SIGNAL_SAFE static struct pep_rule pack(struct pep_learner *learner) {
    const dwarf_reg_state_t *state = (const dwarf_reg_state_t *)learner->state;
    struct pep_rule rule = {.module = learner->module->id};
    if (state->reg.where[DWARF_RA] == DWARF_WHERE_UNDEF) {
        rule.kind = PEP_RULE_END;
        return rule;
    }
    bool is_packed = pack_cfa(learner, &state->reg, &rule);
    if (is_packed && rule.kind == PEP_RULE_SIGNAL)
        return rule;
    is_packed = is_packed && state->reg.where[DWARF_RA] == DWARF_WHERE_CFAREL &&
                (int64_t)state->reg.val[DWARF_RA] == -8 && !learner->is_signal &&
                pack_bp(learner, &state->reg, &rule);
    if (!is_packed)
        return (struct pep_rule){.kind = PEP_RULE_ODD, .module = learner->module->id};
    return rule;
}

PEP_SIGNAL_SAFE struct pep_rule
pep_learner_learn(struct pep_learner *learner, const struct pep_module *module, uintptr_t lookup) {
    struct dwarf_cursor cursor;
    pep_zero(&cursor, sizeof(cursor));
    cursor.as = &space;
    cursor.as_arg = learner;
    cursor.ip = lookup;
    learner->module = module;
    learner->lookup = lookup;
    learner->has_state = false;
    learner->is_signal = false;
    learner->function = 0;
    learner->memory->loads = FDE_LOADS_MAX;
    learner->memory->cfi_lo = module->cfi_start;
    learner->memory->cfi_bytes = module->cfi_limit - module->cfi_start;
    int r = dwarf_reg_states_iterate(&cursor, take_row, learner);
    if (learner->has_state && is_sane((const dwarf_reg_state_t *)learner->state))
        return pack(learner);
    learner->has_state = false;
    /* Out of reads or of objects: another walk may do better. */
    if (learner->memory->peeks <= 0 || r == -UNW_ENOMEM)
        return (struct pep_rule){.kind = PEP_RULE_NONE};
    return (struct pep_rule){.kind = PEP_RULE_BLIND, .module = module->id};
}

/* -- applying ---------------------------------------------------------------------------- */

PEP_SIGNAL_SAFE void pep_learner_registers(struct pep_learner *learner,
                                           const struct pep_learner_frame *frame,
                                           const uint64_t *gregs) {
    /* Where ucontext_t keeps each DWARF register: r8..r15, rdi, rsi, rbp, rbx, rdx, rax, rcx,
     * rsp, rip (sys/ucontext.h). */
    static const uint8_t place[REGISTERS] = {13, 12, 14, 11, 9, 8, 10, 15, 0,
                                             1,  2,  3,  4,  5, 6, 7,  16};
    struct cursor *cursor = (struct cursor *)learner->cursor;
    struct dwarf_cursor *c = &cursor->dwarf;
    pep_zero(cursor, sizeof(*cursor));
    c->as = &space;
    c->as_arg = learner;
    for (int i = 0; gregs != NULL && i < REGISTERS; i++)
        c->loc[i] = DWARF_VAL_LOC(c, gregs[place[i]]);
    c->loc[DWARF_BP] = DWARF_VAL_LOC(c, frame->bp);
    c->loc[DWARF_SP] = DWARF_VAL_LOC(c, frame->sp);
    c->loc[DWARF_RA] = DWARF_VAL_LOC(c, frame->pc);
    c->ip = frame->pc;
    c->cfa = frame->sp;
}

PEP_SIGNAL_SAFE bool pep_learner_apply(struct pep_learner *learner,
                                       struct pep_learner_frame *frame) {
    struct cursor *cursor = (struct cursor *)learner->cursor;
    struct dwarf_cursor *c = &cursor->dwarf;
    unw_word_t bp = 0;
    if (!learner->has_state)
        return false;
    learner->memory->loads = FDE_LOADS_MAX;
    if (dwarf_apply_reg_state(c, (dwarf_reg_state_t *)learner->state) <= 0)
        return false;
    if (!DWARF_IS_NULL_LOC(c->loc[DWARF_BP]) && dwarf_get(c, c->loc[DWARF_BP], &bp) < 0)
        bp = 0;
    frame->pc = c->ip;
    frame->sp = c->cfa;
    frame->bp = bp;
    /* Expressions of the next frame speak of its own instruction and stack pointer. */
    c->loc[DWARF_RA] = DWARF_VAL_LOC(c, c->ip);
    c->loc[DWARF_SP] = DWARF_VAL_LOC(c, c->cfa);
    return true;
}
