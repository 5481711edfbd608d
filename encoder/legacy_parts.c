/* What the text profiles have in common; see legacy_parts.h. */
#include "encoder/legacy_parts.h"

#include <inttypes.h>

#include "encoder/utf8.h"

size_t pep_legacy_write_one(struct pep_writer *writer, const char *text) {
    size_t bytes;
    uint32_t code = pep_utf8_next(text, &bytes);
    if (code == PEP_UTF8_BAD)
        pep_write_text(writer, PEP_UTF8_REPLACEMENT);
    else
        pep_write(writer, code < 0x20 || code == 0x7F ? " " : text, bytes);
    return bytes;
}

void pep_legacy_write_plain(struct pep_writer *writer, const char *text) {
    while (*text != '\0')
        text += pep_legacy_write_one(writer, text);
}

bool pep_legacy_write_pcs(struct pep_writer *writer, struct pep_places *places,
                          const struct pep_sample *sample) {
    uint32_t written = 0;
    for (uint32_t i = 0; i < sample->pc_count; i++) {
        struct pep_place *place = pep_places_find(places, sample->pcs[i]);
        if (place == NULL)
            return false;
        if (place->is_own)
            continue;
        pep_write_printf(writer, " 0x%" PRIxPTR, place->pc + 1);
        written++;
    }
    if (written == 0)
        pep_write_printf(writer, " 0x%x", PEP_PC_UNKNOWN + 1);
    pep_write_text(writer, "\n");
    return true;
}

static void write_frame_lines(struct pep_writer *writer, const struct pep_place *place) {
    for (uint32_t i = 0; i < place->frame_count; i++) {
        const struct pep_frame *frame = &place->frames[i];
        pep_write_printf(writer, "#\t0x%" PRIxPTR "\t", place->pc);
        pep_legacy_write_plain(writer, frame->name);
        if (frame->start != 0 && frame->start <= place->pc)
            pep_write_printf(writer, "+0x%" PRIxPTR, place->pc - (uintptr_t)frame->start);
        if (frame->file != NULL) {
            pep_write_text(writer, "\t");
            pep_legacy_write_plain(writer, frame->file);
            pep_write_printf(writer, ":%u", frame->line);
        } else if (pep_place_module(place)[0] != '\0') {
            pep_write_text(writer, "\t");
            pep_legacy_write_plain(writer, pep_place_module(place));
        }
        pep_write_text(writer, "\n");
    }
}

static void write_label(struct pep_writer *writer, const char **before, const char *key,
                        const char *text) {
    if (text == NULL)
        return;
    pep_write_printf(writer, "%s\"%s\":", *before, key);
    pep_write_json_string(writer, text);
    *before = ", ";
}

void pep_legacy_write_labels(struct pep_writer *writer, const struct pep_sample *sample) {
    const char *before = "";
    if (sample->tid == 0 && !sample->thread && !sample->mapping && !sample->state)
        return;
    pep_write_text(writer, "# labels: {");
    write_label(writer, &before, "thread", sample->thread);
    if (sample->tid != 0) {
        pep_write_printf(writer, "%s\"thread_id\":\"%d\"", before, sample->tid);
        before = ", ";
    }
    write_label(writer, &before, "mapping", sample->mapping);
    write_label(writer, &before, "state", sample->state);
    pep_write_text(writer, "}\n");
}

bool pep_legacy_write_frames(struct pep_writer *writer, struct pep_places *places,
                             const struct pep_sample *sample) {
    for (uint32_t i = 0; i < sample->pc_count; i++) {
        struct pep_place *place = pep_places_find(places, sample->pcs[i]);
        if (place == NULL)
            return false;
        if (!place->is_own)
            write_frame_lines(writer, place);
    }
    return true;
}

bool pep_legacy_write_stack(struct pep_writer *writer, struct pep_places *places,
                            const struct pep_sample *sample) {
    if (!pep_legacy_write_pcs(writer, places, sample))
        return false;
    pep_legacy_write_labels(writer, sample);
    if (!pep_legacy_write_frames(writer, places, sample))
        return false;
    pep_write_text(writer, "\n");
    return true;
}

/* Whole, whatever bytes it has: readers open the file. */
static void write_path(struct pep_writer *writer, const char *path) {
    for (; *path != '\0'; path++) {
        bool is_control = (unsigned char)*path < 0x20 || *path == 0x7F;
        pep_write(writer, is_control ? " " : path, 1);
    }
}

void pep_legacy_write_end(struct pep_writer *writer, const struct pep_profile *profile,
                          const char *sentinel) {
    for (uint32_t i = 0; i < profile->comment_count; i++) {
        pep_write_text(writer, "# ");
        pep_legacy_write_plain(writer, profile->comments[i]);
        pep_write_text(writer, "\n");
    }
    pep_write_printf(writer, "\n%s\n", sentinel);
    for (uint32_t i = 0; i < profile->mapping_count; i++) {
        const struct pep_mapping *mapping = &profile->mappings[i];
        if (mapping->is_own)
            continue;
        pep_write_printf(writer, "%08" PRIx64 "-%08" PRIx64 " r-xp %08" PRIx64 " 00:00 0 ",
                         mapping->start, mapping->limit, mapping->file_offset);
        write_path(writer, mapping->path != NULL ? mapping->path : "");
        pep_write_text(writer, "\n");
    }
}
