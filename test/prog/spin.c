/*
 * Known work: three functions that use 60, 30 and 10 % of each thread's CPU time, measured by
 * the thread's own clock. spin [threads [seconds [rhythm_us]]].
 *
 * With a rhythm each round of the three takes exactly that long; without, a round is 10 ms. Prints
 * the CPU time of each function and of the process at the end, in nanoseconds.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static uint64_t round_ns = 10000000;
static uint64_t total_ns;
static uint64_t charged[3];

static uint64_t cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The clock is a system call: read rarely, or the kernel's share would drown the function's. Each
 * function has a step of its own, or the compiler would fold the three into one. */
#define WORK(name, step) \
    __attribute__((noinline)) static uint64_t name(uint64_t until) { \
        volatile uint64_t sum = 0; \
        uint64_t now; \
        do { \
            for (int i = 0; i < 10000; i++) \
                sum += (uint64_t)i * step; \
            now = cpu_ns(); \
        } while (now < until); \
        return now; \
    }
WORK(spin_sixty, 3)
WORK(spin_thirty, 5)
WORK(spin_ten, 7)

static void *work(void *unused) {
    uint64_t start = cpu_ns(), now = start, mine[3] = {0};
    for (uint64_t due = start; now - start < total_ns; due += round_ns) {
        uint64_t at = now;
        now = spin_sixty(due + round_ns * 6 / 10);
        mine[0] += now - at;
        at = now;
        now = spin_thirty(due + round_ns * 9 / 10);
        mine[1] += now - at;
        at = now;
        now = spin_ten(due + round_ns);
        mine[2] += now - at;
    }
    for (int i = 0; i < 3; i++)
        __atomic_fetch_add(&charged[i], mine[i], __ATOMIC_RELAXED);
    return unused;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    double seconds = argc > 2 ? atof(argv[2]) : 5;
    if (argc > 3)
        round_ns = (uint64_t)atoll(argv[3]) * 1000;
    if (threads < 1 || threads > 4096 || seconds <= 0 || round_ns == 0)
        return 2;
    total_ns = (uint64_t)(seconds * 1e9) / (uint64_t)threads;
    pthread_t ids[4096];
    for (int i = 1; i < threads; i++)
        pthread_create(&ids[i], NULL, work, NULL);
    work(NULL);
    for (int i = 1; i < threads; i++)
        pthread_join(ids[i], NULL);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("sixty %llu thirty %llu ten %llu process %llu\n", (unsigned long long)charged[0],
           (unsigned long long)charged[1], (unsigned long long)charged[2],
           (unsigned long long)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000u +
               (unsigned long long)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000u);
    return 0;
}
