/*
 * profile.proto, streamed through nanopb.
 *
 * Model:   tables first (pprof_tables.h), because samples stand before what they refer to; then
 *          each repeated field is a callback that walks its table. Nothing is encoded ahead.
 * Writers: the job's writer.  [normal]
 * Readers: -
 * Memory:  the job's arena.
 * When full: the writer's error is -ENOMEM.
 */
#include <errno.h>
#include <pb_encode.h>
#include <string.h>

#include "encoder/encoders.h"
#include "encoder/pprof_tables.h"
#include "profile.pb.h"

#define GATHER_BYTES 16384
/* Room for a sample of 256 frames: 4 bytes an id, and its labels. */
#define MESSAGE_BYTES 1536

/* Between nanopb, which writes a few bytes at a time, and the writer. */
struct gather {
    struct pep_writer *writer;
    size_t used_bytes;
    uint8_t bytes[GATHER_BYTES];
};

static void flush(struct gather *gather) {
    pep_write(gather->writer, gather->bytes, gather->used_bytes);
    gather->used_bytes = 0;
}

static bool gather_bytes(pb_ostream_t *stream, const pb_byte_t *bytes, size_t count) {
    struct gather *gather = stream->state;
    if (count > GATHER_BYTES - gather->used_bytes)
        flush(gather);
    if (count > GATHER_BYTES) {
        pep_write(gather->writer, bytes, count);
    } else {
        memcpy(gather->bytes + gather->used_bytes, bytes, count);
        gather->used_bytes += count;
    }
    return gather->writer->error == 0;
}

/* A repeated integer: one length-delimited field. */
static bool write_packed(pb_ostream_t *stream, const pb_field_t *field, const uint8_t *bytes,
                         size_t count) {
    return count == 0 || (pb_encode_tag(stream, PB_WT_STRING, field->tag) &&
                          pb_encode_string(stream, bytes, count));
}

static bool write_location_ids(pb_ostream_t *stream, const pb_field_t *field, void *const *arg) {
    const struct pep_packed *ids = *arg;
    return write_packed(stream, field, ids->bytes, ids->count);
}

static bool write_labels(pb_ostream_t *stream, const pb_field_t *field, void *const *arg) {
    const struct pep_packed *labels = *arg;
    (void)field;
    return pb_write(stream, labels->bytes, labels->count);
}

static bool write_values(pb_ostream_t *stream, const pb_field_t *field, void *const *arg) {
    const struct pep_packed *values = *arg;
    return write_packed(stream, field, values->bytes, values->count);
}

/* A message is packed once into room and goes out with its size; only one too large for that is
 * walked twice, as nanopb does otherwise. */
static bool write_message(pb_ostream_t *stream, const pb_field_t *field, const pb_msgdesc_t *fields,
                          const void *message) {
    pb_byte_t room[MESSAGE_BYTES];
    pb_ostream_t small = pb_ostream_from_buffer(room, sizeof(room));
    if (!pb_encode_tag(stream, PB_WT_STRING, field->tag))
        return false;
    if (pb_encode(&small, fields, message))
        return pb_encode_string(stream, room, small.bytes_written);
    return pb_encode_submessage(stream, fields, message);
}

static pep_pb_ValueType value_type(struct pep_pprof_tables *tables,
                                   const struct pep_value_type *type) {
    return (pep_pb_ValueType){.type = pep_intern_add(&tables->texts, type->type),
                              .unit = pep_intern_add(&tables->texts, type->unit)};
}

static bool write_sample_types(pb_ostream_t *stream, const pb_field_t *field, void *const *arg) {
    struct pep_pprof_tables *tables = *arg;
    for (uint32_t i = 0; i < tables->profile->type_count; i++) {
        pep_pb_ValueType type = value_type(tables, &tables->profile->types[i]);
        if (!write_message(stream, field, pep_pb_ValueType_fields, &type))
            return false;
    }
    return true;
}

static bool write_samples(pb_ostream_t *stream, const pb_field_t *field, void *const *arg) {
    const struct pep_pprof_tables *tables = *arg;
    for (size_t i = 0; i < tables->sample_count; i++) {
        struct pep_pprof_sample *sample = &tables->samples[i];
        uint8_t bytes[10 * PEP_PROFILE_VALUES_MAX];
        struct pep_packed values = {.bytes = bytes};
        for (uint32_t type = 0; type < tables->profile->type_count; type++)
            values.count += pep_varint(bytes + values.count, (uint64_t)sample->values[type]);
        pep_pb_Sample message = {
            .location_id = {.funcs.encode = write_location_ids, .arg = &sample->locations},
            .value = {.funcs.encode = write_values, .arg = &values},
            .label = {.funcs.encode = write_labels, .arg = &sample->labels},
        };
        if (!write_message(stream, field, pep_pb_Sample_fields, &message))
            return false;
    }
    return true;
}

static bool write_mappings(pb_ostream_t *stream, const pb_field_t *field, void *const *arg) {
    const struct pep_pprof_tables *tables = *arg;
    for (size_t i = 0; i < tables->written_count; i++) {
        const struct pep_pprof_mapping *mapping = tables->written[i];
        pep_pb_Mapping message = {
            .id = mapping->id,
            .memory_start = mapping->mapping->start,
            .memory_limit = mapping->mapping->limit,
            .file_offset = mapping->mapping->file_offset,
            .filename = mapping->path,
            .build_id = mapping->build_id,
            .has_functions = mapping->has_functions,
            .has_filenames = mapping->has_files,
            .has_line_numbers = mapping->has_lines,
            .has_inline_frames = mapping->has_inlined,
        };
        if (!write_message(stream, field, pep_pb_Mapping_fields, &message))
            return false;
    }
    return true;
}

