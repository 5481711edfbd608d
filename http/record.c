#include "http/record.h"
#include "sampler/rt/attrs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "encoder/writer.h"
#include "http/render.h"
#include "sampler/cpu.h"
#include "sampler/profile.h"
#include "sampler/rt/arena.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/log.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define SLICE_NS 100000000ull             /* between two sweeps */
#define CHECKPOINT_NS 10000000000ull      /* between two files, at least */
#define PATIENCE_NS 5000000000ull         /* how long an exit waits for its file */
#define STACK_BYTES (512 * 1024)          /* the need of encoders and symbol readers, with room */
#define STACK_BYTES_MAX (8 * 1024 * 1024) /* for thread-local storage of the program on top */
#define COST_SHARE 20                     /* writing takes at most 1/20 of a CPU */

static struct {
    char path[PATH_MAX];
    char temporary[PATH_MAX];
    uint32_t hz;
    struct pep_arena arena; /* of the snapshot */
    struct pep_cpu_snapshot *before;
} recording PEP_LARGE;

static int is_active; /* from the start to the final file */
static int is_final;  /* the next file is the last */
static int is_paused; /* the thread is to end, the recording goes on */
static pthread_t writer;
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
    return 0;
}

static enum pep_format format_of(const char *path) {
    static const struct {
        const char *suffix;
        enum pep_format format;
    } suffixes[] = {{".svg", PEP_FORMAT_SVG},
                    {".html", PEP_FORMAT_HTML},
                    {".txt", PEP_FORMAT_TEXT},
                    {".collapsed", PEP_FORMAT_COLLAPSED}};
    const size_t size = strlen(path);
    for (size_t i = 0; i < PEP_COUNT_OF(suffixes); i++) {
        size_t width = strlen(suffixes[i].suffix);
        if (size > width && strcmp(path + size - width, suffixes[i].suffix) == 0)
            return suffixes[i].format;
    }
    return PEP_FORMAT_PPROF;
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

/* -- one file ------------------------------------------------------------------------------- */

static int write_all(int fd, const char *data, size_t count) {
    while (count > 0) {
        long wrote = pep_os_write(fd, data, count);
        if (wrote == -EINTR)
            continue;
        if (wrote <= 0)
            return wrote < 0 ? (int)wrote : -EIO;
        data += wrote;
        count -= (size_t)wrote;
    }
    return 0;
}

static int write_renamed(const char *data, size_t count) {
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    const char *name = recording.temporary;
    int fd = pep_os_open(name, flags, 0666);
    if (fd == -EEXIST) {
        /* Left by a process of the same number that was killed while it wrote. */
        (void)pep_os_call6(SYS_unlink, (long)name, 0, 0, 0, 0, 0);
        fd = pep_os_open(name, flags, 0666);
    }
    if (fd < 0)
        return fd;
    int error = write_all(fd, data, count);
    (void)pep_os_close(fd);
    if (!error)
        error = (int)pep_os_call6(SYS_rename, (long)name, (long)recording.path, 0, 0, 0, 0);
    if (error)
        (void)pep_os_call6(SYS_unlink, (long)name, 0, 0, 0, 0, 0);
    return error;
}

/* A device, a pipe or a link of the person's own must not be replaced by a file: /dev/stdout. */
static bool is_written_in_place(void) {
    struct stat status;
    if (pep_os_call6(SYS_lstat, (long)recording.path, (long)&status, 0, 0, 0, 0) < 0)
        return false;
    if (S_ISLNK(status.st_mode))
        return status.st_uid == 0 ||
               status.st_uid == (uid_t)pep_os_call6(SYS_geteuid, 0, 0, 0, 0, 0, 0);
    return !S_ISREG(status.st_mode);
}

static int write_in_place(const char *data, size_t count) {
    int fd = pep_os_open(recording.path, O_WRONLY | O_TRUNC | O_NOCTTY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    int error = write_all(fd, data, count);
    (void)pep_os_close(fd);
    return error;
}

static int write_file(bool is_last) {
    bool in_place = is_written_in_place();
    if (in_place && !is_last)
        return 0; /* what went down a pipe cannot be replaced by a better one */
    struct pep_arena arena;
    struct pep_buffer_writer buffer;
    struct pep_profile_filter filter = {.thread = NULL};
    pep_arena_init(&arena, 0);
    pep_buffer_writer_init(&buffer, &arena);
    int error = -ENOMEM;
    struct pep_profile *profile = pep_profile_cpu(&arena, recording.before, recording.hz, &filter);
    if (profile)
        error = pep_render_to(&buffer.writer, format_of(recording.path), profile, &arena);
    if (!error)
        error = in_place ? write_in_place(buffer.data, buffer.count)
                         : write_renamed(buffer.data, buffer.count);
    pep_arena_drop(&arena);
    if (error)
        pep_log("%s could not be written: error %d", recording.path, -error);
    return error;
}

/* -- the thread that writes ----------------------------------------------------------------- */

static void serve(int upto, bool is_last) {
    (void)write_file(is_last);
    if (is_last)
        pep_store_release(&is_active, 0);
    /* release: pairs with the acquire in ask(); the file is there. */
    pep_store_release(&served, upto);
    (void)pep_os_futex_wake(&served, INT_MAX);
}

static void *run(void *unused) {
    (void)unused;
    pep_thread_become_own();
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
        pep_cpu_sweep();
    }
    if (is_last)
        pep_cpu_end(recording.hz);
    return NULL;
}

static int start_thread(void) {
    pthread_attr_t attributes;
    sigset_t all, old;
    if (pthread_attr_init(&attributes) != 0)
        return -ENOMEM;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = EINVAL;
    for (size_t size = STACK_BYTES; error == EINVAL && size <= STACK_BYTES_MAX; size *= 4) {
        (void)pthread_attr_setstacksize(&attributes, size);
        error = pthread_create(&writer, &attributes, run, NULL);
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attributes);
    return -error;
}

int pep_record_start(const char *path, uint32_t hz) {
    if (pep_load_acquire(&is_active))
        return -EBUSY;
    int error = set_path(path);
    if (error)
        return error;
    recording.hz = hz;
    pep_arena_init(&recording.arena, 0);
    recording.before = pep_cpu_snapshot_take(&recording.arena);
    error = recording.before ? pep_cpu_begin(hz) : -ENOMEM;
    if (error)
        goto out;
    pep_store_release(&is_active, 1);
    error = start_thread();
    if (error) {
        pep_store_release(&is_active, 0);
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
    if (!pep_record_is_active() || is_paused)
        return;
    pep_store_release(&is_paused, 1);
    (void)pep_add_acq_rel(&wanted, 1);
    (void)pep_os_futex_wake(&wanted, 1);
    (void)pthread_join(writer, NULL);
    (void)pep_sub_acq_rel(&wanted, 1);
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

void pep_record_after_fork_child(void) {
    if (!is_active)
        return;
    is_active = is_final = is_paused = wanted = served = writer_tid = 0;
    pep_arena_drop(&recording.arena);
}
