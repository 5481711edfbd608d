/*
 * The dump of threads in the grammar of a Go panic, for its readers and for people.
 *
 * Model:   a block a thread: header, two lines a frame, the innermost first, "created by", an
 *          empty line. What the grammar has no place for goes where its strictest readers still
 *          take it: losses and deadlocks are lines with # before the first block; the thread's
 *          name is the outermost frame, [thread NAME]; a lock's address is an argument of the
 *          innermost; why there is no stack is a frame of its own; a function's library is its
 *          package. Names lose the characters that would be read as structure.
 * Writers: the job's writer.  [normal]
 * Readers: -
 * Memory:  the job's arena.
 * When full: the writer's error is -ENOMEM; beyond 64 MiB the remaining threads are counted.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "encoder/legacy_parts.h"
#include "encoder/threads.h"

#define MINUTE_NS 60000000000u

struct text {
    const struct pep_threads_job *job;
    struct pep_places places;
};

/* -- names ---------------------------------------------------------------------------------- */

/* Readers look for the last pair of parentheses and refuse some before it. */
static bool has_odd_parentheses(const char *name) {
    int depth = 0;
    for (; *name != '\0' && depth >= 0 && depth <= 1; name++)
        depth += (*name == '(') - (*name == ')');
    return depth != 0;
}

/* A function's name: '/' and '%' are structure of package paths. */
static void write_name(struct pep_writer *writer, const char *name) {
    bool is_odd = has_odd_parentheses(name);
    for (size_t bytes = 1; *name != '\0'; name += bytes, bytes = 1) {
        if (*name == '/')
            pep_write_text(writer, "\xe2\x88\x95"); /* division slash */
        else if (*name == '%')
            pep_write_text(writer, "\xef\xbc\x85"); /* fullwidth percent */
        else if (is_odd && (*name == '(' || *name == ')'))
            pep_write_text(writer, *name == '(' ? "[" : "]");
        else
            bytes = pep_legacy_write_one(writer, name);
    }
}

/* A state ends at a comma or a bracket. */
static void write_state(struct pep_writer *writer, const char *state) {
    for (size_t bytes = 1; *state != '\0'; state += bytes) {
        const char *c = *state == ',' ? ";" : *state == '[' ? "{" : *state == ']' ? "}" : state;
        bytes = pep_legacy_write_one(writer, c);
    }
}

/* "libc." of /lib/libc.so.6. Names that say so themselves, "libx.so!fn_0x1", need none. */
static void write_package(struct pep_writer *writer, const struct pep_place *place,
                          const char *name) {
    const char *module = pep_place_module(place);
    size_t length = strlen(module);
    if (length == 0 || module[0] == '/' || name[0] == '[' || strncmp(name, module, length) == 0)
        return;
    const char *end = strstr(module, ".so");
    char part[64];
    length = end != NULL && end != module ? (size_t)(end - module) : length;
    length = length < sizeof(part) ? length : sizeof(part) - 1;
    memcpy(part, module, length);
    part[length] = '\0';
    write_name(writer, part);
    pep_write_text(writer, ".");
}

/* -- frames --------------------------------------------------------------------------------- */

static void write_position(struct pep_writer *writer, const struct pep_place *place,
                           const struct pep_frame *frame, bool is_physical) {
    pep_write_text(writer, "\t");
    if (frame->file != NULL)
        pep_legacy_write_plain(writer, frame->file);
    else
        pep_write_text(writer, "??");
    pep_write_printf(writer, ":%u", frame->file != NULL ? frame->line : 0);
    if (is_physical && frame->start != 0 && frame->start < place->pc)
        pep_write_printf(writer, " +0x%" PRIxPTR, place->pc - (uintptr_t)frame->start);
    pep_write_text(writer, "\n");
}

static void write_note_frame(struct pep_writer *writer, const char *what, const char *text) {
    pep_write_printf(writer, "[%s", what);
    write_name(writer, text);
    pep_write_text(writer, "](...)\n\t??:0\n");
}

/* lock 0: none to tell. */
static void write_place(struct pep_writer *writer, const struct pep_place *place, uint64_t lock) {
    for (uint32_t i = 0; i < place->frame_count; i++) {
        const struct pep_frame *frame = &place->frames[i];
        write_package(writer, place, frame->name);
        write_name(writer, frame->name);
        if (lock != 0 && i == 0)
            pep_write_printf(writer, "(0x%" PRIx64 ", ...)\n", lock);
        else
            pep_write_text(writer, "(...)\n");
        write_position(writer, place, frame, i + 1 == place->frame_count);
    }
}

