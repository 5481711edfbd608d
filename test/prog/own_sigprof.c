/*
 * A host with a profiling timer of its own: setitimer(ITIMER_PROF) every 10 ms of CPU time, its
 * SIGPROF counted; spins until it is told to end (SIGTERM) and has used so much CPU time. Prints
 * the ticks, the CPU time of the process, and how many more came that were not the timer's. The
 * kernel charges such timers whole clock ticks, by whom each one meets: on a busy machine they come
 * some tenths too often or too seldom.
 *
 * usage: own_sigprof CPU_MS      prints "N ticks in M ms, F foreign"
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static volatile sig_atomic_t ticks, foreign, is_over;

static void tick(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)context;
    if (info->si_code == SI_KERNEL)
        ticks++;
    else
        foreign++;
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
    struct sigaction action = {.sa_sigaction = tick, .sa_flags = SA_RESTART | SA_SIGINFO};
    sigaction(SIGPROF, &action, NULL);
    struct itimerval every = {{0, 10000}, {0, 10000}};
    setitimer(ITIMER_PROF, &every, NULL);
    signal(SIGTERM, end);
    while (!is_over || clock() < least)
        burn();
    int seen = ticks;
    printf("%d ticks in %ld ms, %d foreign\n", seen, (long)(clock() / (CLOCKS_PER_SEC / 1000)),
           (int)foreign);
    return 0;
}
