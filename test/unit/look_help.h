/*
 * What the tests that look at threads share: an arena, a walk that does something first, and files
 * of /proc that are refused.
 *
 * Model:   each test names the functions it replaces by --wrap: pep_unwind for look_while_walking,
 *          pep_os_call6 for look_refused_file. Without these they change nothing.
 * Writers: the test.
 * Readers: the fakes; that of pep_unwind in any thread and in handlers.
 * Memory:  static.
 * When full: -
 */
#ifndef PEP_TEST_LOOK_HELP_H
#define PEP_TEST_LOOK_HELP_H

#include "sampler/rt/arena.h"

extern struct pep_arena look_arena;
extern void (*look_while_walking)(void); /* before each walk; NULL: nothing */
extern const char *look_refused_file;    /* of /proc/self/task/T; NULL: none */
extern int look_refused_error;

/* Around each test. At its end spinning threads end and nothing is refused any more. */
int look_setup(void **state);
int look_teardown(void **state);

#endif
