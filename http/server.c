#include "http/server.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "encoder/lines.h"
#include "encoder/lines_permit.h"
#include "encoder/symbolize.h"
#include "http/connection.h"
#include "http/listen.h"
#include "http/peek.h"
#include "http/routes.h"
#include "http/runfile.h"
#include "http/window.h"
#include "sampler/cpu.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/log.h"
#include "sampler/rt/os.h"
#include "sampler/rt/spawn.h"
#include "sampler/rt/table.h"
#include "sampler/thread.h"

#define STOP_NS 50000000ull
#define JOIN_NS 10000000ull /* of these, kept for the listening thread */
#define RETRY_NS 1000000000ull
#define RETRY_DOUBLINGS 6
#define SETTLE_NS \
    2000000ull /* a program that ends sooner pays for a thread, not for a listener \
                */
#define NEW_USER_NS 1000000000ull /* a user that stays so long is the new one */
/* Without a free descriptor accept(2) leaves the client in the queue and poll(2) returns at once;
 * so it is with a filter of system calls. This pause is what keeps the loop from spinning. */
#define STARVED_NS 100000000ull

static struct {
    struct pep_server_options options;
    struct pep_service service;
    struct pep_listen where;
    struct pep_fd listener;
    struct pep_fd spare; /* the same socket once more; see keep_listener */
    struct pep_runfile_handle runfile;
    uid_t euid; /* when the listener was opened; a process that changed it is not served */
    char url[PEP_LISTEN_URL_BYTES];
    char host[PEP_LISTEN_URL_BYTES];
    char target[PEP_LISTEN_URL_BYTES];
    char runtime_dir[512], tmp_dir[512];
    pthread_t thread;
    int listening_tid; /* it may be woken by a signal: its descriptors are out of reach */
    int pid;   /* of the process that started it: a forked child without our handler is not it */
    int phase; /* of the thread's life, below */
    int is_stopping; /* a futex word */
    int is_opening;  /* a futex word: the listener and what tells of it */
    int is_started, is_up;
    int is_ended; /* a futex word: the thread's last */
} server = {.listener = {.number = -1}, .spare = {.number = -1}};

bool pep_server_listen_is_valid(const char *text) {
    struct pep_listen where;
    return pep_listen_parse(text, &where);
}

/* Goes on from SETTLING once, by the thread or by who does not wait for it. */
enum { SETTLING = 0, LISTENING, LEFT };

static bool settle(int to) {
    int seen = SETTLING;
    return pep_cas_acq_rel(&server.phase, &seen, to);
}

static bool is_stopping(void) {
    return pep_load_acquire(&server.is_stopping) != 0;
}

/* Until the end or for so long, through all signals: libc sends some when the program changes its
 * user, which is just what the first pause is there to wait for. */
static void pause_ns(uint64_t ns) {
    uint64_t deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + ns, now_ns;
    while (!is_stopping() && (now_ns = pep_os_clock_ns(CLOCK_MONOTONIC)) < deadline_ns) {
        pep_peek_serve();
        pep_os_futex_wait(&server.is_stopping, 0, deadline_ns - now_ns);
    }
}

static void write_runfile(void) {
    struct pep_runfile content = {.target = server.target, .service = server.options.service};
    int error =
        pep_runfile_write(server.options.rundir, server.runtime_dir[0] ? server.runtime_dir : NULL,
                          &content, &server.runfile);
    if (error)
        pep_log("no run file: %s", strerrordesc_np(-error));
}

/* What we are found by. Who stops us may come too early for it, and is not too late twice. */
static void withdraw(void) {
    pep_runfile_remove(&server.runfile);
    pep_listen_unlink(&server.where, &server.listener);
}

/* The fence pairs with that in tell_to_stop: it sees is_up, or we that it is there. */
static void publish(void) {
    write_runfile();
    /* release: pairs with acquire in pep_server_url */
    pep_store_release(&server.is_up, 1);
    pep_fence_seq_cst();
    if (is_stopping())
        withdraw();
    pep_log("listening on %s", server.url);
}

