#include "http/heap_notes.h"

#include <string.h>

#include "sampler/rt/attrs.h"
#include "sampler/rt/os.h"

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
static void tell_memory(const struct pep_heap_notes *notes) {
    static const struct {
        const char *name, *field;
    } lines[] = {{"Sys", "\nVmSize:"},     {"MaxSys", "\nVmPeak:"},     {"RSS", "\nVmRSS:"},
                 {"MaxRSS", "\nVmHWM:"},   {"Anonymous", "\nRssAnon:"}, {"Data", "\nVmData:"},
                 {"StackSys", "\nVmStk:"}, {"Swap", "\nVmSwap:"}};
    char status[4096];
    struct pep_heap_state state;
    pep_heap_state(&state);
    if (state.has_live_map)
        pep_profile_tell(notes->arena, notes->profile, "HeapObjects = %llu",
                         (unsigned long long)state.live_blocks);
    if (pep_os_read_file("/proc/self/status", status, sizeof(status)) <= 0)
        return;
    for (size_t i = 0; i < PEP_COUNT_OF(lines); i++) {
        int64_t bytes = status_bytes(status, lines[i].field);
        if (bytes >= 0)
            pep_profile_tell(notes->arena, notes->profile, "%s = %lld", lines[i].name,
                             (long long)bytes);
    }
}

void pep_heap_notes_add(const struct pep_heap_notes *notes) {
    struct pep_arena *arena = notes->arena;
    struct pep_profile *profile = notes->profile;
    if (notes->probability >= 1)
        pep_profile_tell(arena, profile, "Every allocation of the window was recorded.");
    else if (notes->probability > 0)
        pep_profile_tell(arena, profile,
                         "Each allocation of the window was recorded with probability %g, "
                         "whatever its size.",
                         notes->probability);
    if (notes->has_trimmed)
        pep_profile_tell(arena, profile,
                         "malloc_trim(0) was called before this profile was taken (gc=1).");
    if (notes->is_trim_refused)
        pep_profile_tell(
            arena, profile,
            "malloc_trim(0) was not called (gc=1): an earlier call has not come back.");
    if (profile->is_signed)
        pep_profile_tell(
            arena, profile,
            "What is in use is the difference over the window; inuse=absolute gives all.");
    if (notes->has_memory)
        tell_memory(notes);
}
