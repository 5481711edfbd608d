/*
 * A table like `top`, for a person at a terminal.
 *
 * Model:   the call tree summed by function: flat is what a function used itself, cum what it
 *          and all it called used; a function that calls itself counts once in cum.
 * Writers: the job's writer.  [normal]
 * Readers: -
 * Memory:  the job's arena.
 * When full: the writer's error is -ENOMEM.
 */
#include <errno.h>
#include <string.h>

#include "encoder/calltree.h"
#include "encoder/encoders.h"
#include "encoder/index.h"
#include "encoder/sort.h"
#include "encoder/units.h"

/* Functions below one part in 200 of the total are not listed. */
#define SHOWN_PART 200
/* Column widths: "123.45mins" and "100.00%". */
#define VALUE_WIDTH 10
#define PERCENT_WIDTH 7

struct row {
    const char *name, *module;
    int64_t flat, cum;
    uint32_t active; /* how often it is on the path of the walk */
    bool is_inlined;
};

struct table {
    const struct pep_encode_job *job;
    const char *unit, *program;
    struct pep_index index;
    struct row **rows;
    size_t count, capacity;
    struct row **active; /* rows of the path */
    size_t active_capacity;
    int64_t total;
    bool is_failed;
};

static struct row *row_of(struct table *table, const struct pep_calltree_node *node) {
    uint64_t hash = pep_index_hash(node->name, strlen(node->name));
    hash = pep_index_mix(hash ^ pep_index_hash(node->module, strlen(node->module)));
    size_t cursor = 0;
    uint32_t found;
    while ((found = pep_index_next(&table->index, hash, &cursor)) != PEP_INDEX_NONE) {
        struct row *row = table->rows[found];
        if (strcmp(row->name, node->name) == 0 && strcmp(row->module, node->module) == 0)
            return row;
    }
    struct row *row = pep_arena_alloc(table->job->arena, sizeof(*row));
    if (row == NULL ||
        !PEP_ARENA_GROW(table->job->arena, table->rows, table->count, table->capacity) ||
        !pep_index_add(&table->index, hash, (uint32_t)table->count))
        return NULL;
    row->name = node->name;
    row->module = node->module;
    row->is_inlined = true;
    table->rows[table->count++] = row;
    return row;
}

static void enter(void *context, struct pep_calltree_node *const *path, size_t depth) {
    struct table *table = context;
    const struct pep_calltree_node *node = path[depth];
    if (table->is_failed || depth == 0)
        return;
    struct row *row = row_of(table, node);
    if (row == NULL ||
        !PEP_ARENA_GROW(table->job->arena, table->active, depth, table->active_capacity)) {
        table->is_failed = true;
        return;
    }
    row->flat += node->self;
    row->is_inlined = row->is_inlined && node->is_inlined;
    if (row->active++ == 0)
        row->cum += node->total;
    table->active[depth] = row;
}

static void leave(void *context, struct pep_calltree_node *const *path, size_t depth) {
    struct table *table = context;
    (void)path;
    if (!table->is_failed && depth > 0)
        table->active[depth]->active--;
}

static int by_flat(const void *a, const void *b) {
    const struct row *left = a, *right = b;
    if (left->flat != right->flat)
        return left->flat > right->flat ? -1 : 1;
    if (left->cum != right->cum)
        return left->cum > right->cum ? -1 : 1;
    int order = strcmp(left->name, right->name);
    return order != 0 ? order : strcmp(left->module, right->module);
}

/* Text on one line of a terminal: no control character may reach it. */
static void write_plain(struct pep_writer *writer, const char *text) {
    for (; *text != '\0'; text++) {
        bool is_control = (unsigned char)*text < 0x20 || *text == 0x7F;
        pep_write(writer, is_control ? " " : text, 1);
    }
}

static void write_right(struct pep_writer *writer, const char *text, size_t width) {
    static const char spaces[] = "                ";
    size_t length = strlen(text);
    if (length < width)
        pep_write(writer, spaces, width - length);
    pep_write_text(writer, text);
}

static void write_value(struct table *table, int64_t value) {
    char text[PEP_UNITS_TEXT_MAX];
    pep_units_format(text, value, table->unit);
    write_right(table->job->writer, text, VALUE_WIDTH);
}

static void write_percent(struct table *table, int64_t value) {
    char text[PEP_UNITS_TEXT_MAX];
    pep_units_percent(text, value, table->total);
    pep_write(table->job->writer, " ", 1);
    write_right(table->job->writer, text, PERCENT_WIDTH);
}

