/*
 * Room for n samples: ProfileEndpoints' parameter n.
 *
 * Model:   recording takes no room a sample, so what is over is taken away on reading: n samples
 *          remain, spread evenly over all of them, and stand for the whole: sums of time stay as
 *          they were. The profile says so, by a flag and a comment.
 * Writers: the thread that reads a window out.  [normal]
 * Readers: -
 * Memory:  the arena for the comment.
 * When full: false.
 */
#ifndef PEP_HTTP_SAMPLE_ROOM_H
#define PEP_HTTP_SAMPLE_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/profile.h"

/* The profile's first type counts samples, the second measures them. False: memory was refused. */
bool pep_sample_room_apply(struct pep_arena *arena, struct pep_profile *profile, uint64_t room);

#endif
