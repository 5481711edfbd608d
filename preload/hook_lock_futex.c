/*
 * Futexes by way of syscall(2): locks that Rust, C++ and other libraries build themselves.
 *
 * Model:   a wait is charged to the word that is waited on, a wake to who woke. What the word means
 *          is the library's secret, so a wake counts only when somebody waits.
 * Writers: any thread.  [hook]
 * Readers: -
 * Memory:  none.
 * When full: sampler/lock.h.
 */
#include <linux/futex.h>

#include "preload/hook_lock.h"
#include "preload/real.h"

PEP_HOOK_SAFE static bool is_wait(long operation) {
    switch (operation & FUTEX_CMD_MASK) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
    case FUTEX_LOCK_PI:
    case 13: /* FUTEX_LOCK_PI2, Linux 5.14 */
    case FUTEX_WAIT_REQUEUE_PI:
        return true;
    default:
        return false;
    }
}

PEP_HOOK_SAFE static bool is_wake(long operation) {
    switch (operation & FUTEX_CMD_MASK) {
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
    case FUTEX_WAKE_OP:
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE:
    case FUTEX_CMP_REQUEUE_PI:
    case FUTEX_UNLOCK_PI:
        return true;
    default:
        return false;
    }
}

PEP_HOOK_SAFE long pep_hook_lock_futex(const long v[7]) {
    const void *word = (const void *)v[1];
    struct pep_lock_wait wait = {.began_ns = 0};
    struct pep_lock_release release = {.waited_ns = 0};
    if (pep_hook_lock_is_watched()) {
        if (is_wait(v[2]))
            pep_lock_wait_begin(&wait, word, PEP_LOCK_FUTEX);
        else if (pep_lock_is_waited(word) && is_wake(v[2]))
            pep_lock_release_begin(&release, word, PEP_LOCK_FUTEX);
    }
    long result = pep_real_map.syscall(v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
    pep_lock_wait_end(&wait);
    pep_lock_release_end(&release, result >= 0);
    return result;
}
