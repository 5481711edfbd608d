/*
 * A sink for bytes.
 *
 * Model:   bytes go in, the first error sticks and later writes are ignored; whoever encodes
 *          checks once, at the end. Sinks: a buffer in an arena, a callback, gzip in front of
 *          another writer.
 * Writers: one encoder.  [normal]
 * Readers: the owner of the sink.
 * Memory:  buffer: the arena; gzip: about 270 KiB from pep_malloc until finished; pep_write_printf
 *          beyond 511 bytes: pep_malloc for a moment.
 * When full: error is -ENOMEM (or what the callback returned).
 */
#ifndef PEP_ENCODER_WRITER_H
#define PEP_ENCODER_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "sampler/rt/arena.h"
#include "sampler/rt/attrs.h"

struct pep_writer {
    /* Takes all bytes or returns a negative errno. */
    int (*write)(struct pep_writer *writer, const void *bytes, size_t count);
    int error;            /* first error, sticky; 0 so far */
    uint64_t total_bytes; /* accepted so far */
};

/* All return nothing: look at writer->error when done. Numbers by pep_write_printf are integers: a
 * host may have chosen a locale that writes 1.5 as 1,5. */
void pep_write(struct pep_writer *writer, const void *bytes, size_t count);
void pep_write_text(struct pep_writer *writer, const char *text);
void pep_write_printf(struct pep_writer *writer, const char *format, ...) PEP_PRINTF(2, 3);
/* The error becomes error, a negative errno, unless there is one already. */
void pep_writer_fail(struct pep_writer *writer, int error);
/* text with & < > " ' as XML entities and control characters as U+FFFD; bad UTF-8 likewise. */
void pep_write_xml(struct pep_writer *writer, const char *text);
/* text as a JSON string with its quotes; bad UTF-8 becomes U+FFFD; safe inside <script>. */
void pep_write_json_string(struct pep_writer *writer, const char *text);

/* Collects in an arena: bytes [0, count) are contiguous; data is NUL-ended (not counted). */
struct pep_buffer_writer {
    struct pep_writer writer;
    struct pep_arena *arena;
    char *data;
    size_t count, capacity;
};
void pep_buffer_writer_init(struct pep_buffer_writer *buffer, struct pep_arena *arena);

/* Compresses into another writer (gzip, RFC 1952, level 1..9). */
struct pep_gzip_writer {
    struct pep_writer writer;
    struct pep_writer *to;
    void *state; /* z_stream and buffers */
};
/* Level for whoever waits for the answer: several times faster than 6, a fifth larger. */
#define PEP_GZIP_LEVEL_FAST 1
int pep_gzip_writer_init(struct pep_gzip_writer *gzip, struct pep_writer *to, int level);
/* Ends the stream and frees the state, also after an error. 0 or the first error. */
int pep_gzip_writer_finish(struct pep_gzip_writer *gzip);

#endif
