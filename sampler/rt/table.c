#include "sampler/rt/table.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/syscall.h>

#include "sampler/rt/log.h"
#include "sampler/rt/os.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define UNSHARE 2u /* CLOSE_RANGE_UNSHARE, which linux/close_range.h hides from older headers */
#define STANDARD_COUNT 3

static PEP_TLS bool is_apart;

PEP_SIGNAL_SAFE bool pep_table_is_apart(void) {
    return is_apart;
}

/* A pipe of the host's must not be kept open, and no file of ours may stand where libc writes its
 * last words. */
static void replace_standard(void) {
    for (int number = 0; number < STANDARD_COUNT; number++)
        if (number != 2 || !pep_log_is_stderr())
            (void)pep_os_close(number);
    while (true) {
        int number = pep_os_open("/dev/null", O_RDWR | O_CLOEXEC, 0);
        if (number >= STANDARD_COUNT)
            (void)pep_os_close(number);
        if (number < 0 || number >= STANDARD_COUNT)
            return;
    }
}

bool pep_table_leave(void) {
    if (is_apart)
        return true;
    if (pep_os_call6(SYS_close_range, STANDARD_COUNT, UINT_MAX, UNSHARE, 0, 0, 0) < 0)
        return false;
    is_apart = true;
    replace_standard();
    return true;
}

void pep_table_inherit(void) {
    is_apart = true;
}
