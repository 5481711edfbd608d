#include "sampler/rt/files.h"

#include <errno.h>

#include "sampler/rt/os.h"

#define NAME_BYTES 16

PEP_SIGNAL_SAFE long pep_files_read_of_task(int tid, const char *name, char *to,
                                            size_t size_bytes) {
    static const char before[] = "/proc/self/task/";
    char path[sizeof before + 12 + NAME_BYTES], digits[12];
    size_t count = 0, at = sizeof before - 1;
    if (tid <= 0)
        return -ESRCH;
    pep_copy(path, before, at);
    for (; tid > 0; tid /= 10)
        digits[count++] = (char)('0' + tid % 10);
    while (count > 0)
        path[at++] = digits[--count];
    path[at++] = '/';
    for (; name[count] != '\0'; count++) {
        if (count == NAME_BYTES - 1)
            return -ENAMETOOLONG;
        path[at++] = name[count];
    }
    path[at] = '\0';
    return pep_os_read_file(path, to, size_bytes);
}

int pep_files_write_all(int fd, const void *data, size_t count) {
    const char *at = data;
    while (count > 0) {
        long written = pep_os_write(fd, at, count);
        if (written == -EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? (int)written : -EIO;
        at += written;
        count -= (size_t)written;
    }
    return 0;
}
