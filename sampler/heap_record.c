/*
 * The slow way of the malloc hooks: is this allocation sampled, and from where did it come.
 *
 * Model:   the thread's countdown goes in steps of at most STEP_BYTES, so that a thread notices
 *          new settings soon. A sample is judged and weighed by the settings under which its
 *          countdown was drawn; drawing anew afterwards changes nothing in the mean, because what
 *          is left of an exponential time does not depend on how long one has waited.
 * Writers: any thread, inside its malloc.  [hook]
 * Readers: -
 * Memory:  blocks with a stack of their own for the walk: 2 a processor and 16 more.
 * When full: heap_no_stack: the sample counts, its stack is [unknown].
 */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "sampler/heap_internal.h"
#include "sampler/heap_math.h"
#include "sampler/heap_trace.h"
#include "sampler/modules.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/rt/reserve.h"
#include "sampler/thread.h"

#define STEP_BYTES 65536
#define NEVER ((int64_t)1 << 62)
#define WALK_STACK_BYTES (32u << 10)
#define BLOCKS 48u
#define REFRESH_PAUSE_MS 1000u

struct scratch {
    int is_used;
    uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
    char rest[] PEP_ALIGNED(64);
};

struct pep_heap_job {
    struct pep_regs regs;
    const struct pep_stack_range *stack;
    struct scratch *scratch;
    struct pep_heap_trace *trace; /* to be filled; NULL: none */
    pep_stack_id id;
};

enum { COLD = 0, WARMING, WARM };

PEP_TLS struct pep_heap_thread pep_heap_thread;
int64_t pep_heap_floor;
size_t pep_heap_small;
struct pep_heap_settings pep_heap_settings;

static int warmth; /* COLD until the first sample */
static char *blocks;
static size_t block_bytes;
static uint64_t peak_number = 1; /* rises with each new peak; a cell's 0 is before the first */
static uint64_t peak_bytes, live_bytes;
static uint32_t refreshed_ms; /* when modules were last read because a walk met unknown code */

/* -- the way to a stack --------------------------------------------------------------------- */

/* rbp keeps the way back, and the CFA for whoever looks at us from inside. */
__attribute__((naked)) void pep_heap_call_on_stack(struct pep_heap_job *job PEP_UNUSED,
                                                   void *stack_top PEP_UNUSED) {
    __asm__("push %rbp\n\t"
            ".cfi_adjust_cfa_offset 8\n\t"
            ".cfi_rel_offset %rbp, 0\n\t"
            "mov %rsp, %rbp\n\t"
            ".cfi_def_cfa_register %rbp\n\t"
            "mov %rsi, %rsp\n\t"
            "call pep_heap_walk\n\t"
            "mov %rbp, %rsp\n\t"
            ".cfi_def_cfa_register %rsp\n\t"
            "pop %rbp\n\t"
            ".cfi_adjust_cfa_offset -8\n\t"
            ".cfi_restore %rbp\n\t"
            "ret");
}

