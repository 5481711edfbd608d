/*
 * A program that counts its threads to be sure that it is alone.
 *
 * Model:   the links of /proc/self/task are its threads and two more (proc(5)). Who forks in ways
 *          that need a single thread looks there first and ends when there is another one: the
 *          zygote of Chromium and of what is built on it. So where the host's only thread looks,
 * our agent ends before it does, for good: it would look again. What is counted and sampled in the
 * process goes on; nobody is there to ask. Writers: any host thread.  [hook] Readers: - Memory:  -
 * When full: -
 */
#include <string.h>
#include <sys/stat.h>

#include "preload/init.h"
#include "preload/real.h"

/* However it is spelt: with or without a slash at its end, below /proc or a descriptor of it. */
static bool is_task_directory(const char *path) {
    static const char wanted[] = "self/task";
    size_t size = path ? strlen(path) : 0;
    while (size > 0 && path[size - 1] == '/')
        size--;
    return size >= sizeof wanted - 1 &&
           memcmp(path + size - (sizeof wanted - 1), wanted, sizeof wanted - 1) == 0;
}

static void before_look(const char *path) {
    if (is_task_directory(path))
        pep_init_agent_leaves();
}

PEP_EXPORT int stat(const char *path, struct stat *to) {
    before_look(path);
    return pep_real.stat(path, to);
}

PEP_EXPORT int stat64(const char *path, struct stat64 *to) {
    before_look(path);
    return pep_real.stat64(path, to);
}

PEP_EXPORT int fstatat(int fd, const char *path, struct stat *to, int flags) {
    before_look(path);
    return pep_real.fstatat(fd, path, to, flags);
}

PEP_EXPORT int fstatat64(int fd, const char *path, struct stat64 *to, int flags) {
    before_look(path);
    return pep_real.fstatat64(fd, path, to, flags);
}
