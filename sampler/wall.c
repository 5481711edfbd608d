#include "sampler/wall.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <time.h>

#include "sampler/ask.h"
#include "sampler/cpu.h"
#include "sampler/modules.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/rt/spawn.h"
#include "sampler/rt/table.h"
#include "sampler/thread.h"
#include "sampler/wall_watch.h"

#define NS_PER_SECOND 1000000000u
#define CELLS 131072
#define SWEEP_NS 100000000u
/* Beats take at most 1/5 of a processor, where there are too many threads for that less often; what
 * 1 s of that pays for may be spent at once, as when a window meets its threads. */
#define COST_SHARE 5u
#define DEBT_NS 1000000000u

/* What a reading notes in its marks. */
enum { MARK_BEATS, MARK_LATE, MARK_UNANSWERED, MARK_FULL };

static struct pep_cells cells;
static uint64_t beats; /* since the start of the process */

/* Windows: under windows_lock. */
static int windows_lock;
static uint32_t windows;
static uint16_t windows_at[PEP_WALL_HZ_MAX + 1]; /* open windows by rate */
static uint32_t hz;                              /* the highest of them */
static bool is_paused;

/* The reading thread. watch_lock is held for a beat or a reading; windows_lock may be held too,
 * and then was taken first. */
static int watch_lock;
static pthread_t reader;
static bool has_reader;
static int changes; /* a futex word: the thread sleeps on it */
static int is_ending;
static bool is_inheriting; /* who made the thread has a table of descriptors of its own */
static uint64_t rng;

static void take(int *lock) {
    int free = 0;
    while (!pep_cas_acq_rel(lock, &free, 1)) {
        pep_os_futex_wait(lock, 1, 10000000);
        free = 0;
    }
}

static void drop(int *lock) {
    pep_store_release(lock, 0);
    pep_os_futex_wake(lock, 1);
}

/* -- the reading thread --------------------------------------------------------------------- */

/* The time to the next beat: from half a period to one and a half, so that a host with a rhythm
 * of its own is met at every point of it. */
static uint64_t draw_interval(uint64_t period_ns) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return period_ns / 2 + rng % period_ns;
}

struct plan {
    uint64_t due_ns;   /* of the next beat */
    uint64_t ended_ns; /* of the last one */
    uint64_t debt_ns;  /* time to go by before its cost is within the share */
};

/* Plans the beat after one that took that much CPU time. One that comes a whole period late stands
 * for those it missed. */
static void plan_beat(struct plan *plan, uint64_t cost_ns, uint64_t period_ns) {
    uint64_t now_ns = pep_os_clock_ns(CLOCK_MONOTONIC), gone_ns = now_ns - plan->ended_ns;
    plan->debt_ns += cost_ns * COST_SHARE;
    plan->debt_ns = plan->debt_ns > gone_ns ? plan->debt_ns - gone_ns : 0;
    plan->ended_ns = now_ns;
    plan->due_ns += draw_interval(period_ns);
    uint64_t earliest_ns = now_ns + (plan->debt_ns > DEBT_NS ? plan->debt_ns - DEBT_NS : 0);
    if (plan->due_ns >= earliest_ns)
        return;
    if (earliest_ns - plan->due_ns >= period_ns)
        PEP_COUNT(wall_late, (earliest_ns - plan->due_ns) / period_ns);
    plan->due_ns = earliest_ns;
}

static void beat(struct pep_looker *looker, uint64_t period_ns) {
    take(&watch_lock);
    pep_watches_beat(looker, pep_os_clock_ns(CLOCK_MONOTONIC), period_ns);
    drop(&watch_lock);
    pep_add_relaxed(&beats, 1);
}

static void sweep(uint64_t *swept_ns, uint64_t now_ns) {
    if (now_ns - *swept_ns < SWEEP_NS)
        return;
    *swept_ns = now_ns;
    pep_cpu_sweep();
    if (pep_modules_is_stale())
        (void)pep_modules_refresh();
}

