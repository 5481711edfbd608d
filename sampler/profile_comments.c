/*
 * The comments of a profile: plain sentences for whoever reads it.
 *
 * Model:   each comment is appended to a copy of the array, so whoever holds the old one, another
 *          profile perhaps, keeps it; there are some ten of them.
 * Writers: whoever makes or completes a profile, on profep's threads.  [normal]
 * Readers: the encoders.
 * Memory:  the caller's arena.
 * When full: the comment is left out; the arena says so (is_failed).
 */
#include <string.h>

#include "sampler/profile_parts.h"
#include "sampler/rt/atomics.h"

bool pep_profile_tell(struct pep_arena *arena, struct pep_profile *profile, const char *format,
                      ...) {
    va_list arguments;
    va_start(arguments, format);
    const char *text = pep_arena_vprintf(arena, format, arguments);
    va_end(arguments);
    uint32_t count = profile->comment_count;
    const char **comments = pep_arena_array(arena, count + 1u, sizeof *comments);
    if (text == NULL || comments == NULL)
        return false;
    if (count > 0)
        memcpy(comments, profile->comments, count * sizeof *comments);
    comments[count] = text;
    profile->comments = comments;
    profile->comment_count = count + 1;
    return true;
}

void pep_profile_tell_losses(struct pep_arena *arena, struct pep_profile *profile,
                             const enum pep_counter *losses, size_t count, const uint64_t *before) {
    for (size_t i = 0; i < count; i++) {
        enum pep_counter loss = losses[i];
        uint64_t rise = pep_load_relaxed(&pep_counter_values[loss]);
        if (before != NULL)
            rise -= before[loss];
        if (rise != 0)
            (void)pep_profile_tell(arena, profile, "%llu %s (%s)%s", (unsigned long long)rise,
                                   pep_counter_help(loss), pep_counter_name(loss),
                                   before != NULL ? "." : ", since the start.");
    }
}
