/*
 * What a waiting thread waits for, in words: from its system call's number and arguments.
 *
 * Model:   one table of the calls that wait, one of the words; a tag is a word's place.
 * Writers: -
 * Readers: the dump, the wall clock, on profep's threads.  [normal]
 * Memory:  constant.
 * When full: -
 *
 * Source: syscalls(2); linux/futex.h for the operations.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#include "sampler/look.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

enum state {
    STATE_NONE = 0,
    RUNNING,
    STOPPED,
    TRACED,
    GONE,
    UNKNOWN,
    FAULT,
    FUTEX,
    EPOLL,
    SELECT,
    IO,
    SLEEP,
    CHILD,
    SIGNAL,
    SEMAPHORE,
    MESSAGE,
    FILE_LOCK,
    DISK,
    FORK,
    CALL,
    STATE_COUNT
};

static const char *const texts[STATE_COUNT] = {
    [RUNNING] = "running",
    [STOPPED] = "stopped",
    [TRACED] = "stopped by a debugger",
    [GONE] = "ended",
    [UNKNOWN] = "waiting",
    [FAULT] = "page fault",
    [FUTEX] = "futex wait",
    [EPOLL] = "epoll wait",
    [SELECT] = "select",
    [IO] = "IO wait",
    [SLEEP] = "sleep",
    [CHILD] = "wait for child",
    [SIGNAL] = "signal wait",
    [SEMAPHORE] = "semaphore wait",
    [MESSAGE] = "message wait",
    [FILE_LOCK] = "file lock wait",
    [DISK] = "disk wait",
    [FORK] = "vfork wait",
    [CALL] = "syscall",
};

static const struct call {
    short number;
    unsigned char state;
    const char *name;
} calls[] = {
#define CALL(name, state) \
    { SYS_##name, state, #name }
    CALL(futex, FUTEX),
    CALL(futex_waitv, FUTEX),
    CALL(epoll_wait, EPOLL),
    CALL(epoll_pwait, EPOLL),
    CALL(epoll_pwait2, EPOLL),
    CALL(poll, SELECT),
    CALL(ppoll, SELECT),
    CALL(select, SELECT),
    CALL(pselect6, SELECT),
    CALL(read, IO),
    CALL(pread64, IO),
    CALL(readv, IO),
    CALL(preadv, IO),
    CALL(preadv2, IO),
    CALL(write, IO),
    CALL(pwrite64, IO),
    CALL(writev, IO),
    CALL(pwritev, IO),
    CALL(pwritev2, IO),
    CALL(recvfrom, IO),
    CALL(recvmsg, IO),
    CALL(recvmmsg, IO),
    CALL(sendto, IO),
    CALL(sendmsg, IO),
    CALL(sendmmsg, IO),
    CALL(accept, IO),
    CALL(accept4, IO),
    CALL(connect, IO),
    CALL(splice, IO),
    CALL(tee, IO),
    CALL(sendfile, IO),
    CALL(io_getevents, IO),
    CALL(io_uring_enter, IO),
    CALL(ioctl, IO),
    CALL(open, IO),
    CALL(openat, IO),
    CALL(close, IO),
    CALL(nanosleep, SLEEP),
    CALL(clock_nanosleep, SLEEP),
    CALL(wait4, CHILD),
    CALL(waitid, CHILD),
    CALL(pause, SIGNAL),
    CALL(rt_sigtimedwait, SIGNAL),
    CALL(rt_sigsuspend, SIGNAL),
    CALL(restart_syscall, SLEEP),
    CALL(semop, SEMAPHORE),
    CALL(semtimedop, SEMAPHORE),
    CALL(msgrcv, MESSAGE),
    CALL(msgsnd, MESSAGE),
    CALL(mq_timedreceive, MESSAGE),
    CALL(mq_timedsend, MESSAGE),
    CALL(flock, FILE_LOCK),
    CALL(fcntl, FILE_LOCK),
    CALL(fsync, DISK),
    CALL(fdatasync, DISK),
    CALL(sync, DISK),
    CALL(syncfs, DISK),
    CALL(sync_file_range, DISK),
    CALL(msync, DISK),
    CALL(vfork, FORK),
    CALL(clone, CALL),
    CALL(munmap, CALL),
    CALL(mmap, CALL),
    CALL(mprotect, CALL),
    CALL(madvise, CALL),
    CALL(brk, CALL),
#undef CALL
};

static const struct call *call_of(long number) {
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        if (calls[i].number == number)
            return &calls[i];
    return NULL;
}

static enum state state_of(const struct pep_look *look) {
    switch (look->kind) {
    case PEP_LOOK_RUNS:
        return RUNNING;
    case PEP_LOOK_STOPPED:
        return look->state == 't' ? TRACED : STOPPED;
    case PEP_LOOK_GONE:
        return GONE;
    case PEP_LOOK_REFUSED:
        return UNKNOWN;
    default:
        break;
    }
    if (look->call < 0)
        return FAULT;
    const struct call *call = call_of(look->call);
    if (call != NULL && call->state != CALL)
        return (enum state)call->state;
    return look->state == 'D' ? DISK : CALL;
}

const char *pep_look_state(const struct pep_look *look) {
    return texts[state_of(look)];
}

uint16_t pep_look_state_tag(const struct pep_look *look) {
    return (uint16_t)state_of(look);
}

const char *pep_look_state_of(uint16_t tag) {
    return tag < STATE_COUNT ? texts[tag] : NULL;
}

const char *pep_look_call_name(const struct pep_look *look) {
    if (look->kind != PEP_LOOK_WAITS && look->kind != PEP_LOOK_STOPPED)
        return NULL;
    const struct call *call = look->call >= 0 ? call_of(look->call) : NULL;
    return call != NULL ? call->name : NULL;
}
