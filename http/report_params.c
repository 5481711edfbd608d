#include "http/report_params.h"

#include <limits.h>
#include <string.h>

#include "sampler/rt/attrs.h"

#define TIDS_MAX 4096

/* The place of a text in a list of words, or -1. */
static int choice_of(const char *text, const char *const *words, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0)
            return (int)i;
    return -1;
}

/* An absent parameter leaves *value as it is. */
static bool read_flag(const struct pep_request *request, const char *name, bool *value) {
    static const char *const words[] = {"false", "true", "0", "1"};
    const char *text = pep_request_param(request, name);
    int found = text ? choice_of(text, words, PEP_COUNT_OF(words)) : *value;
    if (found < 0)
        return false;
    *value = found & 1;
    return true;
}

static bool read_number(const struct pep_request *request, const char *name, int64_t low,
                        int64_t *value) {
    const char *text = pep_request_param(request, name);
    return !text || pep_request_number(text, low, INT_MAX, value);
}

static const char *read_words(const struct pep_request *request,
                              struct pep_report_options *options) {
    static const char *const sorts[] = {"filefuncline", "count", "overhead", "flat_count"};
    static const char *const groups[] = {"none", "thread"};
    static const char *const recursions[] = {"off", "flat", "flatc"};
    const char *sort = pep_request_param(request, "sortedby");
    const char *group = pep_request_param(request, "groupby");
    const char *recursion = pep_request_param(request, "recur");
    int sorted = sort ? choice_of(sort, sorts, PEP_COUNT_OF(sorts)) : 0;
    int grouped = group ? choice_of(group, groups, PEP_COUNT_OF(groups)) : 0;
    int recurring = recursion ? choice_of(recursion, recursions, PEP_COUNT_OF(recursions)) : 0;
    if (sorted < 0)
        return "sortedby must be one of filefuncline, count, overhead, flat_count.";
    if (grouped < 0)
        return "groupby must be none or thread.";
    if (recurring < 0)
        return "recur must be one of off, flat, flatc.";
    options->sort = (enum pep_report_sort)sorted;
    options->is_by_thread = grouped == 1;
    options->recursion = (enum pep_report_recursion)recurring;
    return NULL;
}

static const char *read_numbers(const struct pep_request *request,
                                struct pep_report_options *options) {
    int64_t depth = 0, columns = 80, count = 0;
    const char *floor = pep_request_param(request, "noisefloor");
    if (!read_number(request, "maxdepth", 0, &depth))
        return "maxdepth must be a number of levels from 0, which is no limit, to 2147483647.";
    if (!read_number(request, "mincount", 0, &count))
        return "mincount must be a number of samples from 0 to 2147483647.";
    if (!read_number(request, "columns", 40, &columns) || columns > 10000)
        return "columns must be the width of the text, from 40 to 10000.";
    if (floor && !pep_request_decimal(floor, 0, 1e9, &options->noise_floor))
        return "noisefloor must be a number from 0 to 1e9; 2.0 is a good one.";
    options->max_depth = (uint32_t)depth;
    options->min_count = count;
    options->columns = (uint32_t)columns;
    return NULL;
}

/* threads=12,34 */
static const char *read_tids(const struct pep_request *request,
                             struct pep_report_options *options) {
    static const char sentence[] = "threads must be up to 4096 thread ids with commas between.";
    const char *text = pep_request_param(request, "threads");
    if (!text)
        return NULL;
    int *tids = pep_arena_array(request->arena, TIDS_MAX, sizeof(*tids));
    uint32_t count = 0;
    while (tids) {
        size_t length = strcspn(text, ",");
        char *word = pep_arena_strndup(request->arena, text, length);
        int64_t tid;
        if (!word || count == TIDS_MAX || !pep_request_number(word, 1, INT_MAX, &tid))
            return sentence;
        tids[count++] = (int)tid;
        if (!text[length])
            break;
        text += length + 1;
    }
    options->tids = tids;
    options->tid_count = count;
    return NULL;
}

const char *pep_report_params(const struct pep_request *request,
                              struct pep_report_options *options) {
    bool is_combined = true, has_libraries = false;
    *options = (struct pep_report_options){0};
    if (!read_flag(request, "combine", &is_combined))
        return "combine must be true or false.";
    if (!read_flag(request, "C", &has_libraries))
        return "C must be true, to show the frames of libraries, or false.";
    options->is_by_address = !is_combined;
    options->has_libraries = has_libraries;
    const char *sentence = read_words(request, options);
    if (!sentence)
        sentence = read_numbers(request, options);
    return sentence ? sentence : read_tids(request, options);
}