static int open_and_publish(void) {
    int error = pep_listen_open(&server.where, &server.listener);
    if (error)
        return error;
    server.spare = pep_fd_copy(&server.listener);
    server.euid = geteuid();
    pep_listen_url(&server.where, server.url, sizeof(server.url));
    pep_listen_target(&server.where, true, server.target, sizeof(server.target));
    pep_listen_target(&server.where, false, server.host, sizeof(server.host));
    server.service = (struct pep_service){
        .hz = server.options.hz,
        .url = server.url,
        .describe = server.options.describe,
        .settings = server.options.settings,
        .stage_path = server.options.stage_path ? server.options.stage_path
                      : server.tmp_dir[0]       ? server.tmp_dir
                                                : "/tmp",
        .peek_signal = server.options.peek_signal,
        .access = {.token = server.options.token,
                   .allow_host = server.options.allow_host,
                   .allow_origin = server.options.allow_origin,
                   .own_host = server.where.family == AF_UNIX ? NULL : server.host,
                   .is_any = server.where.is_any}};
    publish();
    return 0;
}

/* An exit that does not wait for the thread waits for this: it leaves files. */
static int open_listener(void) {
    pep_store_release(&server.is_opening, 1);
    pep_fence_seq_cst(); /* pairs with that in tell_to_stop */
    int error = is_stopping() ? -ECANCELED : open_and_publish();
    /* release: pairs with acquire in pep_server_unpublish */
    pep_store_release(&server.is_opening, 0);
    pep_os_futex_wake(&server.is_opening, INT_MAX);
    return error;
}

/* Until there is a listener, or the process ends; less and less often. */
static void open_until_done(void) {
    int said = 0;
    for (unsigned tries = 0; !is_stopping(); tries++) {
        int error = open_listener();
        if (!error || error == -ECANCELED)
            return;
        if (error != said)
            pep_log("cannot listen on %s: %s", server.options.listen, strerrordesc_np(-error));
        said = error;
        pause_ns(RETRY_NS << (tries < RETRY_DOUBLINGS ? tries : RETRY_DOUBLINGS));
    }
}

/* The host may close our numbers, or put files of its own there. A poll(2) that sleeps holds the
 * socket, but when a client wakes it, it looks the number up again: one that now is a quiet file of
 * the host's would put it back to sleep for ever. So the socket has two numbers, and whichever
 * still is ours replaces the other. */
static void keep_listener(void) {
    bool has_listener = pep_fd_is_ours(&server.listener);
    bool has_spare = pep_fd_is_ours(&server.spare);
    if (has_listener && has_spare)
        return;
    PEP_COUNT(fd_lost, !has_listener + (!has_spare && server.spare.number >= 0));
    if (has_listener) {
        server.spare = pep_fd_copy(&server.listener);
    } else if (has_spare) {
        server.listener = pep_fd_copy(&server.spare);
    } else {
        server.listener.number = server.spare.number = -1;
        pep_log("the listener was closed by the program, opening a new one");
        open_until_done();
    }
}

/* What was opened and published as one user is not served as another. A program that gives up its
 * user does so once, and libc's signal that takes our threads along ended our wait: the listener is
 * opened again as the new user, unless the program goes to and fro. */
static void follow_user(void) {
    uid_t user = geteuid();
    if (user == server.euid)
        return;
    pause_ns(NEW_USER_NS);
    if (is_stopping() || geteuid() != user)
        return;
    pep_runfile_remove(&server.runfile);
    pep_fd_drop(&server.listener);
    pep_fd_drop(&server.spare);
    open_until_done();
}

/* Anything but these stays as it is, and poll(2) would return at once. */
static bool is_passing(int error) {
    return error == EAGAIN || error == EINTR || error == ECONNABORTED;
}

