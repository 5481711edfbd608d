#include "sampler/unwind_rule.h"

#include <errno.h>
#include <sys/mman.h>

#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

struct pep_rule_entry *pep_rules;

int pep_rules_init(void) {
    if (pep_load_acquire(&pep_rules) != NULL)
        return 0;
    size_t size = sizeof(struct pep_rule_entry) * (PEP_RULES_FIRST + PEP_RULES_MAX);
    struct pep_rule_entry *fresh = pep_os_map(size), *expected = NULL;
    if (fresh == NULL)
        return -ENOMEM;
    /* Each page would fault twice, when it is searched and when it is written. Linux 5.14. */
    (void)pep_os_madvise(fresh, sizeof(struct pep_rule_entry) * PEP_RULES_FIRST,
                         MADV_POPULATE_WRITE);
    if (!pep_cas_acq_rel(&pep_rules, &expected, fresh))
        pep_os_unmap(fresh, size);
    return 0;
}

PEP_SIGNAL_SAFE static bool add_at(uintptr_t pc, const struct pep_rules_way *way, uint64_t word) {
    for (int i = 0; i < way->probes; i++) {
        struct pep_rule_entry *entry = pep_rules_place(way, i);
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
    if (!add_at(pc, &PEP_RULES_WAY_FIRST(pc), kept.word) &&
        !add_at(pc, &PEP_RULES_WAY_NEAR(pc), kept.word) &&
        !add_at(pc, &PEP_RULES_WAY_FAR(pc), kept.word))
        PEP_COUNT(rule_table_full, 1);
}

PEP_SIGNAL_SAFE __attribute__((noinline)) uint64_t pep_rules_find_beyond(uintptr_t pc) {
    bool is_full = false;
    uint64_t word = pep_rules_probe(pc, &PEP_RULES_WAY_NEAR(pc), &is_full);
    return pep_unlikely(is_full) ? pep_rules_probe(pc, &PEP_RULES_WAY_FAR(pc), &is_full) : word;
}
