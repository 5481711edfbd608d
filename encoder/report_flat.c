/*
 * The report as a list: every line of code once, with how many samples have it anywhere and how
 * many have it innermost.
 *
 * Model:   widths from all rows, then the rows in order.
 * Writers: the job's writer.  [normal]
 * Readers: -
 * Memory:  the job's arena.
 * When full: false.
 */
#include <inttypes.h>
#include <string.h>

#include "encoder/report.h"
#include "encoder/sort.h"

#define COLUMNS 80

struct widths {
    long counts, overhead, file, line, function;
};

static int by_line(const void *a, const void *b) {
    return pep_report_compare_lines(a, b);
}

static int by_count(const void *a, const void *b) {
    const struct pep_report_line *left = a, *right = b;
    return left->count != right->count ? (left->count < right->count ? -1 : 1) : by_line(a, b);
}

static int by_overhead(const void *a, const void *b) {
    const struct pep_report_line *left = a, *right = b;
    if (left->overhead != right->overhead)
        return left->overhead < right->overhead ? -1 : 1;
    return by_line(a, b);
}

static long larger(long a, long b) {
    return a > b ? a : b;
}

static struct widths measure(const struct pep_report *report) {
    int64_t count = 1, overhead = 1, line = 1;
    long file = 6, function = 10;
    for (size_t i = 0; i < report->line_count; i++) {
        const struct pep_report_line *row = report->lines[i];
        count = row->count > count ? row->count : count;
        overhead = row->overhead > overhead ? row->overhead : overhead;
        line = row->line > line ? row->line : line;
        file = larger(file, (long)pep_report_width(row->file));
        function = larger(function, (long)pep_report_width(row->function));
    }
    uint32_t columns = report->options.columns ? report->options.columns : COLUMNS;
    struct widths widths = {.counts = larger(6, pep_report_digits(count)),
                            .overhead = larger(9, pep_report_digits(overhead)),
                            .line = larger(5, pep_report_digits(line))};
    long text = larger(20, (long)columns - widths.counts - widths.overhead - widths.line - 3);
    bool is_wide = file + function + 25 <= text;
    widths.file = is_wide ? file : 2 * text / 5;
    widths.function = is_wide ? text - file : 3 * text / 5;
    return widths;
}

static void write_right(struct pep_writer *writer, const char *text, long width) {
    pep_report_pad(writer, width - (long)pep_report_width(text));
    pep_write_text(writer, text);
    pep_write(writer, " ", 1);
}

static void write_left(struct pep_writer *writer, const char *text, long width) {
    pep_write_text(writer, text);
    pep_report_pad(writer, width - (long)pep_report_width(text));
    pep_write(writer, " ", 1);
}

static void write_head(struct pep_writer *writer, const struct widths *widths) {
    write_right(writer, "Count", widths->counts);
    write_right(writer, "Overhead", widths->overhead);
    write_left(writer, "File", widths->file);
    write_right(writer, "Line", widths->line);
    pep_write_text(writer, "Function\n");
    write_right(writer, "=====", widths->counts);
    write_right(writer, "========", widths->overhead);
    write_left(writer, "====", widths->file);
    write_right(writer, "====", widths->line);
    pep_write_text(writer, "========\n");
}

static bool write_row(struct pep_report *report, const struct widths *widths,
                      const struct pep_report_line *row) {
    struct pep_writer *writer = report->job->writer;
    struct pep_arena *arena = report->job->arena;
    const char *count = pep_arena_printf(arena, "%" PRId64, row->count);
    const char *overhead = pep_arena_printf(arena, "%" PRId64, row->overhead);
    const char *line = row->line != 0 ? pep_arena_printf(arena, "%" PRIu32, row->line) : "?";
    const char *file = pep_report_cut(arena, row->file[0] != '\0' ? row->file : "[unknown file]",
                                      (size_t)widths->file, true);
    const char *function = row->function[0] != '\0' ? row->function : "[unknown function]";
    function = pep_report_cut(arena, function, (size_t)widths->function, false);
    if (!count || !overhead || !line || !file || !function)
        return false;
    write_right(writer, count, widths->counts);
    write_right(writer, overhead, widths->overhead);
    if (row->is_note) {
        pep_write_printf(writer, "%s\n", row->function);
        return true;
    }
    write_left(writer, file, widths->file);
    write_right(writer, line, widths->line);
    pep_write_printf(writer, "%s\n", function);
    return true;
}

bool pep_report_write_flat(struct pep_report *report) {
    struct widths widths = measure(report);
    enum pep_report_sort sort = report->options.sort;
    if (!pep_sort(report->job->arena, (const void **)report->lines, report->line_count,
                  sort == PEP_REPORT_BY_COUNT      ? by_count
                  : sort == PEP_REPORT_BY_OVERHEAD ? by_overhead
                                                   : by_line))
        return false;
    write_head(report->job->writer, &widths);
    for (size_t i = 0; i < report->line_count; i++) {
        const struct pep_report_line *row = report->lines[i];
        if (row->count == 0 || row->count < report->options.min_count)
            continue;
        if (!write_row(report, &widths, row))
            return false;
    }
    return true;
}
