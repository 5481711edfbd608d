/*
 * Every call that a signal can cut short, and what it needs.
 *
 * Model:   a call waits for a limited time and then ends as ETIMEDOUT, or until somebody wakes it
 *          by what its slot holds.
 * Writers: the slot's thread; the waker its is_* fields.  [normal]
 * Readers: eintr_all.c.
 * Memory:  static.
 * When full: -
 */
#ifndef PEP_TEST_EINTR_CALLS_H
#define PEP_TEST_EINTR_CALLS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OWN_NS 20000000000ull
#define PLACE_BYTES 192
#define WAKE_NS 3000000ull

struct slot {
    int number, tid, number_of_call;
    int kind;                /* + 1, while in the call; 0 else */
    uint64_t since_ns;       /* when it went there */
    uint64_t sent_ns;        /* own: when the signal was sent; 0: not yet */
    int is_waking;           /* the waker may send a signal */
    int signals;             /* that it has sent */
    char place[PLACE_BYTES]; /* own: where it slept then */
    int hits;                /* signals handled */
    uint64_t woken_ns;       /* quiet: since_ns of the call for which the waker has done its part */
    uint64_t limit_ns;
    int pair[2], pipe[2], event, epoll, inotify, file, locked, listener, queue, sems, timer;
    sem_t semaphore, never;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    uint32_t word;
    char fifo[96], name[96];
};

