/*
 * The report as a tree: one row a line of code, indented by its depth.
 *
 * Model:   rows of one parent are measured and ordered together, then written with all below
 *          them; no recursion, trees may be deeper than a small stack allows.
 * Writers: the job's writer.  [normal]
 * Readers: -
 * Memory:  the job's arena.
 * When full: false.
 */
#include <inttypes.h>

#include "encoder/report.h"
#include "encoder/sort.h"

#define COLUMNS 80
#define BAR "\xE2\x95\x8E" /* U+254E */
#define BAR_EVERY 5

/* Widths that all rows share. */
struct widths {
    int overhead, count;
    uint32_t columns;
};

struct level {
    struct pep_report_node **nodes;
    size_t count, at;
    int64_t floor;
    int digits_line;
};

static int by_line(const void *a, const void *b) {
    return pep_report_compare_lines(((const struct pep_report_node *)a)->line,
                                    ((const struct pep_report_node *)b)->line);
}

static int ordered(int64_t left, int64_t right, const void *a, const void *b) {
    return left < right ? -1 : left > right ? 1 : by_line(a, b);
}

static int by_count(const void *a, const void *b) {
    const struct pep_report_node *left = a, *right = b;
    return ordered(left->count, right->count, a, b);
}

static int by_overhead(const void *a, const void *b) {
    const struct pep_report_node *left = a, *right = b;
    return ordered(left->overhead, right->overhead, a, b);
}

static int by_flat_count(const void *a, const void *b) {
    const struct pep_report_node *left = a, *right = b;
    return ordered(left->flat_count, right->flat_count, a, b);
}

static int (*const orders[])(const void *a, const void *b) = {
    [PEP_REPORT_BY_LINE] = by_line,
    [PEP_REPORT_BY_COUNT] = by_count,
    [PEP_REPORT_BY_OVERHEAD] = by_overhead,
    [PEP_REPORT_BY_FLAT_COUNT] = by_flat_count,
};

/* The next node in a walk of the whole tree; NULL at its end. */
static struct pep_report_node *next_node(struct pep_report_node *node) {
    if (node->first != NULL)
        return node->first;
    for (; node != NULL; node = node->parent)
        if (node->next != NULL)
            return node->next;
    return NULL;
}

static struct widths measure(struct pep_report *report) {
    int64_t count = 0, overhead = 0;
    for (struct pep_report_node *node = report->root; node != NULL; node = next_node(node)) {
        count = node->count > count ? node->count : count;
        overhead = node->overhead > overhead ? node->overhead : overhead;
    }
    return (struct widths){.overhead = pep_report_digits(overhead),
                           .count = pep_report_digits(count),
                           .columns = report->options.columns ? report->options.columns : COLUMNS};
}

/* One character a level, a bar every fifth, and a space before the count. */
static void write_indent(struct pep_writer *writer, long indent) {
    for (long i = 1; i < indent; i++)
        pep_write_text(writer, i % BAR_EVERY == 0 ? BAR : " ");
    if (indent > 0)
        pep_write(writer, " ", 1);
}

static void write_number(struct pep_writer *writer, int64_t value, int width, bool is_left) {
    int digits = pep_report_digits(value);
    if (!is_left)
        pep_report_pad(writer, width - digits);
    pep_write_printf(writer, "%" PRId64, value);
    if (is_left)
        pep_report_pad(writer, width - digits);
}

static bool write_place(struct pep_report *report, const struct pep_report_line *line,
                        size_t room) {
    struct pep_writer *writer = report->job->writer;
    struct pep_arena *arena = report->job->arena;
    if (line->is_note) {
        pep_write_text(writer, line->function);
        return true;
    }
    if (line->function[0] == '\0') {
        pep_write_printf(writer, "[unknown function] (pointer: 0x%016" PRIxPTR ")", line->pc);
        return true;
    }
    const char *file = pep_report_cut(arena, line->file, 2 * room / 5, true);
    const char *function = pep_report_cut(arena, line->function, 3 * room / 5, false);
    if (file == NULL || function == NULL)
        return false;
    pep_write_text(writer, file);
    if (line->line != 0)
        pep_write_printf(writer, ":%" PRIu32 "; ", line->line);
    else
        pep_write_text(writer, ":?; ");
    if (report->options.is_by_address)
        pep_write_printf(writer, "0x%016" PRIxPTR " ", line->pc);
    pep_write_text(writer, function);
    return true;
}

