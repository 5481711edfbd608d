/*
 * A small dump of threads for the tests of its formats.
 *
 * Model:   the main thread, two in a deadlock, one that could not be read, two that sleep on the
 *          same stack, one with a hostile name; the addresses are the example profile's.
 * Writers: -
 * Readers: test_threads_text, test_threads_html, test_on_threads.  [normal]
 * Memory:  static.
 * When full: -
 */
#ifndef PEP_TEST_EXAMPLE_DUMP_H
#define PEP_TEST_EXAMPLE_DUMP_H

#include "sampler/dump.h"

extern const struct pep_dump example_dump;

#endif
