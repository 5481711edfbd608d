#include "sampler/thread.h"

#include <errno.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "sampler/cpu.h"
#include "sampler/heap_hook.h"
#include "sampler/lock.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/files.h"
#include "sampler/rt/os.h"
#include "sampler/rt/reserve.h"

#define TIDS_MAX 4194304            /* PID_MAX_LIMIT of the kernel, 64 bits */
#define MAIN_STACK_MAX (64ul << 20) /* the kernel keeps 128 MiB below the stack free of mmap */
#define MAIN_ABOVE 128u             /* argc and the first of argv, above __libc_stack_end */
#define THREAD_ABOVE 512u           /* start_thread's frame and libc's own block, above the hook */

_Static_assert(PEP_THREADS_MAX <= UINT16_MAX, "a slot's number + 1 fits by_tid");

/* by_tid: slot number + 1 by thread id: only the pages that tids of this process fall into are
 * ever touched. taken: a bit a slot. */
struct tables {
    uint64_t taken[PEP_THREADS_MAX / 64];
    uint16_t by_tid[TIDS_MAX];
    struct pep_identity identities[PEP_IDENTITIES_MAX];
    struct pep_thread threads[PEP_THREADS_MAX] PEP_ALIGNED(64);
};

extern void *__libc_stack_end; /* sp at the program's entry; ld.so, GLIBC_2.2.5 */

static struct tables *tables;
static uint32_t limit;           /* one past the highest slot ever taken */
static uint32_t identities_used; /* identity 0 is nobody */
static PEP_TLS struct pep_thread *self;
static PEP_TLS bool is_own;

PEP_SIGNAL_SAFE uint32_t pep_threads_limit(void) {
    return pep_load_acquire(&limit);
}

PEP_SIGNAL_SAFE struct pep_thread *pep_thread_at(uint32_t index) {
    return &tables->threads[index];
}

PEP_SIGNAL_SAFE uint32_t pep_thread_index(const struct pep_thread *thread) {
    return (uint32_t)(thread - tables->threads);
}

PEP_SIGNAL_SAFE struct pep_thread *pep_thread_check(const void *slot) {
    if (tables == NULL)
        return NULL;
    uintptr_t at = (uintptr_t)slot - (uintptr_t)tables->threads;
    if (at >= sizeof tables->threads || at % sizeof tables->threads[0] != 0)
        return NULL;
    return &tables->threads[at / sizeof tables->threads[0]];
}

PEP_SIGNAL_SAFE struct pep_thread *pep_thread_of(int tid) {
    if (tables == NULL || tid <= 0 || tid >= TIDS_MAX)
        return NULL;
    /* acquire: pairs with the claim in take: the slot's fields are there */
    uint16_t slot = pep_load_acquire(&tables->by_tid[tid]);
    return slot != 0 ? &tables->threads[slot - 1] : NULL;
}

/* A thread made by raw clone may share its maker's TLS: the tid tells. */
PEP_SIGNAL_SAFE struct pep_thread *pep_thread_self(void) {
    int tid = pep_os_gettid();
    struct pep_thread *thread = self;
    return thread != NULL && pep_load_relaxed(&thread->tid) == tid ? thread : pep_thread_of(tid);
}

PEP_SIGNAL_SAFE struct pep_thread *pep_thread_mine(void) {
    return self;
}

PEP_SIGNAL_SAFE bool pep_thread_is_own(void) {
    return is_own;
}

PEP_HOOK_SAFE static void raise_limit(uint32_t to) {
    uint32_t seen = pep_load_relaxed(&limit);
    while (seen < to && !pep_cas_acq_rel(&limit, &seen, to)) {
    }
}

PEP_HOOK_SAFE static struct pep_thread *take_slot(void) {
    for (uint32_t word = 0; word < PEP_COUNT_OF(tables->taken); word++) {
        uint64_t bits = pep_load_relaxed(&tables->taken[word]);
        while (~bits != 0) {
            uint32_t bit = (uint32_t)__builtin_ctzll(~bits);
            /* acq_rel: pairs with drop_slot; what the last owner wrote lies before us */
            if (pep_cas_acq_rel(&tables->taken[word], &bits, bits | 1ull << bit)) {
                raise_limit(word * 64 + bit + 1);
                return &tables->threads[word * 64 + bit];
            }
        }
    }
    PEP_COUNT(thread_slots_full, 1);
    return NULL;
}

PEP_HOOK_SAFE static void drop_slot(struct pep_thread *thread) {
    uint32_t index = pep_thread_index(thread);
    pep_and_acq_rel(&tables->taken[index / 64], ~(1ull << index % 64));
}

/* Everything but what outlives the owner: the serial, by which late signals are told, and the
 * number of those who are just asking. */
PEP_HOOK_SAFE static void reset(struct pep_thread *thread) {
    uint32_t serial = thread->armed_serial;
    pep_zero(thread, offsetof(struct pep_thread, asks));
    pep_zero(&thread->asks + 1,
             sizeof *thread - offsetof(struct pep_thread, asks) - sizeof thread->asks);
    thread->armed_serial = serial + 1;
    thread->perf_fd = -1;
    thread->timer_id = -1;
}

