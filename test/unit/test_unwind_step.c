/* Every instruction is a place where a sample may fall: single steps through the C library, each
 * walked to the first frame; and walks on several threads while libraries come and go. */
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/modules.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "walk.h"

#define NOINLINE __attribute__((noinline, noclone))

static volatile int sink;

/* -- the host's malloc, counted while a walk runs ---------------------------------------------- */

static __thread int is_walking;
static uint64_t mallocs_in_walks;

#if WALK_IS_SANITIZED
#define __libc_malloc malloc
#define __libc_free free
#else
extern void *__libc_malloc(size_t size);
extern void __libc_free(void *block);
void *malloc(size_t size);
void free(void *block);

void *malloc(size_t size) {
    if (is_walking)
        pep_add_relaxed(&mallocs_in_walks, 1);
    return __libc_malloc(size);
}

void free(void *block) {
    if (is_walking)
        pep_add_relaxed(&mallocs_in_walks, 1);
    __libc_free(block);
}
#endif

/* -- single steps ---------------------------------------------------------------------------------
 */

static long steps, steps_lost;
static uintptr_t first_lost;
static uintptr_t work_start, work_limit;

static void on_step(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)info;
    is_walking = 1;
    walk_context(context);
    is_walking = 0;
    int marks = 0;
    for (int i = 0; i < walk_last.count; i++)
        marks += walk_last.pcs[i] >= work_start && walk_last.pcs[i] < work_limit;
    uintptr_t pc = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    if (pc - work_start < work_limit - work_start)
        return; /* its own pushes of flags are not described */
    steps++;
    if (marks == 1 && !walk_last.is_partial)
        return;
    if (steps_lost++ == 0)
        first_lost = pc;
}

/* run(NULL) between two labels, with the trap flag set. */
void step_through(void (*run)(void));
extern char step_through_end[];
__asm__(".text\n.type step_through, @function\nstep_through:\n"
        ".cfi_startproc\nsub $8, %rsp\n.cfi_adjust_cfa_offset 8\n"
        "pushfq\n.cfi_adjust_cfa_offset 8\norq $0x100, (%rsp)\npopfq\n.cfi_adjust_cfa_offset -8\n"
        "call *%rdi\n"
        "pushfq\n.cfi_adjust_cfa_offset 8\nandq $-257, (%rsp)\n"
        "popfq\n.cfi_adjust_cfa_offset -8\n"
        "add $8, %rsp\n.cfi_adjust_cfa_offset -8\nret\n.cfi_endproc\n"
        "step_through_end:\n.size step_through, . - step_through\n");

static char buffer[2000];

static void memory(void) {
    for (size_t size = 1; size < 2000; size *= 3) {
        memset(buffer, 1, size);
        char *volatile block = malloc(size * 100);
        memcpy(block, buffer, size);
        block = realloc(block, size * 300);
        free(block);
    }
}

static int compare(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

static void sorting(void) {
    int values[40];
    for (int i = 0; i < 40; i++)
        values[i] = (i * 7919) % 97;
    qsort(values, 40, sizeof(values[0]), compare);
}

static void numbers(void) {
    snprintf(buffer, sizeof(buffer), "%d %s %g %Lf", 5, "abc", 3.14159, (long double)2.5);
    sink = (int)(sin(strtod(buffer + 6, NULL)) + pow(1.5, 2.5));
}

static void clocks(void) {
    struct timespec now;
    struct timeval day;
    clock_gettime(CLOCK_MONOTONIC, &now);
    gettimeofday(&day, NULL);
    sink = (int)time(NULL);
}

static void loading(void) {
    void *handle = dlopen("libm.so.6", RTLD_NOW);
    sink = dlsym(handle, "cosh") != NULL;
    dlclose(handle);
}

static void own_handler(int sig) {
    memset(buffer, sig, 100);
}

static void signals(void) {
    raise(SIGUSR2);
}

static void files(void) {
    FILE *file = fopen("/proc/self/stat", "r");
    if (file != NULL && fgets(buffer, sizeof(buffer), file) != NULL)
        sink = buffer[0];
    if (file != NULL)
        fclose(file);
}

static void every_instruction_is_walked_to_the_first_frame(void **state) {
    void (*const works[])(void) = {memory, sorting, numbers, clocks, loading, signals, files};
    struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    (void)state;
    if (WALK_IS_SANITIZED)
        skip(); /* their interceptors block and defer signals */
    walk_know_stack();
    sigaction(SIGTRAP, &action, NULL);
    signal(SIGUSR2, own_handler);
    work_start = (uintptr_t)step_through;
    work_limit = (uintptr_t)step_through_end;
    for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
        steps = steps_lost = 0;
        step_through(works[i]);
        print_message("  work %zu: %ld instructions\n", i, steps);
        if (steps_lost > 0)
            print_message("  first lost at %lx\n", (unsigned long)first_lost);
        assert_true(steps > 40);
        assert_int_equal(steps_lost, 0);
    }
    assert_int_equal(pep_load_relaxed(&mallocs_in_walks), 0);
}

