#include "preload/real_lock.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "sampler/rt/atomics.h"

static PEP_TLS bool is_resolving;
bool pep_real_lock_is_resolved;

#define BOOT(name, parameters, arguments) \
    static int boot_##name parameters { \
        if (is_resolving) \
            return 0; \
        pep_real_lock_resolve(); \
        if (pep_real_lock.name == boot_##name) \
            return ENOSYS; \
        return pep_real_lock.name arguments; \
    }
PEP_REAL_LOCKS(BOOT)
PEP_REAL_CONDS(BOOT)
#undef BOOT

struct pep_real_lock pep_real_lock = {
#define FIELD(name, parameters, arguments) .name = boot_##name,
    PEP_REAL_LOCKS(FIELD) PEP_REAL_CONDS(FIELD)
#undef FIELD
};

/* Of that version; from a library before libc that has none, of no version. */
static void *look_up_cond(const char *name) {
    void *found = dlvsym(RTLD_NEXT, name, PEP_REAL_COND_VERSION);
    return found != NULL ? found : dlsym(RTLD_NEXT, name);
}

/* All are found before any is used: a library that locks and unlocks around a look-up must not find
 * one of the two in force, and not the other. */
void pep_real_lock_resolve(void) {
    struct pep_real_lock found;
    if (is_resolving)
        return;
    int saved_errno = errno;
    is_resolving = true;
#define FIND(name, parameters, arguments) *(void **)(void *)&found.name = dlsym(RTLD_NEXT, #name);
    PEP_REAL_LOCKS(FIND)
#undef FIND
#define FIND(name, parameters, arguments) *(void **)(void *)&found.name = look_up_cond(#name);
    PEP_REAL_CONDS(FIND)
#undef FIND
    /* release: a hook on another thread reads the old or the new one; each is good. */
#define KEEP(name, parameters, arguments) \
    if (found.name != NULL) \
        pep_store_release(&pep_real_lock.name, found.name);
    PEP_REAL_LOCKS(KEEP)
    PEP_REAL_CONDS(KEEP)
#undef KEEP
    pep_store_release(&pep_real_lock_is_resolved, true);
    is_resolving = false;
    errno = saved_errno;
}

void pep_real_lock_resolve_first(void) {
    void *found = dlsym(RTLD_NEXT, "sem_post");
    if (found != NULL)
        pep_store_release((void **)(void *)&pep_real_lock.sem_post, found);
}