/* The slot of tid, made when there is none; *was_there tells. NULL when all are taken. */
PEP_HOOK_SAFE static struct pep_thread *take(int tid, bool *was_there) {
    *was_there = true;
    struct pep_thread *thread = pep_thread_of(tid);
    if (thread != NULL || tables == NULL || tid <= 0 || tid >= TIDS_MAX)
        return thread;
    thread = take_slot();
    if (thread == NULL)
        return NULL;
    reset(thread);
    uint16_t none = 0;
    uint16_t mine = (uint16_t)(pep_thread_index(thread) + 1);
    if (!pep_cas_acq_rel(&tables->by_tid[tid], &none, mine)) {
        drop_slot(thread); /* the sweep or the thread itself was first */
        return pep_thread_of(tid);
    }
    *was_there = false;
    pep_store_release(&thread->tid, tid);
    return thread;
}

/* The same for who sets up the tables. What is only written costs one page fault a page, what is
 * read first two. */
static struct pep_thread *take_first(int tid) {
    struct pep_thread *thread = &tables->threads[0];
    pep_store_relaxed(&thread->perf_fd, -1);
    pep_store_relaxed(&thread->timer_id, -1);
    thread->armed_serial = 1;
    pep_store_relaxed(&thread->tid, tid);
    pep_store_relaxed(&tables->taken[0], 1);
    pep_store_relaxed(&tables->by_tid[tid], 1);
    pep_store_release(&limit, 1);
    return thread;
}

PEP_HOOK_SAFE static void give_back(struct pep_thread *thread) {
    int tid = thread->tid;
    pep_store_release(&thread->tid, 0);
    pep_store_release(&tables->by_tid[tid], 0);
    drop_slot(thread);
}

static struct pep_stack_range main_stack(void) {
    uintptr_t end = (uintptr_t)__libc_stack_end;
    uint64_t rlimit[2] = {8ul << 20, 0};
    pep_os_call6(SYS_prlimit64, 0, RLIMIT_STACK, 0, (long)rlimit, 0, 0);
    uint64_t size = rlimit[0] < MAIN_STACK_MAX ? rlimit[0] : MAIN_STACK_MAX;
    if (end < size)
        return (struct pep_stack_range){0, 0};
    return (struct pep_stack_range){end - size, end + MAIN_ABOVE};
}

int pep_threads_init(void) {
    if (tables != NULL)
        return 0;
    int tid = pep_os_gettid();
    if (tid >= TIDS_MAX)
        return -EAGAIN;
    tables = pep_reserve(sizeof *tables);
    if (tables == NULL)
        return -ENOMEM;
    self = take_first(tid);
    if (pep_os_getpid() == self->tid)
        self->stack = main_stack();
    self->is_registered = true;
    return 0;
}

void pep_thread_become_own(void) {
    is_own = true;
    pep_heap_thread_become_own();
    pep_os_be_prompt();
    if (tables == NULL)
        return;
    bool was_there;
    struct pep_thread *thread = take(pep_os_gettid(), &was_there);
    if (thread == NULL)
        return;
    if (was_there)
        (void)pep_cpu_thread_leave(thread);
    thread->is_own = true;
    self = thread;
}

PEP_HOOK_SAFE void pep_thread_enter(uintptr_t frame, uint64_t stack_bytes) {
    if (tables == NULL || is_own)
        return;
    bool was_there;
    struct pep_thread *thread = take(pep_os_gettid(), &was_there);
    if (thread == NULL)
        return;
    if (was_there) { /* a sweep met us first, or a dead thread had our tid: start afresh */
        (void)pep_cpu_thread_leave(thread);
        thread->identity = 0;
        thread->is_own = thread->is_leaving = false;
    }
    if (stack_bytes != 0 && frame > stack_bytes)
        thread->stack = (struct pep_stack_range){frame - stack_bytes, frame + THREAD_ABOVE};
    thread->is_registered = thread->is_newborn = true;
    self = thread;
    pep_cpu_thread_enter(thread);
}

PEP_SIGNAL_SAFE static void set_name(struct pep_identity *identity, const char name[16]) {
    uint32_t words[4];
    pep_copy(words, name, sizeof words);
    ((char *)words)[15] = '\0';
    for (int i = 0; i < 4; i++) /* word by word: a reader may see two names mixed, never a tail */
        pep_store_relaxed((uint32_t *)(void *)identity->name + i, words[i]);
}

