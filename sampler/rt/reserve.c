#include "sampler/rt/reserve.h"

#include <stdint.h>
#include <sys/mman.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

/* Threads, samples of the heap and births. */
#define SHARED_BYTES ((size_t)34 << 20)
#define PAGE ((size_t)4096)

static char *shared;
static size_t shared_used;

PEP_SIGNAL_SAFE void *pep_reserve_alone(size_t size_bytes) {
    void *memory = pep_os_map(size_bytes);
    if (memory == NULL)
        return NULL;
    (void)pep_os_madvise(memory, size_bytes, MADV_NOHUGEPAGE);
    (void)pep_os_madvise(memory, size_bytes, MADV_DONTDUMP);
    return memory;
}

/* Two threads that both come first have a mapping each, and one is given back. */
PEP_HOOK_SAFE static char *find_shared(void) {
    char *found = pep_load_acquire(&shared), *none = NULL;
    if (found != NULL)
        return found;
    found = pep_reserve_alone(SHARED_BYTES);
    /* acq_rel: who sees the address sees the mapping */
    if (found == NULL || pep_cas_acq_rel(&shared, &none, found))
        return found;
    (void)pep_os_unmap(found, SHARED_BYTES);
    return none;
}

PEP_HOOK_SAFE void *pep_reserve(size_t size_bytes) {
    size_t size = (size_bytes + PAGE - 1) & ~(PAGE - 1), used = pep_load_relaxed(&shared_used);
    char *start = size <= SHARED_BYTES ? find_shared() : NULL;
    while (start != NULL && size <= SHARED_BYTES - used)
        if (pep_cas_acq_rel(&shared_used, &used, used + size))
            return start + used;
    return pep_reserve_alone(size_bytes);
}
