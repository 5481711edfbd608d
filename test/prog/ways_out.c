/* Uses some CPU, then ends in the way its argument names. Prints nothing. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long sink;

/* The function that a profile must show. */
__attribute__((noinline)) static void burn(void) {
    clock_t start = clock();
    while (clock() - start < CLOCKS_PER_SEC / 5) {
        for (unsigned i = 0; i < 10000; i++)
            sink += i;
    }
}

__attribute__((noinline)) static void burn_as_daemon(void) {
    burn();
    sink++;
}

static void *exit_from_thread(void *unused) {
    exit(5);
    return unused;
}

static void *short_thread(void *unused) {
    burn();
    return unused;
}

static void start_thread(void *(*function)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, function, NULL) != 0)
        exit(98);
}

static void end_by_fault(void) {
    volatile char *volatile nothing = NULL;
    *nothing = 1;
}

static int end(const char *way) {
    if (strcmp(way, "thread") == 0)
        start_thread(exit_from_thread);
    else if (strcmp(way, "_exit") == 0)
        _exit(4);
    else if (strcmp(way, "_Exit") == 0)
        _Exit(4);
    else if (strcmp(way, "quick_exit") == 0)
        quick_exit(6);
    else if (strcmp(way, "abort") == 0)
        abort();
    else if (strcmp(way, "segv") == 0)
        end_by_fault();
    else if (strcmp(way, "term") == 0)
        kill(getpid(), SIGTERM);
    else if (strcmp(way, "int") == 0)
        raise(SIGINT);
    else if (strcmp(way, "usr1") == 0)
        raise(SIGUSR1);
    else if (strcmp(way, "kill") == 0)
        kill(getpid(), SIGKILL);
    else if (strcmp(way, "exec") == 0)
        execl("/bin/sh", "sh", "-c", "exit 9", (char *)NULL);
    else if (strcmp(way, "daemon") == 0) {
        if (daemon(1, 1) == 0)
            burn_as_daemon();
        return 0;
    } else if (strcmp(way, "vfork") == 0) {
        if (vfork() == 0)
            _exit(0);
        wait(NULL);
        return 7;
    } else if (strcmp(way, "fork") == 0) {
        if (fork() == 0) {
            burn();
            _exit(0);
        }
        wait(NULL);
        return 8;
    } else if (strcmp(way, "pthread_exit") == 0) {
        start_thread(short_thread);
        pthread_exit(NULL);
    } else if (strcmp(way, "return") == 0)
        return 3;
    pause();
    return 99;
}

int main(int count, char **arguments) {
    burn();
    return count > 1 ? end(arguments[1]) : 2;
}
