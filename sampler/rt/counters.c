#include "sampler/rt/counters.h"

uint64_t pep_counter_values[PEP_COUNTER_COUNT];

static const char *const names[] = {
#define PEP_COUNTER_NAME(name, help) #name,
    PEP_COUNTERS(PEP_COUNTER_NAME)
#undef PEP_COUNTER_NAME
};

static const char *const helps[] = {
#define PEP_COUNTER_HELP(name, help) help,
    PEP_COUNTERS(PEP_COUNTER_HELP)
#undef PEP_COUNTER_HELP
};

const char *pep_counter_name(enum pep_counter c) {
    return (unsigned)c < PEP_COUNTER_COUNT ? names[c] : "";
}

const char *pep_counter_help(enum pep_counter c) {
    return (unsigned)c < PEP_COUNTER_COUNT ? helps[c] : "";
}
