#include "http/record_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "encoder/writer.h"
#include "http/render.h"
#include "sampler/heap.h"
#include "sampler/rt/files.h"
#include "sampler/rt/log.h"
#include "sampler/rt/os.h"

/* -- names ---------------------------------------------------------------------------------- */

static bool ends_with(const char *path, const char *suffix) {
    size_t size = strlen(path), width = strlen(suffix);
    return size > width && strcmp(path + size - width, suffix) == 0;
}

enum pep_format pep_record_format(const char *path) {
    static const struct {
        const char *suffix;
        enum pep_format format;
    } suffixes[] = {{".svg", PEP_FORMAT_SVG},
                    {".html", PEP_FORMAT_HTML},
                    {".txt", PEP_FORMAT_TEXT},
                    {".collapsed", PEP_FORMAT_COLLAPSED}};
    for (size_t i = 0; i < PEP_COUNT_OF(suffixes); i++)
        if (ends_with(path, suffixes[i].suffix))
            return suffixes[i].format;
    return PEP_FORMAT_PPROF;
}

void pep_record_peak_path(char *to, size_t size_bytes, const char *path) {
    static const char word[] = ".peak";
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    const char *suffix = ends_with(name, ".pb.gz") ? name + strlen(name) - 6 : strrchr(name, '.');
    if (!suffix || suffix == name)
        suffix = name + strlen(name);
    size_t before = (size_t)(suffix - path), after = strlen(suffix) + 1;
    to[0] = '\0';
    if (before + sizeof(word) - 1 + after > size_bytes)
        return;
    memcpy(to, path, before);
    memcpy(to + before, word, sizeof(word) - 1);
    memcpy(to + before + sizeof(word) - 1, suffix, after);
}

/* -- bytes ---------------------------------------------------------------------------------- */

static int write_renamed(const struct pep_record_file *file, const char *data, size_t count) {
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    const char *name = file->temporary;
    int fd = pep_os_open(name, flags, 0666);
    if (fd == -EEXIST) {
        /* Left by a process of the same number that was killed while it wrote. */
        (void)pep_os_call6(SYS_unlink, (long)name, 0, 0, 0, 0, 0);
        fd = pep_os_open(name, flags, 0666);
    }
    if (fd < 0)
        return fd;
    int error = pep_files_write_all(fd, data, count);
    (void)pep_os_close(fd);
    if (!error)
        error = (int)pep_os_call6(SYS_rename, (long)name, (long)file->path, 0, 0, 0, 0);
    if (error)
        (void)pep_os_call6(SYS_unlink, (long)name, 0, 0, 0, 0, 0);
    return error;
}

/* A device, a pipe or a link of the person's own must not be replaced by a file: /dev/stdout. */
static bool is_written_in_place(const char *path) {
    struct stat status;
    if (pep_os_call6(SYS_lstat, (long)path, (long)&status, 0, 0, 0, 0) < 0)
        return false;
    if (S_ISLNK(status.st_mode))
        return status.st_uid == 0 ||
               status.st_uid == (uid_t)pep_os_call6(SYS_geteuid, 0, 0, 0, 0, 0, 0);
    return !S_ISREG(status.st_mode);
}

static int write_in_place(const char *path, const char *data, size_t count) {
    int fd = pep_os_open(path, O_WRONLY | O_TRUNC | O_NOCTTY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    int error = pep_files_write_all(fd, data, count);
    (void)pep_os_close(fd);
    return error;
}

void pep_record_write(const struct pep_record_file *file, const struct pep_profile *profile,
                      struct pep_arena *arena) {
    bool in_place = is_written_in_place(file->path);
    if (in_place && !file->is_last)
        return; /* what went down a pipe cannot be replaced by a better one */
    struct pep_buffer_writer buffer;
    pep_buffer_writer_init(&buffer, arena);
    int error = -ENOMEM;
    if (profile)
        error = pep_render_to(&buffer.writer, pep_record_format(file->path), profile, arena);
    if (!error)
        error = in_place ? write_in_place(file->path, buffer.data, buffer.count)
                         : write_renamed(file, buffer.data, buffer.count);
    if (error)
        pep_log("%s could not be written: error %d", file->path, -error);
}

/* -- the heap's ----------------------------------------------------------------------------- */

static int64_t sum(const struct pep_profile *profile, uint32_t type) {
    int64_t total = 0;
    for (uint32_t i = 0; i < profile->sample_count; i++)
        total += profile->samples[i].values[type];
    return total;
}

/* The whole run in a sentence, for both files: types as in heap.h. */
static void summarize(struct pep_profile *now, struct pep_profile *peak, bool is_last,
                      struct pep_arena *arena) {
    const char *text = pep_arena_printf(
        arena,
        "Allocated: %lld blocks, %lld bytes; at the peak in use: %lld blocks, %lld bytes; "
        "%s: %lld blocks, %lld bytes.",
        (long long)sum(now, 0), (long long)sum(now, 1), (long long)sum(peak, 2),
        (long long)sum(peak, 3), is_last ? "not freed at the end" : "in use now",
        (long long)sum(now, 2), (long long)sum(now, 3));
    struct pep_profile *both[] = {now, peak};
    for (size_t i = 0; text && i < PEP_COUNT_OF(both); i++) {
        uint32_t count = both[i]->comment_count;
        const char **comments = pep_arena_array(arena, count + 1, sizeof(*comments));
        if (!comments)
            return;
        comments[0] = text;
        for (uint32_t j = 0; j < count; j++)
            comments[j + 1] = both[i]->comments[j];
        both[i]->comments = comments;
        both[i]->comment_count = count + 1;
    }
}

void pep_record_write_heap(const struct pep_record_file *file, const char *peak_path,
                           struct pep_arena *arena) {
    const struct pep_heap_query inuse = {.view = PEP_HEAP_INUSE}, most = {.view = PEP_HEAP_PEAK};
    struct pep_profile *now = pep_profile_heap(arena, NULL, &inuse);
    struct pep_profile *peak = pep_profile_heap(arena, NULL, &most);
    if (now && peak)
        summarize(now, peak, file->is_last, arena);
    pep_record_write(file, now, arena);
    /* Beside a device or a pipe there is no place for a second file. */
    if (peak_path[0] == '\0' || is_written_in_place(file->path))
        return;
    const struct pep_record_file second = {
        .path = peak_path, .temporary = file->temporary, .is_last = file->is_last};
    pep_record_write(&second, peak, arena);
}
