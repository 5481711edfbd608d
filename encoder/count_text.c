/*
 * A profile that counts things (threads, births of threads) as Go prints it with debug=1.
 *
 * Model:   "goroutine profile: total 12", then a record for each stack, the most frequent first:
 *          its count and addresses, its labels, its frames; at the end the mappings. A record
 *          carries the labels that all of its threads share, and for people who they are.
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
#include "encoder/stack_groups.h"

/* Different names in the line that says who the threads of a record are. */
#define NAMES_MAX 12

struct names {
    const char *items[NAMES_MAX];
    size_t counts[NAMES_MAX], count;
    size_t others; /* threads with further names */
};

static void add_name(struct names *names, const char *name) {
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->items[i], name) == 0) {
            names->counts[i]++;
            return;
        }
    if (names->count == NAMES_MAX) {
        names->others++;
        return;
    }
    names->items[names->count] = name;
    names->counts[names->count++] = 1;
}

static void write_names(struct pep_writer *writer, const struct names *names) {
    for (size_t i = 0; i < names->count; i++) {
        pep_write_text(writer, i == 0 ? "# threads: " : ", ");
        pep_legacy_write_plain(writer, names->items[i][0] != '\0' ? names->items[i] : "(no name)");
        if (names->counts[i] > 1)
            pep_write_printf(writer, " x%zu", names->counts[i]);
    }
    if (names->others > 0)
        pep_write_printf(writer, " and %zu more", names->others);
    pep_write_text(writer, "\n");
}

static bool write_group(const struct pep_encode_job *job, struct pep_places *places,
                        const struct pep_stack_group *group) {
    struct pep_writer *writer = job->writer;
    struct pep_sample shared = *group->first;
    struct names names = {.count = 0};
    for (size_t i = 0; i < group->count; i++) {
        const char *name = job->profile->samples[group->members[i]].thread;
        add_name(&names, name != NULL ? name : "");
    }
    if (group->count > 1)
        shared.tid = 0;
    if (names.count > 1)
        shared.thread = NULL;
    pep_write_printf(writer, "%" PRId64 " @", group->total);
    if (!pep_legacy_write_pcs(writer, places, &shared))
        return false;
    pep_legacy_write_labels(writer, &shared);
    if (names.count > 1)
        write_names(writer, &names);
    if (!pep_legacy_write_frames(writer, places, &shared))
        return false;
    pep_write_text(writer, "\n");
    return true;
}

void pep_encode_count(const struct pep_encode_job *job) {
    struct pep_stack_groups groups;
    struct pep_places places;
    pep_places_init(&places, job->arena, job->profile, job->symbolizer);
    bool is_whole = pep_stack_groups_make(&groups, job->arena, job->profile);
    if (is_whole)
        pep_write_printf(job->writer, "%s profile: total %" PRId64 "\n",
                         job->profile->kind != NULL ? job->profile->kind : "count", groups.total);
    for (size_t i = 0; is_whole && i < groups.count; i++)
        is_whole = write_group(job, &places, groups.items[i]);
    if (is_whole) /* in this form the mappings begin at a line of dashes only */
        pep_legacy_write_end(job->writer, job->profile, "--- Memory map: ---");
    else
        pep_writer_fail(job->writer, -ENOMEM);
}
