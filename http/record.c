#include "http/record.h"
#include "sampler/rt/attrs.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "http/record_file.h"
#include "sampler/cpu.h"
#include "sampler/profile.h"
#include "sampler/rt/arena.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/log.h"
#include "sampler/rt/os.h"
#include "sampler/rt/spawn.h"
#include "sampler/rt/table.h"
#include "sampler/thread.h"

#define SLICE_NS 100000000ull        /* between two sweeps */
#define CHECKPOINT_NS 10000000000ull /* between two files, at least */
#define PATIENCE_NS 5000000000ull    /* how long an exit waits for its file */
#define COST_SHARE 20                /* writing takes at most 1/20 of a CPU */

static struct {
    char path[PATH_MAX];
    char temporary[PATH_MAX];
    char peak[PATH_MAX];    /* beside path: the second file of the heap's */
    uint32_t hz;            /* 0: the heap's */
    struct pep_arena arena; /* of the snapshot */
    struct pep_cpu_snapshot *before;
} recording PEP_LARGE;

static int is_active; /* from the start to the final file */
static int is_final;  /* the next file is the last */
static int is_paused; /* the thread is to end, the recording goes on */
static pthread_t writer;
static bool has_thread; /* to be joined; who starts and stops the agent */
static int writer_tid;
static int wanted; /* files asked for so far; the thread sleeps on it */
static int served; /* of these, written; who waits for a file sleeps on it */

/* -- where ---------------------------------------------------------------------------------- */

/* Appends text, or nothing when it does not fit with its NUL. */
static void append(char *to, size_t size, const char *text) {
    size_t used = strlen(to), more = strlen(text);
    if (used + more < size)
        memcpy(to + used, text, more + 1);
}

static void append_number(char *to, size_t size, unsigned number) {
    char digits[12] = "";
    size_t at = sizeof(digits) - 1;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    append(to, size, digits + at);
}

static void append_expanded(char *to, size_t size, const char *path) {
    for (; *path; path++) {
        char one[2] = {*path, '\0'};
        if (*path != '%' || !strchr("pe%", path[1]) || !path[1]) {
            append(to, size, one);
            continue;
        }
        path++;
        if (*path == 'p')
            append_number(to, size, (unsigned)pep_os_getpid());
        else
            append(to, size, *path == 'e' ? program_invocation_short_name : "%");
    }
}

/* Absolute, because programs change their directory: daemon(3). */
static int set_path(const char *path) {
    char *to = recording.path;
    const size_t size = sizeof(recording.path);
    to[0] = '\0';
    if (path[0] != '/') {
        if (pep_os_call6(SYS_getcwd, (long)to, (long)size - 1, 0, 0, 0, 0) < 0)
            return -ENOENT;
        append(to, size, "/");
    }
    append_expanded(to, size, path);
    if (strlen(to) + 24 > size)
        return -ENAMETOOLONG;
    recording.temporary[0] = '\0';
    append(recording.temporary, size, to);
    append(recording.temporary, size, ".");
    append_number(recording.temporary, size, (unsigned)pep_os_getpid());
    append(recording.temporary, size, ".tmp");
    pep_record_peak_path(recording.peak, size, to);
    return 0;
}

bool pep_record_is_per_process(const char *path) {
    for (const char *at = path; at && *at; at++) {
        if (*at != '%')
            continue;
        at++;
        if (*at == 'p')
            return true;
        if (!*at)
            break;
    }
    return false;
}

/* -- the thread that writes ----------------------------------------------------------------- */

static void write_files(bool is_last) {
    const struct pep_record_file file = {
        .path = recording.path, .temporary = recording.temporary, .is_last = is_last};
    struct pep_arena arena;
    pep_arena_init(&arena, 0);
    if (recording.hz == 0) {
        pep_record_write_heap(&file, recording.peak, &arena);
    } else {
        struct pep_profile_filter filter = {.thread = NULL};
        pep_record_write(&file, pep_profile_cpu(&arena, recording.before, recording.hz, &filter),
                         &arena);
    }
    pep_arena_drop(&arena);
}

static void serve(int upto, bool is_last) {
    write_files(is_last);
    if (is_last)
        pep_store_release(&is_active, 0);
    /* release: pairs with the acquire in ask(); the file is there. */
    pep_store_release(&served, upto);
    (void)pep_os_futex_wake(&served, INT_MAX);
}

