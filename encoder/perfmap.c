/*
 * Names of code made at run time, from the file that JITs write for perf.
 *
 * Model:   "START SIZE NAME" lines, hexadecimal, added as code is made; memory is reused, so the
 *          last line that covers an address is the true one.
 * Writers: pep_perf_map_read.  [normal]
 * Readers: pep_perf_map_find.
 * Memory:  the request's arena: the file and up to 150 bytes a line.
 * When full: what stands beyond PERF_MAP_LIMIT_BYTES is not read.
 *
 * Source: Linux tools/perf/Documentation/jit-interface.txt.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "encoder/symbol_file.h"
#include "sampler/rt/os.h"

#define PERF_MAP_LIMIT_BYTES (UINT64_C(64) << 20)
#define SCAN_STEPS_MAX 4096 /* ranges looked at below an address */

/* Digits of a hexadecimal number, "0x" allowed; the text behind it, or NULL. */
static char *read_hex(char *text, uint64_t *value) {
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
        text += 2;
    char *start = text;
    *value = 0;
    for (;; text++) {
        unsigned digit;
        if (*text >= '0' && *text <= '9')
            digit = (unsigned)(*text - '0');
        else if ((*text | 32) >= 'a' && (*text | 32) <= 'f')
            digit = (unsigned)((*text | 32) - 'a' + 10);
        else
            break;
        if (text - start >= 16)
            return NULL;
        *value = *value << 4 | digit;
    }
    return text == start ? NULL : text;
}

/* One NUL-ended line; false when it is not "START SIZE NAME". */
static bool read_line(char *line, struct pep_symbol_candidate *candidate) {
    uint64_t start, size;
    line = read_hex(line, &start);
    if (line == NULL || *line != ' ')
        return false;
    line = read_hex(line + 1, &size);
    if (line == NULL || *line != ' ' || line[1] == '\0')
        return false;
    if (size == 0 || size > UINT32_MAX || start > UINT64_MAX - size)
        return false;
    candidate->start = start;
    candidate->size = (uint32_t)size;
    candidate->name = line + 1;
    return true;
}

/* All of a regular file that this user or root wrote, NUL-ended; NULL and *error otherwise. */
static char *read_all(struct pep_arena *arena, const char *path, int *error) {
    int fd = pep_elf_open_file(path, O_NOFOLLOW);
    if (fd < 0) {
        *error = fd;
        return NULL;
    }
    char *text = NULL;
    struct stat status;
    *error = pep_os_fstat(fd, &status);
    if (*error != 0)
        goto out;
    long user = pep_os_call6(SYS_geteuid, 0, 0, 0, 0, 0, 0);
    if (!S_ISREG(status.st_mode) || (status.st_uid != 0 && status.st_uid != (uid_t)user)) {
        *error = -EPERM;
        goto out;
    }
    uint64_t size = (uint64_t)status.st_size;
    size = size < PERF_MAP_LIMIT_BYTES ? size : PERF_MAP_LIMIT_BYTES;
    text = pep_arena_alloc(arena, size + 1);
    *error = text == NULL ? -ENOMEM : 0;
    for (uint64_t done = 0; text != NULL && done < size;) {
        long got = pep_os_pread(fd, text + done, size - done, (int64_t)done);
        if (got == -EINTR)
            continue;
        if (got <= 0)
            break; /* shorter than it was: what was read is good */
        done += (uint64_t)got;
    }
out:
    pep_os_close(fd);
    return text;
}

int pep_perf_map_read(struct pep_perf_map *map, struct pep_arena *arena, const char *path) {
    *map = (struct pep_perf_map){0};
    int error;
    char *text = read_all(arena, path, &error);
    if (text == NULL)
        return error;
    struct pep_symbol_candidate *candidates = NULL;
    size_t count = 0, capacity = 0;
    char *end;
    /* A last line without its newline is being written: its name may be cut. */
    for (uint32_t line = 0; (end = strchr(text, '\n')) != NULL; text = end + 1, line++) {
        *end = '\0';
        if (!PEP_ARENA_GROW(arena, candidates, count, capacity))
            return -ENOMEM;
        candidates[count].score = UINT32_MAX - line;
        count += read_line(text, &candidates[count]);
    }
    candidates = pep_symbol_candidates_sort(candidates, count, arena);
    map->entries = pep_arena_array(arena, count + 1, sizeof(*map->entries));
    if (candidates == NULL || map->entries == NULL)
        return -ENOMEM;
    uint64_t reach = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t last = candidates[i].start + candidates[i].size;
        reach = last > reach ? last : reach;
        uint64_t span = reach - candidates[i].start;
        map->entries[i] = (struct pep_perf_entry){
            .start = candidates[i].start,
            .name = candidates[i].name,
            .size = candidates[i].size,
            .reach = span < UINT32_MAX ? (uint32_t)span : UINT32_MAX,
            .line = UINT32_MAX - candidates[i].score,
        };
    }
    map->count = count;
    return 0;
}

const struct pep_perf_entry *pep_perf_map_find(const struct pep_perf_map *map, uint64_t address) {
    size_t low = 0, high = map->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (map->entries[middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    const struct pep_perf_entry *best = NULL;
    for (size_t step = 0; low > 0 && step < SCAN_STEPS_MAX; step++, low--) {
        const struct pep_perf_entry *entry = &map->entries[low - 1];
        if (address - entry->start >= entry->reach)
            break;
        if (address - entry->start < entry->size && (best == NULL || entry->line > best->line))
            best = entry;
    }
    return best;
}
