#include "http/stderr.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/rt/table.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#define PIECE_BYTES 4096 /* a pipe takes that much at once, or nothing: pipe(7) */
#define SMALL_BYTES 512
#define PATIENCE_NS 2000000000ull
#define SLICE_NS 100000000ull

/* -- where it is ---------------------------------------------------------------------------- */

/* The host's very descriptor, in our table: its place in a file is the host's too. */
static int share(void) {
    long process = pep_os_call6(SYS_pidfd_open, pep_os_getpid(), 0, 0, 0, 0, 0);
    if (process < 0)
        return (int)process;
    long number = pep_os_call6(SYS_pidfd_getfd, process, 2, 0, 0, 0, 0);
    pep_os_close((int)process);
    return (int)number;
}

static int open_again(const char *path) {
    return pep_os_open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
}

/* What stands at path, which is in /proc. */
static int open_path(struct pep_stderr *to, const char *path) {
    struct stat status;
    int error = pep_os_stat_at(AT_FDCWD, path, &status, 0);
    bool is_known = error == 0;
    bool is_stream = is_known && (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode));
    to->is_socket = is_known && S_ISSOCK(status.st_mode);
    to->number = is_stream ? open_again(path) : -1;
    if (to->number >= 0)
        return 0;
    to->number = share();
    to->is_blocking = to->number >= 0 && !(is_known && (to->is_socket || S_ISREG(status.st_mode)));
    if (to->number < 0 && is_known && S_ISREG(status.st_mode))
        to->number = open_again(path);
    return to->number < 0 ? to->number : 0;
}

int pep_stderr_open(struct pep_stderr *to, int tid) {
    char path[64];
    *to = (struct pep_stderr){.number = 2, .is_blocking = true, .is_borrowed = true};
    if (!pep_table_is_apart())
        return 0;
    to->is_blocking = to->is_borrowed = false;
    snprintf(path, sizeof(path), "/proc/self/task/%d/fd/2", tid);
    to->error = open_path(to, path);
    return to->error;
}

void pep_stderr_close(struct pep_stderr *to) {
    if (to->number >= 0 && !to->is_borrowed)
        pep_os_close(to->number);
    to->number = -1;
}

/* -- what is said --------------------------------------------------------------------------- */

/* How much goes at once: up to the last newline that fits. */
static size_t piece_of(const char *text, size_t count, size_t most) {
    if (count <= most)
        return count;
    for (size_t at = most; at > 0; at--)
        if (text[at - 1] == '\n')
            return at;
    return most;
}

/* 0 when something can be written; -errno. */
static int wait_for_room(const struct pep_stderr *to, struct pep_client *client) {
    uint64_t deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + PATIENCE_NS;
    while (pep_os_clock_ns(CLOCK_MONOTONIC) < deadline_ns) {
        struct pollfd poll_fd = {.fd = to->number, .events = POLLOUT};
        int count = pep_os_poll(&poll_fd, 1, SLICE_NS);
        if (count > 0)
            return 0;
        if (count < 0 && count != -EINTR)
            return count;
        if (!client->wait(client, 0))
            return -ECONNRESET;
    }
    return -ETIMEDOUT;
}

static long write_piece(const struct pep_stderr *to, const char *text, size_t count) {
    if (to->is_socket)
        return pep_os_call6(SYS_sendto, to->number, (long)text, (long)count,
                            MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0);
    return pep_os_write(to->number, text, count);
}

static bool is_passing(long result) {
    return result == -EAGAIN || result == -EINTR;
}

/* Some bytes, or -errno. That there is room and yet none may be so for a moment. */
static long say_piece(const struct pep_stderr *to, struct pep_client *client, const char *text,
                      size_t count) {
    uint64_t deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + PATIENCE_NS;
    for (;;) {
        int error = wait_for_room(to, client);
        if (error)
            return error;
        long result = write_piece(to, text, count);
        if (!is_passing(result))
            return result == 0 ? -EIO : result;
        if (pep_os_clock_ns(CLOCK_MONOTONIC) >= deadline_ns)
            return -ETIMEDOUT;
        if (!client->wait(client, 1000000))
            return -ECONNRESET;
    }
}

int pep_stderr_say(struct pep_stderr *to, struct pep_client *client, const char *text,
                   size_t count) {
    while (count > 0 && to->error == 0) {
        size_t piece = piece_of(text, count, to->is_blocking ? SMALL_BYTES : PIECE_BYTES);
        long result = say_piece(to, client, text, piece);
        if (result < 0) {
            to->error = (int)result;
            PEP_COUNT(peek_cut, 1);
            break;
        }
        text += result;
        count -= (size_t)result;
    }
    return to->error;
}