PEP_HOOK_SAFE void pep_thread_leave(void) {
    if (tables == NULL)
        return;
    struct pep_thread *thread = pep_thread_self();
    if (thread == NULL)
        return;
    /* (1) nothing may interrupt us any more, for good; (2) disarm; (3) the name as it was last;
     * (4) free. Reversed, a late signal would find the slot of somebody else. */
    uint64_t ours = pep_cpu_signal() > 0 ? 1ull << (pep_cpu_signal() - 1) : 0;
    pep_os_sigprocmask(0 /* SIG_BLOCK */, &ours, NULL);
    bool is_left = pep_cpu_thread_leave(thread);
    pep_lock_thread_leave(thread);
    char name[16] = "";
    if (thread->identity != 0 && pep_os_prctl(PR_GET_NAME, (unsigned long)name, 0, 0, 0) == 0)
        set_name(&tables->identities[thread->identity], name);
    self = NULL;
    if (is_left)
        give_back(thread);
    /* else somebody holds it who has no processor: a sweep finds it, and that we are gone */
}

struct pep_thread *pep_thread_adopt(int tid) {
    bool was_there;
    return take(tid, &was_there);
}

void pep_thread_forget(struct pep_thread *thread) {
    if (thread->tid == 0)
        return;
    if (pep_cpu_thread_leave(thread))
        give_back(thread);
}

/* Makes one, or takes that which somebody else made meanwhile. */
PEP_SIGNAL_SAFE static uint32_t make_identity(struct pep_thread *thread, int tid,
                                              const char name[16]) {
    uint32_t used = pep_load_relaxed(&identities_used), none = 0;
    uint32_t id =
        used + 1 < PEP_IDENTITIES_MAX ? pep_add_relaxed(&identities_used, 1) + 1 : used + 1;
    if (id >= PEP_IDENTITIES_MAX) {
        PEP_COUNT(thread_identities_full, 1);
        return 0;
    }
    struct pep_identity *identity = &tables->identities[id];
    set_name(identity, name);
    /* release: pairs with the acquire in pep_identity_get */
    pep_store_release(&identity->tid, tid);
    return pep_cas_acq_rel(&thread->identity, &none, id) ? id : none;
}

PEP_SIGNAL_SAFE uint32_t pep_thread_identity(struct pep_thread *thread) {
    uint32_t identity = pep_load_relaxed(&thread->identity);
    char name[16] = "";
    if (identity != 0)
        return identity;
    (void)pep_os_prctl(PR_GET_NAME, (unsigned long)name, 0, 0, 0);
    return make_identity(thread, thread->tid, name);
}

const struct pep_identity *pep_identity_get(uint32_t identity) {
    if (tables == NULL || identity == 0 || identity >= PEP_IDENTITIES_MAX)
        return NULL;
    const struct pep_identity *found = &tables->identities[identity];
    return pep_load_acquire(&found->tid) != 0 ? found : NULL;
}

void pep_identity_name(uint32_t identity, char name[16]) {
    const struct pep_identity *found = pep_identity_get(identity);
    uint32_t words[4] = {0};
    for (int i = 0; found != NULL && i < 4; i++)
        words[i] = pep_load_relaxed((const uint32_t *)(const void *)found->name + i);
    pep_copy(name, words, sizeof words);
    name[15] = '\0';
}

static bool read_name(int tid, char name[24]) {
    long count = pep_files_read_of_task(tid, "comm", name, 24);
    if (count <= 0 || count > 16)
        return false;
    name[count - 1] = '\0'; /* its newline */
    return true;
}

uint32_t pep_thread_identity_of_other(struct pep_thread *thread) {
    int tid = pep_load_acquire(&thread->tid);
    uint32_t identity = pep_load_relaxed(&thread->identity);
    char name[24] = "";
    if (identity != 0 || tid == 0)
        return tid != 0 ? identity : 0;
    (void)read_name(tid, name);
    return make_identity(thread, tid, name);
}

void pep_identities_refresh(void) {
    if (tables == NULL)
        return;
    for (uint32_t i = 0; i < pep_threads_limit(); i++) {
        struct pep_thread *thread = pep_thread_at(i);
        int tid = pep_load_acquire(&thread->tid);
        uint32_t identity = pep_load_relaxed(&thread->identity);
        if (tid == 0 || identity == 0)
            continue;
        char name[24];
        if (!read_name(tid, name))
            continue;
        /* The slot may have gone to another thread since: the identity says whose name it is. */
        struct pep_identity *whose = &tables->identities[identity];
        if (pep_load_acquire(&whose->tid) == tid && pep_load_acquire(&thread->tid) == tid)
            set_name(whose, name);
    }
}

void pep_threads_after_fork(void) {
    if (tables == NULL)
        return;
    struct pep_stack_range stack = {0, 0};
    for (uint32_t i = 0; i < pep_threads_limit(); i++) {
        struct pep_thread *thread = pep_thread_at(i);
        if (thread == self)
            stack = thread->stack;
        if (thread->tid != 0)
            pep_store_relaxed(&tables->by_tid[thread->tid], 0);
        reset(thread);
    }
    pep_zero(tables->taken, sizeof tables->taken);
    bool was_there;
    self = take(pep_os_gettid(), &was_there);
    if (self == NULL)
        return;
    self->stack = stack;
    self->is_registered = true;
    self->is_blocked_by_host = pep_cpu_host_blocks();
    self->is_own = is_own = false;
}