PEP_HOOK_SAFE static uint32_t now_ms(void) {
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

PEP_HOOK_SAFE static bool map_blocks(void) {
    size_t unwind_bytes = (pep_unwind_scratch_bytes() + 63) & ~(size_t)63;
    block_bytes = sizeof(struct scratch) + unwind_bytes + WALK_STACK_BYTES;
    block_bytes = (block_bytes + 4095) & ~(size_t)4095;
    char *memory = pep_reserve_alone(block_bytes * BLOCKS);
    if (memory == NULL)
        return false;
    pep_store_release(&blocks, memory);
    return true;
}

PEP_HOOK_SAFE static struct scratch *take_scratch(uint32_t first) {
    for (uint32_t i = 0; i < BLOCKS; i++) {
        struct scratch *scratch = (void *)(blocks + (size_t)((first + i) % BLOCKS) * block_bytes);
        int unused = 0;
        if (pep_load_relaxed(&scratch->is_used) == 0 &&
            pep_cas_acq_rel(&scratch->is_used, &unused, 1))
            return scratch;
    }
    return NULL;
}

/* Everything that a walk needs, at the first sample of the process: most processes are too short
 * to see one. */
PEP_HOOK_SAFE static bool warm_up(void) {
    int seen = pep_load_acquire(&warmth);
    if (pep_unlikely(pep_load_relaxed(&pep_heap_settings.is_retired)))
        return false;
    if (pep_likely(seen == WARM))
        return true;
    if (seen == WARMING || !pep_cas_acq_rel(&warmth, &seen, WARMING))
        return false;
    bool is_ready = pep_stack_table_init() == 0 && pep_unwind_init() == 0 && map_blocks();
    if (is_ready)
        (void)pep_modules_try_refresh();
    /* release: pairs with the acquire above */
    pep_store_release(&warmth, is_ready ? WARM : COLD);
    return is_ready;
}

/* Code that came by dlopen after the last look at the maps. */
PEP_HOOK_SAFE static bool learn_modules(void) {
    uint32_t now = now_ms(), last = pep_load_relaxed(&refreshed_ms);
    if (!pep_modules_is_stale() || (last != 0 && now - last < REFRESH_PAUSE_MS))
        return false;
    pep_store_relaxed(&refreshed_ms, now);
    return pep_modules_try_refresh() == 0;
}

/* Runs on the scratch block's stack. */
PEP_HOOK_SAFE void pep_heap_walk(struct pep_heap_job *job) {
    struct pep_unwind_scratch *scratch = (void *)job->scratch->rest;
    uintptr_t *pcs = job->scratch->pcs;
    int count = 0;
    if (job->trace != NULL)
        count = pep_heap_trace_walk(job->trace, &job->regs, job->stack, pcs);
    if (count == 0)
        count = pep_unwind(&job->regs, job->stack, scratch, pcs, PEP_UNWIND_DEPTH_MAX);
    if (pep_unlikely(learn_modules()))
        count = pep_unwind(&job->regs, job->stack, scratch, pcs, PEP_UNWIND_DEPTH_MAX);
    job->id = pep_stack_table_add(pcs, count);
}

PEP_HOOK_SAFE static pep_stack_id unknown_stack(void) {
    static const uintptr_t unknown = PEP_PC_UNKNOWN;
    PEP_COUNT(heap_no_stack, 1);
    return pep_stack_table_add(&unknown, 1);
}

/* -- one recording a thread ---------------------------------------------------------------- */

/* A handler that interrupted us runs below, or on a stack of its own. Whoever comes by above has
 * left the recording by longjmp: it will never end. */
PEP_HOOK_SAFE static bool is_abandoned(const struct pep_heap_thread *self, uintptr_t sp) {
    return sp > self->busy_sp && sp < self->stack.hi && self->busy_sp >= self->stack.lo;
}

PEP_HOOK_SAFE static bool begin(struct pep_heap_thread *self, uintptr_t sp) {
    if (pep_unlikely(self->busy_sp != 0)) {
        if (!is_abandoned(self, sp))
            return false;
        if (self->scratch != NULL)
            pep_store_release(&((struct scratch *)self->scratch)->is_used, 0);
        self->scratch = NULL;
    }
    self->busy_sp = sp;
    pep_signal_fence();
    return true;
}

PEP_HOOK_SAFE static void end(struct pep_heap_thread *self) {
    pep_signal_fence();
    self->busy_sp = 0;
}

PEP_HOOK_SAFE static pep_stack_id walk_on_scratch(struct pep_heap_thread *self,
                                                  const struct pep_regs *regs,
                                                  struct pep_heap_trace *trace) {
    struct pep_heap_job job = {.regs = *regs, .stack = &self->stack, .trace = trace};
    job.scratch = take_scratch(self->identity);
    if (job.scratch == NULL)
        return unknown_stack();
    self->scratch = job.scratch;
    pep_heap_call_on_stack(&job, (char *)job.scratch + block_bytes);
    self->scratch = NULL;
    pep_store_release(&job.scratch->is_used, 0);
    return job.id;
}

PEP_HOOK_SAFE static pep_stack_id find_stack(struct pep_heap_thread *self,
                                             const struct pep_regs *regs) {
    if (!warm_up() || !begin(self, regs->sp))
        return unknown_stack();
    pep_stack_id stack = walk_on_scratch(self, regs, NULL);
    end(self);
    return stack;
}

/* The cell of the stack that leads here, by a trace if one holds. */
PEP_HOOK_SAFE static uint32_t trace_cell(struct pep_heap_thread *self,
                                         const struct pep_regs *regs) {
    struct pep_heap_trace_set *set = self->traces;
    uintptr_t way = self->way;
    struct pep_heap_trace *trace = pep_heap_trace_at(set, way, regs, &self->stack);
    if (trace != NULL && pep_heap_trace_holds(trace, regs) && trace->identity == self->identity)
        return trace->cell;
    if (trace != NULL)
        trace->fact_count = 0;
    uint32_t cell = pep_heap_cell_of(walk_on_scratch(self, regs, trace), self->identity);
    if (trace != NULL && trace->fact_count != 0 && pep_heap_trace_keep(set, way, trace)) {
        trace->identity = self->identity;
        trace->cell = cell;
    }
    return cell;
}

PEP_HOOK_SAFE static uint32_t find_cell(struct pep_heap_thread *self, const struct pep_regs *regs) {
    if (!pep_heap_settings.is_recording_all || self->identity == 0)
        return pep_heap_cell_of(find_stack(self, regs), self->identity);
    if (!warm_up() || !begin(self, regs->sp))
        return pep_heap_cell_of(unknown_stack(), self->identity);
    if (self->traces == NULL)
        self->traces = pep_heap_trace_take_set();
    uint32_t cell = self->traces != NULL
                        ? trace_cell(self, regs)
                        : pep_heap_cell_of(walk_on_scratch(self, regs, NULL), self->identity);
    end(self);
    return cell;
}

/* -- sums ----------------------------------------------------------------------------------- */

/* Objects in fractions of PEP_HEAP_WEIGHT_ONE. The same numbers at the allocation and the free. */
PEP_HOOK_SAFE static uint64_t unbiased_objects(float weight) {
    return (uint64_t)((double)weight * PEP_HEAP_WEIGHT_ONE + 0.5);
}

PEP_HOOK_SAFE static uint64_t unbiased_bytes(float weight, uint64_t size_bytes) {
    return (uint64_t)((double)weight * (double)size_bytes + 0.5);
}

PEP_HOOK_SAFE static void charge(struct pep_heap_sums *sums, uint64_t size_bytes, float weight) {
    if (weight == 1) {
        pep_add_relaxed(&sums->exact_objects, 1);
        pep_add_relaxed(&sums->exact_bytes, size_bytes);
        return;
    }
    pep_add_relaxed(&sums->raw_objects, 1);
    pep_add_relaxed(&sums->raw_bytes, size_bytes);
    pep_add_relaxed(&sums->unbiased_objects, unbiased_objects(weight));
    pep_add_relaxed(&sums->unbiased_bytes, unbiased_bytes(weight, size_bytes));
}

/* Before a cell changes: what lived there at the last peak is kept, unless it is kept already. So
 * a peak costs one increment, and every cell knows its part of it. */
PEP_HOOK_SAFE static void keep_peak(struct pep_heap_cell *cell) {
    uint64_t number = pep_load_relaxed(&peak_number);
    if (pep_load_relaxed(&cell->peak_number) == number)
        return;
    const struct pep_heap_sums *in = &cell->allocated, *out = &cell->freed;
    pep_store_relaxed(&cell->peak_objects,
                      (in->exact_objects - out->exact_objects) * PEP_HEAP_WEIGHT_ONE +
                          in->unbiased_objects - out->unbiased_objects);
    pep_store_relaxed(&cell->peak_bytes, in->exact_bytes - out->exact_bytes + in->unbiased_bytes -
                                             out->unbiased_bytes);
    pep_store_release(&cell->peak_number, number);
}

/* After it changed by so much. */
PEP_HOOK_SAFE static void note_live(uint64_t change_bytes) {
    int64_t now = (int64_t)(pep_add_relaxed(&live_bytes, change_bytes) + change_bytes);
    int64_t highest = (int64_t)pep_load_relaxed(&peak_bytes);
    if (now <= highest)
        return;
    pep_store_relaxed(&peak_bytes, (uint64_t)now);
    pep_add_relaxed(&peak_number, 1);
}

PEP_HOOK_SAFE static void charge_allocated(uint32_t number, uint64_t size_bytes, float weight) {
    struct pep_heap_cell *cell = pep_heap_cell_at(number);
    if (!pep_heap_settings.is_recording_all) {
        charge(&cell->allocated, size_bytes, weight);
        return;
    }
    keep_peak(cell);
    charge(&cell->allocated, size_bytes, weight);
    note_live(unbiased_bytes(weight, size_bytes));
}

PEP_HOOK_SAFE static void charge_freed(uint32_t number, uint64_t size_bytes, float weight) {
    struct pep_heap_cell *cell = pep_heap_cell_at(number);
    if (!pep_heap_settings.is_recording_all) {
        charge(&cell->freed, size_bytes, weight);
        return;
    }
    keep_peak(cell);
    charge(&cell->freed, size_bytes, weight);
    note_live(0 - unbiased_bytes(weight, size_bytes));
}

PEP_HOOK_SAFE static void meet(struct pep_heap_thread *self) {
    bool is_retired = pep_load_relaxed(&pep_heap_settings.is_retired);
    struct pep_thread *thread = is_retired ? NULL : pep_thread_self();
    if (thread == NULL)
        return;
    self->stack = thread->stack;
    self->identity = pep_thread_identity(thread);
}

PEP_HOOK_SAFE static void record(struct pep_heap_thread *self, uintptr_t block, size_t size_bytes,
                                 const struct pep_regs *regs, float weight) {
    if (self->identity == 0)
        meet(self);
    uint32_t cell = find_cell(self, regs);
    charge_allocated(cell, size_bytes, weight);
    PEP_COUNT(heap_samples, 1);
    /* One that was here before went by a way that the hooks do not see: a library bound to its own
     * free, an allocator's private names. */
    struct pep_heap_taken stale = pep_heap_take_out(block);
    pep_heap_freed(&stale);
    struct pep_heap_taken sample = {.what = PEP_LIVE_SAMPLED,
                                    .cell = cell,
                                    .weight = weight,
                                    .time_ms = now_ms(),
                                    .size_bytes = size_bytes};
    pep_heap_put_back(block, &sample);
}

PEP_HOOK_SAFE __attribute__((noinline)) pep_stack_id pep_heap_stack_here(uint32_t *identity) {
    struct pep_heap_thread *self = &pep_heap_thread;
    struct pep_regs regs = {.ucontext = NULL};
    __asm__ volatile("lea 0(%%rip), %0\n\tmov %%rsp, %1\n\tmov %%rbp, %2"
                     : "=&r"(regs.pc), "=&r"(regs.sp), "=&r"(regs.bp));
    if (self->identity == 0)
        meet(self);
    *identity = self->identity;
    return find_stack(self, &regs);
}

/* -- the decision --------------------------------------------------------------------------- */

PEP_HOOK_SAFE static void seed(struct pep_heap_thread *self) {
    uint64_t x = (uint64_t)(uintptr_t)self ^ pep_os_clock_ns(CLOCK_MONOTONIC) << 20 ^
                 (uint64_t)pep_os_gettid() << 44;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u; /* splitmix64 */
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    self->rng = (x ^ x >> 31) | 1;
}

/* Bytes to the next sample under the thread's settings; -1: the next allocation whatever it is. */
PEP_HOOK_SAFE static int64_t draw(struct pep_heap_thread *self) {
    if (self->rate_bytes == 0)
        return NEVER;
    if (self->rate_bytes == 1)
        return -1;
    return (int64_t)(-pep_heap_log(pep_heap_uniform(&self->rng)) * self->rate_bytes);
}

PEP_HOOK_SAFE static int64_t adopt_settings(struct pep_heap_thread *self, uint32_t epoch) {
    if (self->rng == 0)
        seed(self);
    self->epoch = epoch;
    self->rate_bytes = pep_load_relaxed(&pep_heap_settings.rate_bytes);
    uint32_t bits =
        pep_load_relaxed((const uint32_t *)(const void *)&pep_heap_settings.probability);
    pep_copy(&self->probability, &bits, sizeof bits);
    return draw(self);
}

PEP_HOOK_SAFE static void set_countdown(struct pep_heap_thread *self, int64_t left) {
    self->countdown = left < STEP_BYTES ? left : STEP_BYTES;
    self->beyond = left - self->countdown;
}

/* What one sample stands for: the block was taken by its bytes, or by its number, or both. */
PEP_HOOK_SAFE static float weight_of(const struct pep_heap_thread *self, size_t size_bytes) {
    if (self->rate_bytes == 1 || self->probability >= 1)
        return 1;
    double missed = 1 - (double)self->probability;
    if (self->rate_bytes != 0)
        missed *= 1 - pep_heap_likelihood((double)size_bytes / self->rate_bytes);
    return (float)(1 / (1 - missed));
}

PEP_HOOK_SAFE __attribute__((noinline)) void pep_heap_allocated(uintptr_t block,
                                                                size_t size_bytes) {
    struct pep_heap_thread *self = &pep_heap_thread;
    uint32_t epoch = pep_load_acquire(&pep_heap_settings.epoch);
    if (pep_unlikely(epoch == 0)) {
        self->countdown = 0;
        pep_live_map_keep_early(block);
        return;
    }
    if (pep_unlikely(pep_load_relaxed(&pep_heap_settings.is_retired))) {
        self->countdown = NEVER;
        pep_live_map_add(block);
        return;
    }
    int64_t left = self->beyond + self->countdown;
    /* A thread that is here for the first time, or that is here only because all are now, has not
     * been judged by an older countdown. */
    if (self->epoch != epoch && (self->epoch == 0 || pep_load_relaxed(&pep_heap_floor) != 0)) {
        left = adopt_settings(self, epoch);
        left = left < 0 ? left : left - (int64_t)size_bytes;
    } else if (self->epoch != epoch) {
        self->probability = 0; /* that countdown brought it here, and nothing else */
    }
    bool is_hit = left < 0;
    if (self->probability > 0)
        is_hit |= pep_heap_uniform(&self->rng) <= (double)self->probability;
    if (is_hit) {
        struct pep_regs regs = {.ucontext = NULL};
        __asm__ volatile("lea 0(%%rip), %0\n\tmov %%rsp, %1\n\tmov %%rbp, %2"
                         : "=&r"(regs.pc), "=&r"(regs.sp), "=&r"(regs.bp));
        self->way = (uintptr_t)__builtin_return_address(0);
        record(self, block, size_bytes, &regs, weight_of(self, size_bytes));
    } else {
        pep_live_map_add(block);
    }
    if (self->epoch != epoch)
        left = adopt_settings(self, epoch);
    else if (left < 0)
        left = draw(self);
    set_countdown(self, left);
}

uint64_t pep_heap_peak_number(void) {
    return pep_load_acquire(&peak_number);
}

uint64_t pep_heap_peak_bytes(void) {
    return pep_load_relaxed(&peak_bytes);
}

/* -- frees ---------------------------------------------------------------------------------- */

PEP_HOOK_SAFE struct pep_heap_taken pep_heap_take_out(uintptr_t block) {
    struct pep_heap_taken taken = {.what = PEP_LIVE_NOTHING};
    if (pep_heap_live_take(block, &taken)) {
        pep_live_map_unmark(block);
        if (pep_heap_small != 0 && pep_heap_live_what(block ^ 8) == PEP_LIVE_SAMPLED)
            pep_live_map_mark_still(block ^ 8);
    } else if (pep_load_relaxed(&pep_heap_settings.epoch) == 0)
        (void)pep_live_map_drop_early(block);
    return taken;
}

PEP_HOOK_SAFE void pep_heap_put_back(uintptr_t block, const struct pep_heap_taken *taken) {
    if (taken->what != PEP_LIVE_NOTHING && pep_heap_live_put(block, taken))
        pep_live_map_mark(block, taken->what);
    else
        pep_live_map_add(block);
}

PEP_HOOK_SAFE void pep_heap_freed(const struct pep_heap_taken *taken) {
    if (taken->what != PEP_LIVE_SAMPLED)
        return;
    struct pep_heap_cell *cell = pep_heap_cell_at(taken->cell);
    charge_freed(taken->cell, taken->size_bytes, taken->weight);
    if (now_ms() - taken->time_ms <= PEP_HEAP_TEMPORARY_MS) {
        pep_add_relaxed(&cell->temporary_objects, unbiased_objects(taken->weight));
        pep_add_relaxed(&cell->temporary_bytes, unbiased_bytes(taken->weight, taken->size_bytes));
    }
}

PEP_HOOK_SAFE bool pep_heap_keep_own(uintptr_t block) {
    const struct pep_heap_taken own = {.what = PEP_LIVE_OWN, .cell = PEP_HEAP_CELL_NONE};
    if (!pep_heap_live_put(block, &own))
        return false;
    pep_live_map_mark(block, PEP_LIVE_OWN);
    return true;
}

PEP_HOOK_SAFE bool pep_heap_is_own(uintptr_t block) {
    return pep_heap_live_what(block) == PEP_LIVE_OWN;
}

void pep_heap_thread_become_own(void) {
    pep_heap_thread.countdown = INT64_MIN / 2;
}

void pep_heap_record_after_fork_child(void) {
    struct pep_heap_thread *self = &pep_heap_thread;
    self->identity = 0;
    self->rng = 0; /* another sequence than the parent's */
    self->epoch = 0;
    self->busy_sp = 0;
    self->scratch = NULL;
    if (pep_load_acquire(&warmth) == WARMING)
        pep_store_relaxed(&warmth, COLD);
    for (uint32_t i = 0; blocks != NULL && i < BLOCKS; i++)
        ((struct scratch *)(void *)(blocks + i * block_bytes))->is_used = 0;
}
