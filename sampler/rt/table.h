/*
 * Two tables of descriptors: the host's, and one of our own threads' that the host cannot reach.
 *
 * Model:   a thread of ours that leaves the host's table holds none of the host's files open, and
 *          neither side can close or read what the other one opened.
 * Writers: profep's own threads.  [normal]
 * Readers: pep_table_is_apart: anybody.  [signal]
 * Memory:  static, and a thread-local byte.
 * When full: where the kernel knows no close_range(2) all stay in the host's table, as http/fd.h
 *          has it.
 *
 * Source: close_range(2), CLOSE_RANGE_UNSHARE; clone(2), CLONE_FILES.
 */
#ifndef PEP_SAMPLER_RT_TABLE_H
#define PEP_SAMPLER_RT_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/rt/attrs.h"

/* Gives the calling thread a table of its own, which threads that it creates share. False: refused;
 * nothing has changed. */
bool pep_table_leave(void);
/* On a thread that one which is apart has created. */
void pep_table_inherit(void);
PEP_SIGNAL_SAFE bool pep_table_is_apart(void);

#endif
