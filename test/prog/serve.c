/*
 * The server without the preload: serve LISTEN [name=value ...]
 *
 * Names: rundir, service, token, allow_host, allow_origin, hz, delay_ms, spin (threads that burn
 * CPU), log, uid (changes to that user after the start). Prints the URL, then works until its
 * standard input ends; then stops the server and prints how many milliseconds that took.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "http/server.h"
#include "sampler/cpu.h"
#include "sampler/modules.h"
#include "sampler/rt/log.h"
#include "sampler/stack_table.h"
#include "sampler/thread.h"
#include "sampler/unwind.h"

static struct pep_server_options options = {.hz = 100};
static volatile unsigned long burnt;

static void *spin(void *argument) {
    (void)argument;
    for (;;)
        burnt++;
    return NULL;
}

static const char *describe(void) {
    return "{\"hz\": 100}";
}

static int spinners, uid = -1;

static void set(const char *name, const char *value) {
    if (strcmp(name, "rundir") == 0)
        options.rundir = value;
    else if (strcmp(name, "service") == 0)
        options.service = value;
    else if (strcmp(name, "token") == 0)
        options.token = value;
    else if (strcmp(name, "allow_host") == 0)
        options.allow_host = value;
    else if (strcmp(name, "allow_origin") == 0)
        options.allow_origin = value;
    else if (strcmp(name, "hz") == 0)
        options.hz = (uint32_t)atoi(value);
    else if (strcmp(name, "delay_ms") == 0)
        options.delay_ns = (uint64_t)atoi(value) * 1000000u;
    else if (strcmp(name, "spin") == 0)
        spinners = atoi(value);
    else if (strcmp(name, "uid") == 0)
        uid = atoi(value);
    else if (strcmp(name, "log") == 0)
        pep_log_init(value);
}

static double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static void start_sampler(void) {
    struct pep_cpu_options cpu = {.engine = PEP_CPU_AUTO};
    if (pep_threads_init() || pep_stack_table_init() || pep_unwind_init() || pep_cpu_init(&cpu))
        fprintf(stderr, "serve: the sampler did not start\n");
}

/* "close" on standard input closes every descriptor above 2, as daemons do. */
static void obey(void) {
    char line[64];
    while (fgets(line, sizeof(line), stdin)) {
        if (strcmp(line, "close\n") == 0)
            closefrom(3);
        if (strcmp(line, "exit\n") == 0)
            exit(7);
    }
}

int main(int argc, char **argv) {
    options.listen = argc > 1 ? argv[1] : "127.0.0.1:0";
    options.describe = describe;
    for (int i = 2; i < argc; i++) {
        char *name = strdup(argv[i]); /* /debug/pprof/cmdline shows argv: leave it as it is */
        char *equal = strchr(name, '=');
        if (equal) {
            *equal = '\0';
            set(name, equal + 1);
        }
    }
    start_sampler();
    pthread_t thread;
    for (int i = 0; i < spinners; i++)
        pthread_create(&thread, NULL, spin, NULL);
    int error = pep_server_start(&options);
    if (error) {
        printf("error %d\n", error);
        return 1;
    }
    while (!pep_server_url())
        usleep(1000);
    if (uid >= 0 && setuid((uid_t)uid) != 0)
        return 2;
    printf("%s\n", pep_server_url());
    fflush(stdout);
    obey();
    double begin = now_ms();
    pep_server_stop();
    printf("stopped in %.1f ms\n", now_ms() - begin);
    return 0;
}
