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
#define LABELS_MAX 7
/* A label with its tag and length: four fields of 1 + 10 bytes and 2 more. */
#define LABEL_BYTES_MAX 46

struct pep_label_set {
    int tid;
    uint32_t thread, mapping, state; /* texts */
    uint64_t bytes;
    struct pep_packed packed;
};

/* Labels being made. */
struct draft {
    struct pep_pprof_tables *tables;
    pep_pb_Label labels[LABELS_MAX];
    size_t count;
};

/* False when memory was refused for one of its texts. */
static bool add(struct draft *draft, const char *key, pep_pb_Label label) {
    uint32_t text = pep_intern_add(&draft->tables->texts, key);
    label.key = text;
    if (text == PEP_INDEX_NONE || label.str == PEP_INDEX_NONE || label.num_unit == PEP_INDEX_NONE)
        return false;
    draft->labels[draft->count++] = label;
    return true;
}

static bool add_text(struct draft *draft, const char *key, const char *text) {
    return text != NULL &&
           add(draft, key, (pep_pb_Label){.str = pep_intern_add(&draft->tables->texts, text)});
}

static bool add_number(struct draft *draft, const char *key, uint64_t value, const char *unit) {
    return add(draft, key,
               (pep_pb_Label){.num = (int64_t)value,
                              .num_unit = pep_intern_add(&draft->tables->texts, unit)});
}

static bool make_labels(struct draft *draft, const struct pep_label_set *set) {
    const char *name = draft->tables->texts.items[set->thread].text;
    if (name[0] != '\0' &&
        (!add_text(draft, "thread", name) || !add_text(draft, "thread_name", name)))
        return false;
    if (set->tid > 0 &&
        (!add_text(draft, "thread_id", pep_arena_printf(draft->tables->arena, "%d", set->tid)) ||
         !add_number(draft, "tid", (uint64_t)set->tid, NULL)))
        return false;
    const char *mapping = draft->tables->texts.items[set->mapping].text;
    if (mapping[0] != '\0' && !add_text(draft, "mapping", mapping))
        return false;
    const char *state = draft->tables->texts.items[set->state].text;
    if (state[0] != '\0' && !add_text(draft, "state", state))
        return false;
    return set->bytes == 0 || add_number(draft, "bytes", set->bytes, "bytes");
}

static bool pack(struct pep_pprof_tables *tables, struct pep_label_set *set) {
    struct draft draft = {.tables = tables};
    if (!make_labels(&draft, set))
        return false;
    size_t size = draft.count * LABEL_BYTES_MAX;
    uint8_t *bytes = pep_arena_alloc(tables->arena, size);
    if (bytes == NULL)
        return false;
    pb_ostream_t stream = pb_ostream_from_buffer(bytes, size);
    for (size_t i = 0; i < draft.count; i++)
        if (!pb_encode_tag(&stream, PB_WT_STRING, pep_pb_Sample_label_tag) ||
            !pb_encode_submessage(&stream, pep_pb_Label_fields, &draft.labels[i]))
            return false;
    set->packed = (struct pep_packed){.bytes = bytes, .count = stream.bytes_written};
    return true;
}

bool pep_pprof_labels(struct pep_pprof_tables *tables, const struct pep_sample *sample,
                      struct pep_packed *packed) {
    struct pep_label_set set = {.tid = sample->tid, .bytes = sample->bytes_label};
    set.thread = pep_intern_add(&tables->texts, sample->thread);
    set.mapping = pep_intern_add(&tables->texts, sample->mapping);
    set.state = pep_intern_add(&tables->texts, sample->state);
    if (set.thread == PEP_INDEX_NONE || set.mapping == PEP_INDEX_NONE ||
        set.state == PEP_INDEX_NONE)
        return false;
    uint64_t hash = pep_index_mix((uint64_t)set.thread << 32 | (uint32_t)set.tid);
    hash = pep_index_mix(hash ^ set.bytes);
    hash = pep_index_mix(hash ^ ((uint64_t)set.mapping << 32 | set.state));
    size_t cursor = 0;
    uint32_t found;
    while ((found = pep_index_next(&tables->label_index, hash, &cursor)) != PEP_INDEX_NONE) {
        const struct pep_label_set *known = &tables->label_sets[found];
        if (known->tid == set.tid && known->thread == set.thread && known->bytes == set.bytes &&
            known->mapping == set.mapping && known->state == set.state) {
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
