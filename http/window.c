#include "http/window.h"

#include <errno.h>
#include <time.h>

#include "sampler/cpu.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"
#include "sampler/wall.h"

/* 200 years: far beyond any wait, and still clear of 64 bits of nanoseconds. */
#define SECONDS_MAX 6307200000ll

uint64_t pep_window_duration_ns(int64_t seconds) {
    return (uint64_t)(seconds < SECONDS_MAX ? seconds : SECONDS_MAX) * 1000000000ull;
}

static uint32_t open_windows;

uint32_t pep_window_open_count(void) {
    return pep_load_relaxed(&open_windows);
}

void pep_window_after_fork_child(void) {
    open_windows = 0;
}

static void rest(void) {
}

/* keep is called between two slices. */
static int wait_slices(struct pep_client *client, uint64_t duration_ns, void (*keep)(void)) {
    uint64_t deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + duration_ns;
    for (;;) {
        uint64_t now_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
        if (now_ns >= deadline_ns)
            return 0;
        uint64_t left_ns = deadline_ns - now_ns;
        uint64_t slice_ns = left_ns < PEP_WINDOW_SLICE_NS ? left_ns : PEP_WINDOW_SLICE_NS;
        if (!client->wait(client, slice_ns))
            return -ECONNRESET;
        keep();
    }
}

static int wait_out(struct pep_client *client, uint64_t duration_ns, void (*keep)(void)) {
    (void)pep_add_relaxed(&open_windows, 1);
    int error = wait_slices(client, duration_ns, keep);
    (void)pep_sub_relaxed(&open_windows, 1);
    return error;
}

/* -- time: CPU and wall clock --------------------------------------------------------------- */

static void *take_before(struct pep_arena *arena, const struct pep_window *window) {
    if (window->clock == PEP_WINDOW_WALL)
        return pep_wall_snapshot_take(arena);
    return pep_cpu_snapshot_take(arena);
}

int pep_window_begin(struct pep_arena *arena, const struct pep_window *window, void **before) {
    bool is_wall = window->clock == PEP_WINDOW_WALL;
    /* The reading first: a sample between it and the arming belongs to this window too. */
    *before = take_before(arena, window);
    if (!*before)
        return -ENOMEM;
    return is_wall ? pep_wall_begin(window->hz) : pep_cpu_begin(window->hz);
}

struct pep_profile *pep_window_read(struct pep_arena *arena, const struct pep_window *window,
                                    const void *before) {
    struct pep_profile_filter filter = {.thread = window->thread};
    if (window->clock == PEP_WINDOW_WALL)
        return pep_profile_wall(arena, before, window->hz, &filter);
    return pep_profile_cpu(arena, before, window->hz, &filter);
}

void pep_window_end(const struct pep_window *window) {
    if (window->clock == PEP_WINDOW_WALL)
        pep_wall_end(window->hz);
    else
        pep_cpu_end(window->hz);
}

struct pep_profile *pep_window_empty(struct pep_arena *arena, const struct pep_window *window) {
    const void *before = take_before(arena, window);
    struct pep_profile *profile = before ? pep_window_read(arena, window, before) : NULL;
    if (profile)
        profile->sample_count = 0; /* another window may be open */
    return profile;
}

int pep_window_run(struct pep_arena *arena, const struct pep_window *window,
                   struct pep_profile **profile) {
    void *before;
    *profile = NULL;
    int error = pep_window_begin(arena, window, &before);
    if (error)
        return error;
    /* The thread that reads the wall clock looks after the threads itself. */
    error = wait_out(window->client, window->duration_ns,
                     window->clock == PEP_WINDOW_WALL ? rest : pep_cpu_sweep);
    if (!error) {
        *profile = pep_window_read(arena, window, before);
        error = *profile ? 0 : -ENOMEM;
    }
    pep_window_end(window);
    return error;
}

/* -- memory --------------------------------------------------------------------------------- */

static int has_varied; /* once set, it stays: so do the sums */

bool pep_window_heap_has_varied(void) {
    return pep_load_relaxed(&has_varied) != 0;
}

void pep_window_heap_vary(void) {
    pep_store_relaxed(&has_varied, 1);
}

int pep_window_heap_begin(const struct pep_heap_window *window) {
    if (window->probability > 0 || window->rate_bytes)
        pep_store_relaxed(&has_varied, 1);
    if (window->probability > 0)
        return pep_heap_begin_probability(window->probability);
    return window->rate_bytes ? pep_heap_begin(window->rate_bytes) : 0;
}

void pep_window_heap_end(const struct pep_heap_window *window) {
    if (window->probability > 0)
        pep_heap_end_probability(window->probability);
    else if (window->rate_bytes)
        pep_heap_end(window->rate_bytes);
}

int pep_window_heap(struct pep_arena *arena, const struct pep_heap_window *window,
                    struct pep_profile **profile) {
    *profile = NULL;
    /* The rate first: a block sampled before, at a coarser one, would stand for many. */
    int error = pep_window_heap_begin(window);
    if (error)
        return error;
    struct pep_heap_snapshot *before = pep_heap_snapshot_take(arena);
    error = before ? wait_out(window->client, window->duration_ns, rest) : -ENOMEM;
    if (!error) {
        *profile = pep_profile_heap(arena, before, &window->query);
        error = *profile ? 0 : -ENOMEM;
    }
    if (!error)
        (*profile)->is_signed = !window->query.has_absolute_inuse;
    pep_window_heap_end(window);
    return error;
}

int pep_window_mmap(struct pep_arena *arena, const struct pep_mmap_window *window,
                    struct pep_profile **profile) {
    struct pep_mmap_snapshot *before = NULL;
    *profile = NULL;
    if (window->duration_ns) {
        before = pep_mmap_snapshot_take(arena);
        int error = before ? wait_out(window->client, window->duration_ns, rest) : -ENOMEM;
        if (error)
            return error;
    }
    *profile = pep_profile_mmap(arena, before, &window->query);
    return *profile ? 0 : -ENOMEM;
}

int pep_window_lock(struct pep_arena *arena, const struct pep_lock_window *window,
                    struct pep_profile **profile) {
    struct pep_cells_snapshot *before = NULL;
    int error = window->rate_ns ? pep_lock_begin(window->rate_ns) : 0;
    *profile = NULL;
    if (error)
        return error;
    if (window->duration_ns) {
        before = pep_lock_snapshot_take(arena, window->side);
        error = before ? wait_out(window->client, window->duration_ns, rest) : -ENOMEM;
    }
    if (!error) {
        *profile = pep_profile_lock(arena, window->side, before, &window->filter);
        error = *profile ? 0 : -ENOMEM;
    }
    if (window->rate_ns)
        pep_lock_end(window->rate_ns);
    return error;
}

int pep_window_wait(struct pep_client *client, uint64_t duration_ns) {
    return wait_out(client, duration_ns, rest);
}

struct pep_profile *pep_window_modules(struct pep_arena *arena) {
    struct pep_profile_filter filter = {.thread = NULL};
    struct pep_cpu_snapshot *before = pep_cpu_snapshot_take(arena);
    return before ? pep_profile_cpu(arena, before, PEP_CPU_HZ_MIN, &filter) : NULL;
}
