/*
 * Programs that allocate at odd moments; each prints what it saw, to be compared with a bare run.
 *
 *     heap_hosts exit|keys|signals|vfork|forks|stacks|tight|pthreads
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static void *volatile kept[64];
static volatile int wrong;

/* Allocates, writes, reads, frees; the sum says that nothing was lost. */
__attribute__((noinline)) static unsigned use(unsigned rounds, unsigned seed) {
    unsigned sum = 0;
    for (unsigned i = 0; i < rounds; i++) {
        size_t size = (seed = seed * 1103515245 + 12345) >> 16 & 2047;
        unsigned char *block = (i & 3) == 0 ? calloc(1, size + 1) : malloc(size + 1);
        if (block == NULL)
            abort();
        block[0] = (unsigned char)i;
        block[size] = (unsigned char)i;
        if ((i & 7) == 7)
            block = realloc(block, size + 200);
        wrong |= block[0] != (unsigned char)i || block[size] != (unsigned char)i;
        sum += block[0];
        free(block);
    }
    return sum;
}

/* -- before main: not even constructors of libraries have run ------------------------------- */

static void early(int count, char **arguments, char **environment) {
    (void)count, (void)arguments, (void)environment;
    for (int i = 0; i < 16; i++)
        kept[i] = malloc((size_t)100 << (i & 7));
    kept[16] = calloc(7, 9);
    kept[17] = memalign(64, 100);
    use(500, 1);
}
__attribute__((section(".preinit_array"), used)) static void (*const preinit)(int, char **,
                                                                              char **) = early;

static void settle_early(void) {
    for (int i = 0; i < 16; i++)
        kept[i] = realloc(kept[i], (size_t)50 << (i & 7));
    for (int i = 0; i < 18; i++) {
        wrong |= malloc_usable_size(kept[i]) == 0;
        free(kept[i]);
        kept[i] = NULL;
    }
}

/* -- at the end ----------------------------------------------------------------------------- */

static void at_end(void) {
    char line[64];
    int length = snprintf(line, sizeof line, "at exit %u\n", use(1000, 7));
    free(kept[0]);
    (void)!write(1, line, (size_t)length);
}

__attribute__((destructor)) static void last(void) {
    char line[64];
    int length = snprintf(line, sizeof line, "destructor %u\n", use(1000, 8));
    (void)!write(1, line, (size_t)length);
}

static int do_exit(void) {
    kept[0] = malloc(5000);
    atexit(at_end);
    return 0;
}

/* -- keys whose destructors allocate and set the key again: five rounds ---------------------- */

static pthread_key_t keys[40];
static int rounds;

static void drop(void *value) {
    __atomic_add_fetch(&rounds, 1, __ATOMIC_RELAXED);
    use(20, 9);
    for (int i = 0; i < 40; i += 13)
        pthread_setspecific(keys[i], malloc(64));
    free(value);
}

static void *with_keys(void *unused) {
    for (int i = 0; i < 40; i++)
        pthread_setspecific(keys[i], malloc(32));
    use(100, 3);
    return unused;
}

static int do_keys(void) {
    for (int i = 0; i < 40; i++)
        pthread_key_create(&keys[i], drop);
    for (int round = 0; round < 50; round++) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            pthread_create(&threads[i], NULL, with_keys, NULL);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
    }
    printf("%d rounds\n", rounds);
    return 0;
}

/* -- signal handlers that allocate: main does not, so it is allowed to work ------------------ */

static volatile unsigned handled, handled_sum;

static void on_alarm(int sig) {
    (void)sig;
    int saved = errno;
    errno = 77;
    char *block = malloc(handled % 3000);
    free(block);
    handled_sum += use(3, handled);
    wrong |= errno != 77;
    errno = saved;
    handled++;
}

static int do_signals(void) {
    struct sigaction action = {.sa_handler = on_alarm};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec often = {{0, 200000}, {0, 200000}};
    timer_t timer;
    sigaction(SIGUSR1, &action, NULL);
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &often, NULL);
    while (handled < 2000)
        getppid();
    timer_delete(timer);
    printf("handled, sum %s\n", handled_sum > 0 ? "good" : "bad");
    return 0;
}

