/*
 * How the host's threads end, and the program with the last of them.
 *
 * Model:   a pthread key's destructor sees a thread off in the last round. A process has 1,024
 *          keys, and the host may want all of them: the last one it asks for is ours, and from then
 *          on ends are noticed by the sweep alone. The host's threads are counted, because to libc
 *          ours are threads too.
 * Writers: any thread.  [hook]
 * Readers: the thread that ends.
 * Memory:  static.
 * When full: without a key, a thread of ours waits for the end of a program whose main thread left.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <threads.h>

#include "preload/init.h"
#include "preload/real.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define LAST_TRIES 200
#define LAST_PAUSE_NS 1000000ull
#define LEND_TRIES 1000
#define LEND_PAUSE_NS 1000000ull
#define LEND_SETTLE_NS 10000000ull
#define CLOSER_PAUSE_NS 10000000ull

/* The key is ours while LENT is not set; below it, threads that are just setting a value. */
#define LENT (1u << 31)

static pthread_key_t exit_key;
static uint32_t key_use = LENT;

/* Threads of the host that the hooks know and that have not ended, the main thread among them. */
static int host_threads = 1;
static int is_main_gone;

/* -- the program's end ---------------------------------------------------------------------- */

/* A task that is neither ours, nor this thread, nor the remains of the main thread. */
PEP_HOOK_SAFE static bool is_other_host_task(int tid) {
    if (tid == pep_os_gettid() || tid == pep_os_getpid())
        return false;
    for (uint32_t i = 0, limit = pep_threads_limit(); i < limit; i++) {
        const struct pep_thread *thread = pep_thread_at(i);
        if (pep_load_relaxed(&thread->tid) == tid)
            return !thread->is_own;
    }
    return true;
}

PEP_HOOK_SAFE static bool has_other_host_task(void) {
    char buffer[2048] PEP_ALIGNED(8);
    int fd = pep_os_open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool is_found = false;
    long count;
    while (!is_found && (count = pep_os_getdents(fd, buffer, sizeof(buffer))) > 0) {
        for (long at = 0; at < count && !is_found;) {
            const struct dirent64 *entry = (const struct dirent64 *)(const void *)(buffer + at);
            int tid = 0;
            for (const char *c = entry->d_name; *c >= '0' && *c <= '9'; c++)
                tid = tid * 10 + (*c - '0');
            is_found = tid != 0 && is_other_host_task(tid);
            at += entry->d_reclen;
        }
    }
    (void)pep_os_close(fd);
    return is_found;
}

/* A program whose main thread left by pthread_exit(3) ends with status 0 when its last thread
 * does. To libc ours are threads too, and the end would never come: so the host's last thread
 * brings it about. Threads that are just ending are given a moment to be gone; others that stay
 * are libc's own helpers, and with these a program does not end by itself. */
PEP_HOOK_SAFE static void end_with_last_thread(void) {
    bool is_main = pep_os_gettid() == pep_os_getpid();
    if (is_main)
        pep_store_release(&is_main_gone, 1);
    /* acq_rel: the last one sees is_main_gone. */
    if (pep_sub_acq_rel(&host_threads, 1) != 1 || !pep_load_acquire(&is_main_gone))
        return;
    for (int tries = 0; has_other_host_task(); tries++) {
        if (tries == LAST_TRIES)
            return;
        pep_os_sleep_ns(LAST_PAUSE_NS);
    }
    pep_real.exit(0);
}

/* What is left of the main thread once it has run its destructors: a zombie, proc(5). */
static bool is_main_buried(void) {
    char status[1024];
    static const char zombie[] = "\nState:\tZ";
    if (pep_os_read_file("/proc/self/status", status, sizeof status) <= 0)
        return false;
    return strstr(status, zombie) != NULL;
}

static void *wait_for_the_last(void *unused) {
    pep_thread_become_own();
    pep_os_prctl(PR_SET_NAME, (unsigned long)"profep-end", 0, 0, 0);
    while (!is_main_buried() || has_other_host_task())
        pep_os_sleep_ns(CLOSER_PAUSE_NS);
    pep_real.exit(0);
    return unused;
}

/* -- the key -------------------------------------------------------------------------------- */

