/*
 * The perf engine: a software task-clock event a thread.
 *
 * Model:   the event signals its thread through F_SETSIG. It may fire twice; each handler refreshes
 *          it by one. So it runs on without being stopped and started (7 us in some virtual
 *          machines), yet a thread that blocks the signal gets two, never a queue.
 * Writers: arm and disarm under the slot's lock; next in the handler.  [signal, hook]
 * Readers: the handler, by the signal's descriptor.
 * Memory:  one descriptor a thread while armed, high up, at most a quarter of the soft limit.
 * When full: the thread takes the timer engine.
 *
 * Source: perf_event_open(2), fcntl(2) F_SETSIG and F_SETOWN_EX.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/table.h"

#define FD_LOWEST 100   /* below lie the numbers that shells and inetd hand around */
#define FD_WINDOW 16384 /* the kernel's table grows to the highest number: 128 KiB here */
#define FD_MAP_SIZE 32768
#define QUEUE_MIN 1024
/* Signals an event may send before the kernel stops it: as many wait at most where a thread blocks
 * ours by a raw system call. Allowing more is a system call of 0.7 us, so it is done when few are
 * left: in one sample of 13. */
#define FIRES_MAX 16
#define FIRES_FEW 3
#define MIN_NS 10000 /* the kernel's own floor for software clocks */

static uint16_t fd_slots[FD_MAP_SIZE] PEP_LARGE; /* slot number + 1 by descriptor */
static uint32_t fd_base;                         /* ours are at or above */

/* Used and limit of queued signals, of this user, as in /proc/self/status: "SigQ:\t2/96365". */
static void read_queue(uint64_t *used, uint64_t *limit) {
    static const char name[] = "\nSigQ:\t";
    char status[4096];
    *used = *limit = 0;
    if (pep_os_read_file("/proc/self/status", status, sizeof status) < 0)
        return;
    const char *at = status;
    for (size_t i = 0; *at != '\0' && name[i] != '\0'; at++)
        i = *at == name[i] ? i + 1 : *at == name[0];
    for (; *at >= '0' && *at <= '9'; at++)
        *used = *used * 10 + (uint64_t)(*at - '0');
    for (at += *at == '/'; *at >= '0' && *at <= '9'; at++)
        *limit = *limit * 10 + (uint64_t)(*at - '0');
}

/* Where no signal can be queued, F_SETSIG falls back to SIGIO, which ends programs (fcntl(2)): all
 * events together may fill a quarter of the queue. */
void pep_cpu_perf_limits(void) {
    uint64_t used, limit;
    read_queue(&used, &limit);
    if (limit < QUEUE_MIN || used >= limit / 2) {
        pep_store_relaxed(&pep_cpu.is_perf_refused, 1);
        pep_store_relaxed(&pep_cpu.note, "too few signals may be queued (RLIMIT_SIGPENDING)");
    }
    uint64_t rlimit[2] = {1024, 0};
    pep_os_call6(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)rlimit, 0, 0);
    uint32_t window = rlimit[0] < FD_WINDOW ? (uint32_t)rlimit[0] : FD_WINDOW;
    fd_base = window - window / 4;
    if (fd_base < FD_LOWEST)
        fd_base = FD_LOWEST;
    uint64_t events = window > FD_LOWEST ? window / 4 : 0, queued = limit / 4 / FIRES_MAX;
    pep_store_relaxed(&pep_cpu.perfs_max, (uint32_t)(events < queued ? events : queued));
}

/* EMFILE and the like pass; these do not while we live. */
PEP_HOOK_SAFE static const char *lasting_refusal(int error) {
    switch (error) {
    case -EACCES:
    case -EPERM:
        return "the kernel does not permit perf events (perf_event_paranoid or seccomp)";
    case -ENOSYS:
    case -ENOENT:
    case -EOPNOTSUPP:
        return "the kernel has no perf events";
    case -EINVAL:
    case -E2BIG:
        return "the kernel does not know this perf event";
    default:
        return NULL;
    }
}

/* The host may have closed our descriptor and got its number back for something of its own: the
 * kernel's id of the event tells. All anonymous inodes are one, so fstat(2) would not. */
PEP_HOOK_SAFE static bool is_still_ours(int fd, uint64_t id) {
    uint64_t found = 0;
    return pep_os_ioctl(fd, PERF_EVENT_IOC_ID, (long)&found) == 0 && found == id;
}

