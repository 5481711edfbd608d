/*
 * From addresses in object files to source lines and inlined calls.
 *
 * Model:   one batch a request. Debug information is other people's data and may be anything: it
 *          is read in a child that has only its own memory, limits and a deadline, and what it
 *          answers is checked as if it came from a stranger. The child is a copy of this process
 *          without an exit signal: neither the host's wait nor its SIGCHLD knows of it, and it is
 *          gone before the host is replaced by an exec. (A child of a child would outlive that, but
 *          becomes the host's own where that is a subreaper or process 1.) A few requests read at a
 *          time, others wait.
 * Writers: pep_lines_read, on the thread that encodes.  [normal]
 * Readers: the same.
 * Memory:  answers: the caller's arena; on the way a shared mapping of some hundred bytes an
 *          address; in the child at most LINES_CHILD_BYTES beyond what it began with.
 * When full: addresses without an answer.
 */
#ifndef PEP_ENCODER_LINES_H
#define PEP_ENCODER_LINES_H

#include "sampler/profile.h"

#define PEP_LINES_FRAMES_MAX 64

struct pep_line {
    const char *function; /* as in the debug information, mangled or not; NULL: not known */
    const char *file;     /* NULL: not known */
    uint32_t line;
};

struct pep_lines {
    const struct pep_line *frames; /* innermost inlined call first, the function itself last */
    uint32_t count;                /* 0: nothing is known of this address */
};

/* What became of the file; in the order of severity. */
enum pep_lines_end {
    PEP_LINES_UNREAD, /* not reached: no child, or the time was over */
    PEP_LINES_READ,
    PEP_LINES_PARTLY,  /* read, and contradictory in places */
    PEP_LINES_LATE,    /* the time was over in the middle of it */
    PEP_LINES_ENDED,   /* somebody ended the reader in the middle of it */
    PEP_LINES_DAMAGED, /* the reader died of it */
};

struct pep_symbol_file;

struct pep_lines_file {
    const struct pep_mapping *mapping;
    bool is_main;
    const uint64_t *addresses; /* as in the file's headers */
    uint32_t count;
    struct pep_lines **answers; /* [count]; made by the read; NULL: no answer */
    enum pep_lines_end end;
    struct pep_symbol_file *owner; /* of the caller */
};

/* Fills answers and end of every file; returns by the deadline (CLOCK_MONOTONIC) and a little.
 * 0, or -errno when no child could be made; -ETIME: the deadline came first; -ECHILD: somebody
 * ended the child; -ECANCELED: called back; -ENOTSUP: turned off; -EPERM: forbidden by a filter. */
int pep_lines_read(struct pep_arena *arena, struct pep_lines_file *files, uint32_t file_count,
                   uint64_t deadline_ns);
/* Before an exec, which would hand them to the next program: when recall returns there are no
 * children, but for one that the kernel holds for longer than a second, and none is made until its
 * end. Requests of the moment go without lines. */
void pep_lines_recall(void);
void pep_lines_recall_end(void);
/* In the constructor: ends and waits for children of the program that was here before, where that
 * was replaced past our hooks. */
void pep_lines_bury_inherited(void);
/* The children are the parent's. */
void pep_lines_after_fork_child(void);

#endif