static void accept_one(void) {
    int number = accept4(server.listener.number, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (number < 0 && errno == EINVAL && !is_stopping()) {
        /* Shut down by somebody who shares it, a child without our fork handler. */
        pep_fd_drop(&server.listener);
        pep_fd_drop(&server.spare);
        open_until_done();
        return;
    }
    if (number < 0) {
        if (!is_passing(errno))
            pause_ns(STARVED_NS);
        return;
    }
    server.service.connections = pep_connections_count();
    pep_connection_start(pep_fd_take(number), &server.service, server.euid);
}

static void accept_forever(void) {
    if (is_stopping())
        return; /* threads that nobody will ask for anything cost more than all the rest */
    pep_connections_warm();
    pep_peek_open(&(struct pep_peek_options){.duration_ns = server.options.peek_ns,
                                             .has_snapshot = server.options.has_peek_snapshot});
    open_until_done();
    /* Not a signalfd: the kernel wakes whoever waits for one with each signal of the process, so
     * with each sample. */
    while (!is_stopping()) {
        const uint64_t mask = pep_cpu_wake_begin();
        pep_peek_serve();
        struct pollfd poll_fds[] = {{.fd = server.listener.number, .events = POLLIN},
                                    {.fd = server.spare.number, .events = POLLIN}};
        long count = -EINTR;
        if (!is_stopping())
            count = pep_os_call6(SYS_ppoll, (long)poll_fds, PEP_COUNT_OF(poll_fds), 0, (long)&mask,
                                 sizeof(mask), 0);
        pep_cpu_wake_end();
        if (count < 0) {
            if (count != -EINTR)
                pause_ns(STARVED_NS);
            else
                follow_user();
            continue;
        }
        if (!is_stopping())
            keep_listener();
        pep_connections_wait_free();
        if (!is_stopping() && pep_fd_is_ours(&server.listener))
            accept_one();
        follow_user(); /* the signal may have come while nobody slept */
    }
}

/* From here on this thread may be woken. */
static void be_wakeable(void) {
    /* release: pairs with acquire in wake_thread; the fence: then is_stopping is looked at */
    pep_store_release(&server.listening_tid, pep_os_gettid());
    pep_fence_seq_cst();
}

/* The thread and all connections are out of the host's reach; where the kernel refuses, they live
 * among the host's descriptors. */
static void listen_until_stopped(void) {
    bool is_apart = !is_stopping() && server.options.is_apart && pep_table_leave();
    if (is_apart)
        pep_fd_set_apart(true);
    be_wakeable();
    accept_forever();
    pep_store_release(&server.listening_tid, 0);
    withdraw();
    if (is_apart) {
        pep_connections_stop(STOP_NS - JOIN_NS);
        pep_fd_drop(&server.listener);
        pep_fd_drop(&server.spare);
    }
}

/* The only thread of ours in a process that nobody asks for anything. */
static void *run(void *argument PEP_UNUSED) {
    pep_thread_become_own();
    pep_os_prctl(PR_SET_NAME, (unsigned long)"profep-http", 0, 0, 0);
    uint64_t delay_ns = server.options.delay_ns;
    pause_ns(delay_ns < SETTLE_NS ? SETTLE_NS : delay_ns);
    if (settle(LISTENING))
        listen_until_stopped();
    /* release: pairs with acquire in join_thread */
    pep_store_release(&server.is_ended, 1);
    pep_os_futex_wake(&server.is_ended, 1);
    return NULL;
}

/* The listening thread sleeps in poll(2) for good: shutting the listener down wakes it. */
static void wake_thread(void) {
    pep_os_futex_wake(&server.is_stopping, INT_MAX);
    pep_fence_seq_cst(); /* pairs with be_wakeable: it sees is_stopping, or we its thread */
    int listening = pep_load_acquire(&server.listening_tid);
    if (listening != 0)
        pep_cpu_wake(listening);
    if (!pep_load_acquire(&server.is_up))
        return;
    struct pep_fd *fd = pep_fd_is_ours(&server.listener) ? &server.listener : &server.spare;
    if (pep_fd_is_ours(fd))
        shutdown(fd->number, SHUT_RDWR);
}

/* The listening thread sleeps in ppoll(2), or in a pause that a signal for it does not end. */
PEP_SIGNAL_SAFE bool pep_server_peek(int sig) {
    enum pep_peek_answer answer = pep_peek_ask(sig, pep_os_gettid());
    if (answer == PEP_PEEK_TAKEN) {
        int listening = pep_load_acquire(&server.listening_tid);
        pep_os_futex_wake(&server.is_stopping, INT_MAX);
        if (listening != 0)
            pep_cpu_wake(listening);
    }
    return answer != PEP_PEEK_NOBODY;
}

/* join alone has no deadline that a changed wall clock could not move. */
static bool join_thread(uint64_t deadline_ns) {
    /* acquire: pairs with release at the end of run */
    while (!pep_load_acquire(&server.is_ended)) {
        uint64_t now_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
        if (now_ns >= deadline_ns)
            return false;
        pep_os_futex_wait(&server.is_ended, 0, deadline_ns - now_ns);
    }
    return pthread_join(server.thread, NULL) == 0;
}

/* False: the thread has not come to its end yet, and must not meet the state of another one. */
static bool finish_stop(uint64_t deadline_ns) {
    if (!join_thread(deadline_ns))
        return false;
    pep_fd_drop(&server.listener);
    pep_fd_drop(&server.spare);
    pep_fd_set_apart(false);
    pep_connections_resume();
    server.is_started = 0;
    pep_store_release(&server.is_up, 0);
    pep_store_release(&server.is_stopping, 0);
    return true;
}

/* Looked up once, before the host's threads exist: getenv later would race with its setenv. */
static void remember(const char *name, char *to, size_t size) {
    const size_t count = strlen(name);
    for (char **entry = environ; entry && *entry; entry++)
        if (strncmp(*entry, name, count) == 0)
            snprintf(to, size, "%s", *entry + count);
}

static void remember_directories(void) {
    remember("XDG_RUNTIME_DIR=", server.runtime_dir, sizeof(server.runtime_dir));
    remember("TMPDIR=", server.tmp_dir, sizeof(server.tmp_dir));
}

int pep_server_start(const struct pep_server_options *options) {
    static bool has_environment;
    if (server.is_started && !(is_stopping() && finish_stop(0)))
        return -EALREADY;
    if (!pep_listen_parse(options->listen, &server.where))
        return -EINVAL;
    server.options = *options;
    if (!has_environment)
        remember_directories();
    has_environment = true;
    server.is_started = 1;
    server.pid = pep_os_getpid();
    server.is_ended = server.listening_tid = server.phase = server.is_opening = 0;
    int error = pep_spawn(run, NULL, &server.thread);
    if (error)
        server.is_started = 0;
    return error;
}

const char *pep_server_url(void) {
    return pep_load_acquire(&server.is_up) ? server.url : NULL;
}

void pep_server_change(const struct pep_server_options *options) {
    bool is_renamed = server.options.service != options->service;
    server.options.hz = options->hz;
    server.options.service = options->service;
    server.options.token = options->token;
    pep_store_relaxed(&server.service.hz, options->hz);
    /* release: the text was there before */
    pep_store_release(&server.service.access.token, options->token);
    if (!is_renamed || !pep_load_acquire(&server.is_up) || is_stopping())
        return;
    write_runfile();
    if (is_stopping())
        pep_runfile_remove(&server.runfile);
}

void pep_server_heap_varies(void) {
    pep_window_heap_vary();
}

static void tell_to_stop(void) {
    pep_store_release(&server.is_stopping, 1);
    pep_fence_seq_cst();
}

void pep_server_unpublish(void) {
    if (server.pid != pep_os_getpid())
        return;
    uint64_t now_ns = pep_os_clock_ns(CLOCK_MONOTONIC), deadline_ns = now_ns + JOIN_NS;
    if (server.is_started && !settle(LEFT)) {
        tell_to_stop();
        for (; pep_load_acquire(&server.is_opening) && now_ns < deadline_ns;
             now_ns = pep_os_clock_ns(CLOCK_MONOTONIC))
            pep_os_futex_wait(&server.is_opening, 1, deadline_ns - now_ns);
    }
    if (pep_load_acquire(&server.is_up))
        withdraw();
}

void pep_server_stop(void) {
    uint64_t deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + STOP_NS;
    if (!server.is_started || server.pid != pep_os_getpid())
        return;
    tell_to_stop();
    if (pep_load_acquire(&server.is_up))
        withdraw();
    wake_thread();
    pep_peek_stop(0);
    pep_connections_stop(STOP_NS - JOIN_NS);
    uint64_t now_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    pep_peek_stop(now_ns + JOIN_NS < deadline_ns ? deadline_ns - JOIN_NS - now_ns : 0);
    finish_stop(deadline_ns);
}

void pep_server_leave(void) {
    if (server.is_started && server.pid == pep_os_getpid() && settle(LEFT))
        pep_store_release(&server.is_stopping, 1);
    else
        pep_server_stop();
}

bool pep_server_is_stopped(void) {
    return !server.is_started;
}

void pep_server_lines_init(bool is_wanted) {
    pep_lines_permit_init(is_wanted);
    pep_lines_bury_inherited();
}

void pep_server_lines_recall(void) {
    pep_lines_recall();
}

void pep_server_lines_recall_end(void) {
    pep_lines_recall_end();
}

void pep_server_after_fork_child(void) {
    pep_connections_after_fork_child();
    pep_peek_after_fork_child();
    pep_symbolizer_after_fork_child(); /* requests of the parent held its files */
    pep_on_allocs_after_fork_child();
    pep_on_endpoints_after_fork_child();
    pep_window_after_fork_child();
    pep_fd_drop(&server.listener);
    pep_fd_drop(&server.spare);
    pep_fd_set_apart(false);
    server.runfile.path[0] = '\0';
    server.url[0] = '\0';
    server.is_started = server.is_up = server.is_stopping = 0;
}