static void read_until_ended(struct pep_looker *looker) {
    uint64_t swept_ns = 0;
    struct plan plan = {.due_ns = pep_os_clock_ns(CLOCK_MONOTONIC)};
    plan.ended_ns = plan.due_ns;
    while (!pep_load_acquire(&is_ending)) {
        int seen = pep_load_acquire(&changes);
        uint64_t now_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
        uint64_t period_ns = NS_PER_SECOND / pep_load_relaxed(&hz);
        if (plan.due_ns > now_ns + 2 * period_ns && plan.debt_ns <= DEBT_NS)
            plan.due_ns = now_ns + draw_interval(period_ns); /* a faster window was opened */
        if (now_ns < plan.due_ns) {
            (void)pep_os_futex_wait(&changes, seen, plan.due_ns - now_ns);
            continue;
        }
        uint64_t began_ns = pep_os_clock_ns(CLOCK_THREAD_CPUTIME_ID);
        sweep(&swept_ns, now_ns);
        beat(looker, period_ns);
        plan_beat(&plan, pep_os_clock_ns(CLOCK_THREAD_CPUTIME_ID) - began_ns, period_ns);
    }
}

static void *run(void *unused) {
    struct pep_arena arena;
    (void)unused;
    pep_thread_become_own();
    if (is_inheriting)
        pep_table_inherit();
    (void)pep_os_prctl(PR_SET_NAME, (unsigned long)"profep-wall", 0, 0, 0);
    pep_arena_init(&arena, 0);
    struct pep_looker *looker = pep_looker_open(&arena);
    if (looker != NULL) {
        read_until_ended(looker);
        pep_looker_close(looker);
    }
    pep_arena_drop(&arena);
    pep_thread_leave();
    return NULL;
}

static int start_reader(void) {
    rng = pep_os_clock_ns(CLOCK_MONOTONIC) | 1;
    is_inheriting = pep_table_is_apart();
    pep_store_release(&is_ending, 0);
    int error = pep_spawn(run, NULL, &reader);
    has_reader = error == 0;
    return error;
}

static void wake_reader(void) {
    pep_add_acq_rel(&changes, 1);
    pep_os_futex_wake(&changes, 1);
}

static void end_reader(void) {
    if (!has_reader)
        return;
    pep_store_release(&is_ending, 1);
    wake_reader();
    (void)pthread_join(reader, NULL);
    has_reader = false;
}

/* -- windows -------------------------------------------------------------------------------- */

static int prepare(void) {
    int error = pep_threads_init();
    if (error == 0)
        error = pep_stack_table_init();
    if (error == 0)
        error = pep_unwind_init();
    if (error == 0)
        error = pep_cells_init(&cells, CELLS);
    if (error == 0)
        error = pep_watches_init(&cells);
    if (error == 0)
        error = pep_ask_init();
    if (error == 0)
        (void)pep_modules_refresh(); /* without modules the stacks are short, not wrong */
    return error;
}

int pep_wall_begin(uint32_t wanted_hz) {
    if (wanted_hz < PEP_WALL_HZ_MIN || wanted_hz > PEP_WALL_HZ_MAX)
        return -EINVAL;
    take(&windows_lock);
    int error = windows_at[wanted_hz] == UINT16_MAX ? -EBUSY : prepare();
    uint32_t hz_before = hz;
    if (error == 0 && wanted_hz > hz)
        pep_store_relaxed(&hz, wanted_hz);
    if (error == 0 && windows == 0)
        pep_watches_start(pep_os_clock_ns(CLOCK_MONOTONIC));
    if (error == 0 && !has_reader && !is_paused)
        error = start_reader();
    if (error == 0) {
        windows++;
        windows_at[wanted_hz]++;
        wake_reader();
    } else {
        pep_store_relaxed(&hz, hz_before);
    }
    drop(&windows_lock);
    return error;
}

void pep_wall_end(uint32_t wanted_hz) {
    take(&windows_lock);
    PEP_CHECK(wanted_hz <= PEP_WALL_HZ_MAX && windows_at[wanted_hz] > 0);
    if (wanted_hz <= PEP_WALL_HZ_MAX && windows_at[wanted_hz] > 0) {
        windows--;
        windows_at[wanted_hz]--;
        uint32_t highest = hz;
        while (highest > 0 && windows_at[highest] == 0)
            highest--;
        if (highest == 0) {
            end_reader();
            pep_watches_stop();
        }
        pep_store_relaxed(&hz, highest);
    }
    drop(&windows_lock);
}

void pep_wall_pause(void) {
    take(&windows_lock);
    is_paused = true;
    end_reader();
    drop(&windows_lock);
}