static bool write_row(struct pep_report *report, const struct widths *widths,
                      const struct pep_report_node *node, const struct level *level, long depth) {
    struct pep_writer *writer = report->job->writer;
    long most = widths->columns / 2, indent = depth < most ? depth : most;
    long room = (long)widths->columns - widths->overhead - indent - widths->count -
                (level->digits_line + 6) - 6;
    long extra = depth - indent;
    if (node->overhead > 0)
        write_number(writer, node->overhead, widths->overhead, false);
    else
        pep_report_pad(writer, widths->overhead);
    pep_write_text(writer, BAR);
    if (extra > 0)
        indent -= pep_report_digits(extra) + 2;
    write_indent(writer, indent);
    if (extra > 0)
        pep_write_printf(writer, "+%ld ", extra);
    write_number(writer, node->count, widths->count, true);
    pep_write(writer, " ", 1);
    if (!write_place(report, node->line, room < 30 ? 30 : (size_t)room))
        return false;
    pep_write(writer, "\n", 1);
    return true;
}

/* The square root, rounded down: nothing else here wants libm. */
static int64_t root_of(double square) {
    int64_t low = 0, high = 3000000000;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if ((double)middle * (double)middle <= square)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The children of a node that are to be shown, in order. */
static bool open_level(struct pep_report *report, const struct pep_report_node *parent,
                       struct level *level) {
    const struct pep_report_options *options = &report->options;
    uint32_t most_line = 0;
    int64_t floor = 0;
    if (options->noise_floor > 0 && parent->parent != NULL)
        floor = root_of(options->noise_floor * options->noise_floor * (double)parent->count);
    *level = (struct level){.floor = floor};
    level->nodes =
        pep_arena_array(report->job->arena, parent->child_count + 1u, sizeof(*level->nodes));
    if (level->nodes == NULL)
        return false;
    for (struct pep_report_node *node = parent->first; node != NULL; node = node->next) {
        most_line = node->line->line > most_line ? node->line->line : most_line;
        if (node->count >= options->min_count && node->count >= floor)
            level->nodes[level->count++] = node;
    }
    level->digits_line = pep_report_digits(most_line);
    return pep_sort(report->job->arena, (const void **)level->nodes, level->count,
                    orders[options->sort]);
}

void pep_report_write_tree_head(struct pep_writer *writer) {
    pep_write_text(writer, "Overhead " BAR " [+additional indent] Count File:Line; Function\n"
                           "=========================================================\n");
}

bool pep_report_write_tree(struct pep_report *report) {
    struct widths widths = measure(report);
    struct level *levels = NULL;
    size_t capacity = 0, depth = 0;
    uint32_t most = report->options.max_depth;
    if (!PEP_ARENA_GROW(report->job->arena, levels, depth, capacity) ||
        !open_level(report, report->root, &levels[0]))
        return false;
    for (;;) {
        struct level *level = &levels[depth];
        if (level->at == level->count) {
            if (depth == 0)
                return true;
            depth--;
            continue;
        }
        struct pep_report_node *node = level->nodes[level->at++];
        if (!write_row(report, &widths, node, level, (long)depth))
            return false;
        if (node->first == NULL || (most != 0 && depth + 1 > most))
            continue;
        if (!PEP_ARENA_GROW(report->job->arena, levels, depth + 1, capacity) ||
            !open_level(report, node, &levels[depth + 1]))
            return false;
        depth++;
    }
}
