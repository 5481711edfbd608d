#include "encoder/lines_child.h"

#include <backtrace.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "encoder/symbol_load.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

#define LINES_CHILD_BYTES (UINT64_C(1) << 30)
#define CPU_SECONDS_MAX 4 /* when the parent is stopped or gone */
#define TEXT_BYTES_MAX 4096
#define KNOWN_TEXTS 1024 /* a power of two */
#define SIGNALS 64

/* Plain globals: the child has one thread, and what it changes is its own copy. */
static struct {
    const struct pep_lines_task *task;
    uint32_t used_bytes;
    int fd;              /* the file being read */
    char path[PATH_MAX]; /* its name as the reader knows it */
    struct pep_line frames[PEP_LINES_FRAMES_MAX];
    uint32_t frame_count;
    bool is_damaged;
    struct {
        const char *text;
        uint32_t at;
    } known[KNOWN_TEXTS]; /* by pointer: the reader gives the same text again and again */
} child PEP_LARGE;

/* -- what libbacktrace calls instead of libc ------------------------------------------------- */

/* scripts/deps renames libbacktrace's calls to these: libc's may be hooked, by us and by others. */
int pep_lines_open(const char *path, int flags, ...);
int pep_lines_close(int fd);
int pep_lines_fcntl(int fd, int command, long argument);
int pep_lines_fstat(int fd, struct stat *to);
int pep_lines_lstat(const char *path, struct stat *to);
ssize_t pep_lines_readlink(const char *path, char *to, size_t size_bytes);
void *pep_lines_mmap(void *at, size_t size_bytes, int protection, int flags, int fd, off_t offset);
int pep_lines_munmap(void *at, size_t size_bytes);
int pep_lines_objects(int (*visit)(struct dl_phdr_info *, size_t, void *), void *data);

static long as_libc(long result) {
    if (result >= 0 || result < -4095)
        return result;
    errno = (int)-result;
    return -1;
}

/* The file that was proven to be the right one, and what it refers to; never another program. */
int pep_lines_open(const char *path, int flags, ...) {
    (void)flags;
    if (strcmp(path, child.path) == 0)
        return (int)as_libc(pep_os_fcntl(child.fd, F_DUPFD_CLOEXEC, 0));
    if (strncmp(path, "/proc/", 6) == 0)
        return (int)as_libc(-ENOENT);
    return (int)as_libc(pep_elf_open_file(path, 0));
}

int pep_lines_close(int fd) {
    return (int)as_libc(pep_os_close(fd));
}

int pep_lines_fcntl(int fd, int command, long argument) {
    return (int)as_libc(pep_os_fcntl(fd, command, argument));
}

int pep_lines_fstat(int fd, struct stat *to) {
    return (int)as_libc(pep_os_fstat(fd, to));
}

int pep_lines_lstat(const char *path, struct stat *to) {
    return (int)as_libc(pep_os_stat_at(AT_FDCWD, path, to, AT_SYMLINK_NOFOLLOW));
}

ssize_t pep_lines_readlink(const char *path, char *to, size_t size_bytes) {
    return as_libc(pep_os_call6(SYS_readlink, (long)path, (long)to, (long)size_bytes, 0, 0, 0));
}

void *pep_lines_mmap(void *at, size_t size_bytes, int protection, int flags, int fd, off_t offset) {
    return (void *)as_libc(
        pep_os_call6(SYS_mmap, (long)at, (long)size_bytes, protection, flags, fd, offset));
}

int pep_lines_munmap(void *at, size_t size_bytes) {
    return (int)as_libc(pep_os_unmap(at, size_bytes));
}

/* The one object is the file itself, as if it were loaded at 0. The loader's own list stands behind
 * a lock that another thread held when this child was made. */
int pep_lines_objects(int (*visit)(struct dl_phdr_info *, size_t, void *), void *data) {
    struct dl_phdr_info info = {.dlpi_name = ""};
    return visit(&info, sizeof(info), data);
}

/* -- writing answers ------------------------------------------------------------------------- */