static bool write_lines(pb_ostream_t *stream, const pb_field_t *field, void *const *arg) {
    const struct pep_pprof_location *location = *arg;
    for (uint32_t i = 0; i < location->line_count; i++) {
        pep_pb_Line message = {.function_id = location->lines[i].function,
                               .line = location->lines[i].line};
        if (!write_message(stream, field, pep_pb_Line_fields, &message))
            return false;
    }
    return true;
}

static bool write_locations(pb_ostream_t *stream, const pb_field_t *field, void *const *arg) {
    const struct pep_pprof_tables *tables = *arg;
    for (size_t i = 0; i < tables->location_count; i++) {
        struct pep_pprof_location *location = &tables->locations[i];
        pep_pb_Location message = {
            .id = i + 1,
            .mapping_id = location->mapping,
            .address = location->place->pc,
            .line = {.funcs.encode = write_lines, .arg = location},
        };
        if (!write_message(stream, field, pep_pb_Location_fields, &message))
            return false;
    }
    return true;
}

static bool write_functions(pb_ostream_t *stream, const pb_field_t *field, void *const *arg) {
    const struct pep_pprof_tables *tables = *arg;
    for (size_t i = 0; i < tables->function_count; i++) {
        const struct pep_pprof_function *function = &tables->functions[i];
        pep_pb_Function message = {
            .id = i + 1,
            .name = function->name,
            .system_name = function->system_name,
            .filename = function->file,
            .start_line = function->start_line,
        };
        if (!write_message(stream, field, pep_pb_Function_fields, &message))
            return false;
    }
    return true;
}

static bool write_texts(pb_ostream_t *stream, const pb_field_t *field, void *const *arg) {
    const struct pep_pprof_tables *tables = *arg;
    for (size_t i = 0; i < tables->texts.count; i++) {
        const struct pep_interned *item = &tables->texts.items[i];
        if (!pb_encode_tag(stream, PB_WT_STRING, field->tag) ||
            !pb_encode_string(stream, (const pb_byte_t *)item->text, item->count))
            return false;
    }
    return true;
}

static bool write_comments(pb_ostream_t *stream, const pb_field_t *field, void *const *arg) {
    const struct pep_pprof_tables *tables = *arg;
    uint8_t *bytes = pep_arena_array(tables->arena, tables->comment_count + 1, 10);
    if (bytes == NULL)
        return false;
    size_t count = 0;
    for (size_t i = 0; i < tables->comment_count; i++)
        count += pep_varint(bytes + count, tables->comments[i]);
    return write_packed(stream, field, bytes, count);
}

/* All texts must be in the table before the first byte is written; true when they are. */
static bool intern_types(struct pep_pprof_tables *tables, pep_pb_Profile *message) {
    const struct pep_profile *profile = tables->profile;
    bool is_complete = true;
    for (uint32_t i = 0; i < profile->type_count; i++) {
        pep_pb_ValueType type = value_type(tables, &profile->types[i]);
        is_complete = is_complete && type.type != PEP_INDEX_NONE && type.unit != PEP_INDEX_NONE;
        if (i == profile->default_type)
            message->default_sample_type = type.type;
    }
    message->has_period_type = profile->period_type.type != NULL;
    message->period_type = value_type(tables, &profile->period_type);
    return is_complete && message->period_type.type != PEP_INDEX_NONE &&
           message->period_type.unit != PEP_INDEX_NONE;
}

void pep_encode_pprof(const struct pep_encode_job *job) {
    const struct pep_profile *profile = job->profile;
    struct pep_pprof_tables *tables = pep_arena_alloc(job->arena, sizeof(*tables));
    struct gather *gather = pep_arena_alloc(job->arena, sizeof(*gather));
    pep_pb_Profile message = {
        .sample_type = {.funcs.encode = write_sample_types, .arg = tables},
        .sample = {.funcs.encode = write_samples, .arg = tables},
        .mapping = {.funcs.encode = write_mappings, .arg = tables},
        .location = {.funcs.encode = write_locations, .arg = tables},
        .function = {.funcs.encode = write_functions, .arg = tables},
        .string_table = {.funcs.encode = write_texts, .arg = tables},
        .time_nanos = profile->time_ns,
        .duration_nanos = profile->duration_ns,
        .period = profile->period,
        .comment = {.funcs.encode = write_comments, .arg = tables},
    };
    if (tables == NULL || gather == NULL || !pep_pprof_tables_build(tables, job) ||
        !intern_types(tables, &message)) {
        pep_writer_fail(job->writer, -ENOMEM);
        return;
    }
    gather->writer = job->writer;
    pb_ostream_t stream = {
        .callback = gather_bytes, .state = gather, .max_size = SIZE_MAX, .bytes_written = 0};
    /* A refusal has its cause in the writer's error; without one it was memory. */
    if (!pb_encode(&stream, pep_pb_Profile_fields, &message))
        pep_writer_fail(job->writer, -ENOMEM);
    flush(gather);
}
