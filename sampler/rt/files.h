/*
 * What is more than one system call for a file, and the same wherever it is done.
 *
 * Model:   no state; what the kernel refuses is the answer.
 * Writers: -
 * Readers: anybody; of a task's file in any room.  [signal]
 * Memory:  none.
 * When full: the kernel's negative errno is the answer.
 */
#ifndef PEP_SAMPLER_RT_FILES_H
#define PEP_SAMPLER_RT_FILES_H

#include <stddef.h>

#include "sampler/rt/attrs.h"

/* A file of /proc/self/task/TID, whole, with a NUL behind it, as pep_os_read_file does. The name
 * has less than 16 letters. */
PEP_SIGNAL_SAFE long pep_files_read_of_task(int tid, const char *name, char *to, size_t size_bytes);
/* 0 when everything was written, or -errno of the write that was not. */
int pep_files_write_all(int fd, const void *data, size_t count);

#endif
