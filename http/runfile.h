/*
 * <rundir>/<pid>.json: how tools find this process.
 *
 * Model:   written whole (temporary file, rename), in the form of Prometheus' file_sd; removed at
 *          the end if it is still ours. The directory must belong to us and be writable by nobody
 *          else, else nothing is written.
 * Writers: the listening thread; exit.  [normal]
 * Readers: profep-run, Prometheus, Grafana Alloy.
 * Memory:  on the stack.
 * When full: -errno, one log line; the server runs all the same.
 */
#ifndef PEP_HTTP_RUNFILE_H
#define PEP_HTTP_RUNFILE_H

#include <limits.h>
#include <stdint.h>
#include <time.h>

struct pep_runfile {
    const char *target;  /* "127.0.0.1:16825" or "unix:/path" */
    const char *service; /* NULL: the program's name */
};

/* A written file; directory "" when there is none. */
struct pep_runfile_handle {
    char path[PATH_MAX];
    uint64_t device, inode;
    struct timespec changed; /* inode numbers are used again at once; this is not */
};

/* rundir NULL: $XDG_RUNTIME_DIR/profep (runtime_dir, may be NULL), else /run/profep for root, else
 * /tmp/profep-UID; these also when we may not write to rundir. 0 or -errno. */
int pep_runfile_write(const char *rundir, const char *runtime_dir,
                      const struct pep_runfile *content, struct pep_runfile_handle *handle);
void pep_runfile_remove(struct pep_runfile_handle *handle);

#endif