/* Room in the heap, or 0. */
static uint32_t reserve(size_t size_bytes) {
    size_t rounded = (size_bytes + 3) & ~(size_t)3;
    if (rounded > child.task->heap_bytes - child.used_bytes) {
        child.task->sheet->is_full = 1;
        return 0;
    }
    uint32_t at = child.used_bytes;
    child.used_bytes += (uint32_t)rounded;
    child.task->sheet->used_bytes = child.used_bytes;
    return at;
}

static uint32_t put_text(const char *text) {
    if (text == NULL || *text == '\0')
        return 0;
    size_t slot = ((uintptr_t)text * UINT64_C(0x9e3779b97f4a7c15)) >> 32 & (KNOWN_TEXTS - 1);
    if (child.known[slot].text == text &&
        strncmp(pep_lines_heap(child.task) + child.known[slot].at, text, TEXT_BYTES_MAX) == 0)
        return child.known[slot].at;
    size_t length = strnlen(text, TEXT_BYTES_MAX);
    uint32_t at = reserve(length + 1);
    if (at == 0)
        return 0;
    memcpy(pep_lines_heap(child.task) + at, text, length); /* the rest is zero */
    child.known[slot].text = text;
    child.known[slot].at = at;
    return at;
}

/* False when the heap is full. */
static bool put_answer(uint32_t number) {
    struct pep_lines_words words[PEP_LINES_FRAMES_MAX];
    for (uint32_t i = 0; i < child.frame_count; i++)
        words[i] = (struct pep_lines_words){.function = put_text(child.frames[i].function),
                                            .file = put_text(child.frames[i].file),
                                            .line = child.frames[i].line};
    size_t size = child.frame_count * sizeof(words[0]);
    uint32_t at = reserve(sizeof(struct pep_lines_record) + size);
    if (at == 0 || child.task->sheet->is_full)
        return false;
    struct pep_lines_record *record = (struct pep_lines_record *)(pep_lines_heap(child.task) + at);
    record->count = child.frame_count;
    memcpy(record->frames, words, size);
    pep_store_release(&child.task->sheet->words[number], at); /* pairs with the child's end */
    return true;
}

/* -- reading --------------------------------------------------------------------------------- */

static void on_error(void *data, const char *text, int error) {
    (void)data;
    (void)text;
    if (error != -1) /* -1: there is nothing to read */
        child.is_damaged = true;
}

/* Called once a frame, innermost first. Too many: the innermost and the outermost are kept, and
 * what stands between them says so. */
static int on_frame(void *data, uintptr_t pc, const char *file, int line, const char *function) {
    (void)data;
    (void)pc;
    if (file == NULL && function == NULL)
        return 0;
    if (child.frame_count == PEP_LINES_FRAMES_MAX) {
        child.frame_count--;
        child.frames[child.frame_count - 1] = (struct pep_line){.function = "[truncated]"};
    }
    child.frames[child.frame_count++] = (struct pep_line){
        .function = function, .file = file, .line = line > 0 ? (uint32_t)line : 0};
    return 0;
}

/* Opens what holds the lines of a file and names it. */
static bool find_source(struct pep_arena *arena, const struct pep_lines_file *file) {
    struct pep_elf elf, debug;
    if (!pep_symbol_open_object(&elf, arena, file->mapping, file->is_main))
        return false;
    child.fd = elf.fd;
    if (!pep_symbol_has_lines(&elf)) {
        if (!pep_debug_file_open(&debug, &elf, file->mapping->path, PEP_DEBUG_ROOT))
            return false;
        child.fd = debug.fd;
    }
    char link[32];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", child.fd);
    long length = child.fd < 0 ? -EBADF
                               : pep_os_call6(SYS_readlink, (long)link, (long)child.path,
                                              sizeof(child.path) - 1, 0, 0, 0);
    if (length <= 0)
        length = snprintf(child.path, sizeof(child.path), "%s", file->mapping->path);
    child.path[length < (long)sizeof(child.path) ? length : (long)sizeof(child.path) - 1] = '\0';
    return child.fd >= 0;
}

