#include "encoder/sort.h"

#include <string.h>

struct run {
    const void **from;
    size_t middle, limit; /* the halves [start, middle) and [middle, limit) */
};

static void merge(const void **to, const struct run *run, size_t start,
                  int (*compare)(const void *a, const void *b)) {
    size_t left = start, right = run->middle;
    for (size_t i = start; i < run->limit; i++) {
        bool is_left = left < run->middle &&
                       (right >= run->limit || compare(run->from[left], run->from[right]) <= 0);
        to[i] = is_left ? run->from[left++] : run->from[right++];
    }
}

bool pep_sort(struct pep_arena *arena, const void **items, size_t count,
              int (*compare)(const void *a, const void *b)) {
    if (count < 2)
        return true;
    const void **other = pep_arena_array(arena, count, sizeof(*other));
    if (other == NULL)
        return false;
    const void **from = items, **to = other;
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t start = 0; start < count; start += 2 * width) {
            struct run run = {.from = from};
            run.middle = start + width < count ? start + width : count;
            run.limit = start + 2 * width < count ? start + 2 * width : count;
            merge(to, &run, start, compare);
        }
        const void **swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, count * sizeof(*items));
    return true;
}
