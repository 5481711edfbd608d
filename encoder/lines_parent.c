#include "encoder/lines_parent.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "encoder/lines_permit.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

#define LOOK_NS UINT64_C(5000000) /* how soon a child that died is noticed */
#define KILL_LOOK_NS UINT64_C(200000)
#define KILL_LOOKS_MAX 2500 /* 500 ms: many that end at once on a busy machine take long */
#define CHILDREN_MAX 4
#define TAKEN (-1)
/* Making the child copies the page tables of private memory, some 5 ms a GiB during which the host
 * cannot map or fault; and what it writes next is copied page by page: a host of 2 GiB that wrote
 * all the while stood still for 130 ms and was slower for a second. */
#define HOST_BYTES_MAX (UINT64_C(1) << 30)

static uint64_t now_ns(void) {
    return pep_os_clock_ns(CLOCK_MONOTONIC);
}

/* Every child has a place before it is made, so that none is lost: 0 is free, TAKEN is awaited by
 * the request that made it. A process id: it did not even die in time, the kernel holds it, reading
 * from a file server that does not answer; it is waited for when the next one is made. */
static int places[CHILDREN_MAX];

static int recalls; /* threads that want no child to be there */

static bool is_recalled(void) {
    return pep_load_relaxed(&recalls) != 0;
}

void pep_lines_after_fork_child(void) {
    for (size_t i = 0; i < CHILDREN_MAX; i++)
        pep_store_relaxed(&places[i], 0);
    pep_store_relaxed(&recalls, 0);
}

/* How many places are not free; *hanging: of these, by children that do not die. */
static size_t count_taken(size_t *hanging) {
    size_t taken = 0;
    *hanging = 0;
    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        int status, pid = pep_load_acquire(&places[i]); /* pairs with the release in run */
        if (pid > 0 && pep_os_wait_child(pid, &status, WNOHANG) != 0)
            pep_cas_acq_rel(&places[i], &pid, 0);
        else
            *hanging += pid > 0;
        taken += pep_load_relaxed(&places[i]) != 0;
    }
    return taken;
}

/* Many requests at once wait for each other. 0 or -errno. */
static int take_place(int **place, uint64_t deadline_ns) {
    for (;;) {
        size_t hanging;
        (void)count_taken(&hanging);
        for (size_t i = 0; i < CHILDREN_MAX; i++) {
            int none = 0;
            *place = &places[i];
            if (pep_cas_acq_rel(*place, &none, TAKEN))
                return 0;
        }
        if (is_recalled())
            return -ECANCELED;
        if (hanging == CHILDREN_MAX)
            return -EBUSY;
        if (now_ns() >= deadline_ns)
            return -ETIME;
        pep_os_sleep_ns(LOOK_NS);
    }
}

void pep_lines_recall(void) {
    size_t hanging;
    pep_add_acq_rel(&recalls, 1);
    pep_fence_seq_cst(); /* either we see the place, or who took it sees the recall */
    for (int i = 0; i < 2 * KILL_LOOKS_MAX && count_taken(&hanging) > 0; i++)
        pep_os_sleep_ns(KILL_LOOK_NS);
}

void pep_lines_recall_end(void) {
    pep_sub_acq_rel(&recalls, 1);
}

/* Of a child that is gone. Where the host waited for it with __WALL, nobody knows of what. */
static enum pep_lines_fate fate_of(const struct pep_lines_sheet *sheet, bool is_known, int status) {
    if (pep_load_acquire(&sheet->is_done) != 0) /* pairs with the release in the child */
        return PEP_LINES_FINISHED;
    if (!is_known || !WIFSIGNALED(status))
        return PEP_LINES_TAKEN;
    switch (WTERMSIG(status)) {
    case SIGKILL: /* all others are blocked, unless it brings them about itself */
        return PEP_LINES_TAKEN;
    case SIGSYS:
        return PEP_LINES_FORBIDDEN;
    case SIGXCPU:
        return PEP_LINES_TOO_LATE;
    default:
        return PEP_LINES_CRASHED;
    }
}

/* True when it is gone: 200 us a look. */
static bool kill_and_wait(int pid) {
    int status;
    pep_os_kill(pid, SIGKILL);
    for (int i = 0; i < KILL_LOOKS_MAX; i++) {
        int waited = pep_os_wait_child(pid, &status, WNOHANG);
        if (waited != 0 && waited != -EINTR)
            return true;
        pep_os_sleep_ns(KILL_LOOK_NS);
    }
    return false;
}

