/*
 * The dump of threads as Julia prints the backtraces of its tasks.
 *
 * Model:   a thread is a thread with one task, its root; frames as Julia has them,
 *          "poll at libc.so.6 (unknown line)", innermost first. Who it is, what it waits for and
 *          who made it are further lines in parentheses below the task's. A peek has the stacks
 *          alone.
 * Writers: the job's writer.  [normal]
 * Readers: -
 * Memory:  the job's arena.
 * When full: the writer's error is -ENOMEM.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "encoder/legacy_parts.h"
#include "encoder/threads.h"

struct text {
    const struct pep_threads_job *job;
    struct pep_places places;
};

static void write_place(struct pep_writer *writer, const struct pep_place *place) {
    for (uint32_t i = 0; i < place->frame_count; i++) {
        const struct pep_frame *frame = &place->frames[i];
        const char *module = pep_place_module(place);
        if (!frame->is_known && frame->file == NULL && module[0] == '\0') {
            pep_write_printf(writer, "unknown function (ip: 0x%" PRIxPTR ")\n", place->pc);
            continue;
        }
        pep_legacy_write_plain(writer, frame->name);
        pep_write_text(writer, " at ");
        pep_legacy_write_plain(writer, frame->file != NULL ? frame->file
                                       : place->mapping != NULL && place->mapping->path != NULL
                                           ? place->mapping->path
                                           : "unknown");
        if (frame->file != NULL)
            pep_write_printf(writer, ":%u", frame->line);
        else
            pep_write_text(writer, " (unknown line)");
        if (i + 1 < place->frame_count)
            pep_write_text(writer, " [inlined]");
        pep_write_text(writer, "\n");
    }
}

static bool write_pcs(struct text *text, const uintptr_t *pcs, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        struct pep_place *place = pep_places_find(&text->places, pcs[i]);
        if (place == NULL)
            return false;
        if (!place->is_own)
            write_place(text->job->writer, place);
    }
    return true;
}

/* "running)", "futex wait, for 3 s)" and the end of the line. */
static void write_doing(struct pep_writer *writer, const struct pep_task *task) {
    char waited[24];
    pep_threads_waited(waited, task->waited_ns);
    pep_legacy_write_plain(writer, task->doing);
    if (waited[0] != '\0')
        pep_write_printf(writer, ", for %s", waited);
    if (task->lock != 0)
        pep_write_printf(writer, ", %s 0x%" PRIx64,
                         task->lock_kind != NULL ? task->lock_kind : "lock", task->lock);
    pep_write_text(writer, ")\n");
}

static void write_who(struct pep_writer *writer, const struct pep_task *task) {
    pep_write_text(writer, "          (name: ");
    pep_legacy_write_plain(writer, task->name);
    pep_write_text(writer, ", ");
    write_doing(writer, task);
}

static bool write_birth(struct text *text, const struct pep_task *task) {
    struct pep_writer *writer = text->job->writer;
    if (task->birth_pcs == NULL || task->birth_count == 0)
        return true;
    pep_write_text(writer, "          (created by ");
    pep_legacy_write_plain(
        writer, task->created_by_tid != 0
                    ? pep_threads_who(text->job->arena, task->created_by_tid, task->created_by)
                    : "a thread that is not known");
    pep_write_text(writer, " at:)\n");
    return write_pcs(text, task->birth_pcs, task->birth_count);
}

static bool write_stack(struct text *text, uint32_t i) {
    const struct pep_task *task = &text->job->dump->tasks[i];
    const struct pep_sample *sample = &text->job->dump->profile->samples[i];
    struct pep_writer *writer = text->job->writer;
    if (task->note == NULL)
        return write_pcs(text, sample->pcs, sample->pc_count);
    pep_write_text(writer, "      no backtrace recorded: ");
    pep_legacy_write_plain(writer, task->note);
    pep_write_text(writer, "\n");
    return true;
}

static bool write_task(struct text *text, uint32_t i) {
    const struct pep_task *task = &text->job->dump->tasks[i];
    struct pep_writer *writer = text->job->writer;
    pep_write_printf(writer, "==== Thread %d created 1 live tasks\n", task->tid);
    pep_write_printf(writer, "     ---- Root task (0x%x)\n", (unsigned)task->tid);
    pep_write_printf(writer, "          (sticky: 1, started: 1, state: 0, tid: %d)\n", task->tid);
    write_who(writer, task);
    if (!write_stack(text, i) || !write_birth(text, task))
        return false;
    pep_write_text(writer, "     ---- End root task\n");
    pep_write_printf(writer, "==== End thread %d\n", task->tid);
    return true;
}

void pep_encode_threads_julia(const struct pep_threads_job *job) {
    struct text text = {.job = job};
    pep_places_init(&text.places, job->arena, job->dump->profile, job->symbolizer);
    for (uint32_t i = 0; i < job->dump->task_count; i++) {
        if (!write_task(&text, i)) {
            pep_writer_fail(job->writer, -ENOMEM);
            return;
        }
    }
    pep_write_text(job->writer, "==== Done\n");
}

static bool write_bare(struct text *text, uint32_t i) {
    const struct pep_task *task = &text->job->dump->tasks[i];
    struct pep_writer *writer = text->job->writer;
    pep_write_text(writer, "          (");
    pep_legacy_write_plain(writer, pep_threads_who(text->job->arena, task->tid, task->name));
    pep_write_text(writer, ", ");
    write_doing(writer, task);
    return write_stack(text, i);
}

void pep_encode_threads_peek(const struct pep_threads_job *job) {
    struct text text = {.job = job};
    pep_places_init(&text.places, job->arena, job->dump->profile, job->symbolizer);
    /* The main thread is the first of them. */
    for (uint32_t i = 1; i <= job->dump->task_count; i++) {
        if (!write_bare(&text, i % job->dump->task_count)) {
            pep_writer_fail(job->writer, -ENOMEM);
            return;
        }
    }
}
