#include "encoder/report.h"

#include <errno.h>
#include <string.h>

#include "encoder/calltree.h"
#include "encoder/sort.h"

/* One frame of a stack that is being laid down. */
struct step {
    struct pep_report_line *line;
    struct pep_report_node *node; /* where it led */
    uintptr_t pc;
};

int pep_report_digits(int64_t value) {
    int digits = 1;
    for (; value >= 10; value /= 10)
        digits++;
    return digits;
}

size_t pep_report_width(const char *text) {
    size_t width = 0;
    for (; *text != '\0'; text++)
        width += ((unsigned char)*text & 0xC0) != 0x80;
    return width;
}

void pep_report_pad(struct pep_writer *writer, long spaces) {
    for (; spaces > 0; spaces--)
        pep_write(writer, " ", 1);
}

/* The byte at which so many characters have passed. */
static size_t bytes_of(const char *text, size_t characters) {
    size_t at = 0;
    for (; text[at] != '\0'; at++) {
        if (((unsigned char)text[at] & 0xC0) != 0x80 && characters-- == 0)
            break;
    }
    return at;
}

const char *pep_report_cut(struct pep_arena *arena, const char *text, size_t width, bool from_end) {
    size_t have = pep_report_width(text);
    if (have <= width || width < 4)
        return text;
    if (from_end)
        return pep_arena_printf(arena, "...%s", text + bytes_of(text, have - (width - 3)));
    return pep_arena_printf(arena, "%.*s...", (int)bytes_of(text, width - 3), text);
}

int pep_report_compare_lines(const struct pep_report_line *a, const struct pep_report_line *b) {
    if (a->is_note != b->is_note)
        return a->is_note ? 1 : -1;
    int order = strcmp(a->file, b->file);
    if (order == 0)
        order = strcmp(a->function, b->function);
    if (order == 0 && a->line != b->line)
        order = a->line < b->line ? -1 : 1;
    if (order == 0 && a->pc != b->pc)
        order = a->pc < b->pc ? -1 : 1;
    return order;
}

/* -- lines ---------------------------------------------------------------------------------- */

static bool is_same_line(const struct pep_report *report, const struct pep_report_line *a,
                         const struct pep_report_line *b) {
    if (report->options.is_by_address && a->pc != b->pc)
        return false;
    return a->line == b->line && a->function == b->function && a->file == b->file;
}

static struct pep_report_line *line_of(struct pep_report *report,
                                       const struct pep_report_line *key) {
    uint64_t hash = pep_index_mix((uintptr_t)key->function);
    hash = pep_index_mix(hash ^ (uintptr_t)key->file);
    hash = pep_index_mix(hash ^ key->line);
    if (report->options.is_by_address)
        hash = pep_index_mix(hash ^ key->pc);
    size_t cursor = 0;
    uint32_t found;
    while ((found = pep_index_next(&report->lines_index, hash, &cursor)) != PEP_INDEX_NONE)
        if (is_same_line(report, report->lines[found], key))
            return report->lines[found];
    struct pep_report_line *line = pep_arena_alloc(report->job->arena, sizeof(*line));
    if (line == NULL ||
        !PEP_ARENA_GROW(report->job->arena, report->lines, report->line_count,
                        report->line_capacity) ||
        !pep_index_add(&report->lines_index, hash, (uint32_t)report->line_count))
        return NULL;
    *line = *key;
    return report->lines[report->line_count++] = line;
}

static bool is_library(const struct pep_profile *profile, const struct pep_place *place) {
    if (place->mapping == NULL || place->mapping->is_jit)
        return false;
    return (uint32_t)(place->mapping - profile->mappings) != profile->main_mapping;
}

/* The one copy of a text that is fit for a terminal; NULL when memory was refused. */
static const char *text_of(struct pep_report *report, const char *text) {
    uint32_t number = pep_intern_add(&report->texts, text);
    return number == PEP_INDEX_NONE ? NULL : report->texts.items[number].text;
}

