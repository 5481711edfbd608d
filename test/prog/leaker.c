/*
 * Allocates known amounts: a leak, a peak, and much that lives shortly.
 *
 * Model:   rise: 50 blocks of 20,000 bytes, freed before the leak ends: with the first 40 blocks
 *          of the leak, the peak. leak: 100 blocks of 1,000 bytes. churn: 10,000 of 64 bytes, one
 *          at a time. resize: a block of 10 bytes grown to 5,000 and kept.
 * Writers: -
 * Readers: the test of recordings.
 * Memory:  as above.
 * When full: exit status 1.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static void *volatile leaked[100], *volatile risen[50], *volatile resized;

NOINLINE static void rise(void) {
    for (int i = 0; i < 50; i++)
        risen[i] = malloc(20000);
}

NOINLINE static void fall(void) {
    for (int i = 0; i < 50; i++)
        free(risen[i]);
}

NOINLINE static void leak(int from, int to) {
    for (int i = from; i < to; i++)
        leaked[i] = malloc(1000);
}

NOINLINE static void churn(void) {
    for (int i = 0; i < 10000; i++) {
        void *volatile block = malloc(64);
        free(block);
    }
}

NOINLINE static void resize(void) {
    resized = malloc(10);
    resized = realloc(resized, 5000);
}

int main(int count, char **arguments) {
    churn();
    rise();
    leak(0, 40);
    fall();
    leak(40, 100);
    resize();
    if (!leaked[99] || !resized)
        return 1;
    if (count > 1 && strcmp(arguments[1], "_exit") == 0)
        _exit(3);
    if (count > 1 && strcmp(arguments[1], "abort") == 0)
        abort();
    return 3;
}
