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
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#include "preload/hook_lock.h"

#define BIT(command) (1u << (command))
#define LOCK_PI2 13 /* Linux 5.14 */
#define WAITS \
    (BIT(FUTEX_WAIT) | BIT(FUTEX_WAIT_BITSET) | BIT(FUTEX_WAIT_REQUEUE_PI) | BIT(FUTEX_LOCK_PI) | \
     BIT(LOCK_PI2))
#define WAKES \
    (BIT(FUTEX_WAKE) | BIT(FUTEX_WAKE_BITSET) | BIT(FUTEX_WAKE_OP) | BIT(FUTEX_REQUEUE) | \
     BIT(FUTEX_CMP_REQUEUE) | BIT(FUTEX_CMP_REQUEUE_PI) | BIT(FUTEX_UNLOCK_PI))

PEP_HOOK_SAFE static inline bool is_one_of(unsigned commands, long operation) {
    unsigned long command = (unsigned long)operation & FUTEX_CMD_MASK;
    return command < 32 && (commands >> command & 1) != 0;
}

PEP_HOOK_SAFE bool pep_hook_lock_is_futex_noted(const void *word, long operation) {
    return is_one_of(WAITS, operation) || (pep_lock_is_waited(word) && is_one_of(WAKES, operation));
}

/* As libc's syscall(2), but the number stands beside the instruction: a wait of limited time that a
 * sample cuts short is known by it and made again (cpu_restart.c). */
PEP_HOOK_SAFE static long call_futex(const long v[7]) {
    register long d __asm__("r10") = v[4];
    register long e __asm__("r8") = v[5];
    register long f __asm__("r9") = v[6];
    long result;
    __asm__ volatile("mov %[nr], %%eax\n\tsyscall"
                     : "=&a"(result)
                     : [nr] "i"(SYS_futex), "D"(v[1]), "S"(v[2]), "d"(v[3]), "r"(d), "r"(e), "r"(f)
                     : "rcx", "r11", "memory");
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

PEP_HOOK_SAFE long pep_hook_lock_futex(const long v[7]) {
    const void *word = (const void *)v[1];
    struct pep_lock_wait wait = {.began_ns = 0};
    struct pep_lock_release release = {.waited_ns = 0};
    if (pep_hook_lock_is_watched()) {
        if (is_one_of(WAITS, v[2]))
            pep_lock_wait_begin(&wait, word, PEP_LOCK_FUTEX);
        else
            pep_lock_release_begin(&release, word, PEP_LOCK_FUTEX);
    }
    long result = call_futex(v);
    pep_lock_wait_end(&wait);
    pep_lock_release_end(&release, result >= 0);
    return result;
}