static bool write_stack(struct text *text, const struct pep_task *task,
                        const struct pep_sample *sample) {
    uint64_t lock = task->lock;
    for (uint32_t i = 0; task->note == NULL && i < sample->pc_count; i++) {
        struct pep_place *place = pep_places_find(&text->places, sample->pcs[i]);
        if (place == NULL)
            return false;
        if (place->is_own)
            continue;
        write_place(text->job->writer, place, lock);
        lock = 0;
    }
    if (task->note != NULL)
        write_note_frame(text->job->writer, "no stack: ", task->note);
    write_note_frame(text->job->writer, "thread ", task->name);
    return true;
}

static void write_created_by(struct text *text, const struct pep_task *task) {
    struct pep_writer *writer = text->job->writer;
    const struct pep_place *place = pep_threads_maker(&text->places, task);
    if (place == NULL)
        return;
    const struct pep_frame *frame = &place->frames[place->frame_count - 1];
    pep_write_text(writer, "created by ");
    write_package(writer, place, frame->name);
    write_name(writer, frame->name);
    if (task->created_by_tid != 0)
        pep_write_printf(writer, " in goroutine %d", task->created_by_tid);
    pep_write_text(writer, "\n");
    write_position(writer, place, frame, true);
}

/* -- the whole ------------------------------------------------------------------------------ */

static void write_cycle(const struct pep_threads_job *job, const struct pep_cycle *cycle) {
    struct pep_writer *writer = job->writer;
    pep_write_printf(writer, "# deadlock: %u threads wait for each other in a circle\n",
                     cycle->count);
    for (uint32_t i = 0; i < cycle->count; i++) {
        int next = cycle->tids[(i + 1) % cycle->count];
        const struct pep_task *task = pep_threads_find(job->dump, cycle->tids[i]);
        const struct pep_task *holder = pep_threads_find(job->dump, next);
        pep_write_text(writer, "#   ");
        pep_legacy_write_plain(
            writer, pep_threads_who(job->arena, cycle->tids[i], task != NULL ? task->name : NULL));
        pep_write_text(writer, " waits for ");
        if (task != NULL && task->lock != 0)
            pep_write_printf(writer, "%s 0x%" PRIx64 " of ",
                             task->lock_kind != NULL ? task->lock_kind : "lock", task->lock);
        pep_legacy_write_plain(
            writer, pep_threads_who(job->arena, next, holder != NULL ? holder->name : NULL));
        pep_write_text(writer, "\n");
    }
}

static void write_top(const struct pep_threads_job *job) {
    const struct pep_profile *profile = job->dump->profile;
    for (uint32_t i = 0; i < job->dump->cycle_count; i++)
        write_cycle(job, &job->dump->cycles[i]);
    for (uint32_t i = 0; i < profile->comment_count; i++) {
        pep_write_text(job->writer, "# ");
        pep_legacy_write_plain(job->writer, profile->comments[i]);
        pep_write_text(job->writer, "\n");
    }
    if (job->dump->cycle_count + profile->comment_count > 0)
        pep_write_text(job->writer, "\n");
}

static bool write_task(struct text *text, uint32_t i) {
    const struct pep_task *task = &text->job->dump->tasks[i];
    struct pep_writer *writer = text->job->writer;
    pep_write_printf(writer, "goroutine %d [", task->tid);
    write_state(writer, task->doing);
    if (task->waited_ns >= MINUTE_NS)
        pep_write_printf(writer, ", %llu minutes",
                         (unsigned long long)(task->waited_ns / MINUTE_NS));
    pep_write_text(writer, ", locked to thread]:\n");
    if (!write_stack(text, task, &text->job->dump->profile->samples[i]))
        return false;
    write_created_by(text, task);
    pep_write_text(writer, "\n");
    return true;
}

void pep_encode_threads_text(const struct pep_threads_job *job) {
    struct text text = {.job = job};
    const uint64_t begin = job->writer->total_bytes;
    pep_places_init(&text.places, job->arena, job->dump->profile, job->symbolizer);
    write_top(job);
    for (uint32_t i = 0; i < job->dump->task_count; i++) {
        if (job->writer->total_bytes - begin >= PEP_THREADS_TEXT_MAX) {
            pep_write_printf(job->writer, "# %u more threads do not fit here\n",
                             job->dump->task_count - i);
            break;
        }
        if (!write_task(&text, i)) {
            pep_writer_fail(job->writer, -ENOMEM);
            break;
        }
    }
}
