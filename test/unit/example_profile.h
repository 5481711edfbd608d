/*
 * A small profile and a symbolizer for the tests of the formats.
 *
 * Model:   three mappings (program, libc, one without names), two threads, recursion, an inlined
 *          frame, hostile names, one note.
 * Writers: -
 * Readers: the tests of the formats.  [normal]
 * Memory:  static.
 * When full: -
 */
#ifndef PEP_TEST_EXAMPLE_PROFILE_H
#define PEP_TEST_EXAMPLE_PROFILE_H

#include "encoder/encoders.h"

#define EXAMPLE_TOTAL_NS 150000000
/* Addresses of the example, by the name of the function. */
#define EXAMPLE_MAIN_PC 0x400010u
#define EXAMPLE_WORK_PC 0x400020u
#define EXAMPLE_RECURSE_PC 0x400030u
#define EXAMPLE_HOSTILE_PC 0x400040u
#define EXAMPLE_MEMCPY_PC 0x7f0000000100u
#define EXAMPLE_OWN_PC 0x7f2000000010u

/* The addresses of a sample, the innermost first. */
#define EXAMPLE_STACK(...) \
    .pcs = (const uintptr_t[]){__VA_ARGS__}, \
    .pc_count = sizeof((const uintptr_t[]){__VA_ARGS__}) / sizeof(uintptr_t)

extern const struct pep_profile example_profile;
extern struct pep_symbolizer example_symbolizer;

typedef void (*example_encoder)(const struct pep_encode_job *job);
/* What an encoder makes of a profile with the example's symbolizer. The arena owns the bytes. */
struct pep_buffer_writer example_encode(example_encoder encode, const struct pep_profile *profile,
                                        struct pep_arena *arena);
/* Compares with test/golden/NAME, or writes it when GOLDEN=1 is set; fails the test. */
void example_golden(const char *name, const struct pep_buffer_writer *found);
/* A private file with these bytes; the path is static. Compressed when is_gzip. */
const char *example_file(const struct pep_buffer_writer *bytes, bool is_gzip,
                         struct pep_arena *arena);
/* Encodes under every limit of memory: each time whole or -ENOMEM, and that at least once. */
void example_no_memory(example_encoder encode, const struct pep_profile *profile);
/* What a reader ("go"), given these arguments and the file, prints of it; static. NULL where the
 * reader is not installed; fails the test where it refuses the file. */
const char *example_read_by(const char *reader, const char *arguments,
                            const struct pep_buffer_writer *bytes, struct pep_arena *arena);
/* Runs a command line; its output, at most size - 1 bytes, and its exit status. */
int example_run(const char *command, char *output, size_t size);

#endif
