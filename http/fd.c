#include "http/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "sampler/rt/os.h"
#include "sampler/rt/table.h"

static bool is_table_apart; /* what pep_fd_take took since lies in a table of our own */

void pep_fd_set_apart(bool is_apart) {
    is_table_apart = is_apart;
}

/* Close to the top of what select(2) could still hold, but clear of the low numbers that a host
 * counts on getting (open after close(0), "close everything from 3"). */
static int highest_floor(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > 1024)
        limit.rlim_cur = 1024;
    return (int)limit.rlim_cur - 64;
}

/* The number of a second descriptor for the same file, or -errno. */
static int copy_high(int number) {
    int floor = highest_floor();
    int high = -EINVAL;
    if (floor > PEP_FD_FLOOR)
        high = pep_os_fcntl(number, F_DUPFD_CLOEXEC, floor);
    return high >= 0 ? high : pep_os_fcntl(number, F_DUPFD_CLOEXEC, PEP_FD_FLOOR);
}

static int move_high(int number) {
    int high = copy_high(number);
    if (high < 0) {
        pep_os_fcntl(number, F_SETFD, FD_CLOEXEC);
        return number;
    }
    pep_os_close(number);
    return high;
}

static bool identify(int number, struct pep_fd *fd) {
    struct stat status;
    if (pep_os_fstat(number, &status) != 0)
        return false;
    fd->device = status.st_dev;
    fd->inode = status.st_ino;
    return true;
}

struct pep_fd pep_fd_take(int number) {
    struct pep_fd fd = PEP_FD_NONE;
    if (number < 0)
        return fd;
    fd.number = number < PEP_FD_FLOOR && !is_table_apart ? move_high(number) : number;
    if (!identify(fd.number, &fd)) {
        pep_os_close(fd.number);
        fd.number = -1;
    }
    return fd;
}

struct pep_fd pep_fd_copy(const struct pep_fd *fd) {
    struct pep_fd copy = PEP_FD_NONE;
    if (pep_fd_is_ours(fd)) {
        copy = *fd;
        copy.number = copy_high(fd->number);
        if (copy.number < 0)
            copy.number = -1;
    }
    return copy;
}

bool pep_fd_is_ours(const struct pep_fd *fd) {
    struct pep_fd now;
    if (is_table_apart)
        return fd->number >= 0 && pep_table_is_apart();
    return fd->number >= 0 && identify(fd->number, &now) && now.device == fd->device &&
           now.inode == fd->inode;
}

bool pep_fd_is_held(const struct pep_fd *fd) {
    return is_table_apart ? fd->number >= 0 : pep_fd_is_ours(fd);
}

void pep_fd_drop(struct pep_fd *fd) {
    if (pep_fd_is_ours(fd))
        pep_os_close(fd->number);
    fd->number = -1;
}
