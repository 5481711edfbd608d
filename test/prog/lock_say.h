/* What the programs about locks share: every call with its result and errno, so that two runs can
 * be compared; and waiting until another thread really waits. */
#ifndef LOCK_SAY_H
#define LOCK_SAY_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The result of a call, told. */
#define SAY(call) \
    __extension__({ \
        errno = 777; \
        long result_ = (long)(call); \
        say(#call, result_, errno); \
        result_; \
    })

static const char *what = "";
static __thread FILE *to; /* NULL: stdout */

__attribute__((unused)) static void say(const char *call, long result, int error) {
    fprintf(to != NULL ? to : stdout, "%s: %s = %ld", what, call, result);
    fprintf(to != NULL ? to : stdout, error == 777 ? "\n" : " errno %d\n", error);
}

/* What a thread says beside others is told when it has ended. */
struct aside {
    char *text;
    size_t size;
};
__attribute__((unused)) static void say_aside(struct aside *aside) {
    to = open_memstream(&aside->text, &aside->size);
}
__attribute__((unused)) static void aside_ends(void) {
    fclose(to);
    to = NULL;
}
__attribute__((unused)) static void tell(struct aside *aside) {
    fputs(aside->text, stdout);
    free(aside->text);
}

__attribute__((unused)) static struct timespec from_now(clockid_t clock, long ms) {
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    return t;
}

/* Until the task sleeps in that system call, or in any for -1; or until it has ended. */
__attribute__((unused)) static void await_sleep(const volatile int *tid, long call) {
    char path[64], text[64];
    while (*tid == 0)
        sched_yield();
    snprintf(path, sizeof path, "/proc/%d/syscall", *tid);
    for (;;) {
        FILE *file = fopen(path, "r");
        if (file == NULL)
            return;
        bool is_there = fgets(text, sizeof text, file) != NULL;
        fclose(file);
        if (!is_there)
            return;
        if (text[0] >= '0' && text[0] <= '9' && (call == -1 || strtol(text, NULL, 10) == call))
            return;
        sched_yield();
    }
}

#endif
