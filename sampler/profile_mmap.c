/*
 * From the cells of the record of mappings to a profile: subtract, label, tell what is covered.
 *
 * Model:   a snapshot is every cell's sums at one moment; the newest reading is one too. Sums are
 *          read while the host goes on, unmapped first: what is mapped is never below zero.
 * Writers: -
 * Readers: whoever asks for a profile, on profep's threads.  [normal]
 * Memory:  the caller's arena.
 * When full: the arena says so.
 */
#include <string.h>
#include <time.h>

#include "sampler/mmap_internal.h"
#include "sampler/profile_parts.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define STATUS_BYTES 4096u

struct reading {
    uint64_t mapped_objects, mapped_bytes, unmapped_objects, unmapped_bytes;
};

struct pep_mmap_snapshot {
    uint64_t monotonic_ns;
    uint64_t process_bytes; /* mapped by the whole process; 0: not known */
    uint32_t cell_count;
    struct reading cells[];
};

/* VmSize, from /proc/self/status (proc(5)). */
static uint64_t read_process_bytes(void) {
    char text[STATUS_BYTES];
    if (pep_os_read_file("/proc/thread-self/status", text, sizeof text) <= 0)
        return 0;
    const char *at = strstr(text, "VmSize:");
    uint64_t kib = 0;
    for (at = at != NULL ? at + 7 : ""; *at == ' ' || *at == '\t'; at++)
        ;
    for (; *at >= '0' && *at <= '9'; at++)
        kib = kib * 10 + (uint64_t)(*at - '0');
    return kib * 1024;
}

static const char *unreachable;

void pep_mmap_set_unreachable(const char *why) {
    unreachable = why;
}

static void read_cell(struct reading *to, const struct pep_mmap_cell *cell) {
    to->unmapped_objects = pep_load_relaxed(&cell->unmapped_objects);
    to->unmapped_bytes = pep_load_relaxed(&cell->unmapped_bytes);
    pep_fence_acquire();
    to->mapped_objects = pep_load_relaxed(&cell->mapped_objects);
    to->mapped_bytes = pep_load_relaxed(&cell->mapped_bytes);
}

struct pep_mmap_snapshot *pep_mmap_snapshot_take(struct pep_arena *arena) {
    uint32_t count = pep_mmap_cell_count();
    struct pep_mmap_snapshot *snapshot =
        pep_arena_alloc(arena, sizeof *snapshot + count * sizeof snapshot->cells[0]);
    if (snapshot == NULL)
        return NULL;
    snapshot->monotonic_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    snapshot->process_bytes = read_process_bytes();
    snapshot->cell_count = count;
    for (uint32_t i = 0; i < count; i++)
        read_cell(&snapshot->cells[i], pep_mmap_cell_at(i));
    return snapshot;
}

uint32_t pep_mmap_record_count(void) {
    uint32_t found = 0;
    for (uint32_t i = 0, count = pep_mmap_cell_count(); i < count; i++)
        found += pep_load_relaxed(&pep_mmap_cell_at(i)->mapped_objects) != 0;
    return found;
}

/* -- samples -------------------------------------------------------------------------------- */

static void set_values(struct pep_sample *sample, const struct reading *now,
                       const struct reading *before, bool has_absolute_inuse) {
    int64_t *values = sample->values;
    const struct reading zero = {0}, *base = has_absolute_inuse ? &zero : before;
    values[0] = (int64_t)(now->mapped_objects - before->mapped_objects);
    values[1] = (int64_t)(now->mapped_bytes - before->mapped_bytes);
    values[2] = (int64_t)(now->mapped_objects - now->unmapped_objects - base->mapped_objects +
                          base->unmapped_objects);
    values[3] = (int64_t)(now->mapped_bytes - now->unmapped_bytes - base->mapped_bytes +
                          base->unmapped_bytes);
}

static bool fill_sample(struct pep_sample *sample, uint32_t number,
                        const struct pep_mmap_snapshot *before,
                        const struct pep_mmap_query *query) {
    static const struct reading zero;
    const struct pep_mmap_cell *cell = pep_mmap_cell_at(number);
    const struct pep_stack *stack = pep_stack_table_get(pep_mmap_stack_of(cell));
    const char *label = pep_mmap_text_of(cell);
    if (stack == NULL || (query->mapping != NULL && strstr(label, query->mapping) == NULL))
        return false;
    struct reading now;
    read_cell(&now, cell);
    *sample = (struct pep_sample){
        .pcs = stack->pcs, .pc_count = stack->count, .mapping = label[0] != '\0' ? label : NULL};
    bool has_before = before != NULL && number < before->cell_count;
    set_values(sample, &now, has_before ? &before->cells[number] : &zero,
               query->has_absolute_inuse);
    return sample->values[0] != 0 || sample->values[1] != 0 || sample->values[2] != 0 ||
           sample->values[3] != 0;
}

