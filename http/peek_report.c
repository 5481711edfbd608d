/*
 * What a peek prints: as Julia prints it, in the same words.
 *
 * Model:   said in three parts, each as soon as it is known: that somebody was heard; the stacks of
 *          all threads; the profile of the time after.
 * Writers: the report's thread.  [normal]
 * Readers: the person at the terminal.
 * Memory:  an arena of its own.
 * When full: a part says that there was no memory for it.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "encoder/encoders.h"
#include "encoder/threads.h"
#include "http/peek.h"
#include "sampler/rt/os.h"

#define HZ 1000 /* Julia's delay is a millisecond */
#define SECOND_NS 1000000000ull
#define LONG_LINE 86
#define SHORT_LINE 70

static void write_line(struct pep_writer *writer, int count) {
    while (count-- > 0)
        pep_write(writer, "=", 1);
    pep_write(writer, "\n", 1);
}

/* What was collected goes out, and the buffer is empty again. */
static int say(const struct pep_peek_job *job, struct pep_buffer_writer *buffer) {
    int error =
        pep_stderr_say(job->to, job->client, buffer->data ? buffer->data : "", buffer->count);
    pep_buffer_writer_init(buffer, buffer->arena);
    return error;
}

static uint64_t duration_of(const struct pep_peek_job *job) {
    return job->options.duration_ns ? job->options.duration_ns : SECOND_NS;
}

static void write_head(const struct pep_peek_job *job, struct pep_writer *writer) {
    uint64_t tenths = (duration_of(job) + SECOND_NS / 20) / (SECOND_NS / 10);
    pep_write(writer, "\n", 1);
    write_line(writer, LONG_LINE);
    pep_write_printf(writer,
                     "Information request received. A stacktrace will print followed by a "
                     "%llu.%llu second profile\n",
                     (unsigned long long)(tenths / 10), (unsigned long long)(tenths % 10));
    write_line(writer, LONG_LINE);
    pep_write(writer, "\n", 1);
}

/* The program's path; it may be any bytes. */
static void write_path(struct pep_writer *writer) {
    char path[4096];
    long count = pep_os_call6(SYS_readlink, (long)"/proc/thread-self/exe", (long)path,
                              sizeof(path) - 1, 0, 0, 0);
    path[count > 0 ? count : 0] = '\0';
    for (char *at = path; *at != '\0'; at++)
        if ((unsigned char)*at < ' ')
            *at = '?';
    pep_write_text(writer, path);
}

static void write_command(struct pep_writer *writer, const struct pep_dump *dump) {
    uint32_t running = 0;
    for (uint32_t i = 0; i < dump->task_count; i++)
        running += !dump->tasks[i].is_blocked;
    pep_write_text(writer, "cmd: ");
    write_path(writer);
    pep_write_printf(writer, " %d running %u of %u\n\n", pep_os_getpid(), running,
                     dump->task_count);
}

static void write_signal(struct pep_writer *writer, int sig) {
    const char *name = sigdescr_np(sig);
    if (name)
        pep_write_printf(writer, "signal (%d): %s\n", sig, name);
    else
        pep_write_printf(writer, "signal (%d): Real-time signal %d\n", sig, sig - SIGRTMIN);
}

static void write_stacks(const struct pep_peek_job *job, struct pep_writer *writer,
                         struct pep_arena *arena) {
    /* Nobody waits for the answer, and who peeks does so when the machine is busy. */
    const struct pep_dump_options options = {.deadline_ns = 3 * SECOND_NS, .leaving_tid = job->tid};
    const struct pep_dump *dump = pep_dump_take(arena, &options);
    struct pep_symbolizer *symbolizer = dump ? pep_symbolizer_begin(arena) : NULL;
    if (!symbolizer) {
        pep_write_text(writer, "There is not enough memory for the stacks.\n");
        return;
    }
    pep_symbolizer_prepare(symbolizer, arena, dump->profile);
    const struct pep_threads_job threads = {
        .dump = dump, .symbolizer = symbolizer, .writer = writer, .arena = arena};
    write_command(writer, dump);
    write_signal(writer, job->sig);
    pep_encode_threads_peek(&threads);
    pep_symbolizer_end(symbolizer);
}

static void write_tree(const struct pep_profile *profile, struct pep_writer *writer,
                       struct pep_arena *arena) {
    static const struct pep_report_options options = {.is_by_thread = true};
    struct pep_profile prepared = *profile;
    const struct pep_encode_job job = {.profile = &prepared,
                                       .symbolizer = pep_symbolizer_begin(arena),
                                       .writer = writer,
                                       .arena = arena,
                                       .report = &options};
    pep_symbolizer_prepare(job.symbolizer, arena, &prepared);
    pep_write(writer, "\n", 1);
    write_line(writer, SHORT_LINE);
    pep_write_text(writer,
                   "Profile collected. A report will print if the Profile module is loaded\n");
    write_line(writer, SHORT_LINE);
    pep_write(writer, "\n", 1);
    if (job.symbolizer)
        pep_encode_tree(&job);
    else
        pep_writer_fail(writer, -ENOMEM);
    pep_symbolizer_end(job.symbolizer);
}

static void write_profile(const struct pep_peek_job *job, struct pep_writer *writer,
                          struct pep_arena *arena) {
    const struct pep_window window = {
        .clock = PEP_WINDOW_CPU, .hz = HZ, .duration_ns = duration_of(job), .client = job->client};
    struct pep_profile *profile;
    int error = pep_window_run(arena, &window, &profile);
    if (error == -ECONNRESET)
        return; /* the program ends */
    if (error)
        pep_write_printf(writer, "\nThere is no profile: %s.\n", strerrordesc_np(-error));
    else
        write_tree(profile, writer, arena);
}

/* The place where a snapshot of the heap is taken and its file named. */
static void write_snapshot(const struct pep_peek_job *job, struct pep_writer *writer) {
    if (job->options.has_snapshot)
        pep_write_text(writer, "Heap snapshots are not available yet: none was saved.\n");
}

static void tell_failure(struct pep_writer *writer) {
    int error = writer->error;
    writer->error = 0;
    if (error)
        pep_write_printf(writer, "\nThe report ends here: %s.\n", strerrordesc_np(-error));
}

int pep_peek_report(const struct pep_peek_job *job) {
    struct pep_arena arena;
    struct pep_buffer_writer buffer;
    struct pep_writer *writer = &buffer.writer;
    pep_arena_init(&arena, 0);
    pep_buffer_writer_init(&buffer, &arena);
    write_head(job, writer);
    int error = say(job, &buffer);
    if (!error) {
        int before = pep_os_hurry();
        write_stacks(job, writer, &arena);
        pep_os_hurry_end(before);
        tell_failure(writer);
        error = say(job, &buffer);
    }
    if (!error) {
        write_profile(job, writer, &arena);
        tell_failure(writer);
        write_snapshot(job, writer);
        error = say(job, &buffer);
    }
    pep_arena_drop(&arena);
    return error;
}
