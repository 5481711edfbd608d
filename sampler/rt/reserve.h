/*
 * Address space for tables: large, filled here and there, and there for as long as the process.
 *
 * Model:   memory that is zero until it is touched, without huge pages (a page that is touched is
 *          what a table costs) and left out of core dumps. The tables that every process has share
 *          one mapping: each of its own takes three system calls at the start and one at the end.
 * Writers: pep_reserve: any thread; what it gives is never given back.  [hook]
 *          pep_reserve_alone: gives a mapping that its owner may unmap.  [signal]
 * Readers: -
 * Memory:  the shared mapping, SHARED_BYTES; what does not fit there has a mapping of its own, as
 *          has everything where so much at once is refused (RLIMIT_AS).
 * When full: NULL: the kernel gives no more.
 *
 * Source: mmap(2), MAP_NORESERVE; madvise(2), MADV_NOHUGEPAGE, MADV_DONTDUMP.
 */
#ifndef PEP_SAMPLER_RT_RESERVE_H
#define PEP_SAMPLER_RT_RESERVE_H

#include <stddef.h>

#include "sampler/rt/attrs.h"

/* Both: zeroed, aligned to a page at least; NULL when refused. */
PEP_HOOK_SAFE void *pep_reserve(size_t size_bytes);
PEP_SIGNAL_SAFE void *pep_reserve_alone(size_t size_bytes);

#endif
