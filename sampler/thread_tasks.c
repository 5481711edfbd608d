/*
 * The tasks that the kernel shows, beside the slots that we have.
 *
 * Model:   /proc/self/task; without it the threads that the hooks met are all we know.
 * Writers: profep's sweep.  [normal]
 * Readers: -
 * Memory:  the stack.
 * When full: see thread.h.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

void pep_threads_adopt(uint32_t sweep) {
    int fd = pep_os_open("/proc/self/task", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return; /* no /proc: the threads that the hooks met are all we know */
    char buffer[4096] PEP_ALIGNED(8);
    long count;
    while ((count = pep_os_getdents(fd, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < count;) {
            /* struct linux_dirent64: ino, off, reclen at 16, type, name at 19 */
            uint16_t length;
            pep_copy(&length, buffer + at + 16, sizeof length);
            int tid = 0;
            for (const char *c = buffer + at + 19; *c >= '0' && *c <= '9'; c++)
                tid = tid * 10 + (*c - '0');
            struct pep_thread *thread = tid > 0 ? pep_thread_adopt(tid) : NULL;
            if (thread != NULL)
                thread->seen = sweep;
            at += length;
        }
    }
    pep_os_close(fd);
}

/* The number of threads by one system call: the link count of the directory (proc(5)). */
uint32_t pep_threads_tasks(void) {
    struct stat found;
    if (pep_os_call6(SYS_newfstatat, AT_FDCWD, (long)"/proc/self/task", (long)&found, 0, 0, 0) < 0)
        return 0;
    return (uint32_t)found.st_nlink - 2;
}

/* A thread of ours that ended keeps its slot until a sweep: it would make up for one that came. */
static bool is_gone(int tid) {
    struct timespec now;
    return pep_os_call6(SYS_clock_gettime, pep_os_thread_cpu_clock(tid), (long)&now, 0, 0, 0, 0) <
           0;
}

uint32_t pep_threads_slots(void) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < pep_threads_limit(); i++) {
        const struct pep_thread *thread = pep_thread_at(i);
        int tid = pep_load_relaxed(&thread->tid);
        count += tid != 0 && !(thread->is_own && is_gone(tid));
    }
    return count;
}
