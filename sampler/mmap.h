/*
 * What the host maps outside of malloc, by stack: every call, no sampling.
 *
 * Model:   address space as pieces; a piece belongs to the mapping of the call that made it, a
 *          mapping to a cell of (stack, thread, what was mapped) whose sums only rise. Mapping
 *          counts when the call has succeeded. Unmapping takes the pieces out before the call,
 *          for afterwards the addresses may be another thread's; it counts when the call has
 *          succeeded, or the pieces are put back. MAP_FIXED replaces what is there. mremap moves
 *          pieces with their stacks and charges what is new to its own caller.
 * Writers: the hooks of mmap, munmap, mremap, brk and sbrk, any thread.  [hook]
 * Readers: profile_mmap.c, without the lock.  [normal]
 * Memory:  one mapping of 6 MiB made at the first call, touched as it fills.
 * When full: mmap_full: the call is not recorded, or not followed to its end.
 *
 * One lock, held for a few hundred instructions and never around a system call. Who does not get
 * it soon (the holder was stopped, or is this very thread below a signal handler) goes on without,
 * counted mmap_missed; a piece that stays by mistake goes when its addresses are mapped again.
 *
 * libc maps without coming by: malloc's own memory, stacks of threads, files of stdio; so does
 * the loader. None of these go through a symbol that can be watched.
 */
#ifndef PEP_SAMPLER_MMAP_H
#define PEP_SAMPLER_MMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/profile.h"
#include "sampler/rt/attrs.h"

#define PEP_MMAP_TAKEN_MAX 16u
#define PEP_MMAP_LABEL_BYTES 256u

/* What was mapped, as the label says it: "[anon]", "[reserved]" (no access when it was mapped),
 * "[shared]", "[stack]", "[heap]" (brk), or the file's path. */
struct pep_mmap_label {
    char text[PEP_MMAP_LABEL_BYTES];
};
PEP_HOOK_SAFE void pep_mmap_label(struct pep_mmap_label *label, int protection, int flags, int fd);

/* Part of a mapping: [start, limit). */
struct pep_mmap_piece {
    uintptr_t start, limit;
    uint32_t mapping; /* 0: none */
};

/* Pieces taken out, until it is known whether they went. Beyond PEP_MMAP_TAKEN_MAX they count as
 * gone at once (has_more). */
struct pep_mmap_taken {
    struct pep_mmap_piece pieces[PEP_MMAP_TAKEN_MAX];
    uint32_t count;
    bool has_more;
};

/* Is anything known at all? Before that nothing has to be taken out. */
PEP_HOOK_SAFE bool pep_mmap_is_used(void);
/* After a call that mapped bytes at start; label NULL: brk. */
PEP_HOOK_SAFE void pep_mmap_added(uintptr_t start, size_t bytes,
                                  const struct pep_mmap_label *label);
/* Before a call that unmaps or moves. */
PEP_HOOK_SAFE void pep_mmap_take(uintptr_t start, size_t bytes, struct pep_mmap_taken *taken);
/* After it: they are gone; they are still there; they are at another place and have another size
 * (what does not fit is gone, what is new belongs to the caller). */
PEP_HOOK_SAFE void pep_mmap_drop(const struct pep_mmap_taken *taken);
PEP_HOOK_SAFE void pep_mmap_put_back(const struct pep_mmap_taken *taken);
struct pep_mmap_move {
    uintptr_t from, to;
    size_t old_bytes, new_bytes;
};
PEP_HOOK_SAFE void pep_mmap_moved(const struct pep_mmap_taken *taken,
                                  const struct pep_mmap_move *move);

/* Why the host's mappings do not come by the hooks: static text, told in the profile. */
void pep_mmap_set_unreachable(const char *why);
/* In a forked child: what is mapped is mapped here too. */
void pep_mmap_after_fork_child(void);

/* ---- reading ---------------------------------------------------------------------------------
 * Sample types as of heap profiles: alloc_objects, alloc_space, inuse_objects, inuse_space; the
 * default is inuse_space. kind "mmap", is_exact. Thread labels; label "mapping". */
struct pep_mmap_query {
    bool has_absolute_inuse; /* a window's inuse_* as at its end instead of the difference */
    const char *mapping;     /* keep what has this in its label; NULL: all */
    struct pep_profile_filter filter;
};

struct pep_mmap_snapshot;
struct pep_mmap_snapshot *pep_mmap_snapshot_take(struct pep_arena *arena);
/* before NULL: since the start of the process. NULL when memory was refused. */
struct pep_profile *pep_profile_mmap(struct pep_arena *arena,
                                     const struct pep_mmap_snapshot *before,
                                     const struct pep_mmap_query *query);
/* How many samples there are since the start: stacks by thread and label. Takes no copy, no lock.
 */
uint32_t pep_mmap_record_count(void);

#endif
