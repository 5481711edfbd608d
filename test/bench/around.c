/*
 * Two constructors around another library's, to time that: preloaded as "last THE_LIBRARY first",
 * they run from right to left. The last prints the nanoseconds between on standard error.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

extern uint64_t around_begin_ns;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#ifdef FIRST
uint64_t around_begin_ns;
__attribute__((constructor)) static void begin(void) {
    around_begin_ns = now_ns();
}
#else
__attribute__((constructor)) static void end(void) {
    uint64_t now = now_ns();
    fprintf(stderr, "%llu\n", (unsigned long long)(now - around_begin_ns));
}
#endif
