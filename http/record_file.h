/*
 * The files of a recording: which there are, and how a profile gets into one.
 *
 * Model:   the suffix chooses the format. A file is written beside its place and renamed, so that
 *          nobody meets half of one; a device, a pipe or a link is written into, once, at the end.
 *          The heap has two files: what is in use now (at the end: what was never freed), and,
 *          with ".peak" before the suffix, what was in use when most was. Both also say what was
 *          allocated since the start.
 * Writers: the recording's thread.  [normal]
 * Readers: the person's tools.
 * Memory:  the caller's arena.
 * When full: one log line; the old file stays.
 */
#ifndef PEP_HTTP_RECORD_FILE_H
#define PEP_HTTP_RECORD_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "http/request.h"
#include "sampler/profile.h"

struct pep_record_file {
    const char *path;      /* absolute */
    const char *temporary; /* beside it */
    bool is_last;          /* no better one will follow */
};

/* ".svg", ".html", ".txt", ".collapsed"; anything else is gzip profile.proto. */
enum pep_format pep_record_format(const char *path);
/* "/a/heap.pb.gz" gives "/a/heap.peak.pb.gz"; "" when it does not fit. */
void pep_record_peak_path(char *to, size_t size_bytes, const char *path);

/* profile NULL: memory was refused. */
void pep_record_write(const struct pep_record_file *file, const struct pep_profile *profile,
                      struct pep_arena *arena);
/* Takes both profiles of the heap and writes them. */
void pep_record_write_heap(const struct pep_record_file *file, const char *peak_path,
                           struct pep_arena *arena);

#endif
