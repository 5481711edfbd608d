/* What a frame costs: the walk over recursions of known depth, warm and when every address is
 * new, beside the C library's own backtrace(3). Prints one line a row. */
#include <execinfo.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <ucontext.h>

#include "sampler/modules.h"
#include "sampler/unwind.h"

#define ROUNDS 200

static struct pep_unwind_scratch *scratch;
static struct pep_stack_range range;
static uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* The machine is shared: the best of many short rounds says what the work costs. */
static double best_of(int (*work)(void *), void *argument, int times) {
    double best = 1e12;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now_ns();
        for (int i = 0; i < times; i++)
            work(argument);
        double took = (now_ns() - start) / times;
        best = took < best ? took : best;
    }
    return best;
}

static int walk(void *regs) {
    return pep_unwind(regs, &range, scratch, pcs, PEP_UNWIND_DEPTH_MAX);
}

static int walk_as_libc(void *unused) {
    static void *trace[PEP_UNWIND_DEPTH_MAX];
    (void)unused;
    return backtrace(trace, PEP_UNWIND_DEPTH_MAX);
}

static int walk_here(void) {
    ucontext_t here;
    getcontext(&here);
    struct pep_regs regs = {.pc = (uintptr_t)here.uc_mcontext.gregs[REG_RIP],
                            .sp = (uintptr_t)here.uc_mcontext.gregs[REG_RSP],
                            .bp = (uintptr_t)here.uc_mcontext.gregs[REG_RBP],
                            .ucontext = &here};
    double begun = now_ns();
    int frames = walk(&regs);
    double cold = now_ns() - begun;
    double warm = best_of(walk, &regs, 100);
    int peers = walk_as_libc(NULL);
    double peer = best_of(walk_as_libc, NULL, 10);
    printf("%4d frames: first %8.0f ns, then %6.0f ns, %5.1f ns a frame; backtrace(3) %5.1f\n",
           frames, cold, warm, warm / frames, peer / peers);
    return frames;
}

/* Four bodies, so that a chain is not one address over and over. */
static int descend(int depth);
#define BODY(name, bytes) \
    __attribute__((noinline)) static int name(int depth) { \
        volatile char room[bytes]; \
        room[0] = (char)depth; \
        return descend(depth - 1) + room[0]; \
    }
BODY(first, 16)
BODY(second, 72)
BODY(third, 400)
BODY(fourth, 8)

__attribute__((noinline)) static int descend(int depth) {
    if (depth <= 0)
        return walk_here();
    switch (depth % 4) {
    case 0:
        return first(depth) + 1;
    case 1:
        return second(depth) + 2;
    case 2:
        return third(depth) + 3;
    default:
        return fourth(depth) + 4;
    }
}

int main(void) {
    char here;
    range.lo = (uintptr_t)&here - (1 << 20);
    range.hi = (uintptr_t)&here;
    if (pep_modules_refresh() < 0 || pep_unwind_init() < 0)
        return 1;
    scratch = malloc(pep_unwind_scratch_bytes());
    void *warm[2];
    backtrace(warm, 2);
    /* The first frames above main lie beyond &here: read through the careful way, as a walk of
     * unknown bounds would; then with the whole stack known. */
    descend(13);
    range.hi += 4096;
    for (int depth = 3; depth <= 120; depth = depth * 2 + 1)
        descend(depth);
    range = (struct pep_stack_range){0};
    printf("bounds not known:\n");
    descend(13);
    return 0;
}