static struct pep_report_line *line_of_frame(struct pep_report *report,
                                             const struct pep_place *place, uint32_t at) {
    const struct pep_frame *frame = &place->frames[at];
    const char *path = place->mapping != NULL ? place->mapping->path : NULL;
    bool is_note = pep_profile_pc_note(place->pc) != NULL;
    struct pep_report_line key = {
        .function = text_of(report, frame->is_known || is_note ? frame->name : ""),
        .file = text_of(report, frame->file != NULL ? frame->file : path),
        .line = frame->line,
        .pc = place->pc,
        .is_library = is_library(report->job->profile, place),
        .is_note = is_note,
    };
    return key.function != NULL && key.file != NULL ? line_of(report, &key) : NULL;
}

/* -- the tree ------------------------------------------------------------------------------- */

static struct pep_report_node *child_of(struct pep_report *report, struct pep_report_node *parent,
                                        struct pep_report_line *line) {
    struct pep_report_node *node = parent->first;
    /* Few have many: callers with hundreds of callees are rare. */
    for (; node != NULL; node = node->next)
        if (node->line == line)
            return node;
    node = pep_arena_alloc(report->job->arena, sizeof(*node));
    if (node == NULL)
        return NULL;
    *node = (struct pep_report_node){.line = line, .parent = parent, .next = parent->first};
    parent->first = node;
    parent->child_count++;
    return node;
}

/* Where an address stands on the stack already, further out; or depth. */
static size_t outer_place(const struct pep_report *report, const struct step *step, size_t depth) {
    enum pep_report_recursion recursion = report->options.recursion;
    if (recursion == PEP_REPORT_RECUR_OFF ||
        (recursion == PEP_REPORT_RECUR_FLAT && step->line->is_library))
        return depth;
    for (size_t i = 0; i < depth; i++)
        if (report->steps[i].pc == step->pc && report->steps[i].line == step->line)
            return i;
    return depth;
}

static bool lay_down(struct pep_report *report, size_t count, int64_t weight) {
    struct pep_report_node *at = report->root;
    size_t depth = 0;
    for (size_t i = 0; i < count; i++) {
        struct step step = report->steps[i];
        size_t outer = outer_place(report, &step, depth);
        if (outer < depth) {
            at = report->steps[outer].node;
            depth = outer + 1;
            continue;
        }
        at = child_of(report, at, step.line);
        if (at == NULL)
            return false;
        if (at->mark != report->samples) {
            at->mark = report->samples;
            at->count += weight;
        }
        step.node = at;
        report->steps[depth++] = step;
    }
    at->overhead += weight;
    for (; at != report->root; at = at->parent)
        at->flat_count += weight;
    return true;
}

/* Every line of a stack counts once, however often it is on it. */
static void count_lines(struct pep_report *report, size_t count, int64_t weight) {
    for (size_t i = 0; i < count; i++) {
        struct pep_report_line *line = report->steps[i].line;
        if (line->mark != report->samples)
            line->count += weight;
        line->mark = report->samples;
        if (i + 1 == count)
            line->overhead += weight;
    }
}

/* The steps of a stack, root first; how many, or -1. */
static long fill_steps(struct pep_report *report, const struct pep_sample *sample) {
    size_t count = 0;
    for (uint32_t i = sample->pc_count; i-- > 0;) {
        struct pep_place *place = pep_places_find(&report->places, sample->pcs[i]);
        if (place == NULL)
            return -1;
        for (uint32_t at = place->frame_count; at-- > 0 && !place->is_own;) {
            struct pep_report_line *line = line_of_frame(report, place, at);
            if (line == NULL ||
                !PEP_ARENA_GROW(report->job->arena, report->steps, count, report->step_capacity))
                return -1;
            if (!line->is_library || report->options.has_libraries)
                report->steps[count++] = (struct step){.line = line, .pc = place->pc};
        }
    }
    return (long)count;
}

static bool is_wanted(const struct pep_report_options *options, const struct pep_sample *sample,
                      int tid) {
    if (tid != 0 && sample->tid != tid)
        return false;
    for (uint32_t i = 0; i < options->tid_count; i++)
        if (options->tids[i] == sample->tid)
            return true;
    return options->tid_count == 0;
}

