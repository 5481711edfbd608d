#include "encoder/lines.h"

#include <errno.h>
#include <string.h>

#include "encoder/lines_parent.h"
#include "encoder/lines_permit.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

#define HEAP_BYTES_MIN (UINT64_C(1) << 20)
#define HEAP_BYTES_MAX (UINT64_C(256) << 20)
#define HEAP_BYTES_AN_ADDRESS 2048 /* only touched pages are memory */
#define DAMAGED_MAX 8              /* files that may end their child before the rest is left */

static bool make_sheet(struct pep_lines_task *task, uint64_t *size_bytes) {
    uint64_t addresses = 0;
    for (uint32_t i = 0; i < task->file_count; i++)
        addresses += task->files[i].count;
    uint64_t heap = HEAP_BYTES_MIN + addresses * HEAP_BYTES_AN_ADDRESS;
    heap = heap < HEAP_BYTES_MAX ? heap : HEAP_BYTES_MAX;
    if (addresses > UINT32_MAX / sizeof(uint32_t) / 2)
        return false;
    *size_bytes =
        sizeof(struct pep_lines_sheet) + (addresses + task->file_count) * sizeof(uint32_t) + heap;
    task->address_count = (uint32_t)addresses;
    task->heap_bytes = (uint32_t)heap;
    task->sheet = pep_os_map_shared(*size_bytes);
    if (task->sheet != NULL)
        task->sheet->used_bytes = PEP_LINES_HEAP_FIRST;
    return task->sheet != NULL;
}

/* What becomes of the file that a child was reading when it ended, and of the others. 0: they are
 * to be read by the next one. */
static int settle(const struct pep_lines_task *task, uint32_t file, enum pep_lines_fate fate) {
    uint32_t *end = &pep_lines_ends(task)[file];
    switch (fate) {
    case PEP_LINES_CRASHED:
        *end = PEP_LINES_DAMAGED;
        return 0;
    case PEP_LINES_TOO_LATE:
        *end = PEP_LINES_LATE;
        PEP_COUNT(lines_late, 1);
        return -ETIME;
    case PEP_LINES_TAKEN: /* where memory is short another one would only take more */
        *end = PEP_LINES_ENDED;
        PEP_COUNT(lines_ended, 1);
        return -ECHILD;
    case PEP_LINES_FORBIDDEN:
        *end = PEP_LINES_UNREAD;
        PEP_COUNT(lines_refused, 1);
        return -EPERM;
    default:
        *end = PEP_LINES_UNREAD;
        return -ECANCELED;
    }
}

/* Children until all is read, one more for each that died of a file. */
static int run_all(struct pep_lines_task *task, uint64_t deadline_ns) {
    for (int damaged = 0; damaged < DAMAGED_MAX; damaged++) {
        enum pep_lines_fate fate;
        int error = pep_lines_child_run(task, deadline_ns, &fate);
        if (error != 0) {
            PEP_COUNT(lines_refused, 1);
            return error;
        }
        if (fate == PEP_LINES_FINISHED)
            return 0;
        uint32_t file = task->sheet->file;
        if (file < task->first || file >= task->file_count)
            file = task->first;
        error = settle(task, file, fate);
        if (error != 0)
            return error;
        task->first = file + 1;
        if (task->first == task->file_count)
            return 0;
        if (task->sheet->used_bytes < PEP_LINES_HEAP_FIRST)
            task->sheet->used_bytes = PEP_LINES_HEAP_FIRST;
        if (task->sheet->used_bytes > task->heap_bytes)
            task->sheet->used_bytes = task->heap_bytes;
    }
    return 0;
}

/* -- the answers ----------------------------------------------------------------------------- */

/* What the child wrote, in memory that nobody else can change, with a NUL behind it. */
struct answers {
    struct pep_arena *arena;
    char *heap;
    uint32_t used_bytes;
};

static const char *text_at(const struct answers *answers, uint32_t at) {
    return at >= PEP_LINES_HEAP_FIRST && at < answers->used_bytes ? answers->heap + at : NULL;
}

/* NULL when the record does not lie in the heap, or without memory. */
static struct pep_lines *answer_at(const struct answers *answers, uint32_t at) {
    uint32_t left = at < answers->used_bytes ? answers->used_bytes - at : 0;
    if (at < PEP_LINES_HEAP_FIRST || at % 4 != 0 || left < sizeof(struct pep_lines_record))
        return NULL;
    const struct pep_lines_record *record = (const void *)(answers->heap + at);
    if (record->count > PEP_LINES_FRAMES_MAX ||
        record->count * sizeof(record->frames[0]) > left - sizeof(*record))
        return NULL;
    struct pep_lines *lines = pep_arena_alloc(answers->arena, sizeof(*lines));
    struct pep_line *frames = pep_arena_array(answers->arena, record->count, sizeof(*frames));
    if (lines == NULL || frames == NULL)
        return NULL;
    for (uint32_t i = 0; i < record->count; i++)
        frames[i] = (struct pep_line){.function = text_at(answers, record->frames[i].function),
                                      .file = text_at(answers, record->frames[i].file),
                                      .line = record->frames[i].line};
    *lines = (struct pep_lines){.frames = frames, .count = record->count};
    return lines;
}

static void take_end(struct pep_lines_file *file, uint32_t end) {
    file->end = end <= PEP_LINES_DAMAGED ? (enum pep_lines_end)end : PEP_LINES_DAMAGED;
    if (file->end == PEP_LINES_DAMAGED || file->end == PEP_LINES_PARTLY)
        PEP_COUNT(lines_damaged, 1);
}

static void take_answers(struct pep_arena *arena, const struct pep_lines_task *task) {
    struct answers answers = {.arena = arena, .used_bytes = task->sheet->used_bytes};
    if (answers.used_bytes > task->heap_bytes)
        answers.used_bytes = task->heap_bytes;
    answers.heap = pep_arena_alloc(arena, answers.used_bytes + 1u);
    if (answers.heap == NULL)
        return;
    memcpy(answers.heap, pep_lines_heap(task), answers.used_bytes);
    const uint32_t *word = task->sheet->words;
    for (uint32_t i = 0; i < task->file_count; i++) {
        struct pep_lines_file *file = &task->files[i];
        take_end(file, pep_lines_ends(task)[i]);
        for (uint32_t j = 0; j < file->count; j++)
            file->answers[j] = answer_at(&answers, *word++);
    }
}

int pep_lines_read(struct pep_arena *arena, struct pep_lines_file *files, uint32_t file_count,
                   uint64_t deadline_ns) {
    struct pep_lines_task task = {
        .files = files, .parent = pep_os_getpid(), .file_count = file_count};
    uint64_t size_bytes;
    for (uint32_t i = 0; i < file_count; i++) {
        files[i].end = PEP_LINES_UNREAD;
        files[i].answers = pep_arena_array(arena, files[i].count, sizeof(*files[i].answers));
        if (files[i].answers == NULL)
            return -ENOMEM;
    }
    int error = pep_lines_permit();
    if (error != 0) {
        PEP_COUNT(lines_refused, error == -EPERM);
        return error;
    }
    if (!make_sheet(&task, &size_bytes)) {
        PEP_COUNT(lines_refused, 1);
        return -ENOMEM;
    }
    error = run_all(&task, deadline_ns);
    take_answers(arena, &task);
    pep_os_unmap(task.sheet, size_bytes);
    return error;
}
