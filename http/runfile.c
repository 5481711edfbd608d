#include "http/runfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "encoder/writer.h"
#include "sampler/rt/files.h"
#include "sampler/rt/os.h"

#define STAT_BYTES 1024

/* Opens the directory, making its last part if needed. Refused unless it is ours alone. */
static int open_dir(const char *path) {
    struct stat status;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return -errno;
    int fd = pep_os_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    if (pep_os_fstat(fd, &status) == 0 && status.st_uid == geteuid() && (status.st_mode & 022) == 0)
        return fd;
    pep_os_close(fd);
    return -EPERM;
}

/* A relative name would mean another place once the program changed its directory. */
static void make_absolute(int fd, char *path) {
    char link[40];
    char found[PATH_MAX];
    snprintf(link, sizeof(link), "/proc/thread-self/fd/%d", fd);
    ssize_t count = readlink(link, found, sizeof(found) - 1);
    if (path[0] != '/' && count > 0) {
        found[count] = '\0';
        memcpy(path, found, (size_t)count + 1);
    }
}

/* The directory's descriptor, its name in path. */
static int find_dir(const char *rundir, const char *runtime_dir, char *path) {
    int fd = -ENOENT;
    if (rundir) {
        snprintf(path, PATH_MAX, "%s", rundir);
        fd = open_dir(path);
        /* A process that gave up root since cannot write there; its own place will do. */
        if (fd != -EPERM && fd != -EACCES)
            return fd;
    }
    if (fd < 0 && runtime_dir && runtime_dir[0] == '/') {
        snprintf(path, PATH_MAX, "%s/profep", runtime_dir);
        fd = open_dir(path);
    }
    if (fd < 0) {
        if (geteuid() == 0)
            snprintf(path, PATH_MAX, "/run/profep");
        else
            snprintf(path, PATH_MAX, "/tmp/profep-%u", geteuid());
        fd = open_dir(path);
    }
    return fd;
}

/* Field 22 of /proc/self/stat: clock ticks after boot. The name in field 2 may hold anything, so
 * count from its last parenthesis. */
static uint64_t start_ticks(void) {
    char text[STAT_BYTES];
    if (pep_os_read_file("/proc/self/stat", text, sizeof(text)) <= 0)
        return 0;
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    uint64_t ticks = 0;
    for (; at && *at >= '0' && *at <= '9'; at++)
        ticks = ticks * 10 + (uint64_t)(*at - '0');
    return ticks;
}

static void write_label(struct pep_writer *writer, const char *name, const char *value) {
    pep_write_printf(writer, ", \"%s\": ", name);
    pep_write_json_string(writer, value);
}

static void write_content(struct pep_writer *writer, const struct pep_runfile *content) {
    char comm[17] = "", exe[PATH_MAX] = "", number[24];
    if (pep_os_read_file("/proc/self/comm", comm, sizeof(comm)) <= 0)
        comm[0] = '\0';
    comm[strcspn(comm, "\n")] = '\0';
    ssize_t count = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[count > 0 ? count : 0] = '\0';
    pep_write_text(writer, "[{\"targets\": [");
    pep_write_json_string(writer, content->target);
    pep_write_text(writer, "], \"labels\": {\"service_name\": ");
    pep_write_json_string(writer, content->service ? content->service : comm);
    snprintf(number, sizeof(number), "%d", pep_os_getpid());
    write_label(writer, "pid", number);
    write_label(writer, "__meta_profep_comm", comm);
    write_label(writer, "__meta_profep_exe", exe);
    snprintf(number, sizeof(number), "%llu", (unsigned long long)start_ticks());
    write_label(writer, "__meta_profep_start_ticks", number);
    pep_write_text(writer, "}}]\n");
}

static int write_temporary(int dir, const char *name, const struct pep_runfile *content) {
    struct pep_arena arena;
    struct pep_buffer_writer buffer;
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    pep_arena_init(&arena, 0);
    pep_buffer_writer_init(&buffer, &arena);
    write_content(&buffer.writer, content);
    int error = buffer.writer.error;
    if (!error)
        error = pep_files_write_all(fd, buffer.data, buffer.count);
    pep_os_close(fd);
    pep_arena_drop(&arena);
    return error;
}

int pep_runfile_write(const char *rundir, const char *runtime_dir,
                      const struct pep_runfile *content, struct pep_runfile_handle *handle) {
    char dir_path[PATH_MAX], temporary[40], name[32];
    struct stat status;
    handle->path[0] = '\0';
    int dir = find_dir(rundir, runtime_dir, dir_path);
    if (dir < 0)
        return dir;
    make_absolute(dir, dir_path);
    snprintf(temporary, sizeof(temporary), ".%d.json.new", pep_os_getpid());
    snprintf(name, sizeof(name), "%d.json", pep_os_getpid());
    unlinkat(dir, temporary, 0); /* of a process that died and had our pid */
    int error = write_temporary(dir, temporary, content);
    if (!error && renameat(dir, temporary, dir, name) != 0)
        error = -errno;
    if (error)
        unlinkat(dir, temporary, 0);
    else if (pep_os_stat_at(dir, name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        handle->device = status.st_dev;
        handle->inode = status.st_ino;
        handle->changed = status.st_ctim;
        if ((size_t)snprintf(handle->path, PATH_MAX, "%s/%s", dir_path, name) >= PATH_MAX)
            handle->path[0] = '\0';
    }
    pep_os_close(dir);
    return error;
}

static bool is_ours(const struct pep_runfile_handle *handle) {
    struct stat status;
    return handle->path[0] &&
           pep_os_stat_at(AT_FDCWD, handle->path, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           status.st_dev == handle->device && status.st_ino == handle->inode &&
           status.st_ctim.tv_sec == handle->changed.tv_sec &&
           status.st_ctim.tv_nsec == handle->changed.tv_nsec;
}

void pep_runfile_remove(struct pep_runfile_handle *handle) {
    if (is_ours(handle))
        unlink(handle->path);
    handle->path[0] = '\0';
}