/* -- threads
 * ---------------------------------------------------------------------------------------- */

#define THREADS 4
#define WALKS 1000 /* each */

struct walker {
    struct pep_unwind_scratch *scratch;
    uint64_t walks, complete, excused; /* excused: code the table had not met yet */
};

static struct walker walkers[THREADS];
static __thread struct walker *own_walker; /* while the thread is to be walked */
static __thread struct walker *new_walker;

static void on_profile(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)info;
    struct walker *walker = own_walker;
    const greg_t *gregs = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
    struct pep_regs regs = {.pc = (uintptr_t)gregs[REG_RIP],
                            .sp = (uintptr_t)gregs[REG_RSP],
                            .bp = (uintptr_t)gregs[REG_RBP],
                            .ucontext = context};
    struct pep_stack_range unknown = {0, 0};
    if (walker == NULL)
        return;
    is_walking = 1;
    int count = pep_unwind(&regs, &unknown, walker->scratch, pcs, PEP_UNWIND_DEPTH_MAX);
    is_walking = 0;
    pep_store_relaxed(&walker->walks, walker->walks + 1);
    int i = 0;
    while (i < count && pcs[i] - work_start >= work_limit - work_start)
        i++;
    walker->complete += i < count;
    bool is_unknown = false;
    for (int k = 0; i == count && k < count; k++)
        is_unknown |= pep_modules_find(pcs[k]) == NULL;
    walker->excused += is_unknown;
}

static void load_once(void) {
    void *handle = dlopen("libm.so.6", RTLD_NOW);
    void *more = dlopen("libanl.so.1", RTLD_NOW);
    sink = handle != NULL && dlsym(handle, "cosh") != NULL;
    if (more != NULL)
        dlclose(more);
    dlclose(handle);
    numbers();
}

static int threads_done;

static void load_and_walk(void) {
    own_walker = new_walker;
    while (pep_load_relaxed(&new_walker->walks) < WALKS)
        load_once();
    own_walker = NULL;
    pep_add_acq_rel(&threads_done, 1);
}

NOINLINE static void walk_root(void (*run)(void)) {
    run();
    sink++;
}

static void *run_walker(void *argument) {
    new_walker = argument;
    walk_root(load_and_walk);
    return NULL;
}

static void threads_walk_while_libraries_come_and_go(void **state) {
    pthread_t threads[THREADS];
    struct sigaction action = {.sa_sigaction = on_profile, .sa_flags = SA_SIGINFO | SA_RESTART};
    (void)state;
    if (WALK_IS_SANITIZED)
        skip();
    sigaction(SIGPROF, &action, NULL);
    work_start = (uintptr_t)walk_root;
    work_limit = work_start + 64;
    for (int i = 0; i < THREADS; i++) {
        walkers[i].scratch = __libc_malloc(pep_unwind_scratch_bytes());
        assert_int_equal(pthread_create(&threads[i], NULL, run_walker, &walkers[i]), 0);
    }
    while (pep_load_acquire(&threads_done) < THREADS) {
        for (int i = 0; i < THREADS; i++)
            pthread_kill(threads[i], SIGPROF);
        assert_int_equal(pep_modules_refresh(), 0);
        pep_modules_closed();
    }
    uint64_t walks = 0, complete = 0, excused = 0;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        walks += walkers[i].walks;
        complete += walkers[i].complete;
        excused += walkers[i].excused;
        __libc_free(walkers[i].scratch);
    }
    print_message("  %lu walks, %lu to the thread's first function\n", walks, complete);
    assert_true(walks >= THREADS * WALKS);
    assert_int_equal(complete + excused, walks);
    assert_true(excused < walks / 100);
    assert_int_equal(pep_load_relaxed(&mallocs_in_walks), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_instruction_is_walked_to_the_first_frame),
        cmocka_unit_test(threads_walk_while_libraries_come_and_go),
    };
    return cmocka_run_group_tests(tests, walk_setup, NULL);
}
