/*
 * Every sample as it was recorded, for programs: JSON lines.
 *
 * Model:   the first line is an object about the profile, with its mappings; each further line is
 *          one about a sample: a distinct stack of a thread. Frames are innermost first; an offset
 *          is an address in the file's own terms, so that with the build-id it names the same code
 *          in every run. README has the fields.
 * Writers: the job's writer.  [normal]
 * Readers: -
 * Memory:  the job's arena.
 * When full: the writer's error is -ENOMEM.
 */
#include <errno.h>
#include <inttypes.h>

#include "encoder/calltree.h"
#include "encoder/encoders.h"
#include "encoder/places.h"

static void write_string(struct pep_writer *writer, const char *name, const char *value) {
    pep_write_printf(writer, "\"%s\":", name);
    pep_write_json_string(writer, value != NULL ? value : "");
}

static void write_type(struct pep_writer *writer, const struct pep_value_type *type) {
    pep_write_text(writer, "{");
    write_string(writer, "type", type->type);
    pep_write_text(writer, ",");
    write_string(writer, "unit", type->unit);
    pep_write_text(writer, "}");
}

static void write_mappings(struct pep_writer *writer, const struct pep_profile *profile) {
    pep_write_text(writer, ",\"mappings\":[");
    for (uint32_t i = 0; i < profile->mapping_count; i++) {
        const struct pep_mapping *mapping = &profile->mappings[i];
        pep_write_printf(writer,
                         "%s{\"start\":\"0x%" PRIx64 "\",\"limit\":\"0x%" PRIx64
                         "\",\"file_offset\":\"0x%" PRIx64 "\",",
                         i > 0 ? "," : "", mapping->start, mapping->limit, mapping->file_offset);
        write_string(writer, "path", mapping->path);
        pep_write_text(writer, ",");
        write_string(writer, "build_id", mapping->build_id);
        pep_write_text(writer, "}");
    }
    pep_write_text(writer, "]");
}

static void write_head(const struct pep_encode_job *job) {
    const struct pep_profile *profile = job->profile;
    struct pep_writer *writer = job->writer;
    pep_write_text(writer, "{\"format\":\"profep-samples\",\"version\":1,");
    write_string(writer, "kind", profile->kind);
    pep_write_text(writer, ",");
    write_string(writer, "title", job->title);
    pep_write_printf(writer,
                     ",\"pid\":%d,\"time_ns\":%" PRId64 ",\"duration_ns\":%" PRId64
                     ",\"samples\":%" PRIu32 ",\"is_full\":%s,\"types\":[",
                     profile->pid, profile->time_ns, profile->duration_ns, profile->sample_count,
                     profile->is_full ? "true" : "false");
    for (uint32_t i = 0; i < profile->type_count; i++) {
        pep_write_text(writer, i > 0 ? "," : "");
        write_type(writer, &profile->types[i]);
    }
    pep_write_printf(writer, "],\"count_type\":%" PRIu32 ",\"weight_type\":%" PRIu32 ",\"period\":",
                     pep_calltree_count_type(profile, profile->default_type),
                     profile->default_type);
    pep_write_printf(writer, "%" PRId64 ",\"period_type\":", profile->period);
    write_type(writer, &profile->period_type);
    write_mappings(writer, profile);
    pep_write_text(writer, ",\"comments\":[");
    for (uint32_t i = 0; i < profile->comment_count; i++) {
        pep_write_text(writer, i > 0 ? "," : "");
        pep_write_json_string(writer, profile->comments[i]);
    }
    pep_write_text(writer, "]}\n");
}

static void write_functions(struct pep_writer *writer, const struct pep_place *place) {
    pep_write_text(writer, ",\"functions\":[");
    for (uint32_t i = 0; i < place->frame_count; i++) {
        const struct pep_frame *frame = &place->frames[i];
        pep_write_text(writer, i > 0 ? ",{" : "{");
        write_string(writer, "name", frame->name);
        if (frame->file != NULL) {
            pep_write_text(writer, ",");
            write_string(writer, "file", frame->file);
        }
        if (frame->line != 0)
            pep_write_printf(writer, ",\"line\":%" PRIu32, frame->line);
        pep_write_text(writer, "}");
    }
    pep_write_text(writer, "]");
}

static void write_frame(const struct pep_encode_job *job, const struct pep_place *place) {
    struct pep_writer *writer = job->writer;
    if (place->pc < PEP_PC_FIRST_REAL) {
        pep_write_text(writer, "{");
        write_string(writer, "note", place->frames[0].name);
        pep_write_text(writer, "}");
        return;
    }
    pep_write_printf(writer, "{\"address\":\"0x%" PRIxPTR "\"", place->pc);
    if (place->mapping != NULL)
        pep_write_printf(writer, ",\"mapping\":%td,\"offset\":\"0x%" PRIx64 "\"",
                         place->mapping - job->profile->mappings,
                         (uint64_t)place->pc - place->mapping->bias);
    write_functions(writer, place);
    pep_write_text(writer, "}");
}

static void write_labels(struct pep_writer *writer, const struct pep_sample *sample) {
    write_string(writer, "thread", sample->thread);
    pep_write_printf(writer, ",\"tid\":%d,", sample->tid);
    if (sample->state != NULL) {
        write_string(writer, "state", sample->state);
        pep_write_text(writer, ",");
    }
    if (sample->mapping != NULL) {
        write_string(writer, "mapped", sample->mapping);
        pep_write_text(writer, ",");
    }
    if (sample->bytes_label != 0)
        pep_write_printf(writer, "\"bytes\":%" PRIu64 ",", sample->bytes_label);
}

static bool write_sample(const struct pep_encode_job *job, struct pep_places *places,
                         const struct pep_sample *sample) {
    const struct pep_profile *profile = job->profile;
    struct pep_writer *writer = job->writer;
    const char *before = "";
    uint32_t count_type = pep_calltree_count_type(profile, profile->default_type);
    pep_write_text(writer, "{");
    write_labels(writer, sample);
    pep_write_printf(writer, "\"count\":%" PRId64 ",\"weight\":%" PRId64 ",\"values\":[",
                     sample->values[count_type], sample->values[profile->default_type]);
    for (uint32_t i = 0; i < profile->type_count; i++)
        pep_write_printf(writer, "%s%" PRId64, i > 0 ? "," : "", sample->values[i]);
    pep_write_text(writer, "],\"frames\":[");
    for (uint32_t i = 0; i < sample->pc_count; i++) {
        const struct pep_place *place = pep_places_find(places, sample->pcs[i]);
        if (place == NULL)
            return false;
        if (place->is_own)
            continue;
        pep_write_text(writer, before);
        write_frame(job, place);
        before = ",";
    }
    pep_write_text(writer, "]}\n");
    return true;
}

void pep_encode_samples(const struct pep_encode_job *job) {
    struct pep_places places;
    pep_places_init(&places, job->arena, job->profile, job->symbolizer);
    write_head(job);
    for (uint32_t i = 0; i < job->profile->sample_count; i++) {
        if (!write_sample(job, &places, &job->profile->samples[i])) {
            pep_writer_fail(job->writer, -ENOMEM);
            return;
        }
    }
}