static bool add_sample(struct pep_report *report, const struct pep_sample *sample) {
    const struct pep_profile *profile = report->job->profile;
    int64_t weight = sample->values[report->value];
    if (weight <= 0)
        return true;
    long count = fill_steps(report, sample);
    if (count < 0)
        return false;
    report->samples++;
    report->total += sample->values[pep_calltree_count_type(profile, profile->default_type)];
    report->weight += sample->values[profile->default_type];
    if (sample->state != NULL && strcmp(sample->state, "running") != 0)
        report->sleeping += weight;
    report->root->count += weight;
    count_lines(report, (size_t)count, weight);
    return lay_down(report, (size_t)count, weight);
}

/* The tree and the lines of the threads asked for, or of one of them. */
static bool build(struct pep_report *report, int tid) {
    const struct pep_profile *profile = report->job->profile;
    pep_index_init(&report->lines_index, report->job->arena);
    report->lines = NULL;
    report->line_count = report->line_capacity = 0;
    report->total = report->sleeping = report->weight = 0;
    report->samples = 0;
    report->root = pep_arena_alloc(report->job->arena, sizeof(*report->root));
    for (uint32_t i = 0; report->root != NULL && i < profile->sample_count; i++)
        if (is_wanted(&report->options, &profile->samples[i], tid) &&
            !add_sample(report, &profile->samples[i]))
            return false;
    return report->root != NULL;
}

/* -- the words around ----------------------------------------------------------------------- */

static void write_empty(struct pep_writer *writer, bool is_summary) {
    pep_write_printf(writer,
                     "There were no samples collected%s.\n"
                     "Run your program longer (perhaps by running it multiple times),\n"
                     "or adjust the delay between samples with `delay=`.\n",
                     is_summary ? " in one or more groups" : "");
}

/* How much of the time threads ran: of a wall clock profile the samples that did not wait, of a CPU
 * profile the CPU time by the elapsed time of so many threads. -1: not known. */
static int utilization(const struct pep_report *report, uint32_t threads) {
    const struct pep_profile *profile = report->job->profile;
    bool is_cpu = strcmp(profile->kind, "cpu") == 0;
    if (strcmp(profile->kind, "wall") == 0 && report->root->count > 0)
        return (int)(100 -
                     (100 * report->sleeping + report->root->count / 2) / report->root->count);
    if (!is_cpu || profile->duration_ns <= 0 || threads == 0)
        return -1;
    double share = (double)report->weight * 100 / ((double)profile->duration_ns * threads) + 0.5;
    return share > 100 ? 100 : (int)share;
}

static void write_total(struct pep_report *report, uint32_t threads) {
    struct pep_writer *writer = report->job->writer;
    int percent = utilization(report, threads);
    pep_write_printf(writer, "Total snapshots: %lld", (long long)report->total);
    if (percent >= 0)
        pep_write_printf(writer, ". Utilization: %d%%", percent);
}

static void write_bytes(struct pep_report *report) {
    if (report->is_bytes)
        pep_write_printf(report->job->writer, "Total bytes: %lld\n",
                         (long long)report->root->count);
}

static bool write_rows(struct pep_report *report, bool is_tree) {
    return is_tree ? pep_report_write_tree(report) : pep_report_write_flat(report);
}

static bool has_rows(const struct pep_report *report) {
    return report->root->first != NULL;
}

/* Where nothing of the program itself was met, its libraries are shown: an empty report would say
 * that nothing ran. */
static bool build_something(struct pep_report *report, int tid) {
    if (!build(report, tid))
        return false;
    if (has_rows(report) || report->total == 0 || report->options.has_libraries)
        return true;
    report->options.has_libraries = true;
    bool is_built = build(report, tid);
    report->options.has_libraries = false;
    return is_built;
}

static bool write_whole(struct pep_report *report, bool is_tree, uint32_t threads) {
    struct pep_writer *writer = report->job->writer;
    if (!build_something(report, 0))
        return false;
    if (!has_rows(report)) {
        write_empty(writer, false);
        return true;
    }
    if (is_tree)
        pep_report_write_tree_head(writer);
    if (!write_rows(report, is_tree))
        return false;
    write_total(report, is_tree ? threads : 0);
    if (is_tree && utilization(report, threads) >= 0)
        pep_write_text(writer, " across all threads and tasks. Use the `groupby` kwarg to break "
                               "down by thread and/or task.");
    pep_write_text(writer, "\n");
    write_bytes(report);
    return true;
}

