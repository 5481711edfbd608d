/*
 * Threads that begin and end in every way; prints what came of each. The output must be the same
 * bare and preloaded. Says "done" at the end. An argument is the number of rounds.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <threads.h>
#include <unistd.h>

static int ended; /* destructors and clean-up handlers that ran */
static pthread_key_t key;
static int failures;

static void expect(int is_right, const char *what) {
    if (!is_right) {
        failures++;
        printf("wrong: %s\n", what);
    }
}

static void count_end(void *unused) {
    (void)unused;
    __atomic_fetch_add(&ended, 1, __ATOMIC_RELAXED);
}

/* Sets its key again as often as it may. */
static void count_rounds(void *value) {
    count_end(value);
    pthread_setspecific(key, value);
}

static void *give_back(void *value) {
    pthread_setspecific(key, value ? value : (void *)1);
    return value;
}

static void *leave(void *value) {
    pthread_cleanup_push(count_end, NULL);
    pthread_exit(value);
    pthread_cleanup_pop(0);
    return NULL;
}

static void *wait_for_cancel(void *asynchronous) {
    pthread_cleanup_push(count_end, NULL);
    if (asynchronous) {
        int old;
        pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
        for (volatile unsigned long i = 0;; i++)
            ;
    }
    for (;;)
        pause();
    pthread_cleanup_pop(0);
    return NULL;
}

static int give_number(void *value) {
    return (int)(intptr_t)value;
}

static int leave_c11(void *value) {
    thrd_exit((int)(intptr_t)value);
    return 0;
}

static void *use_small_stack(void *unused) {
    volatile char space[4096];
    memset((void *)(uintptr_t)space, 1, sizeof(space));
    return unused;
}

static void join_expect(pthread_t thread, void *wanted, const char *what) {
    void *got = NULL;
    expect(pthread_join(thread, &got) == 0 && got == wanted, what);
}

static void ways_to_end(void) {
    pthread_t thread;
    thrd_t c11;
    int number = 0;
    expect(pthread_create(&thread, NULL, give_back, (void *)42) == 0, "create");
    join_expect(thread, (void *)42, "return");
    expect(pthread_create(&thread, NULL, leave, (void *)43) == 0, "create");
    join_expect(thread, (void *)43, "pthread_exit");
    for (intptr_t how = 0; how < 2; how++) {
        expect(pthread_create(&thread, NULL, wait_for_cancel, (void *)how) == 0, "create");
        expect(pthread_cancel(thread) == 0, "cancel");
        join_expect(thread, PTHREAD_CANCELED, "cancelled");
    }
    expect(thrd_create(&c11, give_number, (void *)-7) == thrd_success, "thrd_create");
    expect(thrd_join(c11, &number) == thrd_success && number == -7, "thrd_join");
    expect(thrd_create(&c11, leave_c11, (void *)8) == thrd_success, "thrd_create");
    expect(thrd_join(c11, &number) == thrd_success && number == 8, "thrd_exit");
}

static void ways_to_begin(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
    expect(pthread_create(&thread, &attributes, use_small_stack, (void *)1) == 0, "smallest stack");
    join_expect(thread, (void *)1, "smallest stack");
    size_t size = 65536;
    void *stack =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    pthread_attr_setstack(&attributes, stack, size);
    expect(pthread_create(&thread, &attributes, use_small_stack, (void *)2) == 0, "own stack");
    join_expect(thread, (void *)2, "own stack");
    pthread_attr_destroy(&attributes);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, (size_t)1 << 46);
    int error = pthread_create(&thread, &attributes, use_small_stack, NULL);
    expect(error == EAGAIN, "a stack that nobody can have");
    pthread_attr_destroy(&attributes);
}

static pthread_barrier_t barrier;

static void *meet(void *value) {
    pthread_barrier_wait(&barrier);
    return value;
}

/* More at a time than there are blocks for the hook's arguments. */
static void many(int count) {
    pthread_t *threads = calloc((size_t)count, sizeof(pthread_t));
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 32768);
    pthread_barrier_init(&barrier, NULL, (unsigned)count + 1);
    for (intptr_t i = 0; i < count; i++)
        expect(pthread_create(&threads[i], &attributes, meet, (void *)i) == 0, "one of many");
    pthread_barrier_wait(&barrier);
    for (intptr_t i = 0; i < count; i++)
        join_expect(threads[i], (void *)i, "one of many");
    pthread_attr_destroy(&attributes);
    free(threads);
}

static void *detached(void *semaphore) {
    count_end(NULL);
    return semaphore;
}

static void detach(void) {
    int before = __atomic_load_n(&ended, __ATOMIC_RELAXED);
    for (int i = 0; i < 100; i++) {
        pthread_t thread;
        expect(pthread_create(&thread, NULL, detached, NULL) == 0, "create");
        expect(pthread_detach(thread) == 0, "detach");
    }
    while (__atomic_load_n(&ended, __ATOMIC_RELAXED) < before + 100)
        usleep(1000);
}

static void *last(void *unused) {
    usleep(100000);
    printf("%d wrong\ndone\n", failures);
    return unused;
}

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    pthread_key_create(&key, count_rounds);
    for (int i = 0; i < rounds; i++) {
        ended = 0;
        ways_to_end();
        if (i == 0)
            printf("%d ends were seen\n", ended);
        ways_to_begin();
    }
    detach();
    many(1500);
    /* The process ends with its last thread, status 0. */
    pthread_t thread;
    pthread_create(&thread, NULL, last, NULL);
    pthread_exit((void *)9);
}
