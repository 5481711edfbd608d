/*
 * Every kind of mutex there is, and what each call gives and leaves in errno: told line by line, to
 * be compared with the same program without us. Arguments: none.
 */
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <threads.h>

#include "lock_say.h"

static const struct timespec past = {1, 0}, wrong = {1, 2000000000};

struct place {
    pthread_mutex_t mutex;
    volatile int tid;
    struct aside aside;
};

static void *lock_and_unlock(void *argument) {
    struct place *place = argument;
    place->tid = (int)syscall(SYS_gettid);
    SAY(pthread_mutex_lock(&place->mutex));
    SAY(pthread_mutex_unlock(&place->mutex));
    return NULL;
}

static void *lock_aside(void *argument) {
    struct place *place = argument;
    say_aside(&place->aside);
    lock_and_unlock(place);
    aside_ends();
    return NULL;
}

static void *unlock_foreign(void *argument) {
    struct place *place = argument;
    SAY(pthread_mutex_trylock(&place->mutex));
    SAY(pthread_mutex_timedlock(&place->mutex, &past));
    SAY(pthread_mutex_timedlock(&place->mutex, &wrong));
    SAY(pthread_mutex_unlock(&place->mutex));
    return NULL;
}

static void *die_with_it(void *argument) {
    struct place *place = argument;
    SAY(pthread_mutex_lock(&place->mutex));
    return NULL;
}

static void run(void *(*start)(void *), struct place *place) {
    pthread_t thread;
    pthread_create(&thread, NULL, start, place);
    pthread_join(thread, NULL);
}

static void contend(struct place *place, bool is_shared) {
    pthread_t thread;
    pid_t child = -1;
    place->tid = 0;
    if (SAY(pthread_mutex_lock(&place->mutex)) != 0) /* a ceiling that is not allowed */
        return;
    fflush(stdout);
    if (is_shared) {
        child = fork();
        if (child == 0) {
            lock_and_unlock(place);
            fflush(stdout);
            _exit(0);
        }
    } else {
        pthread_create(&thread, NULL, lock_aside, place);
    }
    await_sleep(&place->tid, SYS_futex);
    SAY(pthread_mutex_unlock(&place->mutex));
    if (is_shared)
        waitpid(child, NULL, 0);
    if (is_shared)
        return;
    pthread_join(thread, NULL);
    tell(&place->aside);
}

static void die(struct place *place, bool is_repaired) {
    run(die_with_it, place);
    SAY(pthread_mutex_lock(&place->mutex));
    if (is_repaired)
        SAY(pthread_mutex_consistent(&place->mutex));
    SAY(pthread_mutex_unlock(&place->mutex));
    SAY(pthread_mutex_lock(&place->mutex));
    SAY(pthread_mutex_unlock(&place->mutex));
    SAY(pthread_mutex_timedlock(&place->mutex, &past));
    SAY(pthread_mutex_unlock(&place->mutex));
}

static void own(struct place *place, int type) {
    if (type == PTHREAD_MUTEX_RECURSIVE || type == PTHREAD_MUTEX_ERRORCHECK)
        SAY(pthread_mutex_unlock(&place->mutex));
    SAY(pthread_mutex_lock(&place->mutex));
    if (type == PTHREAD_MUTEX_RECURSIVE || type == PTHREAD_MUTEX_ERRORCHECK) {
        SAY(pthread_mutex_lock(&place->mutex));
        SAY(pthread_mutex_trylock(&place->mutex));
        if (type == PTHREAD_MUTEX_RECURSIVE) {
            SAY(pthread_mutex_unlock(&place->mutex));
            SAY(pthread_mutex_unlock(&place->mutex));
        }
    }
    SAY(pthread_mutex_timedlock(&place->mutex, &past));
    SAY(pthread_mutex_timedlock(&place->mutex, &wrong));
    SAY(pthread_mutex_clocklock(&place->mutex, CLOCK_MONOTONIC, &past));
    SAY(pthread_mutex_clocklock(&place->mutex, 77, &past));
    SAY(pthread_mutex_destroy(&place->mutex));
    run(unlock_foreign, place);
    SAY(pthread_mutex_unlock(&place->mutex));
}

static void all_of(int type, bool is_robust, int protocol, bool is_shared) {
    pthread_mutexattr_t attributes;
    static char name[100];
    struct place *place =
        mmap(NULL, sizeof *place, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(name, sizeof name, "type %d %s protocol %d %s", type, is_robust ? "robust" : "stalled",
             protocol, is_shared ? "shared" : "private");
    what = name;
    for (int round = 0; round < 4; round++) {
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_settype(&attributes, type);
        pthread_mutexattr_setrobust(&attributes, is_robust);
        pthread_mutexattr_setprotocol(&attributes, protocol);
        pthread_mutexattr_setprioceiling(&attributes, 1);
        pthread_mutexattr_setpshared(&attributes, is_shared);
        if (SAY(pthread_mutex_init(&place->mutex, &attributes)) != 0)
            break;
        if (round == 0)
            contend(place, is_shared);
        else if (round == 1)
            own(place, type);
        else if (is_robust)
            die(place, round == 2);
        if (round > 1 || protocol != PTHREAD_PRIO_INHERIT) /* one that was unlocked by others */
            SAY(pthread_mutex_destroy(&place->mutex));
    }
    munmap(place, sizeof *place);
}

/* -- statically initialised, C11 ------------------------------------------------------------ */

static struct place still = {.mutex = PTHREAD_MUTEX_INITIALIZER};
static struct place still_recursive = {.mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP};
static struct place still_checking = {.mutex = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP};
static struct place still_adaptive = {.mutex = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP};

static mtx_t mtx;
static volatile int mtx_tid;
static struct aside mtx_aside;

static int lock_c11(void *unused) {
    say_aside(&mtx_aside);
    mtx_tid = (int)syscall(SYS_gettid);
    SAY(mtx_lock(&mtx));
    SAY(mtx_unlock(&mtx));
    aside_ends();
    return unused == NULL ? 7 : 8;
}

static void c11(int type) {
    thrd_t thread;
    int result = 0;
    what = "C11";
    SAY(mtx_init(&mtx, type));
    SAY(mtx_lock(&mtx));
    SAY(mtx_trylock(&mtx));
    if (type & mtx_recursive)
        SAY(mtx_unlock(&mtx));
    if (type & mtx_timed) {
        SAY(mtx_timedlock(&mtx, &past));
        SAY(mtx_timedlock(&mtx, &wrong));
        if (type & mtx_recursive) {
            SAY(mtx_unlock(&mtx));
            SAY(mtx_unlock(&mtx));
        }
    }
    mtx_tid = 0;
    thrd_create(&thread, lock_c11, NULL);
    await_sleep(&mtx_tid, SYS_futex);
    SAY(mtx_unlock(&mtx));
    SAY(thrd_join(thread, &result));
    tell(&mtx_aside);
    SAY(result);
    mtx_destroy(&mtx);
}

int main(void) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 20);
    for (int type = 0; type < 4; type++)
        for (int robust = 0; robust < 2; robust++)
            for (int protocol = 0; protocol < 3; protocol++)
                for (int shared = 0; shared < 2; shared++)
                    all_of(type, robust, protocol, shared);
    what = "static";
    contend(&still, false);
    contend(&still_recursive, false);
    contend(&still_checking, false);
    contend(&still_adaptive, false);
    c11(mtx_plain);
    c11(mtx_timed);
    c11(mtx_plain | mtx_recursive);
    c11(mtx_timed | mtx_recursive);
    return 0;
}
