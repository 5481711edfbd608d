/*
 * gzip in front of another writer; the only file that knows zlib.
 *
 * Model:   small writes gather in a stage, so that zlib is called for a few KiB at a time.
 * Writers: one encoder.  [normal]
 * Readers: -
 * Memory:  pep_malloc through zalloc: about 260 KiB for zlib and 40 KiB here.
 * When full: -ENOMEM.
 */
#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "encoder/writer.h"

#define STAGE_BYTES 8192
#define OUTPUT_BYTES 32768
/* windowBits: 15, the widest window, plus 16 for a gzip header instead of zlib's (zlib.h). */
#define GZIP_WINDOW 31

struct state {
    z_stream stream;
    size_t staged_bytes;
    unsigned char stage[STAGE_BYTES];
    unsigned char output[OUTPUT_BYTES];
};

static void *allocate(void *opaque, unsigned count, unsigned size_bytes) {
    (void)opaque;
    return pep_calloc(count, size_bytes);
}

static void release(void *opaque, void *block) {
    (void)opaque;
    pep_free(block);
}

/* Feeds bytes to zlib and passes on what comes out. 0 or -errno. */
static int feed(struct pep_gzip_writer *gzip, const void *bytes, size_t count, int flush) {
    struct state *state = gzip->state;
    z_stream *stream = &state->stream;
    stream->next_in = (unsigned char *)(uintptr_t)bytes;
    stream->avail_in = (unsigned)count;
    int result;
    do {
        stream->next_out = state->output;
        stream->avail_out = OUTPUT_BYTES;
        result = deflate(stream, flush);
        if (result == Z_STREAM_ERROR)
            return -EIO;
        pep_write(gzip->to, state->output, OUTPUT_BYTES - stream->avail_out);
        if (gzip->to->error != 0)
            return gzip->to->error;
    } while (stream->avail_out == 0 || (flush == Z_FINISH && result != Z_STREAM_END));
    return 0;
}

static int write_gzip(struct pep_writer *writer, const void *bytes, size_t count) {
    struct pep_gzip_writer *gzip = (struct pep_gzip_writer *)writer;
    struct state *state = gzip->state;
    if (state == NULL)
        return -EBADF;
    if (count > STAGE_BYTES - state->staged_bytes) {
        int error = feed(gzip, state->stage, state->staged_bytes, Z_NO_FLUSH);
        state->staged_bytes = 0;
        if (error != 0)
            return error;
    }
    const char *from = bytes;
    while (count > STAGE_BYTES) {
        /* zlib counts in unsigned int. */
        size_t part = count < 1u << 30 ? count : 1u << 30;
        int error = feed(gzip, from, part, Z_NO_FLUSH);
        if (error != 0)
            return error;
        from += part;
        count -= part;
    }
    memcpy(state->stage + state->staged_bytes, from, count);
    state->staged_bytes += count;
    return 0;
}

int pep_gzip_writer_init(struct pep_gzip_writer *gzip, struct pep_writer *to, int level) {
    *gzip = (struct pep_gzip_writer){.writer.write = write_gzip, .to = to};
    struct state *state = NULL;
    int error = -EINVAL;
    if (level < 1 || level > 9)
        goto out;
    error = -ENOMEM;
    state = pep_malloc(sizeof(*state));
    if (state == NULL)
        goto out;
    state->staged_bytes = 0;
    state->stream = (z_stream){.zalloc = allocate, .zfree = release};
    /* 8: zlib's usual memory level. */
    if (deflateInit2(&state->stream, level, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        goto out;
    gzip->state = state;
    return 0;
out:
    pep_free(state);
    gzip->writer.error = error;
    return error;
}

int pep_gzip_writer_finish(struct pep_gzip_writer *gzip) {
    struct state *state = gzip->state;
    if (state == NULL)
        return gzip->writer.error;
    if (gzip->writer.error == 0)
        pep_writer_fail(&gzip->writer, feed(gzip, state->stage, state->staged_bytes, Z_FINISH));
    deflateEnd(&state->stream);
    pep_free(state);
    gzip->state = NULL;
    return gzip->writer.error;
}
