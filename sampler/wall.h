/*
 * Where the elapsed time goes, running and waiting, of every thread.
 *
 * Model:   one reading thread for all windows, at the highest rate anybody asked for, alive while
 *          a window is open. A beat looks at every thread (look.h) and charges it the time since
 *          its beat before; one that did nothing since is charged to its last stack again without
 *          a walk; a running one is asked (ask.h). The state is the cell's tag.
 * Writers: the reading thread.  [normal]
 * Readers: http's windows.
 * Memory:  a set of cells; 64 bytes a thread.
 * When full: cells.h; threads beyond PEP_THREADS_MAX are not read, told in the comments.
 */
#ifndef PEP_SAMPLER_WALL_H
#define PEP_SAMPLER_WALL_H

#include <stdint.h>

#include "sampler/profile.h"
#include "sampler/profile_cells.h"

#define PEP_WALL_HZ_MIN 1
#define PEP_WALL_HZ_MAX 1000

/* As pep_cpu_begin and pep_cpu_end. 0 or -errno. */
int pep_wall_begin(uint32_t hz);
void pep_wall_end(uint32_t hz);
struct pep_cells_snapshot *pep_wall_snapshot_take(struct pep_arena *arena);
/* Types samples/count and time/nanoseconds, period type wallclock/nanoseconds; label state. NULL
 * when memory was refused. */
struct pep_profile *pep_profile_wall(struct pep_arena *arena,
                                     const struct pep_cells_snapshot *before, uint32_t hz,
                                     const struct pep_profile_filter *filter);
/* Around a time in which the process is to have no thread of ours: nothing is read then, and the
 * time counts as the first beat after it finds things. */
void pep_wall_pause(void);
void pep_wall_resume(void);
/* A forked child: no window is open, no thread reads. */
void pep_wall_after_fork_child(void);

#endif
