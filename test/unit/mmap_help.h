/*
 * What the tests of the record of mappings share: mappings that do not exist, seen as the hooks
 * see real ones, and the sums of a profile.
 *
 * Model:   plain helpers; an address is only a number here.
 * Writers: the tests.
 * Readers: -
 * Memory:  static.
 * When full: -
 */
#ifndef PEP_TEST_MMAP_HELP_H
#define PEP_TEST_MMAP_HELP_H

#include <stddef.h>
#include <stdint.h>

#define HELP_PAGE 4096ul
#define HELP_PAGES 4096u /* from HELP_BASE on */
#define HELP_BASE 0x200000000000ul
#define HELP_FAR 0x300000000000ul

/* The hooks' way through mmap and munmap. */
void help_map(uintptr_t start, size_t bytes, const char *text);
void help_unmap(uintptr_t start, size_t bytes);

struct help_mapped {
    int64_t values[4];
    uint32_t samples;
};
/* Since the start, of mappings with that text in their label (NULL: all), added up. */
struct help_mapped help_mapped(const char *mapping);
/* Unmaps everything; all sums must say so. */
void help_map_clear(void);

#endif