static void fill_samples(struct pep_arena *arena, struct pep_profile *profile,
                         const struct pep_mmap_snapshot *before,
                         const struct pep_mmap_query *query) {
    struct pep_sample_list list = {.arena = arena, .profile = profile, .filter = &query->filter};
    uint32_t cells = pep_mmap_cell_count();
    for (uint32_t i = 0; i < cells; i++) {
        struct pep_sample sample;
        if (fill_sample(&sample, i, before, query) &&
            !pep_sample_list_add(&list, pep_mmap_identity_of(pep_mmap_cell_at(i)), &sample))
            return;
    }
}

/* -- comments ------------------------------------------------------------------------------- */

/* What is known here, of this: without a filter. */
static void sum_up(const struct pep_mmap_snapshot *before, int64_t *bytes, int64_t *reserved) {
    *bytes = *reserved = 0;
    for (uint32_t i = 0, count = pep_mmap_cell_count(); i < count; i++) {
        const struct pep_mmap_cell *cell = pep_mmap_cell_at(i);
        struct reading now;
        read_cell(&now, cell);
        int64_t live = (int64_t)(now.mapped_bytes - now.unmapped_bytes);
        if (before != NULL && i < before->cell_count)
            live -= (int64_t)(before->cells[i].mapped_bytes - before->cells[i].unmapped_bytes);
        *bytes += live;
        *reserved += strcmp(pep_mmap_text_of(cell), "[reserved]") == 0 ? live : 0;
    }
}

static void tell_cover(struct pep_arena *arena, struct pep_profile *profile,
                       const struct pep_mmap_snapshot *before) {
    uint64_t process = read_process_bytes();
    int64_t known, reserved;
    sum_up(before, &known, &reserved);
    if (before != NULL && before->process_bytes != 0 && process != 0)
        pep_profile_tell(arena, profile,
                         "In this window the process's mapped memory (VmSize) changed by %lld KiB; "
                         "%lld KiB of that is known here.",
                         ((long long)process - (long long)before->process_bytes) / 1024,
                         (long long)known / 1024);
    else if (before == NULL && process != 0)
        pep_profile_tell(arena, profile,
                         "The process has %llu KiB mapped (VmSize, profep included); %lld KiB of "
                         "that, %lld%%, is known here.",
                         (unsigned long long)process / 1024, (long long)known / 1024,
                         (long long)known * 100 / (long long)process);
    if (reserved != 0)
        pep_profile_tell(arena, profile,
                         "%lld KiB were mapped without access, label [reserved]; what was made "
                         "accessible later still counts there.",
                         (long long)reserved / 1024);
}

static void fill_comments(struct pep_arena *arena, struct pep_profile *profile,
                          const struct pep_mmap_snapshot *before) {
    static const enum pep_counter losses[] = {PEP_COUNTER_mmap_full, PEP_COUNTER_mmap_missed,
                                              PEP_COUNTER_stack_table_full,
                                              PEP_COUNTER_unwind_truncated};
    if (unreachable != NULL)
        pep_profile_tell(arena, profile, "Mappings are not seen: %s.", unreachable);
    else
        pep_profile_tell(arena, profile,
                         "Every mmap, munmap, mremap, brk and sbrk of the program and its "
                         "libraries is recorded; bytes are address space, touched or not.");
    pep_profile_tell(arena, profile,
                     "Not seen: what libc maps for itself (malloc's memory, stacks of threads) "
                     "and what the loader maps.");
    tell_cover(arena, profile, before);
    pep_profile_tell_losses(arena, profile, losses, PEP_COUNT_OF(losses), NULL);
}

/* -- the profile ---------------------------------------------------------------------------- */

struct pep_profile *pep_profile_mmap(struct pep_arena *arena,
                                     const struct pep_mmap_snapshot *before,
                                     const struct pep_mmap_query *query) {
    struct pep_profile *profile = pep_arena_alloc(arena, sizeof *profile);
    if (profile == NULL)
        return NULL;
    *profile = (struct pep_profile){
        .kind = "mmap",
        .types = {{"alloc_objects", "count"},
                  {"alloc_space", "bytes"},
                  {"inuse_objects", "count"},
                  {"inuse_space", "bytes"}},
        .type_count = 4,
        .default_type = 3,
        .period_type = {"space", "bytes"},
        .period = 1,
        .is_exact = true,
        .time_ns = (int64_t)pep_os_clock_ns(CLOCK_REALTIME),
        .main_mapping = PEP_MAPPING_NONE,
        .is_signed = before != NULL && !query->has_absolute_inuse,
        .pid = pep_os_getpid(),
    };
    if (before != NULL)
        profile->duration_ns = (int64_t)(pep_os_clock_ns(CLOCK_MONOTONIC) - before->monotonic_ns);
    pep_identities_refresh();
    fill_samples(arena, profile, before, query);
    pep_profile_fill_mappings(arena, profile);
    fill_comments(arena, profile, before);
    return arena->is_failed ? NULL : profile;
}
