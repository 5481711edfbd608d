#include "sampler/dump.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sampler/birth.h"
#include "sampler/dump_internal.h"
#include "sampler/profile_parts.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define DEADLINE_NS 500000000u

struct tids {
    int *tids;
    size_t count, capacity;
};

static bool is_own(int tid) {
    const struct pep_thread *thread = pep_thread_of(tid);
    return thread != NULL && thread->is_own;
}

static bool add_tid(struct pep_arena *arena, struct tids *all, int tid) {
    if (tid <= 0 || is_own(tid))
        return true;
    if (!PEP_ARENA_GROW(arena, all->tids, all->count, all->capacity))
        return false;
    all->tids[all->count++] = tid;
    return true;
}

/* struct linux_dirent64: ino, off, reclen at 16, type, name at 19 (getdents64(2)). */
static bool add_entries(struct pep_arena *arena, struct tids *all, const char *entries,
                        long bytes) {
    for (long at = 0; at < bytes;) {
        uint16_t length;
        int tid = 0;
        memcpy(&length, entries + at + 16, sizeof length);
        for (const char *c = entries + at + 19; *c >= '0' && *c <= '9'; c++)
            tid = tid * 10 + (*c - '0');
        if (!add_tid(arena, all, tid))
            return false;
        at += length;
    }
    return true;
}

static bool list_tasks(struct pep_arena *arena, struct tids *all) {
    char buffer[4096] PEP_ALIGNED(8);
    int fd = pep_os_open("/proc/self/task", O_RDONLY | O_DIRECTORY, 0);
    long count = fd;
    bool is_good = true;
    while (fd >= 0 && is_good && (count = pep_os_getdents(fd, buffer, sizeof buffer)) > 0)
        is_good = add_entries(arena, all, buffer, count);
    if (fd >= 0)
        pep_os_close(fd);
    /* No /proc: the threads that the hooks met are all there is. */
    bool is_listed = all->count > 0;
    for (uint32_t i = 0; !is_listed && is_good && i < pep_threads_limit(); i++)
        is_good = add_tid(arena, all, pep_load_acquire(&pep_thread_at(i)->tid));
    return is_good;
}

/* The main thread comes first. */
static bool is_before(int a, int b, int main_tid) {
    return a == main_tid ? b != main_tid : b != main_tid && a < b;
}

/* The kernel lists threads in the order of their births, which nearly is that of their tids. */
static void sort_tids(struct tids *all) {
    int main_tid = pep_os_getpid();
    for (size_t gap = 701; gap > 0; gap /= 3)
        for (size_t i = gap; i < all->count; i++) {
            int tid = all->tids[i];
            size_t at = i;
            for (; at >= gap && is_before(tid, all->tids[at - gap], main_tid); at -= gap)
                all->tids[at] = all->tids[at - gap];
            all->tids[at] = tid;
        }
}

struct pep_task *pep_dump_task_of(const struct pep_dump *dump, int tid) {
    int main_tid = pep_os_getpid();
    uint32_t low = 0, high = dump->task_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (is_before(dump->tasks[middle].tid, tid, main_tid))
            low = middle + 1;
        else
            high = middle;
    }
    return low < dump->task_count && dump->tasks[low].tid == tid ? &dump->tasks[low] : NULL;
}

/* A thread of ours that was created a moment ago and has not said so yet carries the name of its
 * maker. */
static bool is_newborn_own(const struct pep_look *look) {
    return strncmp(look->name, "profep", 6) == 0 && pep_thread_of(look->tid) == NULL;
}

/* Only what is wanted, alive and not ours stays, in place. */
static void keep(struct pep_dump_work *work, const struct pep_profile_filter *filter) {
    struct pep_dump *dump = work->dump;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < dump->task_count; i++) {
        struct pep_look *look = &work->looks[i];
        if (look->kind == PEP_LOOK_GONE || is_newborn_own(look))
            continue;
        if (!pep_profile_is_wanted(&work->samples[i], filter))
            continue;
        dump->tasks[kept] = dump->tasks[i];
        work->samples[kept] = work->samples[i];
        work->looks[kept++] = *look;
    }
    dump->task_count = kept;
}

static void add_birth(struct pep_task *task) {
    struct pep_birth birth = pep_birth_of(task->tid);
    const struct pep_stack *stack = pep_stack_table_get(birth.stack);
    const struct pep_identity *creator = pep_identity_get(birth.creator);
    if (stack != NULL) {
        task->birth_pcs = stack->pcs;
        task->birth_count = stack->count;
    }
    if (creator != NULL)
        task->created_by_tid = creator->tid;
}

