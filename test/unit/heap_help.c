#include "heap_help.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "sampler/heap_hook.h"

void help_allocate(uintptr_t block, size_t size_bytes) {
    if (pep_heap_take(size_bytes))
        pep_heap_allocated(block, size_bytes);
    else
        pep_live_map_add(block);
}

void help_free(uintptr_t block) {
    uint8_t *byte = pep_live_map_place(block);
    uint8_t what = pep_load_relaxed(byte);
    if (what == PEP_LIVE_BLOCK)
        pep_store_relaxed(byte, PEP_LIVE_NOTHING);
    if (what <= PEP_LIVE_BLOCK)
        return;
    struct pep_heap_taken taken = pep_heap_take_out(block);
    pep_heap_freed(&taken);
}

struct help_sums help_sum(enum pep_heap_view view, int is_raw) {
    struct help_sums sums = {.samples = 0};
    struct pep_arena arena;
    pep_arena_init(&arena, 0);
    const struct pep_heap_query query = {.view = view, .is_raw = is_raw != 0};
    const struct pep_profile *profile = pep_profile_heap(&arena, NULL, &query);
    assert_non_null(profile);
    sums.samples = profile->sample_count;
    for (uint32_t i = 0; i < profile->sample_count; i++)
        for (int k = 0; k < 4; k++)
            sums.values[k] += profile->samples[i].values[k];
    pep_arena_drop(&arena);
    return sums;
}

uint64_t help_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

size_t help_mixed_size(uint64_t *state) {
    size_t least = (size_t)64 << help_random(state) % 20;
    return least + help_random(state) % least;
}
