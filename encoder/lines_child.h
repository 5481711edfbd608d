/*
 * What the child that reads lines writes down, and where.
 *
 * Model:   a shared mapping: a head, a word an address, a word a file, then a heap that only
 *          grows. An address's word is 0 until its answer is complete, then the offset of the
 *          record in the heap. Sizes stand in the task, which the child cannot change.
 * Writers: the child.
 * Readers: the parent, once the child is gone; it believes nothing.  [normal]
 * Memory:  the mapping's size is fixed before the child is made.
 * When full: is_full; the remaining words stay 0.
 */
#ifndef PEP_ENCODER_LINES_CHILD_H
#define PEP_ENCODER_LINES_CHILD_H

#include "encoder/lines.h"

#define PEP_LINES_HEAP_FIRST 8 /* offsets below are never given out: 0 says "none" */

/* One answer; the texts are offsets in the heap. */
struct pep_lines_record {
    uint32_t count;
    struct pep_lines_words {
        uint32_t function, file, line;
    } frames[];
};

struct pep_lines_sheet {
    uint32_t is_done; /* the parent sleeps on it */
    uint32_t file;    /* being read */
    uint32_t is_full;
    uint32_t used_bytes; /* of the heap */
    uint32_t words[];
};

struct pep_lines_task {
    struct pep_lines_sheet *sheet;
    struct pep_lines_file *files;
    int parent; /* process id */
    uint32_t file_count;
    uint32_t first; /* the child begins here */
    uint32_t address_count;
    uint32_t heap_bytes;
};

static inline uint32_t *pep_lines_ends(const struct pep_lines_task *task) {
    return task->sheet->words + task->address_count;
}

static inline char *pep_lines_heap(const struct pep_lines_task *task) {
    return (char *)(pep_lines_ends(task) + task->file_count);
}

/* What the child is called among processes. */
#define PEP_LINES_CHILD_NAME "profep-lines"

/* The child's whole life. */
void pep_lines_child(const struct pep_lines_task *task) __attribute__((noreturn));

#endif