static void name_creators(struct pep_dump_work *work) {
    for (uint32_t i = 0; i < work->dump->task_count; i++) {
        struct pep_task *task = &work->dump->tasks[i];
        char name[16];
        add_birth(task);
        if (task->created_by_tid == 0)
            continue;
        const struct pep_task *creator = pep_dump_task_of(work->dump, task->created_by_tid);
        pep_identity_name(pep_birth_of(task->tid).creator, name);
        task->created_by = creator != NULL && strcmp(creator->name, name) == 0
                               ? creator->name
                               : pep_arena_strdup(work->arena, name);
    }
}

/* The profile that goes with the tasks: one sample a thread. */
static void fill_profile(struct pep_dump_work *work) {
    struct pep_dump *dump = work->dump;
    struct pep_profile *profile = dump->profile;
    *profile = (struct pep_profile){
        .kind = "goroutine",
        .types = {{"goroutine", "count"}},
        .type_count = 1,
        .period_type = {"goroutine", "count"},
        .period = 1,
        .is_exact = true,
        .time_ns = dump->time_ns,
        .main_mapping = PEP_MAPPING_NONE,
        .samples = work->samples,
        .sample_count = dump->task_count,
        .pid = pep_os_getpid(),
    };
    pep_profile_fill_mappings(work->arena, profile);
    if (dump->unread != 0)
        pep_profile_tell(work->arena, profile,
                         "%u of %u threads without a stack; the dump as text tells why.",
                         (unsigned)dump->unread, (unsigned)dump->task_count);
}

static bool make_room(struct pep_dump_work *work, const struct tids *all) {
    struct pep_dump *dump = work->dump = pep_arena_alloc(work->arena, sizeof *dump);
    work->looks = pep_arena_array(work->arena, all->count, sizeof *work->looks);
    work->samples = pep_arena_array(work->arena, all->count, sizeof *work->samples);
    if (dump == NULL || work->looks == NULL || work->samples == NULL)
        return false;
    dump->tasks = pep_arena_array(work->arena, all->count, sizeof *dump->tasks);
    dump->profile = pep_arena_alloc(work->arena, sizeof *dump->profile);
    if (dump->tasks == NULL || dump->profile == NULL)
        return false;
    dump->task_count = (uint32_t)all->count;
    for (size_t i = 0; i < all->count; i++) {
        work->looks[i].tid = dump->tasks[i].tid = work->samples[i].tid = all->tids[i];
        work->samples[i].values[0] = 1;
    }
    return true;
}

static void count_unread(struct pep_dump *dump) {
    for (uint32_t i = 0; i < dump->task_count; i++)
        dump->unread += dump->tasks[i].note != NULL;
}

static void take(struct pep_dump_work *work, const struct pep_dump_options *options) {
    struct tids all = {0};
    uint64_t began = pep_os_clock_ns(CLOCK_MONOTONIC);
    if (!list_tasks(work->arena, &all))
        return;
    sort_tids(&all);
    if (!make_room(work, &all))
        return;
    work->dump->time_ns = (int64_t)pep_os_clock_ns(CLOCK_REALTIME);
    work->leaving_tid = options->leaving_tid;
    work->deadline_ns = options->deadline_ns != 0 ? options->deadline_ns : DEADLINE_NS;
    pep_dump_read(work);
    keep(work, &(const struct pep_profile_filter){0});
    /* Who is not wanted may be waited for by who is. */
    pep_dump_explain(work);
    pep_dump_find_cycles(work);
    keep(work, &options->filter);
    name_creators(work);
    count_unread(work->dump);
    fill_profile(work);
    work->dump->took_ns = pep_os_clock_ns(CLOCK_MONOTONIC) - began;
}

struct pep_dump *pep_dump_take(struct pep_arena *arena, const struct pep_dump_options *options) {
    struct pep_dump_work work = {.arena = arena};
    int before = pep_os_hurry();
    work.looker = pep_looker_open(arena);
    if (work.looker != NULL) {
        take(&work, options);
        pep_looker_close(work.looker);
    }
    pep_os_hurry_end(before);
    return arena->is_failed ? NULL : work.dump;
}

/* Threads of ours that answered a request keep their slots until the next sweep. */
static bool is_alive(int tid) {
    return pep_os_call6(SYS_tgkill, pep_os_getpid(), tid, 0, 0, 0, 0) == 0;
}

uint32_t pep_dump_count(void) {
    struct stat found;
    uint32_t own = 0, known = 0;
    for (uint32_t i = 0; i < pep_threads_limit(); i++) {
        const struct pep_thread *thread = pep_thread_at(i);
        bool is_used = pep_load_relaxed(&thread->tid) != 0;
        known += is_used && !thread->is_own;
        own += is_used && thread->is_own && is_alive(thread->tid);
    }
    /* The link count of the directory: one system call for all (proc(5)). */
    if (pep_os_stat_at(AT_FDCWD, "/proc/self/task", &found, 0) < 0 || found.st_nlink < 2 + own)
        return known;
    return (uint32_t)found.st_nlink - 2 - own;
}
