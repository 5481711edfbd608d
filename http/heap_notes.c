#include "http/heap_notes.h"

#include <string.h>

#include "sampler/rt/attrs.h"
#include "sampler/rt/os.h"

struct comments {
    struct pep_arena *arena;
    struct pep_profile *profile;
    size_t capacity;
};

static void add(struct comments *to, const char *text) {
    size_t count = to->profile->comment_count;
    if (text == NULL || !PEP_ARENA_GROW(to->arena, to->profile->comments, count, to->capacity))
        return;
    to->profile->comments[count] = text;
    to->profile->comment_count++;
}

/* The array that the profile came with is not ours to grow. */
static void adopt(struct comments *to) {
    const char **old = to->profile->comments;
    uint32_t count = to->profile->comment_count;
    to->profile->comments = NULL;
    to->profile->comment_count = 0;
    for (uint32_t i = 0; i < count; i++)
        add(to, old[i]);
}

/* -- the process's memory --------------------------------------------------------------------- */

/* The number behind a name of /proc/PID/status, in bytes; -1 when it is not there. */
static int64_t status_bytes(const char *status, const char *name) {
    const char *line = strstr(status, name);
    int64_t kilobytes = 0;
    if (!line)
        return -1;
    line += strlen(name);
    line += strspn(line, " \t");
    if (*line < '0' || *line > '9')
        return -1;
    for (; *line >= '0' && *line <= '9'; line++)
        kilobytes = kilobytes * 10 + (*line - '0');
    return kilobytes * 1024;
}

/* Names as in Go's runtime.MemStats where they mean the same. What only the host's malloc could
 * tell is left out: asking it would take its locks. */
static void add_memory(struct comments *to) {
    static const struct {
        const char *name, *field;
    } lines[] = {{"Sys", "\nVmSize:"},     {"MaxSys", "\nVmPeak:"},     {"RSS", "\nVmRSS:"},
                 {"MaxRSS", "\nVmHWM:"},   {"Anonymous", "\nRssAnon:"}, {"Data", "\nVmData:"},
                 {"StackSys", "\nVmStk:"}, {"Swap", "\nVmSwap:"}};
    char status[4096];
    struct pep_heap_state state;
    pep_heap_state(&state);
    if (state.has_live_map)
        add(to, pep_arena_printf(to->arena, "HeapObjects = %llu",
                                 (unsigned long long)state.live_blocks));
    if (pep_os_read_file("/proc/self/status", status, sizeof(status)) <= 0)
        return;
    for (size_t i = 0; i < PEP_COUNT_OF(lines); i++) {
        int64_t bytes = status_bytes(status, lines[i].field);
        if (bytes >= 0)
            add(to, pep_arena_printf(to->arena, "%s = %lld", lines[i].name, (long long)bytes));
    }
}

void pep_heap_notes_add(const struct pep_heap_notes *notes) {
    struct comments to = {.arena = notes->arena, .profile = notes->profile};
    adopt(&to);
    if (notes->probability >= 1)
        add(&to, "Every allocation of the window was recorded.");
    else if (notes->probability > 0)
        add(&to, pep_arena_printf(to.arena,
                                  "Each allocation of the window was recorded with probability "
                                  "%g, whatever its size.",
                                  notes->probability));
    if (notes->has_trimmed)
        add(&to, "malloc_trim(0) was called before this profile was taken (gc=1).");
    if (notes->is_trim_refused)
        add(&to, "malloc_trim(0) was not called (gc=1): an earlier call has not come back.");
    if (notes->profile->is_signed)
        add(&to, "What is in use is the difference over the window; inuse=absolute gives all.");
    if (notes->has_memory)
        add_memory(&to);
}
