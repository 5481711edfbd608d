/*
 * The parent's side of the children that read lines: how many there are, and how each ends.
 *
 * Model:   a place a child, taken before it is made, so that none is lost. Before the program is
 *          replaced all are ended and waited for, by those who made them.
 * Writers: the threads that encode; whoever is about to exec, exit or filter.  [normal]
 * Readers: the same.
 * Memory:  static.
 * When full: further requests wait, until their deadline.
 */
#ifndef PEP_ENCODER_LINES_PARENT_H
#define PEP_ENCODER_LINES_PARENT_H

#include "encoder/lines_child.h"

enum pep_lines_fate {
    PEP_LINES_FINISHED,  /* all that it was to read is written */
    PEP_LINES_TOO_LATE,  /* ended by us, or by its own limit of time */
    PEP_LINES_CRASHED,   /* by itself, of what it read */
    PEP_LINES_TAKEN,     /* ended by somebody else: where memory runs out, by the kernel */
    PEP_LINES_FORBIDDEN, /* by a filter of system calls */
    PEP_LINES_RECALLED,  /* by us, for the program is about to be replaced */
};

/* One child from its beginning to its end. 0, or -errno when there was none. */
int pep_lines_child_run(const struct pep_lines_task *task, uint64_t deadline_ns,
                        enum pep_lines_fate *fate);

#endif
