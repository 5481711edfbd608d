#include "preload/real.h"

#include <dlfcn.h>
#include <errno.h>

#include "preload/real_lock.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"

/* One stub a function: what the table holds until it is resolved. */
#define BOOT(result, name, parameters, arguments) \
    static result boot_##name parameters { \
        pep_real_resolve(); \
        return pep_real.name arguments; \
    }
PEP_REALS(BOOT)
#undef BOOT
#define BOOT(name, parameters, arguments) \
    static void boot_##name parameters { \
        pep_real_resolve(); \
        pep_real.name arguments; \
    }
PEP_REALS_NORETURN(BOOT)
#undef BOOT

struct pep_real pep_real = {
#define FIELD(result, name, parameters, arguments) .name = boot_##name,
    PEP_REALS(FIELD)
#undef FIELD
#define FIELD(name, parameters, arguments) .name = boot_##name,
        PEP_REALS_NORETURN(FIELD)
#undef FIELD
};

/* Stands for a function of a newer libc than the one that is here. */
static long is_missing(void) {
    errno = ENOSYS;
    return -1;
}

void *pep_real_look_up(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    return found ? found : (void *)is_missing;
}

void pep_real_resolve(void) {
    int saved_errno = errno;
    pep_real_malloc_resolve();
    pep_real_map_resolve();
    pep_real_lock_resolve_first();
    /* release: a hook on another thread may read one pointer while we write the next; each is
     * good by itself. */
#define RESOLVE(result, name, parameters, arguments) \
    pep_store_release((void **)(void *)&pep_real.name, pep_real_look_up(#name));
    PEP_REALS(RESOLVE)
#undef RESOLVE
#define RESOLVE(name, parameters, arguments) \
    pep_store_release((void **)(void *)&pep_real.name, pep_real_look_up(#name));
    PEP_REALS_NORETURN(RESOLVE)
#undef RESOLVE
    errno = saved_errno;
}
