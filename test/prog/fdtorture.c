/*
 * A program that trusts its own descriptors, all of them: fdtorture SECONDS THREADS
 *
 * Each thread makes 200 pairs of sockets, writes to one end, reads from the other, compares. Alone,
 * it closes everything above 2 before each round and knows which numbers it must get; with others
 * it closes what it opened. SIGTERM ends it earlier. Says what came out wrong; exit 0: nothing but
 * moved numbers.
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAIRS = 200, BYTES = 32, THREADS_MAX = 16 };

static unsigned long foreign, lost, moved;
static time_t until;
static volatile sig_atomic_t is_over;
static bool is_alone;

static void count(unsigned long *what, bool is_wrong) {
    if (is_wrong)
        __atomic_add_fetch(what, 1, __ATOMIC_RELAXED);
}

static void compare(const int pair[2], int i) {
    char out[BYTES], in[2 * BYTES];
    memset(out, 'a' + i % 26, sizeof(out));
    if (write(pair[0], out, sizeof(out)) != BYTES) {
        count(&lost, true);
        return;
    }
    ssize_t got = read(pair[1], in, sizeof(in));
    count(&lost, got < BYTES);
    count(&foreign, got > BYTES || (got == BYTES && memcmp(in, out, BYTES) != 0));
}

static void run_round(int (*pairs)[2]) {
    if (is_alone)
        syscall(SYS_close_range, 3, ~0u, 0);
    for (int i = 0; i < PAIRS; i++)
        count(&lost, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pairs[i]) != 0);
    for (int i = 0; i < PAIRS; i++) {
        count(&moved, is_alone && (pairs[i][0] != 3 + 2 * i || pairs[i][1] != 4 + 2 * i));
        compare(pairs[i], i);
    }
    for (int i = 0; i < PAIRS && !is_alone; i++) {
        count(&lost, close(pairs[i][0]) != 0);
        count(&lost, close(pairs[i][1]) != 0);
    }
}

static void *run(void *unused) {
    int pairs[PAIRS][2];
    while (!is_over && time(NULL) < until)
        run_round(pairs);
    return unused;
}

static void end(int sig) {
    is_over = sig;
}

/* 400 for each thread are more than some limits allow. */
static void allow_descriptors(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < 16384)
        limit.rlim_cur = limit.rlim_max < 16384 ? limit.rlim_max : 16384;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS_MAX];
    int number = argc > 2 ? atoi(argv[2]) : 1;
    until = time(NULL) + (argc > 1 ? atoi(argv[1]) : 3);
    is_alone = number == 1;
    signal(SIGTERM, end);
    allow_descriptors();
    for (int i = 1; i < number && i < THREADS_MAX; i++)
        pthread_create(&threads[i], NULL, run, NULL);
    run(NULL);
    for (int i = 1; i < number && i < THREADS_MAX; i++)
        pthread_join(threads[i], NULL);
    printf("%lu foreign, %lu lost\n", foreign, lost);
    fprintf(stderr, "%lu moved\n", moved);
    return foreign || lost;
}
