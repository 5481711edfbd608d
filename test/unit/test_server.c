/*
 * The server on real sockets: where it listens, what it publishes, how it ends, what fork and a
 * host that closes descriptors do to it.
 * LDFLAGS: -Wl,--wrap=pthread_create,--wrap=accept4,--wrap=geteuid
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "http/fd.h"
#include "http/listen.h"
#include "http/server.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
int __real_accept4(int fd, struct sockaddr *address, socklen_t *count, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *count, int flags);
uid_t __real_geteuid(void);
uid_t __wrap_geteuid(void);

static int create_errors, accept_errors; /* how many calls are still to fail */
static int small_stacks;
static uid_t is_other_user;

uid_t __wrap_geteuid(void) {
    return __real_geteuid() + pep_load_acquire(&is_other_user);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument) {
    size_t size;
    pthread_attr_getstacksize(attributes, &size);
    if (pep_load_acquire(&small_stacks) && size < 1u << 20)
        return EINVAL;
    if (pep_load_acquire(&create_errors) > 0 && pep_sub_acq_rel(&create_errors, 1) > 0)
        return EAGAIN;
    return __real_pthread_create(thread, attributes, run, argument);
}

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *count, int flags) {
    if (pep_load_acquire(&accept_errors) > 0 && pep_sub_acq_rel(&accept_errors, 1) > 0) {
        errno = EMFILE;
        return -1;
    }
    return __real_accept4(fd, address, count, flags);
}

static char dir[] = "/tmp/test_server.XXXXXX";
static struct pep_server_options options;

/* -- asking --------------------------------------------------------------------------------- */