/* Waits until the child has written all, has died, is late, or is called back. The host may have
 * waited for it with __WALL: then there is nobody to end. True when it is gone. */
static bool await(struct pep_lines_sheet *sheet, int pid, uint64_t deadline_ns,
                  enum pep_lines_fate *fate) {
    for (;;) {
        int status = 0, waited = pep_os_wait_child(pid, &status, WNOHANG);
        if (waited != 0 && waited != -EINTR) {
            *fate = fate_of(sheet, waited > 0, status);
            return true;
        }
        uint64_t now = now_ns();
        if (pep_load_acquire(&sheet->is_done) != 0) { /* pairs with the release in the child */
            *fate = PEP_LINES_FINISHED;
            return kill_and_wait(pid);
        }
        if (now >= deadline_ns || is_recalled()) {
            *fate = is_recalled() ? PEP_LINES_RECALLED : PEP_LINES_TOO_LATE;
            return kill_and_wait(pid);
        }
        uint64_t left = deadline_ns - now;
        pep_os_futex_wait_shared(&sheet->is_done, 0, left < LOOK_NS ? left : LOOK_NS);
    }
}

static uint64_t read_number(const char **at) {
    uint64_t value = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++)
        value = value * 10 + (uint64_t)(**at - '0');
    while (**at == ' ')
        (*at)++;
    return value;
}

static bool is_reader(int pid) {
    char path[32], name[32] = "";
    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    return pep_os_read_file(path, name, sizeof(name)) > 0 &&
           strcmp(name, PEP_LINES_CHILD_NAME "\n") == 0;
}

void pep_lines_bury_inherited(void) {
    char list[512] = "";
    siginfo_t info;
    /* Nearly always there is no child without an exit signal. */
    if (pep_os_call6(SYS_waitid, P_ALL, 0, (long)&info, WEXITED | WNOHANG | WNOWAIT | __WCLONE, 0,
                     0) < 0 ||
        pep_os_read_file("/proc/thread-self/children", list, sizeof(list)) <= 0)
        return;
    for (const char *at = list; *at >= '0' && *at <= '9';) {
        int pid = (int)read_number(&at);
        if (is_reader(pid))
            (void)kill_and_wait(pid);
    }
}

/* Memory of this process that a copy would have to describe: resident and not of a file. Source:
 * proc(5), statm. */
static uint64_t private_bytes(void) {
    char text[128] = "";
    if (pep_os_read_file("/proc/thread-self/statm", text, sizeof(text)) <= 0)
        return 0;
    const char *at = text;
    read_number(&at); /* size */
    uint64_t resident = read_number(&at), shared = read_number(&at);
    return resident > shared ? (resident - shared) * 4096 : 0;
}

/* In a place of its own. 0 or -errno. */
static int run_at(int *place, const struct pep_lines_task *task, uint64_t deadline_ns,
                  enum pep_lines_fate *fate) {
    const uint64_t all = ~UINT64_C(0);
    uint64_t old;
    pep_fence_seq_cst(); /* as in pep_lines_recall */
    if (is_recalled()) {
        pep_store_release(place, 0);
        return -ECANCELED;
    }
    pep_os_sigprocmask(SIG_BLOCK, &all, &old); /* a handler in the child would be the host's */
    int pid = pep_os_clone_child();
    if (pid == 0)
        pep_lines_child(task);
    pep_os_sigprocmask(SIG_SETMASK, &old, NULL);
    bool is_gone = pid < 0 || await(task->sheet, pid, deadline_ns, fate);
    pep_store_release(place, is_gone ? 0 : pid); /* pairs with the acquire in count_taken */
    return pid < 0 ? pid : 0;
}

int pep_lines_child_run(const struct pep_lines_task *task, uint64_t deadline_ns,
                        enum pep_lines_fate *fate) {
    if (private_bytes() > HOST_BYTES_MAX)
        return -EFBIG;
    int *place, error = take_place(&place, deadline_ns);
    if (error == 0)
        error = run_at(place, task, deadline_ns, fate);
    if (error != 0)
        return error;
    if (*fate == PEP_LINES_FORBIDDEN)
        pep_lines_permit_end();
    return 0;
}