static void *run(void *unused) {
    (void)unused;
    pep_thread_become_own();
    (void)pep_table_leave();
    pep_store_release(&writer_tid, pep_os_gettid());
    (void)pep_os_prctl(PR_SET_NAME, (unsigned long)"profep-record", 0, 0, 0);
    uint64_t next_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + CHECKPOINT_NS;
    bool is_last = false;
    while (!is_last && !pep_load_acquire(&is_paused)) {
        int upto = pep_load_acquire(&wanted);
        is_last = pep_load_acquire(&is_final);
        uint64_t start_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
        if (upto != served || start_ns >= next_ns) {
            serve(upto, is_last);
            uint64_t end_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
            uint64_t pause_ns = (end_ns - start_ns) * COST_SHARE;
            next_ns = end_ns + (pause_ns > CHECKPOINT_NS ? pause_ns : CHECKPOINT_NS);
            continue;
        }
        is_last = false;
        (void)pep_os_futex_wait(&wanted, upto, SLICE_NS);
        if (recording.hz != 0)
            pep_cpu_sweep();
    }
    if (is_last && recording.hz != 0)
        pep_cpu_end(recording.hz);
    return NULL;
}

static int start_thread(void) {
    int error = pep_spawn(run, NULL, &writer);
    has_thread = error == 0;
    return error;
}

int pep_record_start(const char *path, uint32_t hz) {
    if (pep_load_acquire(&is_active))
        return -EBUSY;
    int error = set_path(path);
    if (error)
        return error;
    recording.hz = hz;
    pep_arena_init(&recording.arena, 0);
    if (hz != 0) {
        recording.before = pep_cpu_snapshot_take(&recording.arena);
        error = recording.before ? pep_cpu_begin(hz) : -ENOMEM;
        if (error)
            goto out;
    }
    pep_store_release(&is_active, 1);
    error = start_thread();
    if (error) {
        pep_store_release(&is_active, 0);
        if (hz != 0)
            pep_cpu_end(hz);
    }
out:
    if (error)
        pep_arena_drop(&recording.arena);
    return error;
}

/* -- who asks for a file -------------------------------------------------------------------- */

PEP_SIGNAL_SAFE bool pep_record_is_active(void) {
    return pep_load_acquire(&is_active) != 0;
}

PEP_SIGNAL_SAFE static void ask(void) {
    if (!pep_record_is_active() || pep_os_gettid() == pep_load_acquire(&writer_tid))
        return;
    const int mine = pep_add_acq_rel(&wanted, 1) + 1;
    const uint64_t deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + PATIENCE_NS;
    (void)pep_os_futex_wake(&wanted, 1);
    for (;;) {
        int now = pep_load_acquire(&served);
        if (now - mine >= 0 || !pep_record_is_active() ||
            pep_os_clock_ns(CLOCK_MONOTONIC) >= deadline_ns)
            return;
        (void)pep_os_futex_wait(&served, now, SLICE_NS);
    }
}

PEP_SIGNAL_SAFE void pep_record_checkpoint(void) {
    ask();
}

PEP_SIGNAL_SAFE void pep_record_finish(void) {
    /* release: before the request that shows it, ask(). */
    if (pep_record_is_active())
        pep_store_release(&is_final, 1);
    ask();
}

void pep_record_pause(void) {
    if (!has_thread)
        return;
    pep_store_release(&is_paused, 1);
    (void)pep_add_acq_rel(&wanted, 1);
    (void)pep_os_futex_wake(&wanted, 1);
    (void)pthread_join(writer, NULL);
    has_thread = false;
    /* The request that woke it was none; it may have been served all the same. */
    pep_store_release(&served, pep_load_acquire(&wanted));
    (void)pep_os_futex_wake(&served, INT_MAX);
}

int pep_record_resume(void) {
    if (!pep_record_is_active() || !is_paused)
        return 0;
    pep_store_release(&is_paused, 0);
    int error = start_thread();
    if (error)
        pep_store_release(&is_active, 0);
    return error;
}

int pep_record_revive(void) {
    if (!is_final || has_thread || pep_record_is_active())
        return 0;
    int error = recording.hz != 0 ? pep_cpu_begin(recording.hz) : 0;
    if (error)
        return error;
    pep_store_release(&is_final, 0);
    pep_store_release(&is_paused, 1);
    pep_store_release(&is_active, 1);
    return pep_record_resume();
}

void pep_record_after_fork_child(void) {
    has_thread = false;
    is_final = is_paused = 0;
    if (!is_active)
        return;
    is_active = wanted = served = writer_tid = 0;
    pep_arena_drop(&recording.arena);
}
