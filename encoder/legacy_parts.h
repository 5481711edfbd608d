/*
 * What the text profiles have in common: a record's stack, comments, mappings.
 *
 * Model:   lines that `go tool pprof` and the perl pprof read; what begins with # is for people.
 *          Addresses in records are return addresses: readers subtract one.
 * Writers: one encoder.  [normal]
 * Readers: -
 * Memory:  that of the places.
 * When full: false.
 */
#ifndef PEP_ENCODER_LEGACY_PARTS_H
#define PEP_ENCODER_LEGACY_PARTS_H

#include "encoder/places.h"
#include "encoder/writer.h"

/* Text on one line: a control character in it would part lines or columns, and what is not UTF-8
 * would make the whole answer not be it. */
void pep_legacy_write_plain(struct pep_writer *writer, const char *text);
/* Its first character, which is not NUL: how many bytes that has. */
size_t pep_legacy_write_one(struct pep_writer *writer, const char *text);
/* " 0x401136 0x401150\n", never without an address: readers refuse that. */
bool pep_legacy_write_pcs(struct pep_writer *writer, struct pep_places *places,
                          const struct pep_sample *sample);
/* "# labels: {...}\n", or nothing. */
void pep_legacy_write_labels(struct pep_writer *writer, const struct pep_sample *sample);
/* "#\t0x401135\tmain+0x12\tfile.c:7\n" for each frame, inlined ones too. */
bool pep_legacy_write_frames(struct pep_writer *writer, struct pep_places *places,
                             const struct pep_sample *sample);
/* The three of them, and the empty line that ends a record. */
bool pep_legacy_write_stack(struct pep_writer *writer, struct pep_places *places,
                            const struct pep_sample *sample);
/* Comments, then the mappings as /proc/PID/maps has them below a line that says so:
 * "MAPPED_LIBRARIES:" or, for contention, "--- Memory map: ---". */
void pep_legacy_write_end(struct pep_writer *writer, const struct pep_profile *profile,
                          const char *sentinel);

#endif