/* False when the heap is full. */
static bool read_file(const struct pep_lines_file *file, uint32_t number) {
    struct pep_arena arena; /* ends with the child */
    pep_arena_init(&arena, 0);
    struct backtrace_state *state = NULL;
    if (find_source(&arena, file))
        state = backtrace_create_state(child.path, 0, on_error, NULL);
    for (uint32_t i = 0; i < file->count; i++) {
        child.frame_count = 0;
        if (state != NULL)
            backtrace_pcinfo(state, file->addresses[i], on_frame, on_error, NULL);
        if (!put_answer(number + i))
            return false;
    }
    return true;
}

/* -- the child ------------------------------------------------------------------------------- */

/* Beyond what the host's image takes, so that the host's size does not matter. */
static void limit_memory(void) {
    char text[64] = "";
    uint64_t pages = 0;
    if (pep_os_read_file("/proc/self/statm", text, sizeof(text)) <= 0)
        return;
    for (const char *at = text; *at >= '0' && *at <= '9'; at++)
        pages = pages * 10 + (uint64_t)(*at - '0');
    struct rlimit limit = {.rlim_cur = pages * 4096 + LINES_CHILD_BYTES};
    limit.rlim_max = limit.rlim_cur;
    pep_os_call6(SYS_prlimit64, 0, RLIMIT_AS, (long)&limit, 0, 0, 0);
}

/* Where memory runs out, the kernel is to take this one and not the host (proc(5)). */
static void be_first_to_go(void) {
    int fd = pep_os_open("/proc/self/oom_score_adj", O_WRONLY, 0);
    if (fd < 0)
        return;
    pep_os_write(fd, "1000", 4);
    pep_os_close(fd);
}

static void __attribute__((noreturn)) end(void) {
    for (;;)
        pep_os_call6(SYS_exit_group, 0, 0, 0, 0, 0, 0);
}

/* (1) no handler of the host may run here; (2) no descriptor of the host may stay open: an end of
 * a pipe would keep somebody waiting; (3) no core file in the host's name; (4) an end of its own
 * for when the parent cannot bring one about. */
static void confine(int parent) {
    const struct pep_ksigaction by_default = {.handler = SIG_DFL};
    for (int sig = 1; sig <= SIGNALS; sig++)
        pep_os_sigaction(sig, &by_default, NULL);
    if (pep_os_call6(SYS_close_range, 0, ~0u, 0, 0, 0, 0) < 0)
        for (int fd = 0; fd < 4096; fd++) /* before Linux 5.9 */
            pep_os_close(fd);
    /* The soft limit tells of itself, the hard one's SIGKILL is anybody's: setrlimit(2). */
    const struct rlimit none = {0, 0}, cpu = {CPU_SECONDS_MAX, CPU_SECONDS_MAX + 1};
    const uint64_t too_long = UINT64_C(1) << (SIGXCPU - 1);
    pep_os_call6(SYS_prlimit64, 0, RLIMIT_CORE, (long)&none, 0, 0, 0);
    pep_os_call6(SYS_prlimit64, 0, RLIMIT_CPU, (long)&cpu, 0, 0, 0);
    pep_os_sigprocmask(SIG_UNBLOCK, &too_long, NULL);
    pep_os_prctl(PR_SET_NAME, (unsigned long)PEP_LINES_CHILD_NAME, 0, 0, 0);
    pep_os_prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (pep_os_call6(SYS_getppid, 0, 0, 0, 0, 0, 0) != parent) /* it died before that */
        end();
    limit_memory();
    be_first_to_go();
    pep_os_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* last: files of /proc/self are root's then */
}

void pep_lines_child(const struct pep_lines_task *task) {
    confine(task->parent);
    child.task = task;
    child.used_bytes = task->sheet->used_bytes;
    uint32_t number = 0;
    bool has_room = true;
    for (uint32_t i = 0; i < task->file_count && has_room; i++) {
        if (i >= task->first) {
            task->sheet->file = i;
            child.is_damaged = false;
            has_room = read_file(&task->files[i], number);
            pep_lines_ends(task)[i] = child.is_damaged ? PEP_LINES_PARTLY : PEP_LINES_READ;
        }
        number += task->files[i].count;
    }
    pep_store_release(&task->sheet->is_done, 1u); /* pairs with the acquire in lines.c */
    pep_os_futex_wake_shared(&task->sheet->is_done);
    end();
}
