#include "waiters.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FRAMED \
    __attribute__((noinline, noclone, \
                   optimize("no-omit-frame-pointer", "no-optimize-sibling-calls")))
#define LEVELS 3
#define FUNCTION_BYTES 1024 /* with a sanitizer's checks */

static int pipe_fds[2], sockets[2];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static volatile int never;

static void prepare(void) {
    (void)!pipe(pipe_fds);
    (void)!socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
    pthread_mutex_lock(&mutex);
}

FRAMED static void in_poll(void) {
    poll(NULL, 0, -1);
    never++;
}

FRAMED static void in_read(void) {
    char byte;
    (void)!read(pipe_fds[0], &byte, 1);
    never++;
}

FRAMED static void in_pause(void) {
    pause();
    never++;
}

FRAMED static void in_nanosleep(void) {
    const struct timespec long_time = {100000, 0};
    nanosleep(&long_time, NULL);
    never++;
}

FRAMED static void in_mutex(void) {
    pthread_mutex_lock(&mutex);
    never++;
}

FRAMED static void in_epoll(void) {
    struct epoll_event events[64];
    epoll_wait(epoll_create1(0), events, 64, -1);
    never++;
}

FRAMED static void in_select(void) {
    select(0, NULL, NULL, NULL, NULL);
    never++;
}

FRAMED static void in_recv(void) {
    char bytes[5000];
    (void)!recv(sockets[0], bytes, sizeof bytes, 0);
    never++;
}

FRAMED static void in_syscall(void) {
    static int word;
    syscall(SYS_futex, &word, 0 /* FUTEX_WAIT */, 0, NULL, NULL, 0);
    never++;
}

const struct waiter_kind waiter_kinds[] = {
    {"poll", "select", in_poll},         {"read", "IO wait", in_read},
    {"pause", "signal wait", in_pause},  {"clock_nanosleep", "sleep", in_nanosleep},
    {"futex", "futex wait", in_mutex},   {"epoll_wait", "epoll wait", in_epoll},
    {"pselect6", "select", in_select},   {"recvfrom", "IO wait", in_recv},
    {"futex", "futex wait", in_syscall},
};
const int waiter_kind_count = sizeof waiter_kinds / sizeof waiter_kinds[0];

FRAMED static void go_down(int levels, const struct waiter_kind *kind) {
    volatile char room[200];
    room[0] = (char)levels;
    if (levels > 1)
        go_down(levels - 1, kind);
    else
        kind->wait();
    room[1] = room[0];
}

FRAMED static void *run_waiter(void *argument) {
    go_down(LEVELS, argument);
    never++;
    return NULL;
}

struct start {
    void *(*function)(void *);
    void *argument;
    sem_t is_running;
    int tid;
};

static void *run(void *argument) {
    struct start *start = argument;
    void *(*function)(void *) = start->function;
    void *its = start->argument;
    start->tid = (int)syscall(SYS_gettid);
    sem_post(&start->is_running);
    return function(its);
}

int waiter_run(void *(*function)(void *), void *argument) {
    static struct start starts[WAITERS_MAX];
    static int count;
    struct start *start = &starts[count++];
    pthread_t thread;
    start->function = function;
    start->argument = argument;
    sem_init(&start->is_running, 0, 0);
    if (count > WAITERS_MAX || pthread_create(&thread, NULL, run, start) != 0)
        return -1;
    pthread_detach(thread);
    sem_wait(&start->is_running);
    return start->tid;
}

static long read_file(int tid, const char *name, char *text, size_t bytes) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/%s", tid, name);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return -1;
    size_t count = fread(text, 1, bytes - 1, file);
    fclose(file);
    text[count] = '\0';
    return (long)count;
}

/* For good: it has used no CPU time between two looks. */
void waiter_await(int tid, char state) {
    char text[1024], before[128] = "", now[128];
    for (;;) {
        if (read_file(tid, "stat", text, sizeof text) <= 0)
            return;
        bool is_there = strrchr(text, ')')[2] == state;
        read_file(tid, "schedstat", now, sizeof now);
        if (is_there && strcmp(now, before) == 0)
            return;
        strcpy(before, now);
        usleep(1000);
    }
}

int waiter_start(const struct waiter_kind *kind) {
    pthread_once(&once, prepare);
    int tid = waiter_run(run_waiter, (void *)(uintptr_t)kind);
    waiter_await(tid, 'S');
    return tid;
}

static bool is_in(uintptr_t pc, uintptr_t function) {
    return pc - function < FUNCTION_BYTES;
}

/* A function's code is short: the nearest start below a pc tells whose it is. */
static uintptr_t whose(const struct waiter_kind *kind, uintptr_t pc) {
    const uintptr_t all[] = {(uintptr_t)kind->wait, (uintptr_t)go_down,     (uintptr_t)run_waiter,
                             (uintptr_t)run,        (uintptr_t)prepare,     (uintptr_t)waiter_run,
                             (uintptr_t)read_file,  (uintptr_t)waiter_await};
    uintptr_t best = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (is_in(pc, all[i]) && all[i] > best)
            best = all[i];
    return best;
}

bool waiter_is_whole(const struct waiter_kind *kind, const uintptr_t *pcs, int count) {
    const uintptr_t wanted[] = {(uintptr_t)kind->wait, (uintptr_t)go_down, (uintptr_t)go_down,
                                (uintptr_t)go_down, (uintptr_t)run_waiter};
    size_t at = 0, most = sizeof wanted / sizeof wanted[0];
    int i = 0;
    while (i < count && whose(kind, pcs[i]) != wanted[0])
        i++;
    while (i < count && at < most && whose(kind, pcs[i]) == wanted[at])
        i++, at++;
    /* start_thread, clone; run, when it was not left by a jump; a sanitizer's own. */
    return at == most && count - i >= 2 && count - i <= 5;
}

static int spin_until; /* rises */

static void *spin(void *argument) {
    int mine = (int)(intptr_t)argument;
    while (__atomic_load_n(&spin_until, __ATOMIC_RELAXED) == mine) {
    }
    return NULL;
}

int waiter_spin(void) {
    return waiter_run(spin, (void *)(intptr_t)spin_until);
}

void waiter_spin_end(void) {
    __atomic_fetch_add(&spin_until, 1, __ATOMIC_RELAXED);
}

uint64_t waiter_status(int tid, const char *name) {
    char text[4096];
    if (read_file(tid, "status", text, sizeof text) <= 0)
        return 0;
    const char *at = strstr(text, name);
    unsigned long long value = 0;
    if (at != NULL)
        sscanf(at + strlen(name), strncmp(name, "\nSig", 4) == 0 ? ":%llx" : ":%llu", &value);
    return value;
}
