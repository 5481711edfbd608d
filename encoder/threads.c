/* What the forms of the dump have in common; see threads.h. */
#include "encoder/threads.h"

#include <stdio.h>
#include <string.h>

/* NULL when there is no memory for it. */
static struct pep_sample *with_births(const struct pep_threads_job *job, uint32_t *count) {
    const struct pep_dump *dump = job->dump;
    const struct pep_profile *profile = dump->profile;
    size_t most = (size_t)profile->sample_count + dump->task_count;
    struct pep_sample *all = pep_arena_array(job->arena, most, sizeof *all);
    *count = profile->sample_count;
    if (all == NULL)
        return NULL;
    if (*count > 0)
        memcpy(all, profile->samples, *count * sizeof *all);
    for (uint32_t i = 0; i < dump->task_count; i++)
        if (dump->tasks[i].birth_pcs != NULL)
            all[(*count)++] = (struct pep_sample){.pcs = dump->tasks[i].birth_pcs,
                                                  .pc_count = dump->tasks[i].birth_count};
    return all;
}

void pep_threads_prepare(const struct pep_threads_job *job) {
    struct pep_profile *profile = job->dump->profile;
    struct pep_sample *own = profile->samples;
    uint32_t own_count = profile->sample_count, count;
    struct pep_sample *all = with_births(job, &count);
    if (all != NULL) {
        profile->samples = all;
        profile->sample_count = count;
    }
    pep_symbolizer_prepare(job->symbolizer, job->arena, profile);
    profile->samples = own;
    profile->sample_count = own_count;
}

const char *pep_threads_who(struct pep_arena *arena, int tid, const char *name) {
    const char *text = name != NULL && name[0] != '\0'
                           ? pep_arena_printf(arena, "thread %d (%s)", tid, name)
                           : pep_arena_printf(arena, "thread %d", tid);
    return text != NULL ? text : "";
}

/* By tid, but the main thread is first. */
const struct pep_task *pep_threads_find(const struct pep_dump *dump, int tid) {
    if (dump->task_count > 0 && dump->tasks[0].tid == tid)
        return &dump->tasks[0];
    uint32_t low = 1, high = dump->task_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (dump->tasks[middle].tid < tid)
            low = middle + 1;
        else
            high = middle;
    }
    return low < dump->task_count && dump->tasks[low].tid == tid ? &dump->tasks[low] : NULL;
}

void pep_threads_waited(char text[24], uint64_t ns) {
    static const struct {
        uint64_t ns;
        const char *name;
    } units[] = {{86400000000000u, "d"},
                 {3600000000000u, "h"},
                 {60000000000u, "min"},
                 {1000000000u, "s"},
                 {1000000u, "ms"}};
    text[0] = '\0';
    if (ns == 0)
        return;
    for (size_t i = 0; i < PEP_COUNT_OF(units); i++)
        if (ns >= units[i].ns) {
            snprintf(text, 24, "%llu %s", (unsigned long long)(ns / units[i].ns), units[i].name);
            return;
        }
    snprintf(text, 24, "< 1 ms");
}

bool pep_threads_is_between(const struct pep_place *place) {
    static const char *const modules[] = {"libc.so", "libc-", "libpthread", "libstdc++", "libc++"};
    const char *module = pep_place_module(place);
    for (size_t i = 0; i < PEP_COUNT_OF(modules); i++)
        if (strncmp(module, modules[i], strlen(modules[i])) == 0)
            return true;
    return place->is_own || strncmp(place->frames[place->frame_count - 1].name, "std::", 5) == 0;
}

struct pep_place *pep_threads_maker(struct pep_places *places, const struct pep_task *task) {
    struct pep_place *maker = NULL;
    for (uint32_t i = 0; task->birth_pcs != NULL && i < task->birth_count; i++) {
        struct pep_place *place = pep_places_find(places, task->birth_pcs[i]);
        if (place == NULL)
            return NULL;
        if (!pep_threads_is_between(place))
            return place;
        if (maker == NULL)
            maker = place;
    }
    return maker;
}
