#include "encoder/line_batch.h"

#include <errno.h>
#include <string.h>

#include "sampler/rt/os.h"

void pep_line_batch_init(struct pep_line_batch *batch, struct pep_arena *arena,
                         const struct pep_profile *profile) {
    *batch = (struct pep_line_batch){.arena = arena, .profile = profile};
    batch->lists =
        pep_arena_array(arena, (size_t)profile->mapping_count + 1, sizeof(*batch->lists));
    pep_index_init(&batch->seen, arena);
}

bool pep_line_batch_is_new(struct pep_line_batch *batch, uintptr_t pc) {
    size_t cursor = 0;
    uint64_t hash = pep_index_mix(pc); /* different numbers stay different */
    return pep_index_next(&batch->seen, hash, &cursor) == PEP_INDEX_NONE &&
           pep_index_add(&batch->seen, hash, batch->seen_count++);
}

void pep_line_batch_add(struct pep_line_batch *batch, uint32_t mapping,
                        struct pep_symbol_file *file, uint64_t address) {
    if (batch->lists == NULL)
        return;
    struct pep_line_list *list = &batch->lists[mapping];
    list->file = file;
    if (PEP_ARENA_GROW(batch->arena, list->addresses, list->count, list->capacity))
        list->addresses[list->count++] = address;
}

/* Leaves those that the file does not keep. */
static void leave_unknown(struct pep_line_batch *batch, struct pep_line_list *list) {
    const struct pep_line_entry **found =
        pep_arena_array(batch->arena, list->count, sizeof(*found));
    size_t count = 0;
    if (found != NULL)
        pep_symbol_file_find_lines(list->file, list->addresses, (uint32_t)list->count, found);
    for (size_t i = 0; found != NULL && i < list->count; i++)
        if (found[i] == NULL)
            list->addresses[count++] = list->addresses[i];
    list->count = count;
}

/* What a person should know of the file's lines, or NULL. */
static const char *trouble_of(const struct pep_symbol_file *file) {
    switch (file->lines.at_end) {
    case PEP_LINES_LATE:
        return "reading its debug information takes too long";
    case PEP_LINES_PARTLY:
        return "its debug information could be read only in part";
    case PEP_LINES_ENDED:
        return "what read its debug information was ended by somebody, perhaps for want of memory; "
               "it is tried again later";
    case PEP_LINES_DAMAGED:
        return "its debug information cannot be read";
    default:
        return NULL;
    }
}

/* The first file that is in trouble. */
static const char *sentence_of(const struct pep_line_batch *batch) {
    for (uint32_t i = 0; i < batch->profile->mapping_count; i++) {
        const struct pep_symbol_file *file = batch->lists[i].file;
        const char *trouble = file != NULL ? trouble_of(file) : NULL;
        if (trouble != NULL)
            return pep_arena_printf(batch->arena, "Source lines of %s are missing: %s.", file->path,
                                    trouble);
    }
    return NULL;
}

/* Files to read, the program first. Returns how many. */
static uint32_t gather(struct pep_line_batch *batch, struct pep_lines_file *files) {
    const struct pep_profile *profile = batch->profile;
    uint32_t count = 0, main = profile->main_mapping;
    for (uint32_t i = 0; i < profile->mapping_count; i++) {
        struct pep_line_list *list = &batch->lists[i];
        if (list->file == NULL || pep_line_cache_is_hopeless(&list->file->lines))
            continue;
        leave_unknown(batch, list);
        if (list->count == 0)
            continue;
        bool is_main = main < profile->mapping_count &&
                       strcmp(profile->mappings[main].path, profile->mappings[i].path) == 0;
        if (is_main && count > 0)
            files[count] = files[0];
        files[is_main ? 0 : count] = (struct pep_lines_file){.mapping = &profile->mappings[i],
                                                             .is_main = is_main,
                                                             .addresses = list->addresses,
                                                             .count = (uint32_t)list->count};
        files[is_main ? 0 : count].owner = list->file;
        count++;
    }
    return count;
}

/* Why there are none, or not all; NULL: no reason. */
static const char *sentence_of_error(struct pep_arena *arena, int error) {
    switch (error) {
    case 0:
        return NULL;
    case -ETIME:
        return "Source lines are missing: there was no time to read all.";
    case -EFBIG:
        return "Source lines are missing: the program uses so much memory that a copy to read them "
               "in would hold it up.";
    case -EPERM:
        return "Source lines are missing: the program filters its system calls, and might be "
               "killed for those that make a process to read them.";
    case -ENOTSUP:
        return "Source lines are missing: PROFEP_LINES is 0.";
    case -ECHILD:
        return "Source lines are missing: the process that read them was ended by somebody.";
    case -ECANCELED:
        return "Source lines are missing: the program was about to be replaced or to end.";
    default:
        return pep_arena_printf(arena,
                                "Source lines are missing: no process to read them could be made "
                                "(error %d).",
                                -error);
    }
}

const char *pep_line_batch_run(struct pep_line_batch *batch, uint64_t deadline_ns) {
    uint32_t mappings = batch->profile->mapping_count;
    struct pep_lines_file *files =
        batch->lists != NULL ? pep_arena_array(batch->arena, mappings + 1u, sizeof(*files)) : NULL;
    if (files == NULL)
        return NULL;
    uint32_t count = gather(batch, files);
    int error = count > 0 ? pep_lines_read(batch->arena, files, count, deadline_ns) : 0;
    for (uint32_t i = 0; i < count; i++)
        if (files[i].answers != NULL)
            pep_symbol_file_keep_lines(files[i].owner, &files[i]);
    const char *sentence = sentence_of(batch);
    return sentence != NULL ? sentence : sentence_of_error(batch->arena, error);
}