/* -- children ------------------------------------------------------------------------------- */

static int do_vfork(void) {
    unsigned sum = 0;
    for (int i = 0; i < 200; i++) {
        pid_t pid = vfork();
        if (pid == 0) {
            kept[0] = malloc(3000);
            free(kept[1]);
            kept[1] = NULL;
            use(20, (unsigned)i);
            _exit(7);
        }
        int status = 0;
        waitpid(pid, &status, 0);
        sum += (unsigned)WEXITSTATUS(status);
        free(kept[0]);
        kept[0] = NULL;
        kept[1] = malloc(100);
    }
    printf("vfork %u\n", sum);
    return 0;
}

static volatile int is_over;

static void *churn(void *seed) {
    while (!is_over)
        use(100, (unsigned)(uintptr_t)seed);
    return NULL;
}

static void *once(void *seed) {
    use(200, (unsigned)(uintptr_t)seed);
    return NULL;
}

/* A child of many threads allocates, makes threads and a child of its own. */
static void be_child(int depth) {
    pthread_t thread;
    use(500, 11);
    if (pthread_create(&thread, NULL, once, (void *)5) == 0)
        pthread_join(thread, NULL);
    if (depth > 0) {
        pid_t pid = fork();
        if (pid == 0)
            be_child(depth - 1);
        int status = 0;
        waitpid(pid, &status, 0);
        wrong |= status != 0;
    }
    _exit(wrong);
}

static int do_forks(void) {
    pthread_t threads[4];
    int failures = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, churn, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < 150; i++) {
        pid_t pid = fork();
        if (pid == 0)
            be_child(1);
        int status = 0;
        waitpid(pid, &status, 0);
        failures += status != 0;
    }
    is_over = 1;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    printf("%d failures\n", failures);
    return 0;
}

/* -- small stacks --------------------------------------------------------------------------- */

static ucontext_t main_context, small_context;

static void on_small_stack(void) {
    for (;;) {
        use(3, 21);
        swapcontext(&small_context, &main_context);
    }
}

static int do_stacks(void) {
    enum { BYTES = 16384 };
    char *stack =
        mmap(NULL, BYTES + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(stack, 4096, PROT_NONE);
    getcontext(&small_context);
    small_context.uc_stack.ss_sp = stack + 4096;
    small_context.uc_stack.ss_size = BYTES;
    makecontext(&small_context, on_small_stack, 0);
    for (int i = 0; i < 20000; i++)
        swapcontext(&main_context, &small_context);
    puts("contexts are fine");
    return 0;
}

static int do_pthreads(void) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16384);
    for (int round = 0; round < 100; round++) {
        pthread_t threads[16];
        for (int i = 0; i < 16; i++)
            if (pthread_create(&threads[i], &attributes, once, (void *)5) != 0)
                return puts("no thread");
        for (int i = 0; i < 16; i++)
            pthread_join(threads[i], NULL);
    }
    puts("threads are fine");
    return 0;
}

/* -- little address space ------------------------------------------------------------------- */

static int do_tight(void) {
    void *all[4096];
    int count = 0;
    while (count < 4096 && (all[count] = malloc(65536)) != NULL)
        count++;
    int is_told = errno == ENOMEM;
    while (count > 0)
        free(all[--count]);
    printf("full: %s, after it %u\n", is_told ? "ENOMEM" : "never", use(1000, 4));
    return 0;
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        int (*run)(void);
    } modes[] = {{"exit", do_exit},   {"keys", do_keys},        {"signals", do_signals},
                 {"vfork", do_vfork}, {"forks", do_forks},      {"stacks", do_stacks},
                 {"tight", do_tight}, {"pthreads", do_pthreads}};
    int result = 2;
    settle_early();
    for (size_t i = 0; count == 2 && i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i].name, arguments[1]) == 0)
            result = modes[i].run();
    printf("%s\n", wrong ? "wrong" : "right");
    return result;
}