void pep_wall_resume(void) {
    take(&windows_lock);
    is_paused = false;
    if (windows > 0 && !has_reader)
        (void)start_reader();
    drop(&windows_lock);
}

void pep_wall_after_fork_child(void) {
    if (windows > 0) {
        pep_zero(windows_at, sizeof windows_at);
        pep_watches_forget();
    }
    windows_lock = watch_lock = 0;
    windows = hz = 0;
    has_reader = is_paused = false;
}

/* -- reading -------------------------------------------------------------------------------- */

static void settle(void) {
    take(&windows_lock);
    if (windows > 0) {
        take(&watch_lock);
        pep_watches_settle(pep_os_clock_ns(CLOCK_MONOTONIC));
        drop(&watch_lock);
    }
    drop(&windows_lock);
}

static void read_marks(uint64_t marks[4]) {
    marks[MARK_BEATS] = pep_load_relaxed(&beats);
    marks[MARK_LATE] = PEP_COUNTED(wall_late);
    marks[MARK_UNANSWERED] = PEP_COUNTED(ask_late);
    marks[MARK_FULL] = PEP_COUNTED(cell_table_full) + PEP_COUNTED(cells_lost);
}

struct pep_cells_snapshot *pep_wall_snapshot_take(struct pep_arena *arena) {
    settle();
    struct pep_cells_snapshot *snapshot = pep_cells_snapshot_take(arena, &cells);
    if (snapshot != NULL)
        read_marks(snapshot->marks);
    return snapshot;
}

static void tell_loss(struct pep_arena *arena, struct pep_profile *profile, uint64_t rise,
                      const char *what) {
    if (rise != 0)
        pep_profile_tell(arena, profile, "%llu %s.", (unsigned long long)rise, what);
}

static void fill_comments(struct pep_arena *arena, struct pep_profile *profile,
                          const struct pep_cells_snapshot *before, uint32_t wanted_hz) {
    uint64_t now[4];
    read_marks(now);
    uint64_t made = now[MARK_BEATS] - before->marks[MARK_BEATS];
    uint64_t tenths =
        profile->duration_ns > 0 ? made * 10 * NS_PER_SECOND / (uint64_t)profile->duration_ns : 0;
    pep_profile_tell(
        arena, profile,
        "Wall clock: %u threads; rate asked: %u Hz; reached: %llu.%llu beats a second.",
        (unsigned)pep_watches_count(), (unsigned)wanted_hz, (unsigned long long)(tenths / 10),
        (unsigned long long)(tenths % 10));
    uint32_t served_hz = pep_load_relaxed(&hz);
    if (served_hz > wanted_hz)
        pep_profile_tell(arena, profile,
                         "Another window runs at %u Hz; both are served by one reader.",
                         (unsigned)served_hz);
    tell_loss(arena, profile, now[MARK_LATE] - before->marks[MARK_LATE],
              "beats came too late and were merged (wall_late)");
    tell_loss(arena, profile, now[MARK_UNANSWERED] - before->marks[MARK_UNANSWERED],
              "times a running thread did not answer in time (ask_late)");
    tell_loss(arena, profile, now[MARK_FULL] - before->marks[MARK_FULL],
              "sums without their thread, or lost, because the table was full (cell_table_full, "
              "cells_lost)");
}

struct pep_profile *pep_profile_wall(struct pep_arena *arena,
                                     const struct pep_cells_snapshot *before, uint32_t wanted_hz,
                                     const struct pep_profile_filter *filter) {
    struct pep_profile *profile = pep_arena_alloc(arena, sizeof *profile);
    if (profile == NULL || before == NULL || wanted_hz == 0)
        return NULL;
    *profile = (struct pep_profile){
        .kind = "wall",
        .types = {{"samples", "count"}, {"time", "nanoseconds"}},
        .type_count = 2,
        .default_type = 1,
        .period_type = {"wallclock", "nanoseconds"},
        .period = NS_PER_SECOND / wanted_hz,
        .main_mapping = PEP_MAPPING_NONE,
        .pid = pep_os_getpid(),
    };
    struct pep_cells_view view = {.set = &cells, .before = before, .state_of = pep_look_state_of};
    if (filter != NULL)
        view.filter = *filter;
    settle();
    pep_profile_fill_cells(arena, profile, &view);
    fill_comments(arena, profile, before, wanted_hz);
    return arena->is_failed ? NULL : profile;
}
