/*
 * A host with a profiling timer of its own: setitimer(ITIMER_PROF) every 10 ms of CPU time, its
 * SIGPROF counted; spins until it is told to end (SIGTERM) and has used so much CPU time. Prints
 * the ticks and the CPU time of the process. The kernel rounds such timers to its clock tick.
 *
 * usage: own_sigprof CPU_MS      prints "N ticks in M ms"
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static volatile sig_atomic_t ticks, is_over;

static void tick(int sig) {
    (void)sig;
    ticks++;
}

static void end(int sig) {
    is_over = sig;
}

__attribute__((noinline)) static void burn(void) {
    for (volatile int i = 0; i < 10000; i++)
        continue;
}

int main(int argc, char **argv) {
    clock_t least = (clock_t)(argc > 1 ? atol(argv[1]) : 1000) * (CLOCKS_PER_SEC / 1000);
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    sigaction(SIGPROF, &action, NULL);
    struct itimerval every = {{0, 10000}, {0, 10000}};
    setitimer(ITIMER_PROF, &every, NULL);
    signal(SIGTERM, end);
    while (!is_over || clock() < least)
        burn();
    int seen = ticks;
    printf("%d ticks in %ld ms\n", seen, (long)(clock() / (CLOCKS_PER_SEC / 1000)));
    return 0;
}