static void write_head(struct table *table) {
    const struct pep_profile *profile = table->job->profile;
    struct pep_writer *writer = table->job->writer;
    char text[PEP_UNITS_TEXT_MAX];
    pep_write_text(writer, "File: ");
    write_plain(writer, table->program);
    pep_write_text(writer, "\nType: ");
    pep_write_text(writer, profile->types[profile->default_type].type);
    pep_units_time(text, profile->time_ns);
    pep_write_printf(writer, "\nTime: %s\n", text);
    pep_units_format(text, profile->duration_ns, "nanoseconds");
    if (profile->duration_ns > 0)
        pep_write_printf(writer, "Duration: %s, ", text);
    pep_units_format(text, table->total, table->unit);
    pep_write_printf(writer, "Total samples = %s", text);
    pep_units_percent(text, table->total, profile->duration_ns);
    if (profile->duration_ns > 0 && strcmp(table->unit, "nanoseconds") == 0)
        pep_write_printf(writer, " (%s)", text);
    pep_write_text(writer, "\n");
    for (uint32_t i = 0; i < profile->comment_count; i++) {
        pep_write_text(writer, "# ");
        write_plain(writer, profile->comments[i]);
        pep_write_text(writer, "\n");
    }
}

static void write_summary(struct table *table, size_t shown, int64_t flat) {
    struct pep_writer *writer = table->job->writer;
    char part[PEP_UNITS_TEXT_MAX], percent[PEP_UNITS_TEXT_MAX], whole[PEP_UNITS_TEXT_MAX];
    pep_units_format(part, flat, table->unit);
    pep_units_percent(percent, flat, table->total);
    pep_units_format(whole, table->total, table->unit);
    pep_write_printf(writer, "Showing nodes accounting for %s, %s of %s total\n", part, percent,
                     whole);
    if (shown < table->count) {
        pep_units_format(part, table->total / SHOWN_PART, table->unit);
        pep_write_printf(writer, "Dropped %zu nodes (cum <= %s)\n", table->count - shown, part);
    }
    write_right(writer, "flat", VALUE_WIDTH);
    write_right(writer, "flat%", PERCENT_WIDTH + 1);
    write_right(writer, "sum%", PERCENT_WIDTH + 1);
    write_right(writer, "cum", VALUE_WIDTH + 1);
    write_right(writer, "cum%", PERCENT_WIDTH + 1);
    pep_write_text(writer, "\n");
}

static bool is_shown(const struct table *table, const struct row *row) {
    return row->cum > table->total / SHOWN_PART;
}

static void write_rows(struct table *table) {
    struct pep_writer *writer = table->job->writer;
    int64_t sum = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct row *row = table->rows[i];
        if (!is_shown(table, row))
            continue;
        sum += row->flat;
        write_value(table, row->flat);
        write_percent(table, row->flat);
        write_percent(table, sum);
        pep_write(writer, " ", 1);
        write_value(table, row->cum);
        write_percent(table, row->cum);
        pep_write_text(writer, "  ");
        pep_write_text(writer, row->name);
        if (row->is_inlined)
            pep_write_text(writer, " (inline)");
        if (row->module[0] != '\0' && strcmp(row->module, table->program) != 0) {
            pep_write_text(writer, "  [");
            pep_write_text(writer, row->module);
            pep_write_text(writer, "]");
        }
        pep_write_text(writer, "\n");
    }
}

static bool fill(struct table *table) {
    const struct pep_encode_job *job = table->job;
    struct pep_calltree_options options = {.value = job->profile->default_type};
    struct pep_calltree_node *root =
        pep_calltree_build(job->arena, job->profile, job->symbolizer, &options);
    struct pep_calltree_visitor visitor = {.enter = enter, .leave = leave, .context = table};
    if (root == NULL || !pep_calltree_walk(job->arena, root, &visitor) || table->is_failed)
        return false;
    table->total = root->total;
    return pep_sort(job->arena, (const void **)table->rows, table->count, by_flat);
}

static const char *program_of(const struct pep_profile *profile) {
    if (profile->main_mapping >= profile->mapping_count)
        return "";
    const char *path = profile->mappings[profile->main_mapping].path;
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    return slash != NULL ? slash + 1 : path != NULL ? path : "";
}

void pep_encode_text(const struct pep_encode_job *job) {
    struct table table = {.job = job,
                          .unit = job->profile->types[job->profile->default_type].unit,
                          .program = program_of(job->profile)};
    pep_index_init(&table.index, job->arena);
    if (!fill(&table)) {
        pep_writer_fail(job->writer, -ENOMEM);
        return;
    }
    size_t shown = 0;
    int64_t flat = 0;
    for (size_t i = 0; i < table.count; i++) {
        if (!is_shown(&table, table.rows[i]))
            continue;
        shown++;
        flat += table.rows[i]->flat;
    }
    write_head(&table);
    write_summary(&table, shown, flat);
    write_rows(&table);
}
