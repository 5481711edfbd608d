/*
 * The real mmap and its kin, syscall, and what serves until they are found.
 *
 * Model:   an allocator that was preloaded beside us maps memory inside its first malloc, maybe
 *          holding its locks, long before our constructor: a look-up there could call that malloc
 *          again. So until the constructor has looked them up, these are what libc's functions are
 *          themselves: system calls; and __sbrk, which knows where libc thinks the break is.
 * Writers: pep_real_map_resolve.  [normal]
 * Readers: the hooks.
 * Memory:  static.
 * When full: -
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "preload/real.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

extern void *__sbrk(intptr_t by);

static long answer(long result) {
    if (result >= 0 || result < -4095)
        return result;
    errno = (int)-result;
    return -1;
}

static void *boot_mmap(void *hint, size_t bytes, int protection, int flags, int fd, off_t offset) {
    return (void *)answer(
        pep_os_call6(SYS_mmap, (long)hint, (long)bytes, protection, flags, fd, offset));
}

static int boot_munmap(void *address, size_t bytes) {
    return (int)answer(pep_os_call6(SYS_munmap, (long)address, (long)bytes, 0, 0, 0, 0));
}

static void *boot_mremap(void *old, size_t old_bytes, size_t bytes, int flags, void *hint) {
    return (void *)answer(
        pep_os_call6(SYS_mremap, (long)old, (long)old_bytes, (long)bytes, flags, (long)hint, 0));
}

static void *boot_sbrk(intptr_t by) {
    return __sbrk(by);
}

static int boot_brk(void *to) {
    void *now = __sbrk(0);
    return __sbrk((intptr_t)((uintptr_t)to - (uintptr_t)now)) == (void *)-1 ? -1 : 0;
}

static long boot_syscall(long nr, long a, long b, long c, long d, long e, long f) {
    return answer(pep_os_call6(nr, a, b, c, d, e, f));
}

struct pep_real_map pep_real_map = {.mmap = boot_mmap,
                                    .munmap = boot_munmap,
                                    .mremap = boot_mremap,
                                    .sbrk = boot_sbrk,
                                    .brk = boot_brk,
                                    .syscall = boot_syscall};

static void resolve(void **to, const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    /* release: a hook on another thread reads the old or the new one; each is good. */
    if (found != NULL)
        pep_store_release(to, found);
}

void pep_real_map_resolve(void) {
    resolve((void **)(void *)&pep_real_map.mmap, "mmap");
    resolve((void **)(void *)&pep_real_map.munmap, "munmap");
    resolve((void **)(void *)&pep_real_map.mremap, "mremap");
    resolve((void **)(void *)&pep_real_map.sbrk, "sbrk");
    resolve((void **)(void *)&pep_real_map.brk, "brk");
    resolve((void **)(void *)&pep_real_map.syscall, "syscall");
}
