#include "http/server.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "http/connection.h"
#include "http/listen.h"
#include "http/routes.h"
#include "http/runfile.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/log.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define STOP_NS 50000000ull
#define RETRY_NS 1000000000ull
/* Without a free descriptor accept(2) leaves the client in the queue and poll(2) returns at once:
 * this pause is what keeps the loop from spinning. */
#define STARVED_NS 100000000ull

static struct {
    struct pep_server_options options;
    struct pep_service service;
    struct pep_listen where;
    struct pep_fd listener;
    struct pep_runfile_handle runfile;
    uid_t euid; /* when the listener was opened; a process that changed it is not served */
    char url[PEP_LISTEN_URL_BYTES];
    char host[PEP_LISTEN_URL_BYTES];
    char target[PEP_LISTEN_URL_BYTES];
    char runtime_dir[512];
    int is_started, is_up, is_stopping;
} server = {.listener = {.number = -1}};

bool pep_server_listen_is_valid(const char *text) {
    struct pep_listen where;
    return pep_listen_parse(text, &where);
}

static bool is_stopping(void) {
    return pep_load_acquire(&server.is_stopping) != 0;
}

static void publish(void) {
    struct pep_runfile content = {.target = server.target, .service = server.options.service};
    int error =
        pep_runfile_write(server.options.rundir, server.runtime_dir[0] ? server.runtime_dir : NULL,
                          &content, &server.runfile);
    if (error)
        pep_log("no run file: %s", strerrordesc_np(-error));
    /* release: pairs with acquire in pep_server_url */
    pep_store_release(&server.is_up, 1);
    if (is_stopping())
        pep_runfile_remove(&server.runfile);
    pep_log("listening on %s", server.url);
}

static int open_listener(void) {
    int error = pep_listen_open(&server.where, &server.listener);
    if (error)
        return error;
    server.euid = geteuid();
    pep_listen_url(&server.where, server.url, sizeof(server.url));
    pep_listen_target(&server.where, true, server.target, sizeof(server.target));
    pep_listen_target(&server.where, false, server.host, sizeof(server.host));
    server.service = (struct pep_service){
        .hz = server.options.hz,
        .url = server.url,
        .describe = server.options.describe,
        .access = {.token = server.options.token,
                   .allow_host = server.options.allow_host,
                   .allow_origin = server.options.allow_origin,
                   .own_host = server.where.family == AF_UNIX ? NULL : server.host,
                   .is_any = server.where.is_any}};
    publish();
    return 0;
}

/* Until there is a listener, or the process ends. */
static void open_until_done(void) {
    int said = 0;
    while (!is_stopping()) {
        int error = open_listener();
        if (!error)
            return;
        if (error != said)
            pep_log("cannot listen on %s: %s", server.options.listen, strerrordesc_np(-error));
        said = error;
        pep_os_sleep_ns(RETRY_NS);
    }
}

/* The host may have closed everything, or put a file of its own in this place. */
static void replace_lost_listener(void) {
    PEP_COUNT(fd_lost, 1);
    server.listener.number = -1;
    pep_log("the listener's descriptor was closed by the program, opening a new one");
    open_until_done();
}

static void accept_one(void) {
    int number = accept4(server.listener.number, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (number < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pep_os_sleep_ns(STARVED_NS);
        return;
    }
    server.service.connections = pep_connections_count();
    pep_connection_start(pep_fd_take(number), &server.service, server.euid);
}

static void accept_forever(void) {
    open_until_done();
    while (!is_stopping()) {
        struct pollfd poll_fd = {.fd = server.listener.number, .events = POLLIN};
        if (!pep_fd_is_ours(&server.listener)) {
            replace_lost_listener();
            continue;
        }
        if (poll(&poll_fd, 1, -1) <= 0)
            continue;
        pep_connections_wait_free();
        if (!is_stopping() && pep_fd_is_ours(&server.listener))
            accept_one();
    }
}

static void *run(void *argument PEP_UNUSED) {
    pep_thread_become_own();
    pep_os_prctl(PR_SET_NAME, (unsigned long)"profep", 0, 0, 0);
    uint64_t deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + server.options.delay_ns;
    while (!is_stopping()) {
        uint64_t now_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
        if (now_ns >= deadline_ns)
            break;
        pep_os_sleep_ns(deadline_ns - now_ns);
    }
    accept_forever();
    return NULL;
}

/* Looked up once, before the host's threads exist: getenv later would race with its setenv. */
static void remember_runtime_dir(void) {
    static const char name[] = "XDG_RUNTIME_DIR=";
    for (char **entry = environ; entry && *entry; entry++)
        if (strncmp(*entry, name, sizeof(name) - 1) == 0)
            snprintf(server.runtime_dir, sizeof(server.runtime_dir), "%s",
                     *entry + sizeof(name) - 1);
}

int pep_server_start(const struct pep_server_options *options) {
    static bool has_environment;
    if (server.is_started)
        return -EALREADY;
    if (!pep_listen_parse(options->listen, &server.where))
        return -EINVAL;
    server.options = *options;
    if (!has_environment)
        remember_runtime_dir();
    has_environment = true;
    server.is_started = 1;
    int error = pep_connection_thread(run, NULL);
    if (error)
        server.is_started = 0;
    return error;
}

const char *pep_server_url(void) {
    return pep_load_acquire(&server.is_up) ? server.url : NULL;
}

void pep_server_stop(void) {
    if (!server.is_started)
        return;
    pep_store_release(&server.is_stopping, 1);
    if (pep_load_acquire(&server.is_up)) {
        pep_runfile_remove(&server.runfile);
        pep_listen_unlink(&server.where, &server.listener);
    }
    pep_connections_stop(STOP_NS);
}

void pep_server_after_fork_child(void) {
    pep_connections_after_fork_child();
    pep_fd_drop(&server.listener);
    server.runfile.path[0] = '\0';
    server.url[0] = '\0';
    server.is_started = server.is_up = server.is_stopping = 0;
}
