/* Threads that run in short pieces get a timer at rates that ticks can serve; others an event. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/cpu_internal.h"

#define ROUNDS 2000
#define SOON_HZ 100

#define SHORT_NS 100000 /* half of what is short enough */

static int there[2], back[2];

/* How long our thread has run on average, since it was given a processor. */
static uint64_t piece_ns(void) {
    unsigned long long run_ns = 0, waited_ns = 0, pieces = 0;
    FILE *file = fopen("/proc/thread-self/schedstat", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%llu %llu %llu", &run_ns, &waited_ns, &pieces), 3);
    fclose(file);
    return run_ns / pieces;
}

static void *pass_on(void *argument) {
    char byte;
    (void)argument;
    while (read(there[0], &byte, 1) == 1)
        if (write(back[1], &byte, 1) != 1)
            break;
    return NULL;
}

static void *compute(void *argument) {
    volatile uint64_t sum = 0;
    for (uint64_t i = 0; i < 20000000; i++)
        sum += i;
    *(int *)argument = gettid();
    assert_false(pep_cpu_prefers_timer(gettid(), SOON_HZ));
    return NULL;
}

static void short_pieces_are_for_the_timer(void **state) {
    pthread_t thread;
    char byte = 0;
    (void)state;
    assert_int_equal(pipe(there) | pipe(back), 0);
    assert_int_equal(pthread_create(&thread, NULL, pass_on, NULL), 0);
    do { /* a processor that was taken away may count as a long piece */
        for (int i = 0; i < ROUNDS; i++) {
            assert_int_equal(write(there[1], &byte, 1), 1);
            assert_int_equal(read(back[0], &byte, 1), 1);
        }
    } while (piece_ns() > SHORT_NS);
    assert_true(pep_cpu_prefers_timer(gettid(), SOON_HZ));
    assert_true(pep_cpu_prefers_timer(gettid(), 1));
    /* Ticks are too seldom. */
    assert_false(pep_cpu_prefers_timer(gettid(), 1000));
    close(there[1]);
    pthread_join(thread, NULL);
    /* As the sweep asks: of threads with an event, at the rate there is, past their first sample.
     */
    struct pep_thread slot = {.tid = gettid(), .engine = PEP_ENGINE_PERF};
    assert_false(pep_cpu_is_for_timer(&slot));
    pep_cpu.hz = SOON_HZ;
    slot.is_newborn = true;
    assert_false(pep_cpu_is_for_timer(&slot));
    slot.last_cpu_ns = 1000000000 / SOON_HZ;
    assert_true(pep_cpu_is_for_timer(&slot));
    assert_false(slot.is_newborn);
    slot.engine = PEP_ENGINE_TIMER;
    assert_false(pep_cpu_is_for_timer(&slot));
    pep_cpu.hz = 0;
}

static void who_computes_has_its_event(void **state) {
    pthread_t thread;
    int tid = 0;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, compute, &tid), 0);
    pthread_join(thread, NULL);
    assert_true(tid > 0);
    assert_false(pep_cpu_prefers_timer(0, SOON_HZ)); /* nobody */
    assert_false(pep_cpu_prefers_timer(4194304, SOON_HZ));
}

static void an_unknown_tick_is_none(void **state) {
    uint64_t tick = pep_cpu.tick_ns;
    (void)state;
    pep_cpu.tick_ns = 0;
    assert_false(pep_cpu_prefers_timer(gettid(), SOON_HZ));
    pep_cpu.tick_ns = tick;
}

static int setup(void **state) {
    (void)state;
    pep_cpu.tick_ns = 4000000;
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_pieces_are_for_the_timer),
        cmocka_unit_test(who_computes_has_its_event),
        cmocka_unit_test(an_unknown_tick_is_none),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
