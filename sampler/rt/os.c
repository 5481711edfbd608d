#include "sampler/rt/os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sampler/rt/atomics.h"

#define PROMPT_SLICE_NS 100000u /* the shortest */
#define NICE_MIN (-20)

PEP_SIGNAL_SAFE long pep_os_call6(long nr, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

PEP_SIGNAL_SAFE static long call4(long nr, long a, long b, long c, long d) {
    return pep_os_call6(nr, a, b, c, d, 0, 0);
}

#ifdef __SANITIZE_THREAD__ /* the race detector sees memory come and go in libc's calls alone */
PEP_SIGNAL_SAFE void *pep_os_map(size_t size_bytes) {
    void *block = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return block == MAP_FAILED ? NULL : block;
}

PEP_SIGNAL_SAFE int pep_os_unmap(void *address, size_t size_bytes) {
    return munmap(address, size_bytes) == 0 ? 0 : -EINVAL;
}
#else
PEP_SIGNAL_SAFE void *pep_os_map(size_t size_bytes) {
    long r = pep_os_call6(SYS_mmap, 0, (long)size_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return r < 0 && r > -4096 ? NULL : (void *)r;
}

PEP_SIGNAL_SAFE int pep_os_unmap(void *address, size_t size_bytes) {
    return (int)call4(SYS_munmap, (long)address, (long)size_bytes, 0, 0);
}
#endif

PEP_SIGNAL_SAFE void *pep_os_map_shared(size_t size_bytes) {
    long r = pep_os_call6(SYS_mmap, 0, (long)size_bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return r < 0 && r > -4096 ? NULL : (void *)r;
}

PEP_SIGNAL_SAFE int pep_os_madvise(void *address, size_t size_bytes, int advice) {
    return (int)call4(SYS_madvise, (long)address, (long)size_bytes, advice, 0);
}

/* The kernel reads 8 bytes of a signal set before it looks at `how`: EFAULT says unmapped, EINVAL
 * says readable. No descriptor, allowed under every usual seccomp filter. */
PEP_SIGNAL_SAFE static int is_readable(uintptr_t address) {
    return call4(SYS_rt_sigprocmask, ~0L, (long)(address & ~7UL), 0, 8) != -EFAULT;
}

PEP_SIGNAL_SAFE static long peek_by_page(void *to, uintptr_t from, size_t size_bytes) {
    size_t done = 0;
    while (done < size_bytes) {
        uintptr_t at = from + done;
        size_t left_in_page = 4096 - (at & 4095);
        size_t count = size_bytes - done < left_in_page ? size_bytes - done : left_in_page;
        if (!is_readable(at))
            break;
        pep_copy((char *)to + done, (const void *)at, count);
        done += count;
    }
    return done > 0 || size_bytes == 0 ? (long)done : -EFAULT;
}

PEP_SIGNAL_SAFE long pep_os_peek(void *to, uintptr_t from, size_t size_bytes) {
    static int is_refused; /* relaxed; set once where process_vm_readv(2) is not allowed */
    if (!pep_load_relaxed(&is_refused)) {
        struct iovec local = {.iov_base = to, .iov_len = size_bytes};
        /* One entry a page: the call is only partial at the border of an entry. */
        struct iovec remote[17];
        size_t entries = 0, done = 0;
        while (done < size_bytes && entries < 17) {
            uintptr_t at = from + done;
            size_t left_in_page = 4096 - (at & 4095);
            size_t count = size_bytes - done < left_in_page ? size_bytes - done : left_in_page;
            remote[entries].iov_base = (void *)at;
            remote[entries++].iov_len = count;
            done += count;
        }
        local.iov_len = done;
        /* Not the process: its memory is nobody's once the first thread has ended by itself. */
        long r = pep_os_call6(SYS_process_vm_readv, pep_os_gettid(), (long)&local, 1, (long)remote,
                              (long)entries, 0);
        if (r == (long)done && done < size_bytes) {
            long more = pep_os_peek((char *)to + done, from + done, size_bytes - done);
            return more > 0 ? r + more : r;
        }
        if (r != -ENOSYS && r != -EPERM)
            return r;
        pep_store_relaxed(&is_refused, 1);
    }
    return peek_by_page(to, from, size_bytes);
}

PEP_SIGNAL_SAFE int pep_os_open(const char *path, int flags, int mode) {
    return (int)call4(SYS_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC, mode);
}

PEP_SIGNAL_SAFE int pep_os_close(int fd) {
    return (int)call4(SYS_close, fd, 0, 0, 0);
}

PEP_SIGNAL_SAFE long pep_os_read(int fd, void *to, size_t size_bytes) {
    return call4(SYS_read, fd, (long)to, (long)size_bytes, 0);
}

PEP_SIGNAL_SAFE long pep_os_pread(int fd, void *to, size_t size_bytes, int64_t offset) {
    return call4(SYS_pread64, fd, (long)to, (long)size_bytes, offset);
}

PEP_SIGNAL_SAFE long pep_os_write(int fd, const void *from, size_t size_bytes) {
    return call4(SYS_write, fd, (long)from, (long)size_bytes, 0);
}

PEP_SIGNAL_SAFE long pep_os_getdents(int fd, void *to, size_t size_bytes) {
    return call4(SYS_getdents64, fd, (long)to, (long)size_bytes, 0);
}

PEP_SIGNAL_SAFE int pep_os_fcntl(int fd, int command, long argument) {
    return (int)call4(SYS_fcntl, fd, command, argument, 0);
}

PEP_SIGNAL_SAFE int pep_os_ioctl(int fd, unsigned long request, long argument) {
    return (int)call4(SYS_ioctl, fd, (long)request, argument, 0);
}

PEP_SIGNAL_SAFE int pep_os_fstat(int fd, struct stat *to) {
    return (int)call4(SYS_fstat, fd, (long)to, 0, 0);
}

PEP_SIGNAL_SAFE int pep_os_stat_at(int dir, const char *path, struct stat *to, int flags) {
    return (int)call4(SYS_newfstatat, dir, (long)path, (long)to, flags);
}

PEP_SIGNAL_SAFE int pep_os_poll(struct pollfd *fds, unsigned count, int64_t wait_ns) {
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000),
                            .tv_nsec = (long)(wait_ns % 1000000000)};
    return (int)call4(SYS_ppoll, (long)fds, count, wait_ns < 0 ? 0 : (long)&wait, 0);
}

PEP_SIGNAL_SAFE long pep_os_read_file(const char *path, char *to, size_t size_bytes) {
    if (size_bytes == 0)
        return -EINVAL;
    int fd = pep_os_open(path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    size_t done = 0;
    long r = 0;
    while (done < size_bytes - 1) {
        r = pep_os_read(fd, to + done, size_bytes - 1 - done);
        if (r <= 0)
            break;
        done += (size_t)r;
    }
    pep_os_close(fd);
    to[done] = '\0';
    return r < 0 && done == 0 ? r : (long)done;
}

PEP_SIGNAL_SAFE int pep_os_sigaction(int sig, const struct pep_ksigaction *set,
                                     struct pep_ksigaction *old) {
    return (int)call4(SYS_rt_sigaction, sig, (long)set, (long)old, 8);
}

PEP_SIGNAL_SAFE int pep_os_sigprocmask(int how, const uint64_t *set, uint64_t *old) {
    return (int)call4(SYS_rt_sigprocmask, how, (long)set, (long)old, 8);
}

PEP_SIGNAL_SAFE int pep_os_getpid(void) {
    return (int)call4(SYS_getpid, 0, 0, 0, 0);
}

PEP_SIGNAL_SAFE int pep_os_gettid(void) {
    return (int)call4(SYS_gettid, 0, 0, 0, 0);
}

PEP_SIGNAL_SAFE int pep_os_tgsigqueueinfo(int tgid, int tid, int sig, const siginfo_t *info) {
    return (int)call4(SYS_rt_tgsigqueueinfo, tgid, tid, sig, (long)info);
}

PEP_SIGNAL_SAFE int pep_os_sigqueueinfo(int tid, int sig, const siginfo_t *info) {
    return (int)call4(SYS_rt_sigqueueinfo, tid, sig, (long)info, 0);
}

PEP_SIGNAL_SAFE uint64_t pep_os_sigpending(void) {
    uint64_t set = 0;
    call4(SYS_rt_sigpending, (long)&set, sizeof set, 0, 0);
    return set;
}

PEP_SIGNAL_SAFE int pep_os_sigtake(uint64_t set, siginfo_t *info) {
    const struct timespec at_once = {0, 0};
    return (int)call4(SYS_rt_sigtimedwait, (long)&set, (long)info, (long)&at_once, sizeof set);
}

PEP_SIGNAL_SAFE int pep_os_prctl(int option, unsigned long a, unsigned long b, unsigned long c,
                                 unsigned long d) {
    return (int)pep_os_call6(SYS_prctl, option, (long)a, (long)b, (long)c, (long)d, 0);
}

/* clone(2): no exit signal, so only a wait with __WALL or __WCLONE sees it; no tracer follows. */
PEP_SIGNAL_SAFE int pep_os_clone_child(void) {
    return (int)pep_os_call6(SYS_clone, CLONE_UNTRACED, 0, 0, 0, 0, 0);
}

PEP_SIGNAL_SAFE int pep_os_wait_child(int pid, int *status, int flags) {
    return (int)call4(SYS_wait4, pid, (long)status, flags | __WALL, 0);
}

PEP_SIGNAL_SAFE int pep_os_kill(int pid, int sig) {
    return (int)call4(SYS_kill, pid, sig, 0, 0);
}

PEP_SIGNAL_SAFE int pep_os_timer_create(clockid_t clock, const struct sigevent *event, int *id) {
    return (int)call4(SYS_timer_create, clock, (long)event, (long)id, 0);
}

PEP_SIGNAL_SAFE int pep_os_timer_settime(int id, int flags, const struct itimerspec *value) {
    return (int)call4(SYS_timer_settime, id, flags, (long)value, 0);
}

PEP_SIGNAL_SAFE int pep_os_timer_delete(int id) {
    return (int)call4(SYS_timer_delete, id, 0, 0, 0);
}

PEP_SIGNAL_SAFE uint64_t pep_os_clock_ns(clockid_t clock) {
    struct timespec now = {0, 0};
    if (call4(SYS_clock_gettime, clock, (long)&now, 0, 0) < 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

PEP_SIGNAL_SAFE int pep_os_perf_event_open(struct perf_event_attr *attr, int tid, int cpu,
                                           int group_fd, unsigned long flags) {
    return (int)pep_os_call6(SYS_perf_event_open, (long)attr, tid, cpu, group_fd, (long)flags, 0);
}

/* sched_setattr(2), its first version; <linux/sched/types.h> and <sched.h> exclude each other. */
struct sched_attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

void pep_os_be_prompt(void) {
    struct sched_attributes own = {.size = sizeof own};
    if (call4(SYS_sched_getattr, 0, (long)&own, sizeof own, 0) < 0 ||
        (own.policy != SCHED_OTHER && own.policy != SCHED_BATCH))
        return;
    own.size = sizeof own;
    own.runtime_ns = PROMPT_SLICE_NS;
    (void)call4(SYS_sched_setattr, 0, (long)&own, 0, 0);
}

/* How many threads of the system want a processor now: "0.20 0.18 0.12 3/80 11206" (proc(5)). */
static unsigned count_runnable(void) {
    char text[128];
    int fd = pep_os_open("/proc/loadavg", O_RDONLY, 0);
    long count = fd < 0 ? fd : pep_os_read(fd, text, sizeof text - 1);
    if (fd >= 0)
        pep_os_close(fd);
    text[count > 0 ? count : 0] = '\0';
    unsigned runnable = 0, spaces = 0;
    for (const char *at = text; *at != '\0' && *at != '/'; at++) {
        spaces += *at == ' ';
        if (spaces == 3 && *at >= '0' && *at <= '9')
            runnable = runnable * 10 + (unsigned)(*at - '0');
    }
    return runnable;
}

/* The priority at which a thread among so many gets about half a processor: each step of niceness
 * is worth a quarter more than the last (sched(7)). */
static int nice_among(unsigned threads) {
    int nice = 0;
    for (unsigned share = 1024; nice > NICE_MIN && share / 1024 < threads; nice--)
        share += share / 4;
    return nice;
}

int pep_os_hurry(void) {
    int before = 20 - (int)pep_os_call6(SYS_getpriority, PRIO_PROCESS, 0, 0, 0, 0, 0);
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int wanted = nice_among(count_runnable() / (unsigned)(processors > 0 ? processors : 1));
    if (before > wanted)
        pep_os_call6(SYS_setpriority, PRIO_PROCESS, 0, wanted, 0, 0, 0);
    return before;
}

void pep_os_hurry_end(int before) {
    pep_os_call6(SYS_setpriority, PRIO_PROCESS, 0, before, 0, 0, 0);
}

PEP_SIGNAL_SAFE void pep_os_sleep_ns(uint64_t ns) {
    struct timespec wait = {.tv_sec = (time_t)(ns / 1000000000u),
                            .tv_nsec = (long)(ns % 1000000000u)};
    call4(SYS_nanosleep, (long)&wait, 0, 0, 0);
}

PEP_SIGNAL_SAFE int pep_os_futex_wait(int *word, int expected, uint64_t timeout_ns) {
    struct timespec wait = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                            .tv_nsec = (long)(timeout_ns % 1000000000u)};
    return (int)call4(SYS_futex, (long)word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, expected,
                      timeout_ns == UINT64_MAX ? 0 : (long)&wait);
}

PEP_SIGNAL_SAFE int pep_os_futex_wake(int *word, int count) {
    return (int)call4(SYS_futex, (long)word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, 0);
}

PEP_SIGNAL_SAFE int pep_os_futex_wait_shared(uint32_t *word, uint32_t expected,
                                             uint64_t timeout_ns) {
    struct timespec wait = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                            .tv_nsec = (long)(timeout_ns % 1000000000u)};
    return (int)call4(SYS_futex, (long)word, FUTEX_WAIT, expected, (long)&wait);
}

PEP_SIGNAL_SAFE int pep_os_futex_wake_shared(uint32_t *word) {
    return (int)call4(SYS_futex, (long)word, FUTEX_WAKE, 1, 0);
}

/* rep movsb and stosb: no call that the compiler could turn into libc's memcpy. */
PEP_SIGNAL_SAFE void pep_copy(void *to, const void *from, size_t size_bytes) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size_bytes) : : "memory");
}

PEP_SIGNAL_SAFE void pep_zero(void *to, size_t size_bytes) {
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size_bytes) : "a"(0) : "memory");
}
