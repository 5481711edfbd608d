/*
 * The labels of a sample, as bytes of profile.proto.
 *
 * Model:   a set of labels is packed once and its bytes serve every sample that has it.
 * Writers: pep_pprof_labels.  [normal]
 * Readers: pprof.c.
 * Memory:  the tables' arena.
 * When full: false.
 */
#include "encoder/pprof_tables.h"

#include <pb_encode.h>
#include <string.h>

#include "profile.pb.h"

/* A label of the format is either text or a number, and Pyroscope drops numbers; so the thread
 * number is written both ways. */
#define LABELS_MAX 5
/* A label with its tag and length: four fields of 1 + 10 bytes and 2 more. */
#define LABEL_BYTES_MAX 46

struct pep_label_set {
    int tid;
    uint32_t thread; /* text */
    uint64_t bytes;
    struct pep_packed packed;
};

static bool add_text(struct pep_pprof_tables *tables, pep_pb_Label *labels, size_t *count,
                     const char *const pair[2]) {
    uint32_t key = pep_intern_add(&tables->texts, pair[0]);
    uint32_t text = pep_intern_add(&tables->texts, pair[1]);
    if (key == PEP_INDEX_NONE || text == PEP_INDEX_NONE)
        return false;
    labels[(*count)++] = (pep_pb_Label){.key = key, .str = text};
    return true;
}

static bool add_number(struct pep_pprof_tables *tables, pep_pb_Label *labels, size_t *count,
                       const char *name, const char *unit, uint64_t value) {
    uint32_t key = pep_intern_add(&tables->texts, name);
    uint32_t unit_text = pep_intern_add(&tables->texts, unit);
    if (key == PEP_INDEX_NONE || unit_text == PEP_INDEX_NONE)
        return false;
    labels[(*count)++] = (pep_pb_Label){.key = key, .num = (int64_t)value, .num_unit = unit_text};
    return true;
}

static bool make_labels(struct pep_pprof_tables *tables, const struct pep_label_set *set,
                        pep_pb_Label *labels, size_t *count) {
    const char *name = tables->texts.items[set->thread].text;
    if (name[0] != '\0') {
        if (!add_text(tables, labels, count, (const char *const[]){"thread", name}) ||
            !add_text(tables, labels, count, (const char *const[]){"thread_name", name}))
            return false;
    }
    if (set->tid > 0) {
        const char *tid = pep_arena_printf(tables->arena, "%d", set->tid);
        if (tid == NULL ||
            !add_text(tables, labels, count, (const char *const[]){"thread_id", tid}) ||
            !add_number(tables, labels, count, "tid", NULL, (uint64_t)set->tid))
            return false;
    }
    if (set->bytes != 0 && !add_number(tables, labels, count, "bytes", "bytes", set->bytes))
        return false;
    return true;
}

static bool pack(struct pep_pprof_tables *tables, struct pep_label_set *set) {
    pep_pb_Label labels[LABELS_MAX];
    size_t count = 0;
    if (!make_labels(tables, set, labels, &count))
        return false;
    size_t size = count * LABEL_BYTES_MAX;
    uint8_t *bytes = pep_arena_alloc(tables->arena, size);
    if (bytes == NULL)
        return false;
    pb_ostream_t stream = pb_ostream_from_buffer(bytes, size);
    for (size_t i = 0; i < count; i++)
        if (!pb_encode_tag(&stream, PB_WT_STRING, pep_pb_Sample_label_tag) ||
            !pb_encode_submessage(&stream, pep_pb_Label_fields, &labels[i]))
            return false;
    set->packed = (struct pep_packed){.bytes = bytes, .count = stream.bytes_written};
    return true;
}

bool pep_pprof_labels(struct pep_pprof_tables *tables, const struct pep_sample *sample,
                      struct pep_packed *packed) {
    struct pep_label_set set = {.tid = sample->tid, .bytes = sample->bytes_label};
    set.thread = pep_intern_add(&tables->texts, sample->thread);
    if (set.thread == PEP_INDEX_NONE)
        return false;
    uint64_t hash = pep_index_mix((uint64_t)set.thread << 32 | (uint32_t)set.tid);
    hash = pep_index_mix(hash ^ set.bytes);
    size_t cursor = 0;
    uint32_t found;
    while ((found = pep_index_next(&tables->label_index, hash, &cursor)) != PEP_INDEX_NONE) {
        const struct pep_label_set *known = &tables->label_sets[found];
        if (known->tid == set.tid && known->thread == set.thread && known->bytes == set.bytes) {
            *packed = known->packed;
            return true;
        }
    }
    if (!pack(tables, &set) ||
        !PEP_ARENA_GROW(tables->arena, tables->label_sets, tables->label_set_count,
                        tables->label_set_capacity) ||
        !pep_index_add(&tables->label_index, hash, (uint32_t)tables->label_set_count))
        return false;
    tables->label_sets[tables->label_set_count++] = set;
    *packed = set.packed;
    return true;
}
