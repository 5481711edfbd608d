/*
 * What is written to descriptor 2 of this process by a thread that has a table of its own: files,
 * pipes, sockets, terminals; who takes no more, who is gone.
 * LDFLAGS: -Wl,--wrap=pep_os_poll,--wrap=pep_os_clock_ns,--wrap=pep_os_call6,--wrap=pep_os_open
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "http/stderr.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/rt/table.h"

int __real_pep_os_poll(struct pollfd *fds, unsigned count, int64_t wait_ns);
int __wrap_pep_os_poll(struct pollfd *fds, unsigned count, int64_t wait_ns);
uint64_t __real_pep_os_clock_ns(clockid_t clock);
uint64_t __wrap_pep_os_clock_ns(clockid_t clock);
long __real_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
int __real_pep_os_open(const char *path, int flags, int mode);
int __wrap_pep_os_open(const char *path, int flags, int mode);

static uint64_t now_ns; /* a clock that moves only in poll */
static int polls, empty_polls, interrupted_polls;
static bool has_no_pidfd, has_no_open;
static bool is_gone; /* the client */

int __wrap_pep_os_poll(struct pollfd *fds, unsigned count, int64_t wait_ns) {
    polls++;
    if (interrupted_polls > 0 && interrupted_polls-- > 0)
        return -EINTR;
    int result = __real_pep_os_poll(fds, count, 0);
    if (result == 0) {
        empty_polls++;
        now_ns += (uint64_t)wait_ns;
    }
    return result;
}

uint64_t __wrap_pep_os_clock_ns(clockid_t clock) {
    (void)clock;
    return now_ns;
}

long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f) {
    if (nr == 438 && has_no_pidfd)
        return -EPERM;
    return __real_pep_os_call6(nr, a, b, c, d, e, f);
}

int __wrap_pep_os_open(const char *path, int flags, int mode) {
    if (has_no_open && strstr(path, "/fd/2"))
        return -EACCES;
    return __real_pep_os_open(path, flags, mode);
}

static bool wait_client(struct pep_client *client, uint64_t ns) {
    (void)client;
    now_ns += ns;
    return !is_gone;
}

static struct pep_client client = {.wait = wait_client};

/* -- a thread of our kind ------------------------------------------------------------------- */

struct saying {
    const char *text;
    bool is_apart;
    struct pep_stderr to;
    int opened, said;
    int tid; /* 0: of the main thread */
};

static void *say(void *argument) {
    struct saying *saying = argument;
    if (saying->is_apart)
        assert_true(pep_table_leave());
    saying->opened = pep_stderr_open(&saying->to, saying->tid ? saying->tid : getpid());
    if (saying->opened == 0)
        saying->said = pep_stderr_say(&saying->to, &client, saying->text, strlen(saying->text));
    pep_stderr_close(&saying->to);
    return NULL;
}

