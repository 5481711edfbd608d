/*
 * Which waits are recorded, and where: rates and cells.
 *
 * Model:   a wait of at least the rate counts as it is; a shorter one is recorded with the
 *          probability wait / rate, and then as rate / wait waits that took the rate together, so
 *          that sums are right in the mean.
 * Writers: the hooks, any thread, concurrently; windows their rates, one at a time.
 * Readers: profile_lock.c.  [normal]
 * Memory:  the cells, mapped by the first event; RATES_MAX rates of windows.
 * When full: cells.h; windows beyond RATES_MAX are refused.
 */
#include <errno.h>

#include "sampler/heap_internal.h"
#include "sampler/lock_internal.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

#define CELLS 16384u
#define RATES_MAX 64u
#define PAUSE_NS 50000

static struct pep_cells sets[2];
enum { COLD = 0, WARMING, WARM };
static int warmth;

uint64_t pep_lock_rate_ns; /* the finest of all below; 0: nothing is recorded */
static uint64_t steady_ns;
static uint64_t windows[RATES_MAX]; /* 0: none */
static int is_changing;

/* -- rates ---------------------------------------------------------------------------------- */

/* For profep's threads alone, held for a few instructions. */
static void begin_change(void) {
    int nobody = 0;
    while (!pep_cas_acq_rel(&is_changing, &nobody, 1)) {
        nobody = 0;
        pep_os_sleep_ns(PAUSE_NS);
    }
}

static void end_change(void) {
    uint64_t finest = steady_ns;
    for (uint32_t i = 0; i < RATES_MAX; i++)
        if (windows[i] != 0 && (finest == 0 || windows[i] < finest))
            finest = windows[i];
    pep_store_relaxed(&pep_lock_rate_ns, finest);
    pep_store_release(&is_changing, 0); /* pairs with the exchange in begin_change */
}

/* False: there is none like old_ns. */
static bool replace(uint64_t old_ns, uint64_t new_ns) {
    begin_change();
    uint32_t i = 0;
    while (i < RATES_MAX && windows[i] != old_ns)
        i++;
    if (i < RATES_MAX)
        windows[i] = new_ns;
    end_change();
    return i < RATES_MAX;
}

int pep_lock_init(uint64_t rate_ns) {
    pep_lock_clock_init();
    begin_change();
    steady_ns = rate_ns;
    end_change();
    return 0;
}

int pep_lock_begin(uint64_t rate_ns) {
    if (rate_ns == 0)
        return -EINVAL;
    return replace(0, rate_ns) ? 0 : -EBUSY;
}

void pep_lock_end(uint64_t rate_ns) {
    if (rate_ns != 0)
        (void)replace(rate_ns, 0);
}

uint64_t pep_lock_rate(void) {
    return pep_load_relaxed(&pep_lock_rate_ns);
}

/* -- cells ---------------------------------------------------------------------------------- */

/* Most processes are too short to see an event. */
PEP_HOOK_SAFE bool pep_lock_warm_up(void) {
    int seen = pep_load_acquire(&warmth);
    if (pep_likely(seen == WARM))
        return true;
    if (seen == WARMING || !pep_cas_acq_rel(&warmth, &seen, WARMING))
        return false;
    bool is_ready = pep_cells_init(&sets[PEP_LOCK_BLOCK], CELLS) == 0 &&
                    pep_cells_init(&sets[PEP_LOCK_HOLD], CELLS) == 0;
    /* release: pairs with the acquire above */
    pep_store_release(&warmth, is_ready ? WARM : COLD);
    return is_ready;
}

/* Uniform in 64 bits: the clock's last digits, spread. */
PEP_HOOK_SAFE static uint64_t random_of(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* False: not recorded. */
PEP_HOOK_SAFE static bool weigh(uint64_t waited_ns, uint64_t rate_ns, uint64_t sums[2]) {
    static uint64_t turn; /* of all threads */
    sums[0] = 1;
    sums[1] = waited_ns;
    if (rate_ns == 0 || waited_ns == 0)
        return false;
    if (waited_ns >= rate_ns)
        return true;
    uint64_t x = random_of(pep_add_relaxed(&turn, UINT64_C(0x9e3779b97f4a7c15)));
    if ((x >> 32) * rate_ns >> 32 >= waited_ns)
        return false;
    /* The part of a wait that is left over counts with its probability. */
    sums[0] = rate_ns / waited_ns + ((x & UINT32_MAX) * waited_ns >> 32 < rate_ns % waited_ns);
    sums[1] = rate_ns;
    return true;
}

PEP_HOOK_SAFE __attribute__((noinline)) void
pep_lock_charge(enum pep_lock_side side, enum pep_lock_kind kind, uint64_t waited_ns) {
    uint64_t sums[2];
    uint32_t identity = 0;
    if (!weigh(waited_ns, pep_load_relaxed(&pep_lock_rate_ns), sums))
        return;
    pep_stack_id stack = pep_heap_stack_here(&identity);
    if (side == PEP_LOCK_BLOCK)
        PEP_COUNT(lock_events, 1);
    if (pep_lock_warm_up())
        pep_cells_add(&sets[side], stack, identity, (uint16_t)kind, sums);
    else
        PEP_COUNT(cells_lost, 1);
}

const struct pep_cells *pep_lock_cells(enum pep_lock_side side) {
    return &sets[side];
}

/* What the parent waited for is not the child's. */
void pep_lock_cells_forget(void) {
    for (int side = 0; side < 2; side++) {
        for (uint32_t i = 0; i < pep_cells_count(&sets[side]); i++)
            sets[side].cells[i].count = sets[side].cells[i].weight = 0;
    }
    pep_zero(windows, sizeof windows);
    is_changing = 0;
    end_change();
}
