#include "preload/environment.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "preload/config.h"
#include "sampler/rt/os.h"

#define MARK PEP_CONFIG_MARK "="
#define PRELOAD "LD_PRELOAD="
#define USUAL_ENTRIES 96

static bool starts_with(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

int pep_environment_marked_pid(char *const *environment) {
    for (; environment && *environment; environment++) {
        if (!starts_with(*environment, MARK))
            continue;
        int pid = 0;
        for (const char *at = *environment + strlen(MARK); *at >= '0' && *at <= '9'; at++)
            pid = pid < 100000000 ? pid * 10 + (*at - '0') : pid;
        return pid;
    }
    return 0;
}

static size_t count_entries(char *const *environment) {
    size_t count = 0;
    while (environment && environment[count])
        count++;
    return count;
}

/* A mapping costs more than room that is there for a list of the usual size. */
static char **take_list(size_t count) {
    static char *list[USUAL_ENTRIES];
    return count <= USUAL_ENTRIES ? list : pep_os_map(count * sizeof(char *));
}

void pep_environment_mark(int pid) {
    static char mark[sizeof(MARK) + 12];
    size_t count = count_entries(environ);
    char **copy = take_list(count + 2);
    if (!copy)
        return;
    char digits[12] = "";
    size_t at = sizeof(digits) - 1;
    for (unsigned left = (unsigned)pid; left > 0; left /= 10)
        digits[--at] = (char)('0' + left % 10);
    memcpy(mark, MARK, sizeof(MARK) - 1);
    memcpy(mark + sizeof(MARK) - 1, digits + at, sizeof(digits) - at);
    if (count > 0)
        memcpy(copy, environ, count * sizeof(char *));
    copy[count] = mark;
    environ = copy;
}

/* The last part of a path of the given length. */
static const char *base_of(const char *path, size_t *size) {
    for (size_t i = *size; i > 0; i--) {
        if (path[i - 1] == '/') {
            *size -= i;
            return path + i;
        }
    }
    return path;
}

/* The same file name: the entry may be a link, or relative, or hold $LIB. */
static bool is_same_name(const char *entry, size_t entry_size, const char *path) {
    size_t path_size = strlen(path);
    const char *name = base_of(path, &path_size);
    const char *other = base_of(entry, &entry_size);
    return path_size == entry_size && memcmp(name, other, path_size) == 0;
}

/* Copies the list without our entry; separators are spaces and colons: ld.so(8). */
static size_t copy_others(char *to, const char *list, const char *path) {
    size_t used = 0;
    while (*list) {
        size_t size = strcspn(list, " :");
        if (size > 0 && !is_same_name(list, size, path)) {
            if (used > 0)
                to[used++] = ':';
            memcpy(to + used, list, size);
            used += size;
        }
        list += size + (list[size] != '\0');
    }
    to[used] = '\0';
    return used;
}

void pep_environment_leave(const char *path) {
    size_t count = count_entries(environ), at = 0;
    while (at < count && !starts_with(environ[at], PRELOAD))
        at++;
    if (at == count)
        return;
    size_t list_bytes = (count + 1) * sizeof(char *);
    char **copy = pep_os_map(list_bytes + strlen(environ[at]) + 1);
    if (!copy)
        return;
    char *text = (char *)copy + list_bytes;
    memcpy(copy, environ, count * sizeof(char *));
    memcpy(text, PRELOAD, sizeof(PRELOAD) - 1);
    if (copy_others(text + sizeof(PRELOAD) - 1, environ[at] + sizeof(PRELOAD) - 1, path) > 0)
        copy[at] = text;
    else
        memmove(copy + at, copy + at + 1, (count - at) * sizeof(char *));
    environ = copy;
}
