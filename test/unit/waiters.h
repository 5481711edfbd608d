/*
 * Threads that wait, each in another system call, below a few frames that keep a frame pointer.
 *
 * Model:   waiter_start returns when the thread stands in its call for good. They end with the
 *          process.
 * Writers: the test.
 * Readers: the test.
 * Memory:  static.
 * When full: WAITERS_MAX threads.
 */
#ifndef PEP_TEST_UNIT_WAITERS_H
#define PEP_TEST_UNIT_WAITERS_H

#include <stdbool.h>
#include <stdint.h>

#define WAITERS_MAX 256

struct waiter_kind {
    const char *name; /* of the system call */
    const char *state;
    void (*wait)(void); /* the innermost frame of ours */
};

extern const struct waiter_kind waiter_kinds[];
extern const int waiter_kind_count;

/* The tid of a thread that waits so. */
int waiter_start(const struct waiter_kind *kind);
/* True when the stack holds waiter's frames, each once and in order. */
bool waiter_is_whole(const struct waiter_kind *kind, const uintptr_t *pcs, int count);
/* Any thread; returns its tid when it runs. */
int waiter_run(void *(*function)(void *), void *argument);
/* Waits until the thread is in this state for good (proc(5)). */
void waiter_await(int tid, char state);
/* A thread that computes until waiter_spin_end. */
int waiter_spin(void);
void waiter_spin_end(void);
/* A number of /proc/self/task/<tid>/status; name with the line's beginning, "\nSigBlk". */
uint64_t waiter_status(int tid, const char *name);

#endif
