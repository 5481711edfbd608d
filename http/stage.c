#include "http/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sampler/rt/files.h"
#include "sampler/rt/os.h"

#define TRIES 16
#define NAME_RANDOM 10
#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

static int open_at(int dir, const char *name, int flags, int mode) {
    return (int)pep_os_call6(SYS_openat, dir, (long)name, flags, mode, 0, 0);
}

/* -- directories ---------------------------------------------------------------------------- */

/* Part by part, where the kernel cannot: no link is followed. */
static int walk_below(int dir, const char *below) {
    char part[NAME_MAX + 1];
    int at = open_at(dir, ".", DIRECTORY, 0);
    while (at >= 0 && *below) {
        size_t count = strcspn(below, "/");
        int next = at;
        snprintf(part, sizeof(part), "%.*s", (int)count, below);
        if (count > NAME_MAX)
            next = -ENAMETOOLONG;
        else if (strcmp(part, "..") == 0)
            next = -EXDEV;
        else if (count > 0)
            next = open_at(at, part, DIRECTORY | O_NOFOLLOW, 0);
        if (next != at)
            pep_os_close(at);
        at = next == -ELOOP ? -EXDEV : next;
        below += count + (below[count] == '/');
    }
    return at;
}

/* What stands outside is not to be told from what is not there, but a name that leads out is. */
static int open_below(int dir, const char *below) {
    struct open_how how = {.flags = DIRECTORY, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    if (below[0] == '/')
        return -EXDEV;
    int fd = (int)pep_os_call6(SYS_openat2, dir, (long)below, (long)&how, sizeof(how), 0, 0);
    if (fd == -ENOSYS || fd == -EPERM)
        fd = walk_below(dir, below);
    return fd;
}

/* The text of the stage's path; a relative one would mean another place later. */
static void path_of(int dir, const struct pep_stage *stage, char path[PEP_STAGE_PATH_BYTES]) {
    char link[40];
    snprintf(path, PATH_MAX, "%s", stage->directory);
    snprintf(link, sizeof(link), "/proc/thread-self/fd/%d", dir);
    ssize_t count = path[0] == '/' ? 0 : readlink(link, path, PATH_MAX - 1);
    if (count > 0)
        path[count] = '\0';
    size_t used = strlen(path);
    while (used > 1 && path[used - 1] == '/')
        path[--used] = '\0';
    if (stage->below && *stage->below)
        snprintf(path + used, PATH_MAX, "/%s", stage->below);
    used = strlen(path);
    while (used > 1 && path[used - 1] == '/')
        path[--used] = '\0';
}

static int open_stage(const struct pep_stage *stage, char path[PEP_STAGE_PATH_BYTES]) {
    int dir = pep_os_open(stage->directory, DIRECTORY, 0);
    if (dir < 0)
        return dir;
    if (path)
        path_of(dir, stage, path);
    if (!stage->below || !*stage->below)
        return dir;
    int below = open_below(dir, stage->below);
    pep_os_close(dir);
    return below;
}

int pep_stage_check(const struct pep_stage *stage) {
    int dir = open_stage(stage, NULL);
    if (dir >= 0)
        pep_os_close(dir);
    return dir < 0 ? dir : 0;
}

/* -- files ---------------------------------------------------------------------------------- */

static int random_name(char *to) {
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    unsigned char bytes[NAME_RANDOM];
    long count = pep_os_call6(SYS_getrandom, (long)bytes, sizeof(bytes), 0, 0, 0, 0);
    if (count < (long)sizeof(bytes))
        return count < 0 ? (int)count : -EIO;
    memcpy(to, "jl_", 3);
    for (int i = 0; i < NAME_RANDOM; i++)
        to[3 + i] = letters[bytes[i] % (sizeof(letters) - 1)];
    to[3 + NAME_RANDOM] = '\0';
    return 0;
}

static int create(int dir, const struct pep_stage *stage, char name[NAME_MAX + 1]) {
    char random[NAME_RANDOM + 4];
    int fd = -EEXIST;
    for (int tries = 0; fd == -EEXIST && tries < TRIES; tries++) {
        int error = stage->name ? 0 : random_name(random);
        if (error)
            return error;
        snprintf(name, NAME_MAX + 1, "%s%s", stage->name ? stage->name : random, stage->suffix);
        fd = open_at(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    }
    return fd;
}

int pep_stage_write(const struct pep_stage *stage, const void *data, size_t count,
                    char path[PEP_STAGE_PATH_BYTES]) {
    char name[NAME_MAX + 1];
    int dir = open_stage(stage, path);
    if (dir < 0)
        return dir;
    int fd = create(dir, stage, name), error = fd < 0 ? fd : 0;
    if (!error) {
        error = pep_files_write_all(fd, data, count);
        pep_os_close(fd);
        if (error)
            (void)pep_os_call6(SYS_unlinkat, dir, (long)name, 0, 0, 0, 0);
    }
    pep_os_close(dir);
    size_t used = strlen(path);
    if (!error && (size_t)snprintf(path + used, PEP_STAGE_PATH_BYTES - used, "/%s", name) >=
                      PEP_STAGE_PATH_BYTES - used)
        error = -ENAMETOOLONG;
    return error;
}
