/*
 * How to leave a frame, by address: the table of what has been learnt.
 *
 * Model:   look-up address -> one word. An address keeps its place for ever; its word may be
 *          learnt anew when the object it spoke of was unloaded. One word a rule, so a reader
 *          sees a whole rule or none.
 * Writers: any walk that learnt something.  [signal]
 * Readers: every walk.                      [signal]
 * Memory:  one mapping, PEP_RULES_MAX entries of 16 bytes and 64 KiB before them for the first
 *          addresses met, which is all that a short program touches.
 * When full: rule_table_full is counted and the rule is not kept.
 */
#ifndef PEP_SAMPLER_UNWIND_RULE_H
#define PEP_SAMPLER_UNWIND_RULE_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/modules.h"
#include "sampler/rt/atomics.h"

#define PEP_RULES_LOG2 18
#define PEP_RULES_MAX (1U << PEP_RULES_LOG2)
#define PEP_RULE_PROBES 16
#define PEP_RULES_FIRST_LOG2 12
#define PEP_RULES_FIRST (1U << PEP_RULES_FIRST_LOG2)
#define PEP_RULE_FIRST_PROBES 4

/* Where the frame's CFA (the stack pointer of its caller after the call) is. The return address
 * is at CFA - 8 in every kind but SIGNAL. */
enum pep_rule_kind {
    PEP_RULE_NONE = 0, /* nothing learnt */
    PEP_RULE_SP,       /* SP + cfa */
    PEP_RULE_BP,       /* BP + cfa */
    PEP_RULE_SP_DEREF, /* word at SP + cfa, + plus */
    PEP_RULE_BP_DEREF, /* word at BP + cfa, + plus */
    PEP_RULE_SIGNAL,   /* the kernel's signal frame, ucontext_t at SP */
    PEP_RULE_END,      /* the thread's first frame */
    PEP_RULE_BLIND,    /* code without call frame information */
    PEP_RULE_ODD       /* only libunwind can tell */
};

enum pep_rule_bp {
    PEP_RULE_BP_SAME = 0, /* the caller's BP is still in the register */
    PEP_RULE_BP_CFA,      /* saved at CFA + bp */
    PEP_RULE_BP_BP,       /* saved at BP + bp */
    PEP_RULE_BP_LOST
};

/* Offsets count 8 bytes; what does not fit is ODD. */
struct pep_rule {
    uint64_t kind : 4;
    uint64_t bp_kind : 2;
    uint64_t plus : 4;
    int64_t bp : 14;
    int64_t cfa : 24;
    uint64_t module : 16; /* pep_module_id the rule belongs to */
};
_Static_assert(sizeof(struct pep_rule) == 8, "a rule is one word");

struct pep_rule_entry {
    uint64_t pc;   /* 0: free; set once */
    uint64_t rule; /* 0: not known yet */
};

extern struct pep_rule_entry *pep_rules; /* NULL before pep_rules_init */

/* Maps the table; idempotent. 0 or -errno. */
int pep_rules_init(void);
/* Keeps a rule, replacing what was known. */
PEP_SIGNAL_SAFE void pep_rules_add(uintptr_t pc, struct pep_rule rule);

/* Where a PC's rule is looked for: first at a few places of the table's first part; when those are
 * taken, among those of its page of code, so that a hot piece of code needs few pages of the table;
 * then anywhere. Nothing is ever taken out: who finds an empty place need not look further. */
static inline uint32_t pep_rules_first(uintptr_t pc) {
    return (uint32_t)(pc ^ pc >> PEP_RULES_FIRST_LOG2) & (PEP_RULES_FIRST - 1);
}

static inline uint32_t pep_rules_near(uintptr_t pc) {
    uintptr_t page = (pc >> 4) & (PEP_RULES_MAX - 256);
    return (uint32_t)(page | ((pc ^ pc >> 8) & 255));
}

static inline uint32_t pep_rules_far(uintptr_t pc) {
    return (uint32_t)((pc * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - PEP_RULES_LOG2));
}

/* Places of one part of the table, looked at from at on. */
struct pep_rules_way {
    uint32_t base, at, mask;
    int probes;
};

static inline struct pep_rule_entry *pep_rules_place(const struct pep_rules_way *way, int i) {
    return &pep_rules[way->base + ((way->at + (uint32_t)i) & way->mask)];
}

/* The word of a PC's rule, 0 when not known; *is_full when every place there is another PC's. */
static inline uint64_t pep_rules_probe(uintptr_t pc, const struct pep_rules_way *way,
                                       bool *is_full) {
    for (int i = 0; i < way->probes; i++) {
        struct pep_rule_entry *entry = pep_rules_place(way, i);
        uint64_t key = pep_load_relaxed(&entry->pc);
        if (pep_likely(key == pc))
            return pep_load_relaxed(&entry->rule);
        if (key == 0)
            return 0;
    }
    *is_full = true;
    return 0;
}

#define PEP_RULES_WAY_FIRST(pc) \
    ((struct pep_rules_way){0, pep_rules_first(pc), PEP_RULES_FIRST - 1, PEP_RULE_FIRST_PROBES})
#define PEP_RULES_WAY_NEAR(pc) \
    ((struct pep_rules_way){PEP_RULES_FIRST, pep_rules_near(pc), PEP_RULES_MAX - 1, \
                            PEP_RULE_PROBES})
#define PEP_RULES_WAY_FAR(pc) \
    ((struct pep_rules_way){PEP_RULES_FIRST, pep_rules_far(pc), PEP_RULES_MAX - 1, PEP_RULE_PROBES})

/* For the many addresses of a large program. */
PEP_SIGNAL_SAFE uint64_t pep_rules_find_beyond(uintptr_t pc);

/* The rule for a look-up address; kind NONE when not known or out of date. */
static inline struct pep_rule pep_rules_find(uintptr_t pc) {
    union {
        uint64_t word;
        struct pep_rule rule;
    } found = {0};
    bool is_full = false;
    found.word = pep_rules_probe(pc, &PEP_RULES_WAY_FIRST(pc), &is_full);
    if (pep_unlikely(is_full))
        found.word = pep_rules_find_beyond(pc);
    if (pep_modules_is_gone(found.rule.module))
        found.word = 0;
    return found.rule;
}

#endif