/* Says text while descriptor 2 is number, which is closed. */
static struct saying said(int number, const char *text, bool is_apart) {
    struct saying saying = {.text = text, .is_apart = is_apart, .said = -1};
    int kept = fcntl(2, F_DUPFD_CLOEXEC, 10);
    sigset_t all, old;
    pthread_t thread;
    if (number >= 0)
        dup2(number, 2);
    else
        close(2);
    if (number >= 0)
        close(number);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    assert_int_equal(pthread_create(&thread, NULL, say, &saying), 0);
    pthread_join(thread, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    dup2(kept, 2);
    close(kept);
    return saying;
}

static const char *read_all(int fd) {
    static char text[1 << 20];
    size_t used = 0;
    for (ssize_t count; (count = read(fd, text + used, sizeof(text) - 1 - used)) > 0;)
        used += (size_t)count;
    text[used] = '\0';
    close(fd);
    return text;
}

/* Lines, more than size bytes of them. */
static const char *lines(size_t size) {
    static char text[300000];
    size_t used = 0;
    for (int i = 0; used < size; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "line %d of many\n", i);
    return text;
}

static int set_up(void **state) {
    (void)state;
    now_ns = 1;
    polls = empty_polls = interrupted_polls = 0;
    has_no_pidfd = has_no_open = is_gone = false;
    return 0;
}

static void assert_whole(struct saying saying) {
    assert_int_equal(saying.opened, 0);
    assert_int_equal(saying.said, 0);
    assert_int_equal(saying.to.number, -1);
}

/* -- where it goes -------------------------------------------------------------------------- */

static int file_with(const char *text, char *path) {
    strcpy(path, "/tmp/profep-test-stderr.XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    return fd;
}

/* The host's place in the file is ours: nobody writes over the other's lines. */
static void test_file(void **state) {
    (void)state;
    char path[64];
    int fd = file_with("host 1\n", path), host = dup(fd);
    assert_whole(said(fd, "ours\n", true));
    assert_int_equal(write(host, "host 2\n", 7), 7);
    close(host);
    assert_string_equal(read_all(open(path, O_RDONLY)), "host 1\nours\nhost 2\n");
    unlink(path);
}

static void test_file_opened_again(void **state) {
    (void)state;
    char path[64];
    has_no_pidfd = true;
    assert_whole(said(file_with("host 1\n", path), "ours\n", true));
    assert_string_equal(read_all(open(path, O_RDONLY)), "host 1\nours\n");
    unlink(path);
}

static void test_pipe(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const char *text = lines(50000);
    struct saying saying = said(ends[1], text, true);
    assert_whole(saying);
    assert_false(saying.to.is_blocking);
    assert_string_equal(read_all(ends[0]), text);
}

/* One that may not be opened, as another user's: shared, and little written at once. */
static void test_pipe_shared(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    has_no_open = true;
    struct saying saying = said(ends[1], lines(9000), true);
    assert_whole(saying);
    assert_true(saying.to.is_blocking);
    assert_in_range(polls, 18, 40);
    assert_string_equal(read_all(ends[0]), lines(9000));
}

static void test_socket(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct saying saying = said(ends[1], "ours\n", true);
    assert_whole(saying);
    assert_true(saying.to.is_socket);
    assert_string_equal(read_all(ends[0]), "ours\n");
}

static void test_terminal(void **state) {
    (void)state;
    int master, slave;
    if (openpty(&master, &slave, NULL, NULL, NULL) != 0)
        skip();
    char text[64] = "";
    int kept = dup(slave);
    assert_whole(said(slave, "ours\n", true));
    assert_int_equal(read(master, text, sizeof(text) - 1), 6);
    assert_string_equal(text, "ours\r\n");
    close(kept);
    close(master);
}

/* Without a table of our own, the host's number serves. */
static void test_same_table(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    struct saying saying = said(ends[1], "ours\n", false);
    assert_whole(saying);
    assert_true(saying.to.is_borrowed);
    assert_string_equal(read_all(ends[0]), "ours\n");
}

/* -- where it does not ---------------------------------------------------------------------- */

static void test_closed(void **state) {
    (void)state;
    assert_int_equal(said(-1, "ours\n", true).opened, -EBADF);
    struct saying saying = said(-1, "ours\n", false);
    assert_int_equal(saying.said, -EBADF);
}

static void test_thread_that_is_gone(void **state) {
    (void)state;
    char path[64];
    struct saying saying = {.text = "ours\n", .is_apart = true, .tid = 1 << 30};
    int kept = fcntl(2, F_DUPFD_CLOEXEC, 10), fd = file_with("", path);
    pthread_t thread;
    dup2(fd, 2);
    close(fd);
    assert_int_equal(pthread_create(&thread, NULL, say, &saying), 0);
    pthread_join(thread, NULL);
    dup2(kept, 2);
    close(kept);
    assert_whole(saying);
    assert_string_equal(read_all(open(path, O_RDONLY)), "ours\n");
    unlink(path);
}

static void test_nobody_reads(void **state) {
    (void)state;
    int ends[2];
    uint64_t cut = PEP_COUNTED(peek_cut);
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    assert_int_equal(said(ends[1], "ours\n", true).said, -EPIPE);
    assert_int_equal(PEP_COUNTED(peek_cut), cut + 1);
}

static void test_file_that_may_not_grow(void **state) {
    (void)state;
    assert_int_equal(said(open("/dev/full", O_WRONLY), "ours\n", true).said, -ENOSPC);
}

/* A full pipe is given up after two seconds; what went before it is whole lines. */
static void test_full(void **state) {
    (void)state;
    int ends[2];
    uint64_t cut = PEP_COUNTED(peek_cut);
    assert_int_equal(pipe(ends), 0);
    int spare = dup(ends[1]);
    assert_int_equal(said(ends[1], lines(200000), true).said, -ETIMEDOUT);
    assert_int_equal(PEP_COUNTED(peek_cut), cut + 1);
    assert_in_range(now_ns, 2000000000, 2200000000);
    assert_int_equal(empty_polls, 20);
    assert_int_equal(fcntl(spare, F_GETFL) & O_NONBLOCK, 0);
    close(spare);
    const char *got = read_all(ends[0]);
    assert_int_equal(strncmp(got, lines(200000), strlen(got)), 0);
    assert_int_equal(got[strlen(got) - 1], '\n');
}

static void test_the_end_comes_first(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    is_gone = true;
    assert_int_equal(said(ends[1], lines(200000), true).said, -ECONNRESET);
    assert_int_equal(empty_polls, 1);
    close(ends[0]);
}

static void test_interrupted(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    interrupted_polls = 3;
    assert_whole(said(ends[1], "ours\n", true));
    assert_string_equal(read_all(ends[0]), "ours\n");
}

/* A line that is longer than a piece is cut; nothing is lost. */
static void test_long_line(void **state) {
    (void)state;
    static char text[10001];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    memset(text, 'x', sizeof(text) - 1);
    assert_whole(said(ends[1], text, true));
    assert_string_equal(read_all(ends[0]), text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_file, set_up),
        cmocka_unit_test_setup(test_file_opened_again, set_up),
        cmocka_unit_test_setup(test_pipe, set_up),
        cmocka_unit_test_setup(test_pipe_shared, set_up),
        cmocka_unit_test_setup(test_socket, set_up),
        cmocka_unit_test_setup(test_terminal, set_up),
        cmocka_unit_test_setup(test_same_table, set_up),
        cmocka_unit_test_setup(test_closed, set_up),
        cmocka_unit_test_setup(test_thread_that_is_gone, set_up),
        cmocka_unit_test_setup(test_nobody_reads, set_up),
        cmocka_unit_test_setup(test_file_that_may_not_grow, set_up),
        cmocka_unit_test_setup(test_full, set_up),
        cmocka_unit_test_setup(test_the_end_comes_first, set_up),
        cmocka_unit_test_setup(test_interrupted, set_up),
        cmocka_unit_test_setup(test_long_line, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
