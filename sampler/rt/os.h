/*
 * The kernel calls that profep makes where libc may not be used: raw system calls.
 *
 * Model:   a thin wrapper each; the result or a negative errno; errno itself is never touched.
 * Writers: anybody, any room.  [signal]
 * Readers: -
 * Memory:  none.
 * When full: the kernel's negative errno is the answer.
 *
 * Tests replace these by --wrap: they are the seam for failure injection.
 * Source: man 2 of each call; Linux x86-64 calling convention (syscall(2)).
 */
#ifndef PEP_SAMPLER_RT_OS_H
#define PEP_SAMPLER_RT_OS_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "sampler/rt/attrs.h"

struct perf_event_attr;
struct iovec;
struct stat;
struct pollfd;

PEP_SIGNAL_SAFE long pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);

/* Memory. pep_os_map: private anonymous zeroed memory, NULL when refused. */
PEP_SIGNAL_SAFE void *pep_os_map(size_t size_bytes);
/* The same, seen by a child too; NULL when refused. */
PEP_SIGNAL_SAFE void *pep_os_map_shared(size_t size_bytes);
PEP_SIGNAL_SAFE int pep_os_unmap(void *address, size_t size_bytes);
PEP_SIGNAL_SAFE int pep_os_madvise(void *address, size_t size_bytes, int advice);
/* Copies from this process's own memory; never faults. Bytes copied, may be short at the first
 * unmapped page, or -errno. process_vm_readv(2); where that is refused, checks each page by the
 * EFAULT answer of rt_sigprocmask(2). */
PEP_SIGNAL_SAFE long pep_os_peek(void *to, uintptr_t from, size_t size_bytes);

/* Files. */
PEP_SIGNAL_SAFE int pep_os_open(const char *path, int flags, int mode);
PEP_SIGNAL_SAFE int pep_os_close(int fd);
PEP_SIGNAL_SAFE long pep_os_read(int fd, void *to, size_t size_bytes);
PEP_SIGNAL_SAFE long pep_os_pread(int fd, void *to, size_t size_bytes, int64_t offset);
PEP_SIGNAL_SAFE long pep_os_write(int fd, const void *from, size_t size_bytes);
PEP_SIGNAL_SAFE long pep_os_getdents(int fd, void *to, size_t size_bytes);
PEP_SIGNAL_SAFE int pep_os_fcntl(int fd, int command, long argument);
PEP_SIGNAL_SAFE int pep_os_ioctl(int fd, unsigned long request, long argument);
/* stat(2) and poll(2) past libraries that change them (libfaketime), which end before us. A
 * negative time to wait is for ever. */
PEP_SIGNAL_SAFE int pep_os_fstat(int fd, struct stat *to);
PEP_SIGNAL_SAFE int pep_os_stat_at(int dir, const char *path, struct stat *to, int flags);
PEP_SIGNAL_SAFE int pep_os_poll(struct pollfd *fds, unsigned count, int64_t wait_ns);
/* Reads a whole small file such as one of /proc into a buffer and ends it with NUL: bytes read
 * (at most size_bytes - 1) or -errno. */
PEP_SIGNAL_SAFE long pep_os_read_file(const char *path, char *to, size_t size_bytes);

/* Processes, threads, signals. pep_os_sigaction speaks the kernel's struct, so that the host's
 * view through libc stays apart; see rt_sigaction(2). */
struct pep_ksigaction {
    void *handler; /* SIG_DFL, SIG_IGN, or the function */
    unsigned long flags;
    void *restorer;
    uint64_t mask; /* bit n-1 is signal n */
};
PEP_SIGNAL_SAFE int pep_os_sigaction(int sig, const struct pep_ksigaction *set,
                                     struct pep_ksigaction *old);
