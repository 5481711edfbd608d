/*
 * The threads under the wall clock's eye: what each was seen to do, and since when.
 *
 * Model:   a watch a slot (thread.h). A beat finds out who has run since it was looked at, by the
 *          CPU clocks: that of the process first, which tells when nobody has, then those of the
 *          threads. Who has run is read anew, and the time since the beat before is charged to
 *          what it is seen at; who has not is charged to its last stack, later, in one sum.
 * Writers: the reading thread, and whoever takes a reading; the caller's lock.  [normal]
 * Readers: the same.
 * Memory:  64 bytes a slot, one mapping made by pep_watches_init, touched as it fills.
 * When full: thread.h.
 */
#ifndef PEP_SAMPLER_WALL_WATCH_H
#define PEP_SAMPLER_WALL_WATCH_H

#include <stdint.h>

#include "sampler/cells.h"
#include "sampler/look.h"

/* Idempotent. 0 or -ENOMEM. cells: what is charged. */
int pep_watches_init(struct pep_cells *cells);
/* Watches nobody yet; time counts from now_ns (CLOCK_MONOTONIC, as all of these). */
void pep_watches_start(uint64_t now_ns);
/* One beat. period_ns: what counts as one sample. */
void pep_watches_beat(struct pep_looker *looker, uint64_t now_ns, uint64_t period_ns);
/* Charges everybody's time up to now, so that a reading is exact at this moment. */
void pep_watches_settle(uint64_t now_ns);
/* Takes back what was asked and forgets everybody. */
void pep_watches_stop(void);
/* In a forked child: nobody is watched, nothing was asked. */
void pep_watches_forget(void);
/* Threads watched at the last beat that looked. */
uint32_t pep_watches_count(void);

#endif
