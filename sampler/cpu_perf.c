/*
 * The perf engine: a software task-clock event a thread.
 *
 * Model:   the event signals its thread through F_SETSIG and runs by itself, so the program's
 * threads need no descriptor: all are in the armer's table. What it may still send is limited: a
 *          thread that blocks the signal gets some dozens, never an endless queue. The armer allows
 *          more and changes the period as the thread goes on.
 * Writers: arm under the slot's lock, on the armer; disarm under the lock.  [hook]
 * Readers: the handler, by the signal's descriptor.  [signal]
 * Memory:  one descriptor a thread while armed. Where the table is the host's: high up, at most a
 *          quarter of the soft limit.
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
#define FD_OTHERS 16 /* of a table of our own: what is read from /proc, and the standard three */
#define QUEUE_MIN 1024
/* Signals that an event may send before the kernel stops it: as many wait at most where a thread
 * blocks ours by a raw system call. */
#define FIRES_MIN 16
#define FIRES_BASE 64
#define FIRES_BY_HZ 16 /* and a share of the rate: 10 kHz brings 400 between two looks */
#define FIRES_FEW 4
#define NOTE_EVERY 16 /* fires */
#define EVENT_QUEUE 8 /* of the queue an event counts as so many */
#define MIN_NS 10000  /* the kernel's own floor for software clocks */
#define NO_MORE 1     /* of orphans; no descriptor of ours is as low */

static uint16_t fd_slots[FD_MAP_SIZE] PEP_LARGE; /* slot number + 1 by descriptor */
static uint64_t fd_ids[FD_MAP_SIZE] PEP_LARGE;   /* the kernel's ids of the events */
static uint16_t fd_next[FD_MAP_SIZE] PEP_LARGE;  /* of orphans; 0: it is none */
static uint32_t orphans = NO_MORE;               /* disarmed, to be closed: a list */
static uint32_t fd_base;                         /* ours are at or above */
static uint32_t fires_limit;                     /* by the queue's length */
static int fd_end;                               /* above all that were ever used */
static bool has_own_table;

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

/* The host may have closed our descriptor and got its number back for something of its own: the
 * kernel's id of the event tells. All anonymous inodes are one, so fstat(2) would not. */
PEP_SIGNAL_SAFE static bool is_still_ours(int fd, uint64_t id) {
    uint64_t found = 0;
    return pep_os_ioctl(fd, PERF_EVENT_IOC_ID, (long)&found) == 0 && found == id;
}

PEP_SIGNAL_SAFE static void close_event(int fd) {
    pep_sub_relaxed(&pep_cpu.perfs, 1);
    if (is_still_ours(fd, fd_ids[fd]))
        pep_os_close(fd);
    else
        PEP_COUNT(fd_lost, 1);
}

/* Whatever is left of an armer before this one; a table of its own has ended with it. */
PEP_HOOK_SAFE static void forget_events(void) {
    for (uint32_t next, fd = orphans; fd != NO_MORE; fd = next) {
        next = fd_next[fd];
        fd_next[fd] = 0;
        fd_slots[fd] = 1; /* anything: to be closed below */
    }
    orphans = NO_MORE;
    for (int fd = 0; fd < fd_end; fd++) {
        if (fd_slots[fd] != 0 && !has_own_table)
            close_event(fd);
        fd_slots[fd] = 0;
    }
    pep_store_relaxed(&pep_cpu.perfs, 0);
}

/* Where no signal can be queued, F_SETSIG falls back to SIGIO, which ends programs (fcntl(2)): all
 * events together may fill a quarter of the queue, if one thread in some blocks our signal. */
void pep_cpu_perf_limits(void) {
    uint64_t used, limit;
    read_queue(&used, &limit);
    if (limit < QUEUE_MIN || used >= limit / 2) {
        pep_store_relaxed(&pep_cpu.is_perf_refused, 1);
        pep_store_relaxed(&pep_cpu.note, "too few signals may be queued (RLIMIT_SIGPENDING)");
    }
    forget_events();
    has_own_table = pep_table_is_apart();
    fires_limit = (uint32_t)(limit / 64 > FIRES_MIN ? limit / 64 : FIRES_MIN);
    uint64_t rlimit[2] = {1024, 0};
    pep_os_call6(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)rlimit, 0, 0);
    uint64_t events = rlimit[0] < FD_MAP_SIZE ? rlimit[0] : FD_MAP_SIZE;
    if (has_own_table) {
        events = events > FD_OTHERS ? events - FD_OTHERS : 0;
    } else {
        uint32_t window = rlimit[0] < FD_WINDOW ? (uint32_t)rlimit[0] : FD_WINDOW;
        fd_base = window - window / 4;
        if (fd_base < FD_LOWEST)
            fd_base = FD_LOWEST;
        events = window > FD_LOWEST ? window / 4 : 0;
    }
    uint64_t queued = limit / 4 / EVENT_QUEUE;
    pep_store_relaxed(&pep_cpu.perfs_max, (uint32_t)(events < queued ? events : queued));
}

