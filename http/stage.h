/*
 * Files that an answer names instead of carrying their bytes.
 *
 * Model:   a new file in a directory that the process's user chose, or in one below it that the
 *          client named: never outside of it, whatever the name says and wherever links lead.
 * Writers: the connection's thread.  [normal]
 * Readers: the person who asked.
 * Memory:  none.
 * When full: -errno; nothing is left behind.
 */
#ifndef PEP_HTTP_STAGE_H
#define PEP_HTTP_STAGE_H

#include <limits.h>
#include <stddef.h>

struct pep_stage {
    const char *directory; /* PROFEP_STAGE_PATH */
    const char *below;     /* of it; NULL: itself */
    const char *name;      /* of the file; NULL: a random one, "jl_" and ten characters */
    const char *suffix;    /* behind it */
};

/* Room for directory and below. */
#define PEP_STAGE_PATH_BYTES (2 * PATH_MAX + 64)

/* 0 when the directory is there; -EXDEV: below leads out of it; or -errno. */
int pep_stage_check(const struct pep_stage *stage);
/* Makes a file of mode 0600 with these bytes; its path goes to path. 0 or -errno, as above. */
int pep_stage_write(const struct pep_stage *stage, const void *data, size_t count,
                    char path[PEP_STAGE_PATH_BYTES]);

#endif
