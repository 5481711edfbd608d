/*
 * Who holds a lock, where the lock itself tells; the names of the kinds.
 *
 * Model:   libc's public structs (pthreadtypes): a mutex has its owner's tid, a read-write lock
 *          its writer's. What a thread is joined by is its control block, which has its tid at a
 *          place that is learnt from our own. Anything may have been freed: reads cannot fault.
 * Writers: -
 * Readers: the dump.  [normal]
 * Memory:  none.
 * When full: -
 */
#include <pthread.h>
#include <stddef.h>

#include "sampler/lock.h"
#include "sampler/rt/os.h"

#define TID_MASK 0x3fffffff /* FUTEX_TID_MASK: futex(2) */
#define INHERITED_OR_ROBUST (16 | 32)
#define BLOCK_BYTES 1024 /* of a thread's control block, where its tid is looked for */

const char *pep_lock_kind_name(uint16_t kind) {
    static const char *const names[PEP_LOCK_KINDS] = {
        [PEP_LOCK_MUTEX] = "mutex",
        [PEP_LOCK_RWLOCK] = "rwlock",
        [PEP_LOCK_COND] = "condition variable",
        [PEP_LOCK_SEMAPHORE] = "semaphore",
        [PEP_LOCK_BARRIER] = "barrier",
        [PEP_LOCK_JOIN] = "thread's end",
        [PEP_LOCK_SPIN] = "spinlock",
        [PEP_LOCK_FUTEX] = "futex",
    };
    return kind < PEP_LOCK_KINDS ? names[kind] : NULL;
}

static int mutex_owner(const void *lock) {
    pthread_mutex_t mutex;
    if (pep_os_peek(&mutex, (uintptr_t)lock, sizeof mutex) != (long)sizeof mutex)
        return 0;
    if (mutex.__data.__kind & INHERITED_OR_ROBUST) /* the word itself is the tid */
        return mutex.__data.__lock & TID_MASK;
    return mutex.__data.__lock != 0 ? mutex.__data.__owner : 0;
}

static int rwlock_owner(const void *lock) {
    pthread_rwlock_t rwlock;
    if (pep_os_peek(&rwlock, (uintptr_t)lock, sizeof rwlock) != (long)sizeof rwlock)
        return 0;
    return rwlock.__data.__cur_writer;
}

/* Where this thread's control block has its tid; 0: not found, or at more than one place. */
static size_t tid_offset(void) {
    int block[BLOCK_BYTES / sizeof(int)], tid = pep_os_gettid();
    size_t found = 0;
    if (pep_os_peek(block, (uintptr_t)pthread_self(), sizeof block) != (long)sizeof block)
        return 0;
    for (size_t i = 1; i < PEP_COUNT_OF(block); i++) {
        if (block[i] != tid)
            continue;
        if (found != 0)
            return 0;
        found = i * sizeof(int);
    }
    return found;
}

static int joined_tid(const void *thread) {
    size_t offset = tid_offset();
    int tid = 0;
    if (offset == 0 ||
        pep_os_peek(&tid, (uintptr_t)thread + offset, sizeof tid) != (long)sizeof tid)
        return 0;
    return tid > 0 ? tid : 0;
}

int pep_lock_owner(const void *lock, enum pep_lock_kind kind) {
    switch (kind) {
    case PEP_LOCK_MUTEX:
        return mutex_owner(lock);
    case PEP_LOCK_RWLOCK:
        return rwlock_owner(lock);
    case PEP_LOCK_JOIN:
        return joined_tid(lock);
    default:
        return 0;
    }
}
