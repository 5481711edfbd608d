#include "sampler/heap.h"

#include <errno.h>

#include "sampler/heap_internal.h"
#include "sampler/heap_trace.h"
#include "sampler/live_map.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

#define LIVE_LOG2 18     /* 262,144 live samples: 8 MiB */
#define LIVE_ALL_LOG2 22 /* every block is one */
#define WINDOWS_MAX 64

/* Open windows: what each asks for; 0 in both is a free place. */
struct window {
    uint32_t rate_bytes;
    float probability;
};

static struct window windows[WINDOWS_MAX];
static uint32_t standing_rate; /* PROFEP_HEAP_RATE */
static bool has_live_map;
static bool is_initialised;
static const char *unreachable;
static int lock;

static void take_lock(void) {
    int expected = 0;
    while (!pep_cas_acq_rel(&lock, &expected, 1)) {
        pep_os_futex_wait(&lock, 1, 1000000);
        expected = 0;
    }
}

static void drop_lock(void) {
    pep_store_release(&lock, 0);
    pep_os_futex_wake(&lock, 1);
}

/* Puts the smallest rate and the largest probability in force. Order: the settings, the epoch,
 * the floor; reversed, a thread would take the old settings for new ones. */
static void apply(void) {
    uint32_t rate = standing_rate;
    float probability = 0;
    for (uint32_t i = 0; i < WINDOWS_MAX; i++) {
        const struct window *window = &windows[i];
        if (window->rate_bytes != 0 && (rate == 0 || window->rate_bytes < rate))
            rate = window->rate_bytes;
        if (window->probability > probability)
            probability = window->probability;
    }
    uint32_t bits;
    pep_copy(&bits, &probability, sizeof bits);
    pep_store_relaxed(&pep_heap_settings.rate_bytes, rate);
    pep_store_relaxed((uint32_t *)(void *)&pep_heap_settings.probability, bits);
    /* release: pairs with the acquire in pep_heap_allocated */
    pep_store_release(&pep_heap_settings.epoch, pep_heap_settings.epoch + 1);
    pep_store_release(&pep_heap_floor, rate == 1 || probability > 0 ? INT64_MAX : (int64_t)0);
}

int pep_heap_init(const struct pep_heap_options *options) {
    if (is_initialised)
        return 0;
    int error = -ENOMEM;
    if (options->is_recording_all) {
        error = pep_heap_tables_init(LIVE_ALL_LOG2);
        (void)pep_heap_trace_init(); /* without, it is slower */
    }
    if (error)
        error = pep_heap_tables_init(LIVE_LOG2);
    if (error)
        return error;
    /* Without its map the sampler works all the same. */
    has_live_map = options->has_live_map && pep_live_map_init(options->live_map_bytes) == 0;
    pep_live_map_end_early();
    standing_rate = options->is_recording_all ? 1 : options->rate_bytes;
    pep_heap_settings.is_recording_all = options->is_recording_all;
    is_initialised = true;
    apply();
    return 0;
}

void pep_heap_set_unreachable(const char *why) {
    unreachable = why;
}

/* No lock: whoever holds it may be a thread that the caller will never let run again. */
void pep_heap_retire(void) {
    pep_store_release(&pep_heap_settings.is_retired, true);
    pep_store_release(&pep_heap_floor, (int64_t)0);
}

void pep_heap_unretire(void) {
    pep_store_release(&pep_heap_settings.is_retired, false);
    if (!is_initialised)
        return;
    take_lock();
    apply();
    drop_lock();
}

static bool count_block(uintptr_t block PEP_UNUSED, enum pep_live what, void *context) {
    *(uint64_t *)context += what != PEP_LIVE_OWN;
    return true;
}

void pep_heap_state(struct pep_heap_state *state) {
    *state = (struct pep_heap_state){.rate_bytes = pep_load_relaxed(&pep_heap_settings.rate_bytes),
                                     .has_live_map = has_live_map,
                                     .unreachable = unreachable};
    if (!has_live_map)
        return;
    pep_live_map_walk(count_block, &state->live_blocks);
    state->uncovered_blocks = pep_live_map_uncovered();
    state->map_bytes = pep_live_map_bytes();
}

/* -- windows -------------------------------------------------------------------------------- */

static bool is_same(const struct window *a, const struct window *b) {
    return a->rate_bytes == b->rate_bytes && a->probability == b->probability;
}

/* Writes to in the first place that holds from. */
static int replace(const struct window *from, const struct window *to) {
    int result = -EBUSY;
    if (!is_initialised || pep_load_relaxed(&pep_heap_settings.is_retired))
        return -ENOTSUP;
    take_lock();
    for (uint32_t i = 0; i < WINDOWS_MAX && result != 0; i++) {
        if (!is_same(&windows[i], from))
            continue;
        windows[i] = *to;
        apply();
        result = 0;
    }
    drop_lock();
    return result;
}

int pep_heap_set_rate(uint32_t rate_bytes) {
    if (rate_bytes > PEP_HEAP_RATE_MAX)
        return -EINVAL;
    if (!is_initialised || pep_load_relaxed(&pep_heap_settings.is_retired))
        return -ENOTSUP;
    take_lock();
    standing_rate = rate_bytes;
    apply();
    drop_lock();
    return 0;
}

int pep_heap_begin(uint32_t rate_bytes) {
    if (rate_bytes < 1 || rate_bytes > PEP_HEAP_RATE_MAX)
        return -EINVAL;
    return replace(&(struct window){0}, &(struct window){.rate_bytes = rate_bytes});
}

void pep_heap_end(uint32_t rate_bytes) {
    if (rate_bytes != 0)
        (void)replace(&(struct window){.rate_bytes = rate_bytes}, &(struct window){0});
}

int pep_heap_begin_probability(double probability) {
    if (!(probability > 0 && probability <= 1))
        return -EINVAL;
    return replace(&(struct window){0}, &(struct window){.probability = (float)probability});
}

void pep_heap_end_probability(double probability) {
    if (probability > 0)
        (void)replace(&(struct window){.probability = (float)probability}, &(struct window){0});
}

void pep_heap_after_fork_child(void) {
    lock = 0;
    pep_heap_record_after_fork_child();
    if (!is_initialised)
        return;
    /* The parent's windows are not open here. */
    for (uint32_t i = 0; i < WINDOWS_MAX; i++)
        windows[i] = (struct window){0};
    apply();
}
