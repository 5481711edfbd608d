#include "http/sample_room.h"

/* a * b / c without the product's overflow; nothing here is below 0. */
static int64_t share(int64_t a, int64_t b, int64_t c) {
    return (int64_t)((__int128)a * b / c);
}

/* Of all samples before the sum `passed` so many are kept; so each stack keeps its share, and all
 * together exactly room. */
static uint32_t thin(struct pep_profile *profile, int64_t total, int64_t room) {
    uint32_t kept = 0;
    int64_t passed = 0;
    for (uint32_t i = 0; i < profile->sample_count; i++) {
        struct pep_sample sample = profile->samples[i];
        int64_t before = share(passed, room, total), count = sample.values[0];
        if (count <= 0)
            continue;
        passed += count;
        sample.values[0] = share(passed, room, total) - before;
        sample.values[1] = share(sample.values[1], sample.values[0], count);
        if (sample.values[0] > 0)
            profile->samples[kept++] = sample;
    }
    return kept;
}

static int64_t sum(const struct pep_profile *profile, int type) {
    int64_t total = 0;
    for (uint32_t i = 0; i < profile->sample_count; i++)
        total += profile->samples[i].values[type] > 0 ? profile->samples[i].values[type] : 0;
    return total;
}

/* What is left stands for what was taken away. */
static void stretch(struct pep_profile *profile, int64_t weight) {
    int64_t left = sum(profile, 1);
    for (uint32_t i = 0; left > 0 && i < profile->sample_count; i++)
        profile->samples[i].values[1] = share(profile->samples[i].values[1], weight, left);
}

bool pep_sample_room_apply(struct pep_arena *arena, struct pep_profile *profile, uint64_t room) {
    int64_t total = sum(profile, 0), weight = sum(profile, 1);
    if (total <= 0 || (uint64_t)total <= room)
        return true;
    profile->is_full = true;
    profile->sample_count = thin(profile, total, (int64_t)room);
    stretch(profile, weight);
    return pep_profile_tell(arena, profile,
                            "The room for samples was full (n=%llu): %lld were recorded; those "
                            "left are spread evenly over them.",
                            (unsigned long long)room, (long long)total);
}
