/*
 * Allocates what a heap profile is known to show: 64 MiB kept at the start, of which it says
 * "kept", and blocks that come and go until it is killed. "heap_rows MIB" keeps that many.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES (64 * 1024)

__attribute__((noinline)) static void keep(int count) {
    static void *volatile kept[65536];
    for (int i = 0; i < count && i < 65536; i++)
        kept[i] = memset(malloc(BLOCK_BYTES), 1, BLOCK_BYTES);
}

__attribute__((noinline)) static void churn(void) {
    for (int i = 1; i <= 100; i++) {
        void *volatile block = malloc((size_t)i * 64);
        free(block);
    }
}

int main(int argc, char **argv) {
    keep((argc > 1 ? atoi(argv[1]) : 64) * 16);
    if (write(1, "kept\n", 5) != 5)
        return 1;
    for (;;) {
        churn();
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}
