#include "http/window.h"

#include <errno.h>
#include <time.h>

#include "sampler/cpu.h"
#include "sampler/rt/os.h"

/* 200 years: far beyond any wait, and still clear of 64 bits of nanoseconds. */
#define SECONDS_MAX 6307200000ll

static int wait_out(const struct pep_window *window) {
    int64_t seconds = window->seconds < SECONDS_MAX ? window->seconds : SECONDS_MAX;
    uint64_t deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + (uint64_t)seconds * 1000000000ull;
    for (;;) {
        uint64_t now_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
        if (now_ns >= deadline_ns)
            return 0;
        uint64_t left_ns = deadline_ns - now_ns;
        uint64_t slice_ns = left_ns < PEP_WINDOW_SLICE_NS ? left_ns : PEP_WINDOW_SLICE_NS;
        if (!window->client->wait(window->client, slice_ns))
            return -ECONNRESET;
        pep_cpu_sweep();
    }
}

int pep_window_cpu(struct pep_arena *arena, const struct pep_window *window,
                   struct pep_profile **profile) {
    struct pep_profile_filter filter = {.thread = window->thread};
    *profile = NULL;
    /* The reading first: a sample between it and the arming belongs to this window too. */
    struct pep_cpu_snapshot *before = pep_cpu_snapshot_take(arena);
    if (!before)
        return -ENOMEM;
    int error = pep_cpu_begin(window->hz);
    if (error)
        return error;
    error = wait_out(window);
    if (!error) {
        *profile = pep_profile_cpu(arena, before, window->hz, &filter);
        error = *profile ? 0 : -ENOMEM;
    }
    pep_cpu_end(window->hz);
    return error;
}

struct pep_profile *pep_window_modules(struct pep_arena *arena) {
    struct pep_profile_filter filter = {.thread = NULL};
    struct pep_cpu_snapshot *before = pep_cpu_snapshot_take(arena);
    return before ? pep_profile_cpu(arena, before, PEP_CPU_HZ_MIN, &filter) : NULL;
}