PEP_HOOK_SAFE static bool set_value(uintptr_t value) {
    /* acq_rel: pairs with that in lend, which waits for us or is seen by us. */
    bool is_ours = (pep_add_acq_rel(&key_use, 1u) & LENT) == 0;
    bool is_set = is_ours && pthread_setspecific(exit_key, (void *)value) == 0;
    (void)pep_sub_acq_rel(&key_use, 1u);
    return is_set;
}

/* glibc goes round PTHREAD_DESTRUCTOR_ITERATIONS times while keys are set again, and the host's
 * destructors may use their thread until then: we leave in the last round. pthread_key_create(3) */
PEP_HOOK_SAFE static void on_exit_key(void *value) {
    uintptr_t round = (uintptr_t)value;
    if (round < PTHREAD_DESTRUCTOR_ITERATIONS && set_value(round + 1))
        return;
    pep_thread_leave();
    if (pep_init_is_this_process())
        end_with_last_thread();
}

void pep_hook_end_init(void) {
    if (pep_real.pthread_key_create(&exit_key, on_exit_key) != 0)
        return;
    pep_store_release(&key_use, 0u);
    (void)set_value(1); /* for a main thread that ends by pthread_exit(3) */
}

void pep_hook_end_after_fork_child(void) {
    pep_store_relaxed(&host_threads, 1);
    pep_store_relaxed(&is_main_gone, 0);
    /* Others that were just setting a value are not in the child. */
    pep_store_relaxed(&key_use, pep_load_relaxed(&key_use) & LENT);
}

PEP_HOOK_SAFE void pep_hook_end_expect(void) {
    (void)pep_add_relaxed(&host_threads, 1);
}

PEP_HOOK_SAFE void pep_hook_end_expect_not(void) {
    (void)pep_sub_acq_rel(&host_threads, 1);
}

PEP_HOOK_SAFE void pep_hook_end_watch(void) {
    if (!set_value(1))
        (void)pep_add_relaxed(&host_threads, 1); /* never seen off: never the last */
}

/* True when the host may try again, with one key more. */
static bool lend(void) {
    if (!pep_init_is_awake() || !pep_init_is_this_process() ||
        (__atomic_fetch_or(&key_use, LENT, __ATOMIC_ACQ_REL) & LENT))
        return false;
    for (int tries = 0; pep_load_acquire(&key_use) != LENT; tries++) {
        if (tries == LEND_TRIES) {
            (void)__atomic_fetch_and(&key_use, ~LENT, __ATOMIC_ACQ_REL);
            return false;
        }
        pep_os_sleep_ns(LEND_PAUSE_NS);
    }
    (void)pthread_key_delete(exit_key);
    /* libc looks for a key's destructor after it found the value to be of that key: a thread that
     * ends just now must not find the host's for ours. */
    pep_os_sleep_ns(LEND_SETTLE_NS);
    if (pep_load_acquire(&is_main_gone))
        (void)pep_init_spawn(wait_for_the_last);
    return true;
}

PEP_EXPORT int pthread_key_create(pthread_key_t *key, void (*destructor)(void *)) {
    int error = pep_real.pthread_key_create(key, destructor);
    return error == EAGAIN && lend() ? pep_real.pthread_key_create(key, destructor) : error;
}

PEP_EXPORT int tss_create(tss_t *key, tss_dtor_t destructor) {
    int result = pep_real.tss_create(key, destructor);
    return result == thrd_error && lend() ? pep_real.tss_create(key, destructor) : result;
}

/* -- the main thread leaves, and nothing will see the others off ---------------------------- */

static void on_leaving(void) {
    if (pep_init_is_awake() && (pep_load_acquire(&key_use) & LENT) &&
        pep_os_gettid() == pep_os_getpid() && pep_init_is_this_process())
        (void)pep_init_spawn(wait_for_the_last);
}

PEP_EXPORT void pthread_exit(void *result) {
    on_leaving();
    pep_real.pthread_exit(result);
    __builtin_unreachable();
}

PEP_EXPORT void thrd_exit(int result) {
    on_leaving();
    pep_real.thrd_exit(result);
    __builtin_unreachable();
}
