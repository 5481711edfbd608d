/*
 * Maps and unmaps as it is told, by functions of known names, and waits.
 *
 * Model:   each argument is one step; "mapped" is printed when all are done; then lines of input
 *          are steps too, each answered by "done".
 * Writers: the test.
 * Readers: the test.
 * Memory:  what the steps map.
 * When full: exit status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (1024 * 1024ul)
#define NOINLINE __attribute__((noinline))

static const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
static char *kept;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static char *must(void *found, const char *what) {
    if (found == MAP_FAILED)
        die(what);
    return found;
}

NOINLINE static char *map_plain(size_t bytes) {
    return must(mmap(NULL, bytes, PROT_READ | PROT_WRITE, anonymous, -1, 0), "mmap");
}

NOINLINE static char *map_reserved(size_t bytes) {
    return must(mmap(NULL, bytes, PROT_NONE, anonymous, -1, 0), "mmap");
}

NOINLINE static char *map_file(const char *path, size_t bytes) {
    int fd = open(path, O_RDONLY);
    char *found = must(mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0), path);
    close(fd);
    return found;
}

NOINLINE static char *map_over(char *place, size_t bytes) {
    return must(mmap(place, bytes, PROT_READ, anonymous | MAP_FIXED, -1, 0), "MAP_FIXED");
}

NOINLINE static char *grow(char *old, size_t from, size_t to) {
    return must(mremap(old, from, to, MREMAP_MAYMOVE), "mremap");
}

/* What "part" left of "plain". The hole between belongs to whoever mapped there since. */
NOINLINE static void unmap_rest(void) {
    if (munmap(kept, MIB) != 0 || munmap(kept + 2 * MIB, 2 * MIB) != 0)
        die("munmap");
}

NOINLINE static void grow_break(intptr_t by) {
    if (sbrk(by) == (void *)-1)
        die("sbrk");
}

/* What is refused must leave no trace; errno is the kernel's. */
NOINLINE static void refused(void) {
    errno = 0;
    if (mmap(NULL, 0, PROT_READ, anonymous, -1, 0) != MAP_FAILED || errno != EINVAL)
        die("mmap of nothing");
    errno = 0;
    if (munmap((char *)1, 4096) != -1 || errno != EINVAL)
        die("munmap of no page");
    errno = 0;
    if (mremap(kept, MIB, (size_t)127 << 40, MREMAP_MAYMOVE) != MAP_FAILED || errno != ENOMEM)
        die("mremap to the moon");
    errno = 0;
    if (brk((void *)~0ul) != -1 || errno != ENOMEM)
        die("brk to the end");
    errno = 77;
    if (munmap(map_plain(4096), 4096) != 0 || errno != 77)
        die("errno was touched");
}

static void step(const char *what) {
    if (strcmp(what, "plain") == 0)
        kept = map_plain(4 * MIB);
    else if (strcmp(what, "part") == 0)
        munmap(kept + MIB, MIB);
    else if (strcmp(what, "over") == 0)
        map_over(kept, MIB);
    else if (strcmp(what, "rest") == 0)
        unmap_rest();
    else if (strcmp(what, "reserved") == 0)
        map_reserved(64 * MIB);
    else if (strncmp(what, "file=", 5) == 0)
        map_file(what + 5, 8192);
    else if (strcmp(what, "grow") == 0)
        grow(map_plain(MIB), MIB, 3 * MIB);
    else if (strcmp(what, "shrink") == 0)
        grow(map_plain(3 * MIB), 3 * MIB, MIB);
    else if (strcmp(what, "break") == 0)
        grow_break(5 * (intptr_t)MIB);
    else if (strcmp(what, "unbreak") == 0)
        grow_break(-2 * (intptr_t)MIB);
    else if (strcmp(what, "refused") == 0)
        refused();
    else
        die(what);
}

int main(int count, char **arguments) {
    char line[512];
    for (int i = 1; i < count; i++)
        step(arguments[i]);
    puts("mapped");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        step(line);
        puts("done");
        fflush(stdout);
    }
    pause();
    return 0;
}
