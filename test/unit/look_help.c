#include "look_help.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "sampler/rt/atomics.h"
#include "sampler/unwind.h"
#include "waiters.h"

struct pep_arena look_arena;
void (*look_while_walking)(void);
const char *look_refused_file;
int look_refused_error = -EACCES;

/* This file is linked into every test: those with fakes of their own use theirs, and those without
 * --wrap have no real functions of these names. */
#define WEAK __attribute__((weak))
WEAK long __real_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
WEAK long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
WEAK int __real_pep_unwind(const struct pep_regs *regs, const struct pep_stack_range *stack,
                           struct pep_unwind_scratch *scratch, uintptr_t *to, int max);
WEAK int __wrap_pep_unwind(const struct pep_regs *regs, const struct pep_stack_range *stack,
                           struct pep_unwind_scratch *scratch, uintptr_t *to, int max);

long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f) {
    const char *slash = nr == SYS_openat ? strrchr((const char *)b, '/') : NULL;
    if (slash != NULL && look_refused_file != NULL && strcmp(slash + 1, look_refused_file) == 0)
        return look_refused_error;
    return __real_pep_os_call6(nr, a, b, c, d, e, f);
}

int __wrap_pep_unwind(const struct pep_regs *regs, const struct pep_stack_range *stack,
                      struct pep_unwind_scratch *scratch, uintptr_t *to, int max) {
    void (*first)(void) = pep_load_acquire(&look_while_walking);
    if (first != NULL)
        first();
    return __real_pep_unwind(regs, stack, scratch, to, max);
}

int look_setup(void **state) {
    (void)state;
    pep_arena_init(&look_arena, 0);
    return 0;
}

int look_teardown(void **state) {
    (void)state;
    waiter_spin_end();
    pep_arena_drop(&look_arena);
    pep_store_release(&look_while_walking, NULL);
    look_refused_file = NULL;
    look_refused_error = -EACCES;
    return 0;
}
