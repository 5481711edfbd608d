/*
 * Whether this process may make children that read lines.
 *
 * Model:   a setting, and the filters of system calls: those that were there at the start let us
 *          make threads, so they are a container's or a supervisor's; one that came later is the
 *          program's own, and may kill for clone. A child that died of a filter ends it for good.
 * Writers: the constructor; whoever saw a child die of a filter.  [normal]
 * Readers: whoever reads lines, once a request.  [normal]
 * Memory:  static.
 * When full: -
 */
#ifndef PEP_ENCODER_LINES_PERMIT_H
#define PEP_ENCODER_LINES_PERMIT_H

#include <stdbool.h>

/* From the constructor. Before it lines are read, whatever filters there are. */
void pep_lines_permit_init(bool is_on);
/* 0; -ENOTSUP: turned off; -EPERM: a filter came. */
int pep_lines_permit(void);
/* A filter killed a child. */
void pep_lines_permit_end(void);

#endif
