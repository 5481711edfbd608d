/*
 * dlclose: the module table learns what is there before it goes, and what went.
 *
 * Model:   dlopen and dlmopen are not hooked. They look at their caller for its DT_RUNPATH and its
 *          namespace, so a hook could only be a jump taken beforehand, and beforehand there is
 *          nothing to see; the sweep of an open window reads /proc/self/maps and finds new
 *          objects by itself. dlclose does not look at its caller.
 * Writers: any thread.  [hook]
 * Readers: -
 * Memory:  none.
 * When full: -
 */
#include <dlfcn.h>
#include <errno.h>

#include "preload/init.h"
#include "preload/real.h"
#include "sampler/modules.h"
#include "sampler/thread.h"

static bool is_noted(void) {
    return pep_init_is_awake() && pep_modules_is_armed() && !pep_thread_is_own() &&
           pep_init_is_this_process();
}

PEP_EXPORT int dlclose(void *handle) {
    int result = pep_real.dlclose(handle);
    if (is_noted()) {
        int saved_errno = errno;
        pep_modules_closed();
        errno = saved_errno;
    }
    return result;
}
