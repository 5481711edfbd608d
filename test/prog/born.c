/*
 * Threads of every making, alive until the program is told to end: pthread_create from two
 * functions, thrd_create, raw clone; and one creation that fails.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <threads.h>
#include <unistd.h>

#define POOL 3

static pthread_barrier_t ready;

__attribute__((noinline)) void rest_for_ever(void) {
    for (;;)
        pause();
}

static void *pool_worker(void *number) {
    char name[16];
    snprintf(name, sizeof name, "pool-%d", (int)(intptr_t)number);
    pthread_setname_np(pthread_self(), name);
    pthread_barrier_wait(&ready);
    rest_for_ever();
    return NULL;
}

static void *keeper(void *argument) {
    (void)argument;
    pthread_setname_np(pthread_self(), "keeper");
    pthread_barrier_wait(&ready);
    rest_for_ever();
    return NULL;
}

static int eleven(void *argument) {
    (void)argument;
    pthread_setname_np(pthread_self(), "eleven");
    pthread_barrier_wait(&ready);
    rest_for_ever();
    return 0;
}

static int cloned(void *argument) {
    (void)argument;
    prctl(PR_SET_NAME, "cloned");
    for (;;)
        syscall(SYS_pause);
    return 0;
}

static void *short_lived(void *argument) {
    return argument;
}

__attribute__((noinline)) void start_pool(void) {
    for (intptr_t i = 0; i < POOL; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, pool_worker, (void *)i);
    }
}

__attribute__((noinline)) void start_keeper(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, keeper, NULL);
}

__attribute__((noinline)) void start_eleven(void) {
    thrd_t thread;
    thrd_create(&thread, eleven, NULL);
}

__attribute__((noinline)) void start_cloned(void) {
    char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    clone(cloned, stack + 65536, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD,
          NULL);
}

__attribute__((noinline)) void start_and_end(int count) {
    for (int i = 0; i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, short_lived, NULL) == 0)
            pthread_join(thread, NULL);
    }
}

/* More stack than there can be. */
__attribute__((noinline)) void start_in_vain(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, (size_t)1 << 46);
    if (pthread_create(&thread, &attributes, short_lived, NULL) == 0)
        puts("created after all");
    pthread_attr_destroy(&attributes);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    pthread_barrier_init(&ready, NULL, POOL + 3);
    start_pool();
    start_keeper();
    start_eleven();
    start_cloned();
    start_and_end(20);
    start_in_vain();
    pthread_barrier_wait(&ready);
    puts("ready");
    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        start_and_end(5);
        puts("more");
    }
    rest_for_ever();
    return 0;
}
