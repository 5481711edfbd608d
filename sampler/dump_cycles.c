/*
 * Threads that wait for each other in a circle.
 *
 * Model:   each thread waits for one other at most: from each one goes on, with a mark of the
 * round, until a marked one is met; met in the same round, a circle is closed. Threads were looked
 *          at one after another, so a circle counts only when none of its threads has run since.
 * Writers: the thread that takes the dump.  [normal]
 * Readers: the same.
 * Memory:  the dump's arena.
 * When full: the arena says so.
 */
#include "sampler/dump_internal.h"

struct search {
    struct pep_dump_work *work;
    uint32_t *rounds; /* by task; 0: not met */
    struct pep_cycle *cycles;
    size_t capacity;
};

static uint32_t index_of(const struct pep_dump *dump, const struct pep_task *task) {
    return (uint32_t)(task - dump->tasks);
}

static struct pep_task *next_of(const struct pep_dump *dump, const struct pep_task *task) {
    return task->owner_tid != 0 ? pep_dump_task_of(dump, task->owner_tid) : NULL;
}

static void add(struct search *search, struct pep_task *first) {
    struct pep_dump *dump = search->work->dump;
    uint32_t count = 0;
    struct pep_task *task = first;
    do {
        if (!pep_dump_has_stood_still(search->work, index_of(dump, task)))
            return;
        count++;
        task = next_of(dump, task);
    } while (task != first);
    int *tids = pep_arena_array(search->work->arena, count, sizeof *tids);
    size_t at = dump->cycle_count;
    if (tids == NULL || !PEP_ARENA_GROW(search->work->arena, search->cycles, at, search->capacity))
        return;
    for (uint32_t i = 0; i < count; i++, task = next_of(dump, task))
        tids[i] = task->tid;
    search->cycles[at] = (struct pep_cycle){.tids = tids, .count = count};
    dump->cycle_count++;
}

void pep_dump_find_cycles(struct pep_dump_work *work) {
    struct pep_dump *dump = work->dump;
    struct search search = {.work = work};
    search.rounds = pep_arena_array(work->arena, dump->task_count, sizeof *search.rounds);
    if (search.rounds == NULL)
        return;
    for (uint32_t i = 0; i < dump->task_count; i++) {
        struct pep_task *task = &dump->tasks[i];
        while (task != NULL && search.rounds[index_of(dump, task)] == 0) {
            search.rounds[index_of(dump, task)] = i + 1;
            task = next_of(dump, task);
        }
        if (task != NULL && search.rounds[index_of(dump, task)] == i + 1)
            add(&search, task);
    }
    dump->cycles = search.cycles;
}
