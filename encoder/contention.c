/*
 * The profiles block and mutex as text that people, `go tool pprof` and the perl pprof all read.
 *
 * Model:   a header, then a record a stack: nanoseconds waited, how often, addresses; `#` lines for
 *          people, at the end the mappings. A cycle is a nanosecond. Values stand for all waits
 *          already, so the sampling period that readers multiply by is 1.
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

/* Of the profile's types. */
enum { CONTENTIONS, DELAY };

/* Longest waiting first, as in Go; among equals as they came. */
static int by_delay(const void *a, const void *b) {
    const struct pep_sample *left = a, *right = b;
    if (left->values[DELAY] != right->values[DELAY])
        return left->values[DELAY] > right->values[DELAY] ? -1 : 1;
    if (left->values[CONTENTIONS] != right->values[CONTENTIONS])
        return left->values[CONTENTIONS] > right->values[CONTENTIONS] ? -1 : 1;
    return left < right ? -1 : left > right;
}

/* Readers know no sign and divide by the count. */
static bool is_shown(const struct pep_sample *sample) {
    return sample->values[CONTENTIONS] > 0 && sample->values[DELAY] >= 0;
}

static void write_header(struct pep_writer *writer, const struct pep_profile *profile) {
    if (profile->kind != NULL && strcmp(profile->kind, "mutex") == 0)
        pep_write_text(writer, "--- mutex:\ncycles/second=1000000000\nsampling period=1\n");
    else
        pep_write_text(writer, "--- contention:\ncycles/second=1000000000\n");
}

void pep_encode_contention(const struct pep_encode_job *job) {
    const struct pep_profile *profile = job->profile;
    const void **order =
        pep_arena_array(job->arena, (size_t)profile->sample_count + 1, sizeof(*order));
    struct pep_places places;
    size_t count = 0;
    pep_places_init(&places, job->arena, profile, job->symbolizer);
    for (uint32_t i = 0; order != NULL && i < profile->sample_count; i++)
        if (is_shown(&profile->samples[i]))
            order[count++] = &profile->samples[i];
    bool is_whole = order != NULL && pep_sort(job->arena, order, count, by_delay);
    if (is_whole)
        write_header(job->writer, profile);
    for (size_t i = 0; i < count && is_whole; i++) {
        const struct pep_sample *sample = order[i];
        pep_write_printf(job->writer, "%" PRId64 " %" PRId64 " @", sample->values[DELAY],
                         sample->values[CONTENTIONS]);
        is_whole = pep_legacy_write_stack(job->writer, &places, sample);
    }
    if (is_whole)
        pep_legacy_write_end(job->writer, profile, "--- Memory map: ---");
    else
        pep_writer_fail(job->writer, -ENOMEM);
}
