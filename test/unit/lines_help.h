/*
 * What the tests of source lines share: a program made of three inlined calls, and its addresses.
 *
 * Model:   sources and programs in a folder of the test's own.
 * Writers: the tests.
 * Readers: -
 * Memory:  static, and one arena.
 * When full: -
 */
#ifndef PEP_TEST_LINES_HELP_H
#define PEP_TEST_LINES_HELP_H

#include <stdint.h>

#include "encoder/lines.h"
#include "sampler/rt/arena.h"

#define LINES_SECOND_NS UINT64_C(1000000000)
#define LINES_ADDRESSES_MAX 4096

extern struct pep_arena lines_arena;
extern char lines_folder[64];
extern uint64_t lines_addresses[LINES_ADDRESSES_MAX];

/* For the wraps of pep_os_clone_child and pep_lines_child; lines_begin sets all to 0. */
extern int lines_clones, lines_clone_error, lines_child_is;

/* Around each test: makes the folder with "mix" and its sources; and takes all away. */
int lines_begin(void **state);
int lines_end(void **state);
/* A command of the shell, which must succeed. */
void lines_run(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The path of a file in the folder. */
const char *lines_at(const char *name);
struct pep_mapping lines_mapping_of(const char *path);
/* Every address of the program's own functions, in lines_addresses: how many. */
uint32_t lines_list_addresses(const char *path);
/* Reads one file's, which must not fail. */
struct pep_lines_file lines_read_all(const struct pep_mapping *mapping, uint32_t count);

#endif