static int connect_to(const char *url) {
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    unsigned port = 0;
    bool is_unix = strncmp(url, "unix:", 5) == 0;
    if (is_unix)
        snprintf(path.sun_path, sizeof(path.sun_path), "%s", url + 5);
    else
        sscanf(url, "http://127.0.0.1:%u/", &port);
    v4.sin_port = htons((uint16_t)port);
    int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    const struct sockaddr *to = is_unix ? (struct sockaddr *)&path : (struct sockaddr *)&v4;
    if (connect(fd, to, is_unix ? sizeof(path) : sizeof(v4)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The status of what comes back, 0 for nothing; all of it in reply. */
static char reply[8192];
static int read_reply(int fd) {
    size_t used = 0;
    for (ssize_t count = 1;
         count > 0 && used<sizeof(reply) - 1; used += count> 0 ? (size_t)count : 0)
        count = read(fd, reply + used, sizeof(reply) - 1 - used);
    reply[used] = '\0';
    close(fd);
    return used > 12 ? atoi(reply + 9) : 0;
}

static int ask_raw(const char *url, const char *bytes) {
    int fd = connect_to(url);
    if (fd < 0)
        return -1;
    ssize_t count = send(fd, bytes, strlen(bytes), MSG_NOSIGNAL);
    (void)count;
    return read_reply(fd);
}

static int ask(const char *url) {
    return ask_raw(url, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

static void ask_until(const char *url, int wanted) {
    while (ask(url) != wanted)
        pep_os_sleep_ns(10000000);
}

/* On a busy machine a stop may run out of its 50 ms; the thread ends all the same. */
static void stop_whole(void) {
    pep_server_stop();
    while (!pep_server_is_stopped())
        pep_server_stop();
}

static const char *start(const char *where) {
    options.listen = where;
    assert_int_equal(pep_server_start(&options), 0);
    while (!pep_server_url())
        pep_os_sleep_ns(1000000);
    return pep_server_url();
}

static int stop(void **state) {
    (void)state;
    uint64_t begin_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    stop_whole();
    uint64_t ms = (pep_os_clock_ns(CLOCK_MONOTONIC) - begin_ns) / 1000000;
    print_message("stopped in %llu ms\n", (unsigned long long)ms);
    create_errors = accept_errors = small_stacks = 0;
    is_other_user = 0;
    memset(&options, 0, sizeof(options));
    options.rundir = dir;
    options.hz = 100;
    return 0;
}

static void run_file(pid_t pid, char *path) {
    snprintf(path, 64, "%s/%d.json", dir, pid);
}

static bool exists(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0;
}

/* -- listening ------------------------------------------------------------------------------ */

static void test_serves(void **state) {
    (void)state;
    const char *url = start(":0");
    assert_int_equal(strncmp(url, "http://127.0.0.1:", 17), 0);
    assert_int_equal(ask(url), 200);
    assert_int_equal(ask_raw(url, "GET /healthz HTTP/1.0\r\n\r\n"), 200);
    assert_int_equal(ask_raw(url, "nonsense\r\n\r\n"), 400);
    assert_int_equal(pep_server_start(&options), -EALREADY);
    options.listen = "nonsense";
    stop_whole();
    assert_int_equal(pep_server_start(&options), -EINVAL);
    assert_null(pep_server_url());
}

static void test_next_port(void **state) {
    (void)state;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(v4);
    int taken = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(taken, (struct sockaddr *)&v4, sizeof(v4)), 0);
    assert_int_equal(listen(taken, 1), 0);
    getsockname(taken, (struct sockaddr *)&v4, &size);
    char text[64], refused[64];
    snprintf(text, sizeof(text), "127.0.0.1:%u+", ntohs(v4.sin_port));
    snprintf(refused, sizeof(refused), "http://127.0.0.1:%u/", ntohs(v4.sin_port));
    const char *url = start(text);
    assert_string_not_equal(url, refused);
    assert_int_equal(ask(url), 200);
    close(taken);
}

static void test_unix_socket(void **state) {
    (void)state;
    char text[96], path[80];
    struct stat status;
    snprintf(path, sizeof(path), "%s/socket", dir);
    snprintf(text, sizeof(text), "unix:%s", path);
    const char *url = start(text);
    assert_string_equal(url, text);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(ask_raw(url, "GET /healthz HTTP/1.1\r\nHost: any\r\n\r\n"), 200);
    stop_whole();
    assert_false(exists(path));
    /* What a dead process left is taken over. */
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    memcpy(name.sun_path, path, strlen(path) + 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    close(fd);
    assert_string_equal(start(text), text);
    stop_whole();
    /* One that is alive is left alone. */
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    assert_int_equal(listen(fd, 1), 0);
    url = start(text);
    assert_int_equal(strncmp(url, text, strlen(text)), 0);
    assert_int_equal(url[strlen(text)], '.');
    assert_int_equal(ask(url), 200);
    close(fd);
    unlink(path);
}

static void test_run_file(void **state) {
    (void)state;
    char path[64], text[1024] = "", wanted[64];
    struct stat status;
    options.service = "a \"name\"";
    const char *url = start(":0");
    run_file(getpid(), path);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_true(pep_os_read_file(path, text, sizeof(text)) > 0);
    snprintf(wanted, sizeof(wanted), "[{\"targets\": [\"%.*s\"]", (int)strlen(url) - 8, url + 7);
    assert_int_equal(strncmp(text, wanted, strlen(wanted)), 0);
    assert_non_null(strstr(text, "\"service_name\": \"a \\\"name\\\"\""));
    stop_whole();
    assert_false(exists(path));
    /* A file that is not ours any more stays. */
    start(":0");
    unlink(path);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    stop_whole();
    assert_true(exists(path));
    unlink(path);
}

static void test_delay(void **state) {
    (void)state;
    options.listen = ":0";
    options.delay_ns = 3600000000000ull;
    assert_int_equal(pep_server_start(&options), 0);
    pep_os_sleep_ns(20000000);
    assert_null(pep_server_url());
    stop_whole(); /* ends the pause; starting again shows that the thread is gone */
    options.delay_ns = 1;
    assert_int_equal(ask(start(":0")), 200);
}

/* -- refusals of the system ----------------------------------------------------------------- */

static void test_no_thread(void **state) {
    (void)state;
    pep_store_release(&create_errors, 1);
    options.listen = ":0";
    assert_int_equal(pep_server_start(&options), -EAGAIN);
    const char *url = start(":0");
    assert_int_equal(ask(url), 200);
    pep_store_release(&small_stacks, 1); /* as with a program that has much thread-local storage */
    assert_int_equal(ask(url), 200);
}

static void test_no_descriptor(void **state) {
    (void)state;
    const char *url = start(":0");
    pep_store_release(&accept_errors, 2);
    assert_int_equal(ask(url), 200);
    assert_int_equal(pep_load_acquire(&accept_errors), 0);
}

static void test_descriptors(void **state) {
    (void)state;
    bool was_open[1024];
    for (int number = 0; number < 1024; number++)
        was_open[number] = fcntl(number, F_GETFD) != -1;
    const char *url = start(":0");
    int fd = connect_to(url), added = 0;
    for (int number = 0; number < 1024; number++) {
        int flags = fcntl(number, F_GETFD);
        if (flags == -1 || was_open[number] || number == fd)
            continue;
        assert_true(number >= PEP_FD_FLOOR);
        assert_true(flags & FD_CLOEXEC);
        added++;
    }
    assert_in_range(added, 2, 3); /* the listener twice, and perhaps the connection already */
    close(fd);
}

/* The numbers of listening sockets; how many. */
static int listeners(int numbers[4]) {
    int count = 0;
    for (int number = PEP_FD_FLOOR; number < 1024 && count < 4; number++) {
        int is_listener = 0;
        socklen_t size = sizeof(is_listener);
        if (getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &is_listener, &size) == 0 && is_listener)
            numbers[count++] = number;
    }
    return count;
}

/* The thread sanitizer knows neither descriptors that change under a reader nor threads in a forked
 * child. */
#ifdef __SANITIZE_THREAD__
#define NOT_UNDER_TSAN() skip()
#else
#define NOT_UNDER_TSAN() ((void)0)
#endif

/* A program that closes everything: the first client afterwards finds the door shutting, the next
 * one finds it open again. */
static void test_listener_closed(void **state) {
    (void)state;
    NOT_UNDER_TSAN();
    int numbers[4];
    char url[PEP_LISTEN_URL_BYTES];
    snprintf(url, sizeof(url), "%s", start(":0"));
    uint64_t lost = PEP_COUNTED(fd_lost);
    assert_int_equal(listeners(numbers), 2);
    close(numbers[0]);
    close(numbers[1]);
    ask_until(url, 200);
    assert_int_equal(PEP_COUNTED(fd_lost), lost + 2);
    assert_string_equal(pep_server_url(), url);
    assert_int_equal(listeners(numbers), 2);
}

static void test_listener_replaced(void **state) {
    (void)state;
    NOT_UNDER_TSAN();
    const char *url = start(":0");
    int numbers[4], pair[2];
    char bytes[8];
    assert_int_equal(pipe(pair), 0);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(listeners(numbers), 2);
        int number = numbers[round];
        uint64_t lost = PEP_COUNTED(fd_lost);
        assert_int_equal(dup2(pair[1], number), number);
        assert_int_equal(ask(url), 200); /* no client is lost */
        assert_int_equal(PEP_COUNTED(fd_lost), lost + 1);
        /* The host's pipe is untouched: open, and nothing in it but what the host writes. */
        assert_int_equal(write(number, "x", 1), 1);
        assert_int_equal(read(pair[0], bytes, sizeof(bytes)), 1);
        close(number);
    }
    close(pair[0]);
    close(pair[1]);
}

/* A forked child without our handler shares the socket; what it does to it is noticed. */
static void test_listener_shut_down(void **state) {
    (void)state;
    NOT_UNDER_TSAN();
    char url[PEP_LISTEN_URL_BYTES];
    int numbers[4];
    snprintf(url, sizeof(url), "%s", start(":0"));
    listeners(numbers);
    assert_int_equal(shutdown(numbers[0], SHUT_RDWR), 0);
    ask_until(url, 200);
}

/* No signal tells the server, so the first client does. */
static void test_another_user(void **state) {
    (void)state;
    char url[PEP_LISTEN_URL_BYTES];
    snprintf(url, sizeof(url), "%s", start(":0"));
    pep_store_release(&is_other_user, 1);
    assert_int_equal(ask(url), 503);
    ask_until(url, 200);
}

static void test_body_is_wanted(void **state) {
    (void)state;
    int status = ask_raw(start(":0"), "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\n"
                                      "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(status, 100);
    assert_non_null(strstr(reply, "\r\n\r\nHTTP/1.1 200 OK\r\n"));
    status = ask_raw(pep_server_url(), "POST /debug/pprof/symbol HTTP/1.1\r\nHost: evil\r\n"
                                       "Expect: 100-continue\r\nContent-Length: 9\r\n\r\n");
    assert_int_equal(status, 403);
}

/* -- ends ----------------------------------------------------------------------------------- */

static void test_stop_with_readers(void **state) {
    (void)state;
    const char *url = start(":0");
    int fds[40];
    for (size_t i = 0; i < PEP_COUNT_OF(fds); i++)
        fds[i] = connect_to(url);
    stop_whole();
    for (size_t i = 0; i < PEP_COUNT_OF(fds); i++)
        close(fds[i]);
    assert_int_equal(ask(start(":0")), 200);
}

static void test_readers_make_room(void **state) {
    (void)state;
    const char *url = start(":0");
    int fds[3 * PEP_SERVER_CONNECTIONS_MAX];
    for (size_t i = 0; i < PEP_COUNT_OF(fds); i++) {
        fds[i] = connect_to(url);
        assert_int_equal(send(fds[i], "GET /", 5, MSG_NOSIGNAL), 5);
    }
    assert_int_equal(ask(url), 200);
    assert_int_equal(read_reply(fds[0]), 408);
    for (size_t i = 1; i < PEP_COUNT_OF(fds); i++)
        close(fds[i]);
}

static void test_fork(void **state) {
    (void)state;
    NOT_UNDER_TSAN();
    char path[64], url[PEP_LISTEN_URL_BYTES];
    snprintf(url, sizeof(url), "%s", start(":0"));
    run_file(getpid(), path);
    int open_fd = connect_to(url);
    pid_t child = fork();
    if (child == 0) {
        pep_server_stop(); /* without our fork handler: not its server, nothing happens */
        int numbers[4], before = listeners(numbers);
        pep_server_after_fork_child();
        bool is_good = before == 2 && listeners(numbers) == 0 && exists(path) && !pep_server_url();
        const char *own = start(":0");
        is_good = is_good && strcmp(own, url) != 0 && ask(own) == 200;
        stop_whole();
        _exit(is_good ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(exists(path));
    assert_int_equal(ask(url), 200);
    close(open_fd);
}

static void test_signals_stay_out(void **state) {
    (void)state;
    struct sigaction action;
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    assert_int_equal(ask(start(":0")), 200);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_memory_equal(&before, &after, sizeof(long)); /* what the kernel fills in */
    sigaction(SIGPIPE, NULL, &action);
    assert_ptr_equal(action.sa_handler, SIG_DFL);
}

int main(void) {
#define TEST(name) cmocka_unit_test_teardown(name, stop)
    const struct CMUnitTest tests[] = {
        TEST(test_serves),
        TEST(test_next_port),
        TEST(test_unix_socket),
        TEST(test_run_file),
        TEST(test_delay),
        TEST(test_no_thread),
        TEST(test_no_descriptor),
        TEST(test_descriptors),
        TEST(test_listener_closed),
        TEST(test_listener_replaced),
        TEST(test_listener_shut_down),
        TEST(test_another_user),
        TEST(test_body_is_wanted),
        TEST(test_stop_with_readers),
        TEST(test_readers_make_room),
        TEST(test_fork),
        TEST(test_signals_stay_out),
    };
    if (!mkdtemp(dir) || pep_threads_init() != 0)
        return 1;
    stop(NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
