/*
 * Makes every key a process can have, and ends in one of several ways.
 *
 * keys           counts the keys; threads before and after, whose destructors are counted
 * keys leave     the main thread leaves by pthread_exit; the process ends with its last thread
 * keys late      as leave, but the other thread makes the keys once the main thread is gone
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <unistd.h>

#define THREADS 20

static pthread_key_t keys[PTHREAD_KEYS_MAX];
static int made, seen, wrong;
static sem_t has_come, may_go;

static void on_end(void *value) {
    if (value == keys)
        __atomic_fetch_add(&seen, 1, __ATOMIC_RELAXED);
    else
        __atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
}

/* Each way makes one in turn. */
static void make_all(void) {
    tss_t key;
    for (; made < PTHREAD_KEYS_MAX; made++) {
        bool is_c11 = made % 2 != 0;
        if (is_c11 ? tss_create(&key, on_end) != thrd_success
                   : pthread_key_create(&keys[made], on_end) != 0)
            break;
        if (is_c11)
            keys[made] = key;
    }
    int error = pthread_key_create(&keys[0], NULL);
    printf("%d keys, then %s; C11: %d\n", made, strerror(error), tss_create(&key, NULL));
}

/* Values of this thread's own in half of the keys; the others must be empty. */
static void *use(void *argument) {
    sem_post(&has_come);
    if (argument)
        sem_wait(&may_go);
    for (int i = 0; i < made; i++) {
        if (pthread_getspecific(keys[i]) != NULL)
            __atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
        if (i % 2 == 0)
            pthread_setspecific(keys[i], keys);
    }
    return NULL;
}

static void count(void) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS / 2; i++)
        pthread_create(&threads[i], NULL, use, keys);
    for (int i = 0; i < THREADS / 2; i++)
        sem_wait(&has_come);
    make_all();
    for (int i = 0; i < THREADS / 2; i++)
        sem_post(&may_go);
    for (int i = THREADS / 2; i < THREADS; i++)
        pthread_create(&threads[i], NULL, use, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("%d values were seen off, %d wrong\n", seen, wrong);
}

static void *last(void *is_late) {
    usleep(100000);
    if (is_late)
        make_all();
    puts("last");
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t thread;
    sem_init(&has_come, 0, 0);
    sem_init(&may_go, 0, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 2) {
        count();
        return 0;
    }
    bool is_late = strcmp(argv[1], "late") == 0;
    if (!is_late)
        make_all();
    pthread_create(&thread, NULL, last, is_late ? keys : NULL);
    pthread_exit(NULL);
}