PEP_SIGNAL_SAFE int pep_os_sigprocmask(int how, const uint64_t *set, uint64_t *old);
PEP_SIGNAL_SAFE int pep_os_getpid(void);
PEP_SIGNAL_SAFE int pep_os_gettid(void);
PEP_SIGNAL_SAFE int pep_os_tgsigqueueinfo(int tgid, int tid, int sig, const siginfo_t *info);
/* To the process, by way of one of its threads: a thread may send itself any si_code. */
PEP_SIGNAL_SAFE int pep_os_sigqueueinfo(int tid, int sig, const siginfo_t *info);
/* Pending for the calling thread: bit n-1 is signal n. */
PEP_SIGNAL_SAFE uint64_t pep_os_sigpending(void);
/* Takes a pending signal of the set: its number, or -errno; never waits. */
PEP_SIGNAL_SAFE int pep_os_sigtake(uint64_t set, siginfo_t *info);
PEP_SIGNAL_SAFE int pep_os_prctl(int option, unsigned long a, unsigned long b, unsigned long c,
                                 unsigned long d);
/* A copy of this process with the calling thread alone, that the host's wait(2) does not see and
 * no signal tells of: its pid, 0 in the child, or -errno. */
PEP_SIGNAL_SAFE int pep_os_clone_child(void);
/* wait4(2) for exactly that child: its pid, 0 when it still runs and WNOHANG was given, or
 * -errno. */
PEP_SIGNAL_SAFE int pep_os_wait_child(int pid, int *status, int flags);
PEP_SIGNAL_SAFE int pep_os_kill(int pid, int sig);

/* Timers and clocks. */
PEP_SIGNAL_SAFE int pep_os_timer_create(clockid_t clock, const struct sigevent *event, int *id);
PEP_SIGNAL_SAFE int pep_os_timer_settime(int id, int flags, const struct itimerspec *value);
PEP_SIGNAL_SAFE int pep_os_timer_delete(int id);
/* The clock in nanoseconds, or 0 when the kernel refuses it (clock_gettime(2)). */
PEP_SIGNAL_SAFE uint64_t pep_os_clock_ns(clockid_t clock);
PEP_SIGNAL_SAFE int pep_os_perf_event_open(struct perf_event_attr *attr, int tid, int cpu,
                                           int group_fd, unsigned long flags);
/* Sleeps at least that long unless a signal arrives. */
PEP_SIGNAL_SAFE void pep_os_sleep_ns(uint64_t ns);
PEP_SIGNAL_SAFE int pep_os_futex_wait(int *word, int expected, uint64_t timeout_ns);
PEP_SIGNAL_SAFE int pep_os_futex_wake(int *word, int count);
/* For a word that a child writes: memory of pep_os_map_shared. */
PEP_SIGNAL_SAFE int pep_os_futex_wait_shared(uint32_t *word, uint32_t expected,
                                             uint64_t timeout_ns);
PEP_SIGNAL_SAFE int pep_os_futex_wake_shared(uint32_t *word);

/* The calling thread, one of ours, wants the processor in short slices, so that it gets it sooner
 * among many that are busy; its share stays what it is. Linux 6.12 and later (sched_setattr(2),
 * sched_runtime of a normal thread); without effect elsewhere, and under policies of the host's. */
void pep_os_be_prompt(void);

/* The calling thread, one of ours, has milliseconds of work that somebody waits for: among 250
 * threads a processor that compute they would take seconds. Raises its priority until it gets about
 * half a processor, where the system lets us (CAP_SYS_NICE, RLIMIT_NICE); the niceness before, for
 * the end. May be nested. */
int pep_os_hurry(void);
void pep_os_hurry_end(int before);

/* The CPU clock of another thread of this process (clock_getcpuclockid(3), the kernel's form). */
static inline clockid_t pep_os_thread_cpu_clock(int tid) {
    return (clockid_t)(((unsigned)~tid << 3) | 6);
}

/* memcpy and memset that stay in the signal room. */
PEP_SIGNAL_SAFE void pep_copy(void *to, const void *from, size_t size_bytes);
PEP_SIGNAL_SAFE void pep_zero(void *to, size_t size_bytes);

#endif
