/*
 * The heap profile as text that people, `go tool pprof` and the older perl pprof all read.
 *
 * Model:   a header with totals, a record a sample, `#` lines that explain it to people, at the
 *          end the mappings as /proc/PID/maps has them. Values are as they were sampled: readers
 *          scale them by the rate in the header. Addresses are return addresses: readers subtract
 *          one.
 * Writers: the job's writer.  [normal]
 * Readers: -
 * Memory:  the job's arena.
 * When full: the writer's error is -ENOMEM.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "encoder/encoders.h"
#include "encoder/legacy_parts.h"
#include "encoder/sort.h"

/* In the order in which a record has them. */
enum column { INUSE_OBJECTS, INUSE_SPACE, ALLOC_OBJECTS, ALLOC_SPACE, COLUMN_COUNT };

struct record {
    const struct pep_sample *sample;
    int64_t values[COLUMN_COUNT];
};

struct text {
    const struct pep_encode_job *job;
    struct pep_places places;
    struct record *records;
    const void **order;
    size_t count;
    int64_t totals[COLUMN_COUNT];
};

/* -- what goes in ----------------------------------------------------------------------------- */

/* Where each column stands among the profile's types; type_count: nowhere. */
static void find_columns(const struct pep_profile *profile, uint32_t columns[COLUMN_COUNT]) {
    static const char *const names[COLUMN_COUNT] = {"inuse_objects", "inuse_space", "alloc_objects",
                                                    "alloc_space"};
    for (int i = 0; i < COLUMN_COUNT; i++) {
        columns[i] = 0;
        while (columns[i] < profile->type_count &&
               strcmp(profile->types[columns[i]].type, names[i]) != 0)
            columns[i]++;
    }
}

/* Readers refuse a record with bytes but no objects. */
static void mend(int64_t values[2]) {
    if (values[0] <= 0 || values[1] < 0)
        values[0] = values[1] = 0;
}

static int by_inuse(const void *a, const void *b) {
    static const enum column keys[] = {INUSE_SPACE, ALLOC_SPACE, INUSE_OBJECTS, ALLOC_OBJECTS};
    const struct record *left = a, *right = b;
    for (size_t i = 0; i < PEP_COUNT_OF(keys); i++)
        if (left->values[keys[i]] != right->values[keys[i]])
            return left->values[keys[i]] > right->values[keys[i]] ? -1 : 1;
    return left < right ? -1 : left > right;
}

static bool collect(struct text *text) {
    const struct pep_profile *profile = text->job->profile;
    size_t capacity = (size_t)profile->sample_count + 1;
    uint32_t columns[COLUMN_COUNT];
    text->records = pep_arena_array(text->job->arena, capacity, sizeof(*text->records));
    text->order = pep_arena_array(text->job->arena, capacity, sizeof(*text->order));
    if (text->records == NULL || text->order == NULL)
        return false;
    find_columns(profile, columns);
    for (uint32_t i = 0; i < profile->sample_count; i++) {
        struct record *record = &text->records[text->count];
        record->sample = &profile->samples[i];
        for (int column = 0; column < COLUMN_COUNT; column++)
            if (columns[column] < profile->type_count)
                record->values[column] = record->sample->values[columns[column]];
        mend(&record->values[INUSE_OBJECTS]);
        mend(&record->values[ALLOC_OBJECTS]);
        if (record->values[INUSE_OBJECTS] == 0 && record->values[ALLOC_OBJECTS] == 0) {
            memset(record->values, 0, sizeof(record->values));
            continue;
        }
        for (int column = 0; column < COLUMN_COUNT; column++)
            text->totals[column] += record->values[column];
        text->order[text->count++] = record;
    }
    return pep_sort(text->job->arena, text->order, text->count, by_inuse);
}

/* -- what comes out --------------------------------------------------------------------------- */

static void write_values(struct pep_writer *writer, const int64_t values[COLUMN_COUNT]) {
    pep_write_printf(writer, "%" PRId64 ": %" PRId64 " [%" PRId64 ": %" PRId64 "] @",
                     values[INUSE_OBJECTS], values[INUSE_SPACE], values[ALLOC_OBJECTS],
                     values[ALLOC_SPACE]);
}

static void write_header(struct text *text) {
    const int64_t rate = text->job->profile->period;
    int64_t totals[COLUMN_COUNT];
    memcpy(totals, text->totals, sizeof(totals));
    /* A reader that finds both halves equal takes the allocations for absent; so does Go's own
     * writer add this byte. */
    if (totals[INUSE_OBJECTS] == totals[ALLOC_OBJECTS] &&
        totals[INUSE_SPACE] == totals[ALLOC_SPACE])
        totals[ALLOC_SPACE]++;
    pep_write_text(text->job->writer, "heap profile: ");
    write_values(text->job->writer, totals);
    if (text->job->profile->is_exact)
        pep_write_text(text->job->writer, " heapprofile\n");
    else
        pep_write_printf(text->job->writer, " heap_v2/%" PRId64 "\n", rate > 0 ? rate : 1);
}

static bool write_record(struct text *text, const struct record *record) {
    struct pep_writer *writer = text->job->writer;
    write_values(writer, record->values);
    return pep_legacy_write_stack(writer, &text->places, record->sample);
}

void pep_encode_legacy(const struct pep_encode_job *job) {
    struct text text = {.job = job};
    pep_places_init(&text.places, job->arena, job->profile, job->symbolizer);
    bool is_whole = collect(&text);
    if (is_whole)
        write_header(&text);
    for (size_t i = 0; i < text.count && is_whole; i++)
        is_whole = write_record(&text, text.order[i]);
    if (is_whole)
        pep_legacy_write_end(job->writer, job->profile, "MAPPED_LIBRARIES:");
    else
        pep_writer_fail(job->writer, -ENOMEM);
}