static int is_own; /* nothing but a signal ends a call */

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static struct timespec spec(uint64_t ns) {
    return (struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
}

static struct timespec until(clockid_t clock, uint64_t ns) {
    struct timespec time;
    clock_gettime(clock, &time);
    return spec((uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec + ns);
}

/* -- the calls: -1 with errno, or what the call gives; limits of time end as ETIMEDOUT ----------
 */

static int timed_out(int result) {
    if (result == 0)
        errno = ETIMEDOUT;
    return result == 0 ? -1 : result;
}

static int do_poll(struct slot *slot) {
    return timed_out(poll(NULL, 0, (int)(slot->limit_ns / 1000000)));
}

static int do_ppoll(struct slot *slot) {
    struct timespec time = spec(slot->limit_ns);
    struct pollfd fd = {slot->pair[0], POLLIN, 0};
    return timed_out(ppoll(&fd, 1, &time, NULL));
}

static int do_select(struct slot *slot) {
    struct timeval time = {(time_t)(slot->limit_ns / 1000000000),
                           (suseconds_t)(slot->limit_ns % 1000000000 / 1000)};
    return timed_out(select(0, NULL, NULL, NULL, &time));
}

static int do_pselect(struct slot *slot) {
    struct timespec time = spec(slot->limit_ns);
    return timed_out(pselect(0, NULL, NULL, NULL, &time, NULL));
}

static int do_epoll(struct slot *slot) {
    struct epoll_event event;
    return timed_out(epoll_wait(slot->epoll, &event, 1, (int)(slot->limit_ns / 1000000)));
}

static int do_epoll_for_ever(struct slot *slot) {
    struct epoll_event event;
    uint64_t value;
    int count = epoll_wait(slot->epoll, &event, 1, -1);
    return count == 1 && read(slot->event, &value, sizeof(value)) == 8 ? 1 : count;
}

static int do_nanosleep(struct slot *slot) {
    struct timespec time = spec(slot->limit_ns);
    return timed_out(nanosleep(&time, &time));
}

static int do_usleep(struct slot *slot) {
    return timed_out(usleep((useconds_t)(slot->limit_ns / 1000)));
}

/* Whole seconds: as quiet as the others only on some threads. */
static int do_sleep(struct slot *slot) {
    unsigned left = sleep(is_own ? 20 : 1);
    slot->limit_ns = is_own ? OWN_NS : 1000000000;
    errno = left ? EINTR : ETIMEDOUT;
    return -1;
}

static int do_clock_nanosleep(struct slot *slot) {
    struct timespec time = spec(slot->limit_ns);
    errno = clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
    return timed_out(errno ? -1 : 0);
}

static int do_clock_nanosleep_until(struct slot *slot) {
    struct timespec time = until(CLOCK_MONOTONIC, slot->limit_ns);
    errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
    return timed_out(errno ? -1 : 0);
}

static int do_sem_timedwait(struct slot *slot) {
    struct timespec time = until(CLOCK_REALTIME, slot->limit_ns);
    return sem_timedwait(&slot->never, &time);
}

static int do_sem_wait(struct slot *slot) {
    return sem_wait(&slot->semaphore);
}

static int do_futex(struct slot *slot) {
    struct timespec time = spec(slot->limit_ns);
    return (int)syscall(SYS_futex, &slot->word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0);
}

static int do_cond(struct slot *slot) {
    struct timespec time = until(CLOCK_REALTIME, slot->limit_ns);
    pthread_mutex_lock(&slot->mutex);
    errno = pthread_cond_timedwait(&slot->cond, &slot->mutex, &time);
    pthread_mutex_unlock(&slot->mutex);
    return errno ? -1 : 0;
}

static int recv_byte(struct slot *slot, int is_read) {
    struct timeval limit = {(time_t)(slot->limit_ns / 1000000000),
                            (suseconds_t)(slot->limit_ns % 1000000000 / 1000)};
    char byte;
    setsockopt(slot->pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    int result = (int)(is_read ? read(slot->pair[0], &byte, 1) : recv(slot->pair[0], &byte, 1, 0));
    int error = errno;
    limit = (struct timeval){0, 0};
    setsockopt(slot->pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    errno = error == EAGAIN ? ETIMEDOUT : error;
    return result;
}

static int do_recv_timed(struct slot *slot) {
    return recv_byte(slot, 0);
}

static int do_read_timed(struct slot *slot) {
    return recv_byte(slot, 1);
}

static int do_recv(struct slot *slot) {
    char byte;
    return (int)recv(slot->pair[0], &byte, 1, 0);
}

static int do_accept(struct slot *slot) {
    struct timeval limit = {(time_t)(slot->limit_ns / 1000000000),
                            (suseconds_t)(slot->limit_ns % 1000000000 / 1000)};
    setsockopt(slot->listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    int result = accept(slot->listener, NULL, NULL);
    if (errno == EAGAIN)
        errno = ETIMEDOUT;
    return result;
}

static int do_msgrcv(struct slot *slot) {
    struct {
        long type;
        char text[8];
    } message;
    return (int)msgrcv(slot->queue, &message, sizeof(message.text), 0, 0);
}

static int do_semtimedop(struct slot *slot) {
    struct timespec time = spec(slot->limit_ns);
    struct sembuf one = {0, -1, 0};
    int result = semtimedop(slot->sems, &one, 1, &time);
    if (errno == EAGAIN)
        errno = ETIMEDOUT;
    return result;
}

static int do_sigtimedwait(struct slot *slot) {
    struct timespec time = spec(slot->limit_ns);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    int result = sigtimedwait(&set, NULL, &time);
    if (errno == EAGAIN)
        errno = ETIMEDOUT;
    return result;
}

static int do_sigwaitinfo(struct slot *slot) {
    sigset_t set;
    (void)slot;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    return sigwaitinfo(&set, NULL);
}

/* Ends by a signal alone: what is quiet sends one that is counted. */
static int do_pause(struct slot *slot) {
    pause();
    errno = is_own || slot->hits ? EINTR : ENOTSUP;
    return !is_own && slot->hits ? 1 : -1;
}

static int do_sigsuspend(struct slot *slot) {
    sigset_t set;
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    sigsuspend(&set);
    errno = is_own || slot->hits ? EINTR : ENOTSUP;
    return !is_own && slot->hits ? 1 : -1;
}

static int do_read_pipe(struct slot *slot) {
    char byte;
    return (int)read(slot->pipe[0], &byte, 1);
}

static int do_read_event(struct slot *slot) {
    uint64_t value;
    return (int)read(slot->event, &value, sizeof(value));
}

static int do_read_inotify(struct slot *slot) {
    char text[512];
    return (int)read(slot->inotify, text, sizeof(text));
}

static int do_read_timer(struct slot *slot) {
    struct itimerspec time = {{0, 0}, spec(slot->limit_ns)};
    uint64_t value;
    timerfd_settime(slot->timer, 0, &time, NULL);
    int result = (int)read(slot->timer, &value, sizeof(value));
    return result < 0 ? result : timed_out(0);
}

/* A child that somebody ends: the waker, or nobody and then the call's own signal. */
static int do_waitpid(struct slot *slot) {
    pid_t child = fork();
    if (child == 0) {
        struct timespec time = spec(is_own ? OWN_NS : WAKE_NS);
        syscall(SYS_nanosleep, &time, NULL);
        _exit(0);
    }
    __atomic_store_n(&slot->kind, slot->number_of_call, __ATOMIC_RELEASE); /* fork may sleep, too */
    int result = waitpid(child, NULL, 0), error = errno;
    __atomic_store_n(&slot->kind, 0, __ATOMIC_RELEASE); /* no signal is due beyond this */
    kill(child, SIGKILL);
    while (result < 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    errno = error;
    return result;
}

static int do_flock(struct slot *slot) {
    int result = flock(slot->locked, LOCK_EX);
    if (result == 0)
        flock(slot->locked, LOCK_UN);
    return result;
}

static int do_open_fifo(struct slot *slot) {
    int fd = open(slot->fifo, O_RDONLY | O_CLOEXEC), error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return fd;
}

enum {
    TICKS = 1,     /* the limit is counted in ticks */
    FEW = 2,       /* on some threads only */
    NEVER_CUT = 4, /* does not return EINTR by its standard */
    SAYS = 16,     /* tells itself when it begins to wait */
    WHOLE = 8      /* no limit of time: somebody wakes it */
};

static const struct call {
    const char *name;
    int (*make)(struct slot *slot);
    int traits;
} calls[] = {
    {"poll", do_poll, 0},
    {"ppoll", do_ppoll, 0},
    {"select", do_select, 0},
    {"pselect", do_pselect, 0},
    {"epoll_wait", do_epoll, 0},
    {"epoll_wait for ever", do_epoll_for_ever, WHOLE},
    {"nanosleep", do_nanosleep, 0},
    {"usleep", do_usleep, 0},
    {"sleep", do_sleep, FEW},
    {"clock_nanosleep", do_clock_nanosleep, 0},
    {"clock_nanosleep until", do_clock_nanosleep_until, 0},
    {"sem_timedwait", do_sem_timedwait, 0},
    {"sem_wait", do_sem_wait, WHOLE},
    {"futex", do_futex, 0},
    {"pthread_cond_timedwait", do_cond, NEVER_CUT},
    {"recv of limited time", do_recv_timed, TICKS},
    {"read of limited time", do_read_timed, TICKS},
    {"recv", do_recv, WHOLE},
    {"accept of limited time", do_accept, TICKS},
    {"msgrcv", do_msgrcv, WHOLE},
    {"semtimedop", do_semtimedop, TICKS},
    {"sigtimedwait", do_sigtimedwait, 0},
    {"sigwaitinfo", do_sigwaitinfo, WHOLE},
    {"pause", do_pause, WHOLE},
    {"sigsuspend", do_sigsuspend, WHOLE},
    {"read of a pipe", do_read_pipe, WHOLE},
    {"read of an eventfd", do_read_event, WHOLE},
    {"read of inotify", do_read_inotify, WHOLE},
    {"read of a timerfd", do_read_timer, 0},
    {"waitpid", do_waitpid, FEW | WHOLE | SAYS},
    {"flock", do_flock, WHOLE},
    {"open of a FIFO", do_open_fifo, WHOLE},
};
#define CALLS ((int)(sizeof(calls) / sizeof(calls[0])))

#endif
