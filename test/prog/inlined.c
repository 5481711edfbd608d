/*
 * Work three inlined calls deep, while another thread waits for children that there are none of.
 *
 *     inlined [ignore]      until SIGTERM; then "children N, told N" on standard output
 *
 * With "ignore" SIGCHLD is ignored instead of handled.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile uint64_t sink;
static volatile sig_atomic_t is_over, told;
static unsigned long children;

static inline __attribute__((always_inline)) uint64_t innermost(uint64_t value) {
    for (int i = 0; i < 1000; i++)
        value = value * 6364136223846793005u + 1; /* the hot line */
    return value;
}

static inline __attribute__((always_inline)) uint64_t middle(uint64_t value) {
    return innermost(value) ^ innermost(value + 1);
}

__attribute__((noinline)) static void outermost(void) {
    sink += middle(sink);
}

static void on_signal(int sig) {
    if (sig == SIGTERM)
        is_over = 1;
    else
        told++;
}

static void *wait_for_anybody(void *unused) {
    while (!is_over) {
        if (waitpid(-1, NULL, 0) != -1 || errno != ECHILD)
            children++;
        usleep(200);
    }
    return unused;
}

int main(int argc, char **argv) {
    pthread_t waiter;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    if (argc > 1 && strcmp(argv[1], "ignore") == 0)
        action.sa_handler = SIG_IGN;
    sigaction(SIGCHLD, &action, NULL);
    if (pthread_create(&waiter, NULL, wait_for_anybody, NULL) != 0)
        return 1;
    while (!is_over)
        outermost();
    pthread_join(waiter, NULL);
    printf("children %lu, told %d\n", children, (int)told);
    return 0;
}
