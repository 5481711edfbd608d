#include "mmap_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "sampler/mmap_internal.h"

void help_map(uintptr_t start, size_t bytes, const char *text) {
    struct pep_mmap_label label;
    snprintf(label.text, sizeof label.text, "%s", text);
    pep_mmap_added(start, bytes, &label);
}

void help_unmap(uintptr_t start, size_t bytes) {
    struct pep_mmap_taken taken;
    pep_mmap_take(start, bytes, &taken);
    pep_mmap_drop(&taken);
}

/* Since the start, of mappings with that text in their label (NULL: all). */
struct help_mapped help_mapped(const char *mapping) {
    struct help_mapped sums = {.samples = 0};
    struct pep_arena arena;
    pep_arena_init(&arena, 0);
    const struct pep_mmap_query query = {.mapping = mapping};
    const struct pep_profile *profile = pep_profile_mmap(&arena, NULL, &query);
    assert_non_null(profile);
    sums.samples = profile->sample_count;
    for (uint32_t i = 0; i < profile->sample_count; i++)
        for (int k = 0; k < 4; k++)
            sums.values[k] += profile->samples[i].values[k];
    pep_arena_drop(&arena);
    return sums;
}

void help_map_clear(void) {
    for (uintptr_t at = HELP_BASE; at < HELP_BASE + HELP_PAGES * HELP_PAGE; at += 8 * HELP_PAGE)
        help_unmap(at, 8 * HELP_PAGE);
    help_unmap(HELP_FAR, (size_t)1 << 40);
    pep_mmap_check();
    assert_int_equal(help_mapped(NULL).values[2], 0);
    assert_int_equal(help_mapped(NULL).values[3], 0);
}