PEP_HOOK_SAFE static uint32_t fires_max(void) {
    uint32_t fires = FIRES_BASE + pep_load_relaxed(&pep_cpu.hz) / FIRES_BY_HZ;
    return fires < fires_limit ? fires : fires_limit;
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

/* To a number that the program does not expect to get. The new number or -errno. */
PEP_HOOK_SAFE static int move_high(int low) {
    uint64_t low_id = 0, id = 1;
    pep_os_ioctl(low, PERF_EVENT_IOC_ID, (long)&low_id);
    int fd = pep_os_fcntl(low, F_DUPFD_CLOEXEC, (long)fd_base);
    if (fd >= 0 && pep_os_ioctl(fd, PERF_EVENT_IOC_ID, (long)&id) < 0)
        id = 0; /* another file had taken the number by then */
    if (low_id != 0 && is_still_ours(low, low_id))
        pep_os_close(low);
    if (fd >= 0 && id != low_id) {
        pep_os_close(fd);
        fd = -EMFILE;
    }
    return fd;
}

PEP_HOOK_SAFE static int open_event(int tid, uint64_t period_ns) {
    struct perf_event_attr attr;
    pep_zero(&attr, sizeof attr);
    attr.size = PERF_ATTR_SIZE_VER1;
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_TASK_CLOCK;
    attr.sample_period = period_ns;
    attr.wakeup_events = 1;
    attr.disabled = 1;
    int fd = pep_os_perf_event_open(&attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd >= 0 && !has_own_table)
        fd = move_high(fd);
    if (fd >= FD_MAP_SIZE) {
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

PEP_HOOK_SAFE static int refused(int error) {
    const char *note = lasting_refusal(error);
    if (note != NULL) {
        pep_store_relaxed(&pep_cpu.note, note);
        pep_store_relaxed(&pep_cpu.is_perf_refused, 1);
    }
    if (error != -ESRCH)
        PEP_COUNT(perf_refused, 1);
    return error;
}

/* The period of an event is the time to its first signal and between all others. A first time that
 * is too short for that is for one signal alone, after which the armer is called. */
PEP_HOOK_SAFE static void let_run(struct pep_thread *thread, uint64_t delay_ns) {
    uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
    bool is_short = hz == 0 || delay_ns < 1000000000u / hz / 2;
    thread->perf_granted = is_short ? 1 : fires_max();
    pep_os_ioctl(thread->perf_fd, PERF_EVENT_IOC_REFRESH, thread->perf_granted);
}

PEP_HOOK_SAFE int pep_cpu_perf_arm(struct pep_thread *thread, uint64_t delay_ns) {
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
        return refused(r);
    }
    thread->perf_fd = fd;
    fd_ids[fd] = id;
    fd_end = fd >= fd_end ? fd + 1 : fd_end;
    thread->perf_fired = thread->beat_fired = 0;
    thread->beat_ns = thread->last_cpu_ns;
    thread->delay_ns = delay_ns;
    thread->armed_serial++;
    pep_store_release(&thread->engine, PEP_ENGINE_PERF);
    /* release: pairs with pep_cpu_perf_thread; last, then the first signal may come */
    pep_store_release(&fd_slots[fd], (uint16_t)(pep_thread_index(thread) + 1));
    let_run(thread, delay_ns);
    return 0;
}

PEP_SIGNAL_SAFE static void orphan(int fd) {
    uint32_t head = pep_load_relaxed(&orphans);
    do {
        pep_store_relaxed(&fd_next[fd], (uint16_t)head);
    } while (!pep_cas_acq_rel(&orphans, &head, (uint32_t)fd));
}

/* The engine last: pep_cpu_end must not find the slot unarmed and its event in no list. A number
 * that is somebody else's by now was forgotten. */
PEP_SIGNAL_SAFE void pep_cpu_perf_disarm(struct pep_thread *thread) {
    int fd = thread->perf_fd;
    uint16_t mine = (uint16_t)(pep_thread_index(thread) + 1);
    if (pep_cas_acq_rel(&fd_slots[fd], &mine, 0)) {
        if (pep_cpu_armer_is_here())
            close_event(fd);
        else
            orphan(fd);
    }
    pep_store_release(&thread->engine, PEP_ENGINE_NONE);
}

/* A thread that could not get its own slot's lock ended without a word. */
PEP_HOOK_SAFE void pep_cpu_perf_reap(void) {
    for (int fd = 0; fd < fd_end; fd++) {
        uint16_t slot = pep_load_acquire(&fd_slots[fd]);
        if (slot == 0)
            continue;
        const struct pep_thread *thread = pep_thread_at(slot - 1u);
        bool is_used = pep_load_acquire(&thread->engine) == PEP_ENGINE_PERF &&
                       pep_load_relaxed(&thread->tid) != 0 && thread->perf_fd == fd;
        if (!is_used && pep_cas_acq_rel(&fd_slots[fd], &slot, 0))
            close_event(fd);
    }
}

PEP_HOOK_SAFE void pep_cpu_perf_close_orphans(void) {
    uint32_t fd =
        pep_load_relaxed(&orphans) != NO_MORE ? pep_swap_acq_rel(&orphans, NO_MORE) : NO_MORE;
    while (fd != NO_MORE) {
        uint32_t next = pep_load_relaxed(&fd_next[fd]);
        close_event((int)fd);
        /* release: pairs with pep_cpu_perf_is_closed */
        pep_store_release(&fd_next[fd], 0);
        fd = next;
    }
}

PEP_SIGNAL_SAFE bool pep_cpu_perf_is_closed(int fd) {
    return pep_load_acquire(&fd_next[fd]) == 0;
}

/* Not under the slot's lock: only this thread closes, and a request that comes too late changes an
 * event that will be closed before anybody asks for it again. */
PEP_HOOK_SAFE void pep_cpu_perf_tend(struct pep_thread *thread) {
    int fd = thread->perf_fd;
    struct timespec clock = {0, 0};
    uint32_t hz = pep_load_relaxed(&pep_cpu.hz);
    long r = pep_os_call6(SYS_clock_gettime, pep_os_thread_cpu_clock(thread->tid), (long)&clock, 0,
                          0, 0, 0);
    if (r < 0 || hz == 0 || (!has_own_table && !is_still_ours(fd, fd_ids[fd])))
        return;
    uint64_t now = (uint64_t)clock.tv_sec * 1000000000u + (uint64_t)clock.tv_nsec;
    uint64_t period = pep_cpu_redraw(thread, now, hz);
    if (period < MIN_NS)
        period = MIN_NS;
    pep_os_ioctl(fd, PERF_EVENT_IOC_PERIOD, (long)&period);
    int32_t left = (int32_t)(thread->perf_granted - pep_load_relaxed(&thread->perf_fired));
    int32_t max = (int32_t)fires_max(), more = left > 0 ? max - left : max;
    if (left > max / 2)
        return;
    (void)pep_add_relaxed(&thread->perf_granted, (uint32_t)more);
    pep_os_ioctl(fd, PERF_EVENT_IOC_REFRESH, more);
}

PEP_SIGNAL_SAFE void pep_cpu_perf_fired(struct pep_thread *thread, bool is_last) {
    uint32_t granted = pep_load_relaxed(&thread->perf_granted);
    uint32_t fired = is_last ? granted : pep_load_relaxed(&thread->perf_fired) + 1;
    pep_store_relaxed(&thread->perf_fired, fired);
    if ((int32_t)(granted - fired) < FIRES_FEW)
        pep_cpu_armer_call(thread);
    else if (fired % NOTE_EVERY == 0)
        pep_cpu_armer_note(thread);
}

PEP_SIGNAL_SAFE struct pep_thread *pep_cpu_perf_thread(int fd) {
    if (fd < 0 || fd >= FD_MAP_SIZE)
        return NULL;
    uint16_t slot = pep_load_acquire(&fd_slots[fd]);
    return slot != 0 ? pep_thread_at(slot - 1u) : NULL;
}

/* The armer's table, if it was its own, stayed in the parent. */
void pep_cpu_perf_after_fork_child(void) {
    forget_events();
}
