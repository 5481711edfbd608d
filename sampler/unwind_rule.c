#include "sampler/unwind_rule.h"

#include <errno.h>

#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

struct pep_rule_entry *pep_rules;

int pep_rules_init(void) {
    if (pep_load_acquire(&pep_rules) != NULL)
        return 0;
    size_t size = sizeof(struct pep_rule_entry) * PEP_RULES_MAX;
    struct pep_rule_entry *fresh = pep_os_map(size), *expected = NULL;
    if (fresh == NULL)
        return -ENOMEM;
    if (!pep_cas_acq_rel(&pep_rules, &expected, fresh))
        pep_os_unmap(fresh, size);
    return 0;
}

PEP_SIGNAL_SAFE static bool add_at(uintptr_t pc, uint32_t at, uint64_t word) {
    for (int i = 0; i < PEP_RULE_PROBES; i++) {
        struct pep_rule_entry *entry = &pep_rules[(at + (uint32_t)i) & (PEP_RULES_MAX - 1)];
        uint64_t key = pep_load_relaxed(&entry->pc);
        if (key == 0 && pep_cas_acq_rel(&entry->pc, &key, (uint64_t)pc))
            key = pc;
        if (key == pc) {
            /* The word says everything; nothing else has to be visible before it. */
            pep_store_relaxed(&entry->rule, word);
            return true;
        }
    }
    return false;
}

PEP_SIGNAL_SAFE void pep_rules_add(uintptr_t pc, struct pep_rule rule) {
    union {
        struct pep_rule rule;
        uint64_t word;
    } kept = {.rule = rule};
    if (!add_at(pc, pep_rules_near(pc), kept.word) && !add_at(pc, pep_rules_far(pc), kept.word))
        PEP_COUNT(rule_table_full, 1);
}
