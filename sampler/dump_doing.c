/*
 * What a thread does, in a few words, and which lock it waits for.
 *
 * Model:   the hooks' own note of a wait comes first, when it is not stale. Without one the word
 *          that a futex call waits at tells: where it lies in a pthread_mutex_t that some live
 *          thread holds, that is what is waited for; where its value is a live thread's tid that
 *          the call expects there, it is pthread_join.
 * Writers: the thread that takes the dump.  [normal]
 * Readers: the same.
 * Memory:  the dump's arena.
 * When full: the words are those of the system call.
 *
 * Source: glibc, sysdeps/x86/nptl/bits/struct_mutex.h; futex(2).
 */
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>

#include "sampler/dump_internal.h"
#include "sampler/lock.h"
#include "sampler/rt/os.h"

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif
#define CONTENDED 2u      /* lowlevellock.h: somebody waits */
#define KIND_MAX 0x400    /* of the bits that __kind has */
#define TID_END (1 << 22) /* pid_max at its largest: proc(5) */

struct mutex_head {
    uint32_t lock, count;
    int owner;
    uint32_t users;
    int kind;
};

struct waiting {
    const char *kind; /* NULL: for no lock */
    uint64_t lock, since_ns;
    int owner;
};

static bool is_futex_wait(const struct pep_look *look) {
    int operation = (int)look->arguments[1] & FUTEX_CMD_MASK;
    return look->kind == PEP_LOOK_WAITS && look->call == SYS_futex &&
           (operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET ||
            operation == FUTEX_LOCK_PI || operation == FUTEX_LOCK_PI2);
}

static bool is_live(const struct pep_dump *dump, int tid) {
    return pep_dump_task_of(dump, tid) != NULL;
}

/* A mutex of any kind: plain ones wait while the word is 2; robust ones and those with priority
 * inheritance have the owner's tid in it. */
static bool find_mutex(const struct pep_dump *dump, const struct pep_look *look,
                       struct waiting *waiting) {
    struct mutex_head mutex;
    uint64_t address = look->arguments[0];
    if (pep_os_peek(&mutex, address, sizeof mutex) != (long)sizeof mutex)
        return false;
    bool is_plain = mutex.lock == CONTENDED && (uint32_t)look->arguments[2] == CONTENDED;
    bool has_owner =
        (mutex.lock & FUTEX_WAITERS) != 0 && (int)(mutex.lock & FUTEX_TID_MASK) == mutex.owner;
    if (!(is_plain && mutex.users != 0) && !has_owner)
        return false;
    if (mutex.kind < 0 || mutex.kind >= KIND_MAX || !is_live(dump, mutex.owner))
        return false;
    *waiting = (struct waiting){
        .kind = pep_lock_kind_name(PEP_LOCK_MUTEX), .lock = address, .owner = mutex.owner};
    return true;
}

/* pthread_join waits until the kernel clears the tid of the thread that ends. */
static bool find_join(const struct pep_dump *dump, const struct pep_look *look,
                      struct waiting *waiting) {
    int word, tid = (int)look->arguments[2];
    if (pep_os_peek(&word, look->arguments[0], sizeof word) != (long)sizeof word)
        return false;
    bool is_shared = (look->arguments[1] & FUTEX_PRIVATE_FLAG) == 0;
    if (!is_shared || word != tid || tid == look->tid || !is_live(dump, tid))
        return false;
    *waiting = (struct waiting){
        .kind = pep_lock_kind_name(PEP_LOCK_JOIN), .lock = look->arguments[0], .owner = tid};
    return true;
}

static bool find_note(const struct pep_look *look, struct waiting *waiting) {
    struct pep_lock_note note;
    if (look->kind != PEP_LOOK_WAITS || !pep_lock_note_of(look->tid, &note))
        return false;
    const char *kind = pep_lock_kind_name((uint16_t)note.kind);
    if (kind == NULL || (look->sp != 0 && look->sp > note.frame))
        return false;
    *waiting = (struct waiting){.kind = kind,
                                .lock = (uintptr_t)note.lock,
                                .since_ns = note.since_ns,
                                .owner = pep_lock_owner(note.lock, note.kind)};
    return true;
}

/* A condition variable's wait ends by taking its mutex again, which the note does not tell: what
 * the futex says of a mutex goes first. */
static bool find_lock(const struct pep_dump *dump, const struct pep_look *look,
                      struct waiting *waiting) {
    struct waiting noted = {0};
    bool has_note = find_note(look, &noted);
    *waiting = noted;
    if (!is_futex_wait(look))
        return has_note;
    if (find_mutex(dump, look, waiting)) {
        waiting->since_ns = noted.since_ns;
        return true;
    }
    return has_note || find_join(dump, look, waiting);
}

bool pep_dump_has_stood_still(struct pep_dump_work *work, uint32_t index) {
    struct pep_look now;
    pep_look_at(work->looker, work->dump->tasks[index].tid, &now);
    return pep_look_is_same(&work->looks[index], &now);
}

static void say(struct pep_dump_work *work, struct pep_task *task) {
    const struct pep_task *owner = pep_dump_task_of(work->dump, task->owner_tid);
    bool is_join = task->lock_kind == pep_lock_kind_name(PEP_LOCK_JOIN);
    bool is_foreign = owner == NULL && !is_join && task->owner_tid > 0 && task->owner_tid < TID_END;
    if (owner == NULL)
        task->doing = task->lock_kind;
    /* It ended with the lock in its hands, or the lock is in shared memory. */
    if (is_foreign)
        task->doing = pep_arena_printf(work->arena, "%s of thread %d (not in this process)",
                                       task->lock_kind, task->owner_tid);
    if (owner == NULL)
        return;
    task->owner = owner->name;
    task->doing = pep_arena_printf(work->arena, "%s of thread %d (%s)",
                                   is_join ? "end" : task->lock_kind, owner->tid, owner->name);
}

void pep_dump_explain(struct pep_dump_work *work) {
    uint64_t now = pep_os_clock_ns(CLOCK_MONOTONIC);
    for (uint32_t i = 0; i < work->dump->task_count; i++) {
        struct pep_task *task = &work->dump->tasks[i];
        const struct pep_look *look = &work->looks[i];
        struct waiting waiting;
        work->samples[i].state = task->doing = pep_look_state(look);
        task->call = pep_look_call_name(look);
        /* pep_dump_read left when the wait began. */
        uint64_t since = task->waited_ns;
        if (find_lock(work->dump, look, &waiting) && waiting.kind != NULL) {
            task->lock = waiting.lock;
            task->lock_kind = waiting.kind;
            /* Whoever got the lock meanwhile would be told to wait for itself. */
            if (waiting.owner != 0 && pep_dump_has_stood_still(work, i))
                task->owner_tid = waiting.owner;
            since = waiting.since_ns != 0 ? waiting.since_ns : since;
            say(work, task);
        }
        task->waited_ns = since != 0 && since < now ? now - since : 0;
    }
}