/* -- threads -------------------------------------------------------------------------------- */

struct threads {
    int *tids; /* 0: samples without a thread */
    size_t count;
    uint32_t known_count;
};

static int by_tid(const void *a, const void *b) {
    const struct pep_sample *left = a, *right = b;
    return left->tid < right->tid ? -1 : left->tid > right->tid;
}

static const char *name_of(const struct pep_profile *profile, int tid) {
    for (uint32_t i = 0; i < profile->sample_count; i++)
        if (profile->samples[i].tid == tid && profile->samples[i].thread != NULL)
            return profile->samples[i].thread;
    return "";
}

/* Distinct thread ids of the wanted samples, in order. */
static bool find_threads(struct pep_report *report, struct threads *threads) {
    const struct pep_profile *profile = report->job->profile;
    struct pep_arena *arena = report->job->arena;
    const struct pep_sample **samples =
        pep_arena_array(arena, profile->sample_count + 1u, sizeof(*samples));
    int *tids = pep_arena_array(arena, profile->sample_count + 1u, sizeof(*tids));
    size_t count = 0, distinct = 0;
    if (tids == NULL || samples == NULL)
        return false;
    for (uint32_t i = 0; i < profile->sample_count; i++)
        if (is_wanted(&report->options, &profile->samples[i], 0))
            samples[count++] = &profile->samples[i];
    if (!pep_sort(arena, (const void **)samples, count, by_tid))
        return false;
    for (size_t i = 0; i < count; i++)
        if (distinct == 0 || tids[distinct - 1] != samples[i]->tid)
            tids[distinct++] = samples[i]->tid;
    threads->tids = tids;
    threads->count = distinct;
    threads->known_count = (uint32_t)(distinct - (distinct > 0 && tids[0] == 0));
    return true;
}

static bool write_thread(struct pep_report *report, bool is_tree, int tid) {
    struct pep_writer *writer = report->job->writer;
    if (!build_something(report, tid))
        return false;
    const char *name = text_of(report, name_of(report->job->profile, tid));
    if (name == NULL)
        return false;
    pep_write_printf(writer, "Thread %d (%s) ", tid, name);
    write_total(report, 1);
    pep_write_text(writer, "\n");
    if (has_rows(report) && !write_rows(report, is_tree))
        return false;
    write_bytes(report);
    pep_write_text(writer, "\n");
    return true;
}

static bool write_groups(struct pep_report *report, bool is_tree, const struct threads *threads) {
    bool is_any_empty = threads->count == 0;
    pep_report_write_tree_head(report->job->writer);
    for (size_t i = 0; i < threads->count; i++) {
        if (!write_thread(report, is_tree, threads->tids[i]))
            return false;
        is_any_empty = is_any_empty || !has_rows(report);
    }
    if (is_any_empty)
        write_empty(report->job->writer, true);
    return true;
}

static void write_full(struct pep_writer *writer) {
    pep_write_text(writer, "The profile data buffer is full; profiling probably terminated\n"
                           "before your program finished. To profile for longer runs, ask\n"
                           "with a larger `n=` and/or a larger `delay=`.\n");
}

static void encode(const struct pep_encode_job *job, bool is_tree) {
    struct pep_report report = {.job = job};
    const struct pep_profile *profile = job->profile;
    struct threads threads;
    if (job->report != NULL)
        report.options = *job->report;
    report.is_bytes = strcmp(profile->types[profile->default_type].unit, "bytes") == 0;
    report.value = report.is_bytes ? profile->default_type
                                   : pep_calltree_count_type(profile, profile->default_type);
    pep_places_init(&report.places, job->arena, profile, job->symbolizer);
    if (profile->is_full)
        write_full(job->writer);
    if (!pep_intern_init(&report.texts, job->arena) || !find_threads(&report, &threads) ||
        !(report.options.is_by_thread ? write_groups(&report, is_tree, &threads)
                                      : write_whole(&report, is_tree, threads.known_count)))
        pep_writer_fail(job->writer, -ENOMEM);
}

void pep_encode_tree(const struct pep_encode_job *job) {
    encode(job, true);
}

void pep_encode_flat(const struct pep_encode_job *job) {
    encode(job, false);
}