PEP_HOOK_SAFE static int open_event(int tid, uint64_t delay_ns) {
    struct perf_event_attr attr;
    pep_zero(&attr, sizeof attr);
    attr.size = PERF_ATTR_SIZE_VER1;
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_TASK_CLOCK;
    attr.sample_period = delay_ns;
    attr.wakeup_events = 1;
    attr.disabled = 1;
    int low = pep_os_perf_event_open(&attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (low < 0)
        return low;
    uint64_t low_id = 0, id = 1;
    pep_os_ioctl(low, PERF_EVENT_IOC_ID, (long)&low_id);
    int fd = pep_os_fcntl(low, F_DUPFD_CLOEXEC, (long)fd_base);
    if (fd >= 0 && pep_os_ioctl(fd, PERF_EVENT_IOC_ID, (long)&id) < 0)
        id = 0; /* another file had taken the number by then */
    if (low_id != 0 && is_still_ours(low, low_id))
        pep_os_close(low);
    if (fd >= 0 && (fd >= FD_MAP_SIZE || id != low_id)) {
        pep_os_close(fd);
        fd = -EMFILE;
    }
    return fd;
}

PEP_HOOK_SAFE static int direct_signal(int fd, int tid, uint64_t *id) {
    struct f_owner_ex owner = {.type = F_OWNER_TID, .pid = tid};
    int r = pep_os_fcntl(fd, F_SETOWN_EX, (long)&owner);
    if (r >= 0)
        r = pep_os_fcntl(fd, F_SETSIG, pep_cpu.signal);
    if (r >= 0)
        r = pep_os_fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK);
    if (r >= 0)
        r = pep_os_ioctl(fd, PERF_EVENT_IOC_ID, (long)id);
    return r;
}

PEP_HOOK_SAFE int pep_cpu_perf_arm(struct pep_thread *thread, uint64_t delay_ns) {
    if (pep_table_is_apart())
        return -EBADF; /* the thread could not use the descriptor */
    if (pep_add_relaxed(&pep_cpu.perfs, 1) >= pep_load_relaxed(&pep_cpu.perfs_max)) {
        pep_sub_relaxed(&pep_cpu.perfs, 1);
        return -EMFILE;
    }
    int fd = open_event(thread->tid, delay_ns < MIN_NS ? MIN_NS : delay_ns);
    uint64_t id = 0;
    int r = fd < 0 ? fd : direct_signal(fd, thread->tid, &id);
    if (r < 0) {
        if (fd >= 0)
            pep_os_close(fd);
        pep_sub_relaxed(&pep_cpu.perfs, 1);
        const char *note = lasting_refusal(r);
        if (note != NULL) {
            pep_store_relaxed(&pep_cpu.note, note);
            pep_store_relaxed(&pep_cpu.is_perf_refused, 1);
        }
        if (r != -ESRCH)
            PEP_COUNT(perf_refused, 1);
        return r;
    }
    thread->perf_fd = fd;
    thread->perf_id = id;
    thread->perf_period_ns = delay_ns;
    thread->perf_fires = FIRES_MAX;
    thread->armed_serial++;
    pep_store_release(&thread->engine, PEP_ENGINE_PERF);
    /* release: pairs with pep_cpu_perf_thread; last, then the first signal may come */
    pep_store_release(&fd_slots[fd], (uint16_t)(pep_thread_index(thread) + 1));
    pep_os_ioctl(fd, PERF_EVENT_IOC_REFRESH, FIRES_MAX);
    return 0;
}

PEP_HOOK_SAFE void pep_cpu_perf_disarm(struct pep_thread *thread) {
    int fd = thread->perf_fd;
    thread->perf_fd = -1;
    pep_store_release(&thread->engine, PEP_ENGINE_NONE);
    pep_sub_relaxed(&pep_cpu.perfs, 1);
    if (pep_load_relaxed(&fd_slots[fd]) == pep_thread_index(thread) + 1)
        pep_store_release(&fd_slots[fd], 0);
    if (!pep_table_is_apart() && is_still_ours(fd, thread->perf_id))
        pep_os_close(fd);
    else
        PEP_COUNT(fd_lost, 1);
}

/* A request that is not perf's is refused by whatever the descriptor may have become. */
PEP_SIGNAL_SAFE void pep_cpu_perf_next(struct pep_thread *thread, uint64_t delay_ns) {
    if (delay_ns == 0) {
        pep_os_ioctl(thread->perf_fd, PERF_EVENT_IOC_DISABLE, 0);
        return;
    }
    if (delay_ns != thread->perf_period_ns) {
        thread->perf_period_ns = delay_ns;
        uint64_t period = delay_ns < MIN_NS ? MIN_NS : delay_ns;
        pep_os_ioctl(thread->perf_fd, PERF_EVENT_IOC_PERIOD, (long)&period);
    }
    if (thread->perf_fires > FIRES_FEW)
        return;
    pep_os_ioctl(thread->perf_fd, PERF_EVENT_IOC_REFRESH, FIRES_MAX - thread->perf_fires);
    thread->perf_fires = FIRES_MAX;
}

PEP_SIGNAL_SAFE void pep_cpu_perf_fired(struct pep_thread *thread, bool is_last) {
    thread->perf_fires = is_last || thread->perf_fires == 0 ? 0 : thread->perf_fires - 1;
}

PEP_SIGNAL_SAFE struct pep_thread *pep_cpu_perf_thread(int fd) {
    if (fd < 0 || fd >= FD_MAP_SIZE)
        return NULL;
    uint16_t slot = pep_load_acquire(&fd_slots[fd]);
    return slot != 0 ? pep_thread_at(slot - 1u) : NULL;
}

void pep_cpu_perf_after_fork_child(void) {
    for (uint32_t i = 0; i < pep_threads_limit(); i++) {
        struct pep_thread *thread = pep_thread_at(i);
        if (thread->engine == PEP_ENGINE_PERF && thread->perf_fd >= 0)
            pep_cpu_perf_disarm(thread);
    }
    pep_store_relaxed(&pep_cpu.perfs, 0);
}
