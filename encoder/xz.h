/*
 * Unpacks .xz data, the form of the small symbol tables that some distributions leave in programs.
 *
 * Model:   one stream, any number of LZMA2 blocks, the whole output in one piece, which is its own
 *          dictionary. Every index is checked; a block whose CRC differs is not given out (SHA-256
 *          is not computed).
 * Writers: pep_xz_unpack.  [normal]
 * Readers: -
 * Memory:  the arena given: the output's limit as address space, touched as it fills, and 32 KiB.
 * When full: NULL.
 *
 * Source: The .xz File Format 1.1.0 (tukaani.org); LZMA Specification, 7-Zip's lzma.txt, 2015.
 */
#ifndef PEP_ENCODER_XZ_H
#define PEP_ENCODER_XZ_H

#include <stddef.h>

#include "sampler/rt/arena.h"

/* The unpacked bytes and their number, owned by the arena; NULL when the data is damaged, uses
 * another filter than LZMA2, has nothing in it or needs more than limit_bytes. */
void *pep_xz_unpack(struct pep_arena *arena, const void *packed, size_t packed_bytes,
                    size_t limit_bytes, size_t *unpacked_bytes);

#endif
