/*
 * What the hooks of locks cost. To be run under the preload: each row is measured with libc's own
 * functions and with the ones that the program is bound to, in turns of a millisecond, the best
 * of many; ns a pair, without anybody waiting.
 *
 *   mutex, recursive, pi   lock and unlock
 *   rdlock, wrlock, spin, mtx  the same of the other kinds
 *   sem       post and wait
 *   cond      signal and broadcast, nobody waits
 *   syscall   getpid by syscall(2)
 *   wake      a futex that nobody waits for, by syscall(2)
 *
 * Then, without the preload's hooks, what an event costs that is recorded, below 20 frames:
 *
 *   waited    a wait that begins and ends at once
 *   released  a lock that somebody waits for is let go: before the real call, and in all
 */
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include "sampler/lock.h"
#include "sampler/lock_internal.h"
#include "sampler/thread.h"

#define TURNS 200
#define PAIRS 20000
#define EVENTS 2000
#define FRAMES 20

typedef int function(void *object);

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_mutex_t inheriting;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_spinlock_t spin;
static sem_t semaphore;
static mtx_t mtx;

static const struct row {
    const char *name, *first, *second;
    void *object;
} rows[] = {
    {"mutex", "pthread_mutex_lock", "pthread_mutex_unlock", &mutex},
    {"recursive", "pthread_mutex_lock", "pthread_mutex_unlock", &recursive},
    {"pi", "pthread_mutex_lock", "pthread_mutex_unlock", &inheriting},
    {"rdlock", "pthread_rwlock_rdlock", "pthread_rwlock_unlock", &rwlock},
    {"wrlock", "pthread_rwlock_wrlock", "pthread_rwlock_unlock", &rwlock},
    {"spin", "pthread_spin_lock", "pthread_spin_unlock", (void *)&spin},
    {"mtx", "mtx_lock", "mtx_unlock", &mtx},
    {"sem", "sem_post", "sem_wait", &semaphore},
    {"cond", "pthread_cond_signal", "pthread_cond_broadcast", &cond},
};

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static double time_pairs(function *first, function *second, void *object) {
    double start = now_ns();
    for (int i = 0; i < PAIRS; i++) {
        first(object);
        second(object);
    }
    return (now_ns() - start) / PAIRS;
}

static double time_calls(long (*call)(long, ...), long number) {
    static int word;
    double start = now_ns();
    for (int i = 0; i < PAIRS; i++)
        call(number, &word, FUTEX_WAKE_PRIVATE, 1);
    return (now_ns() - start) / PAIRS;
}

static void print(const char *name, double bare, double hooked) {
    printf("%-10s bare %7.2f ns, with hooks %7.2f ns, %+6.2f ns\n", name, bare, hooked,
           hooked - bare);
}

static void best(double *least, double found) {
    if (*least == 0 || found < *least)
        *least = found;
}

static void *find(void *library, const char *name) {
    void *found = dlvsym(library, name, "GLIBC_2.3.2");
    if (found == NULL)
        found = dlsym(library, name);
    if (found == NULL)
        exit(1);
    return found;
}

static void time_row(void *libc, const struct row *row) {
    double bare = 0, hooked = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        best(&bare, time_pairs((function *)find(libc, row->first),
                               (function *)find(libc, row->second), row->object));
        best(&hooked, time_pairs((function *)find(RTLD_DEFAULT, row->first),
                                 (function *)find(RTLD_DEFAULT, row->second), row->object));
    }
    print(row->name, bare, hooked);
}

static void time_syscall(void *libc, const char *name, long number) {
    double bare = 0, hooked = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        best(&bare, time_calls((long (*)(long, ...))find(libc, "syscall"), number));
        best(&hooked, time_calls(syscall, number));
    }
    print(name, bare, hooked);
}

/* -- events --------------------------------------------------------------------------------- */

static double waited_ns, before_ns, released_ns;

static void time_events(void) {
    static int lock;
    double start = now_ns();
    for (int i = 0; i < EVENTS; i++) {
        struct pep_lock_wait wait;
        pep_lock_wait_begin(&wait, &lock, PEP_LOCK_MUTEX);
        pep_lock_wait_end(&wait);
    }
    best(&waited_ns, (now_ns() - start) / EVENTS);
    struct pep_lock_release release;
    uint32_t place = pep_lock_place_join(&lock, pep_lock_now());
    start = now_ns();
    for (int i = 0; i < EVENTS; i++)
        pep_lock_release_begin(&release, &lock, PEP_LOCK_MUTEX);
    best(&before_ns, (now_ns() - start) / EVENTS);
    start = now_ns();
    for (int i = 0; i < EVENTS; i++) {
        pep_lock_release_begin(&release, &lock, PEP_LOCK_MUTEX);
        pep_lock_release_end(&release, true);
    }
    best(&released_ns, (now_ns() - start) / EVENTS);
    (void)pep_lock_place_leave(place, &lock, 0);
}

__attribute__((noinline)) static void below(int frames) {
    if (frames > 0)
        below(frames - 1);
    else
        time_events();
    __asm__ volatile(""); /* not a tail call */
}

int main(void) {
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&inheriting, &attributes);
    pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
    sem_init(&semaphore, 0, 0);
    mtx_init(&mtx, mtx_plain);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        time_row(libc, &rows[i]);
    time_syscall(libc, "syscall", SYS_getpid);
    time_syscall(libc, "wake", SYS_futex);
    if (pep_threads_init() != 0 || pep_lock_init(1) != 0)
        return 1;
    for (int turn = 0; turn < TURNS; turn++)
        below(FRAMES);
    printf("%-10s %7.0f ns\n", "waited", waited_ns);
    printf("%-10s %7.0f ns before the real call, %.0f ns in all\n", "released", before_ns,
           released_ns);
    return 0;
}
