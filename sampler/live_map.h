/*
 * Every live block of the host's malloc, one byte each.
 *
 * Model:   a byte for 16 bytes of heap: 0 nothing starts here, PEP_LIVE_BLOCK a block,
 *          PEP_LIVE_SAMPLED a block whose stack is known, PEP_LIVE_OWN one of profep's own. A
 *          plain store each way. A small directory (one entry for 4 MiB of address space) points
 *          into one reservation of the map's bound.
 * Writers: hooks of the malloc family: set after the real malloc, cleared before the real free.
 *          [hook]
 * Readers: free (was it sampled?), the heap snapshot, the leak search.
 * Memory:  a reservation of live_map_bytes and a 64-MiB directory, both touched as they fill.
 * When full: blocks in further 4-MiB stretches are not covered; counted live_map_full and told.
 */
#ifndef PEP_SAMPLER_LIVE_MAP_H
#define PEP_SAMPLER_LIVE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/rt/attrs.h"

enum pep_live { PEP_LIVE_NOTHING = 0, PEP_LIVE_BLOCK = 1, PEP_LIVE_SAMPLED = 2, PEP_LIVE_OWN = 3 };

/* 0 or -errno: then there is no map and every call answers PEP_LIVE_NOTHING. */
int pep_live_map_init(uint64_t bound_bytes);
/* Calls visit for each block that starts in the map, in address order, until it returns false;
 * the host runs on, so each answer was true a moment ago. The number visited. */
uint64_t pep_live_map_walk(bool (*visit)(uintptr_t block, enum pep_live what, void *context),
                           void *context);

#endif
