/*
 * A host with a profiling timer of its own: setitimer(ITIMER_PROF) every 10 ms of CPU time, its
 * SIGPROF counted; spins for the CPU seconds asked and prints ticks and expected ticks. The kernel
 * rounds such timers to its clock tick, the same with and without us.
 *
 * usage: own_sigprof CPU_SECONDS      prints "N ticks"
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static volatile sig_atomic_t ticks;

static void tick(int sig) {
    (void)sig;
    ticks++;
}

__attribute__((noinline)) static void burn(void) {
    for (volatile int i = 0; i < 10000; i++)
        continue;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    sigaction(SIGPROF, &action, NULL);
    struct itimerval every = {{0, 10000}, {0, 10000}};
    setitimer(ITIMER_PROF, &every, NULL);
    while ((double)clock() / CLOCKS_PER_SEC < seconds)
        burn();
    printf("%d ticks\n", (int)ticks);
    return 0;
}
