/*
 * Three threads, each holding a mutex and waiting for the next one's, and a fourth that waits for
 * one of these: nobody goes on.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#define CIRCLE 3

static pthread_mutex_t locks[CIRCLE] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
                                        PTHREAD_MUTEX_INITIALIZER};
static pthread_barrier_t all_hold;

__attribute__((noinline)) static void take_the_next(int number) {
    pthread_mutex_lock(&locks[(number + 1) % CIRCLE]);
    __asm__ volatile("" ::: "memory");
}

static void *philosopher(void *argument) {
    static const char *const names[CIRCLE] = {"plato", "kant", "hegel"};
    int number = (int)(intptr_t)argument;
    pthread_setname_np(pthread_self(), names[number]);
    pthread_mutex_lock(&locks[number]);
    pthread_barrier_wait(&all_hold);
    take_the_next(number);
    return NULL;
}

static void *guest(void *argument) {
    (void)argument;
    pthread_setname_np(pthread_self(), "guest");
    pthread_barrier_wait(&all_hold);
    take_the_next(CIRCLE - 1);
    return NULL;
}

int main(void) {
    pthread_t thread;
    pthread_barrier_init(&all_hold, NULL, CIRCLE + 2);
    for (intptr_t i = 0; i < CIRCLE; i++)
        pthread_create(&thread, NULL, philosopher, (void *)i);
    pthread_create(&thread, NULL, guest, NULL);
    pthread_barrier_wait(&all_hold);
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}
