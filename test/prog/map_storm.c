/*
 * Many threads map, cut, move and unmap at once, with forks and a signal handler that maps too; at
 * the end says how many bytes are left, by its own count.
 *
 * Model:   each thread has a few slots and knows what stands in each. "quiet": without signals and
 *          forks. Prints "left BYTES" and waits.
 * Writers: -
 * Readers: the test.
 * Memory:  some MiB a thread.
 * When full: exit status 1.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 8
#define SLOTS 16
#define ROUNDS 4000
#define PAGE 4096ul

struct slot {
    char *start;
    size_t bytes;
};

static size_t left[THREADS];
static int is_quiet;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void *map(void *hint, size_t bytes, int flags) {
    void *found = mmap(hint, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (found == MAP_FAILED)
        die("mmap");
    return found;
}

static void on_alarm(int number) {
    (void)number;
    int saved = errno;
    munmap(map(NULL, 2 * PAGE, 0), 2 * PAGE);
    errno = saved;
}

/* One of: a new mapping, a smaller or larger one, one replaced, one cut at its end. */
static void change(struct slot *slot, unsigned *seed) {
    size_t bytes = (1 + (unsigned)rand_r(seed) % 64) * PAGE;
    if (slot->start == NULL) {
        *slot = (struct slot){map(NULL, bytes, 0), bytes};
        return;
    }
    switch (rand_r(seed) % 4) {
    case 0:
        if (munmap(slot->start, slot->bytes) != 0)
            die("munmap");
        *slot = (struct slot){NULL, 0};
        return;
    case 1:
        slot->start = mremap(slot->start, slot->bytes, bytes, MREMAP_MAYMOVE);
        if (slot->start == MAP_FAILED)
            die("mremap");
        slot->bytes = bytes;
        return;
    case 2: /* whole, so that it stays one mapping for mremap */
        map(slot->start, slot->bytes, MAP_FIXED);
        return;
    default:
        if (slot->bytes > PAGE && munmap(slot->start + slot->bytes - PAGE, PAGE) == 0)
            slot->bytes -= PAGE;
    }
}

static void *storm(void *number) {
    struct slot slots[SLOTS] = {{NULL, 0}};
    unsigned seed = (unsigned)(size_t)number + 1;
    for (int i = 0; i < ROUNDS; i++) {
        change(&slots[(unsigned)rand_r(&seed) % SLOTS], &seed);
        if (!is_quiet && i % 500 == 0) {
            pid_t pid = fork();
            if (pid == 0) {
                change(&slots[0], &seed);
                _exit(0);
            }
            int status = 0;
            while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
                ;
            if (status != 0)
                die("a child");
        }
    }
    for (int i = 0; i < SLOTS; i++)
        left[(size_t)number] += slots[i].bytes;
    return NULL;
}

int main(int count, char **arguments) {
    pthread_t threads[THREADS];
    size_t sum = 0;
    is_quiet = count > 1 && strcmp(arguments[1], "quiet") == 0;
    if (!is_quiet) {
        const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
        const struct itimerval often = {{0, 200}, {0, 200}};
        sigaction(SIGALRM, &action, NULL);
        setitimer(ITIMER_REAL, &often, NULL);
    }
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, storm, (void *)i) != 0)
            die("pthread_create");
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum += left[i];
    }
    signal(SIGALRM, SIG_IGN);
    printf("left %zu\n", sum);
    fflush(stdout);
    for (;;)
        pause();
}
