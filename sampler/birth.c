#include "sampler/birth.h"

#include <time.h>

#include "sampler/cells.h"
#include "sampler/heap_internal.h"
#include "sampler/profile_parts.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/files.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define CELLS 16384u /* pairs of a stack and a creator */

static struct pep_cells births;

int pep_birth_init(void) {
    return pep_cells_init(&births, CELLS);
}

/* -- the hooks ------------------------------------------------------------------------------ */

PEP_HOOK_SAFE void pep_birth_note(struct pep_birth *birth) {
    birth->creator = 0;
    birth->stack = pep_heap_stack_here(&birth->creator);
}

/* Counted here and not by the creator: a creation that failed is no birth. A thread without a slot
 * was born all the same. */
PEP_HOOK_SAFE void pep_birth_remember(const struct pep_birth *birth) {
    static const uint64_t one[2] = {1, 1};
    struct pep_thread *thread = pep_thread_self();
    if (thread != NULL) {
        pep_store_relaxed(&thread->birth_creator, birth->creator);
        pep_store_relaxed(&thread->birth_stack, birth->stack);
    }
    pep_cells_add(&births, birth->stack, birth->creator, 0, one);
}

/* -- reading -------------------------------------------------------------------------------- */

struct pep_birth pep_birth_of(int tid) {
    struct pep_birth birth = {0, 0};
    const struct pep_thread *thread = pep_thread_of(tid);
    if (thread == NULL)
        return birth;
    birth.stack = pep_load_relaxed(&thread->birth_stack);
    birth.creator = pep_load_relaxed(&thread->birth_creator);
    /* acquire: the slot was this thread's all the while */
    return pep_load_acquire(&thread->tid) == tid ? birth : (struct pep_birth){0, 0};
}

void pep_birth_after_fork_child(void) {
    for (uint32_t i = 0, count = pep_cells_count(&births); i < count; i++) {
        pep_store_relaxed(&births.cells[i].count, 0);
        pep_store_relaxed(&births.cells[i].weight, 0);
    }
}

struct pep_cells_snapshot *pep_birth_snapshot_take(struct pep_arena *arena) {
    return pep_cells_snapshot_take(arena, &births);
}

static const char *name_of(struct pep_arena *arena, int tid) {
    char name[24] = "";
    long count = pep_files_read_of_task(tid, "comm", name, sizeof name);
    if (count <= 0 || count > 16)
        return NULL;
    name[count - 1] = '\0'; /* its newline */
    return pep_arena_strdup(arena, name);
}

/* A thread of the host that did not begin with the program. */
static bool is_born(const struct pep_thread *thread, int tid) {
    return tid != 0 && !thread->is_own && tid != pep_os_getpid();
}

/* Returns how many threads it knows no maker of. */
static uint32_t fill_live(struct pep_arena *arena, struct pep_profile *profile,
                          const struct pep_profile_filter *filter) {
    struct pep_sample_list list = {.arena = arena, .profile = profile, .filter = filter};
    uint32_t unknown = 0;
    for (uint32_t i = 0, limit = pep_threads_limit(); i < limit; i++) {
        const struct pep_thread *thread = pep_thread_at(i);
        int tid = pep_load_acquire(&thread->tid);
        if (!is_born(thread, tid))
            continue;
        const struct pep_stack *stack = pep_stack_table_get(pep_birth_of(tid).stack);
        if (stack == NULL) {
            unknown++;
            continue;
        }
        struct pep_sample sample = {.pcs = stack->pcs,
                                    .pc_count = stack->count,
                                    .tid = tid,
                                    .thread = name_of(arena, tid),
                                    .values = {1}};
        if (!pep_sample_list_add(&list, 0, &sample))
            return unknown;
    }
    return unknown;
}

struct pep_profile *pep_profile_threadcreate(struct pep_arena *arena, bool is_live,
                                             const struct pep_cells_snapshot *before,
                                             const struct pep_profile_filter *filter) {
    struct pep_profile *profile = pep_arena_alloc(arena, sizeof *profile);
    if (profile == NULL)
        return NULL;
    *profile = (struct pep_profile){
        .kind = "threadcreate",
        .types = {{"threadcreate", "count"}},
        .type_count = 1,
        .period_type = {"threadcreate", "count"},
        .period = 1,
        .time_ns = (int64_t)pep_os_clock_ns(CLOCK_REALTIME),
        .is_exact = true,
        .main_mapping = PEP_MAPPING_NONE,
        .pid = pep_os_getpid(),
    };
    if (is_live) {
        uint32_t unknown = fill_live(arena, profile, filter);
        if (unknown != 0)
            pep_profile_tell(
                arena, profile,
                "%u more threads came by other ways than pthread_create and thrd_create.",
                (unsigned)unknown);
        pep_profile_fill_mappings(arena, profile);
        return arena->is_failed ? NULL : profile;
    }
    struct pep_cells_view view = {.set = &births, .before = before};
    if (filter != NULL)
        view.filter = *filter;
    pep_profile_fill_cells(arena, profile, &view);
    return arena->is_failed ? NULL : profile;
}
