/*
 * The peek: who is heard when, what is printed, and what becomes of it when something is refused.
 * LDFLAGS: -Wl,--wrap=pep_dump_take,--wrap=pep_window_run,--wrap=pep_symbolizer_begin
 * LDFLAGS: -Wl,--wrap=pep_symbolizer_end,--wrap=pthread_create
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http/peek.h"
#include "http/server.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "test/unit/example_dump.h"
#include "test/unit/example_profile.h"

struct pep_dump *__wrap_pep_dump_take(struct pep_arena *arena,
                                      const struct pep_dump_options *options);
int __wrap_pep_window_run(struct pep_arena *arena, const struct pep_window *window,
                          struct pep_profile **profile);
struct pep_symbolizer *__wrap_pep_symbolizer_begin(struct pep_arena *arena);
void __wrap_pep_symbolizer_end(struct pep_symbolizer *symbolizer);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);

static bool has_no_dump, has_no_thread;
static int window_error, symbolizers, failing_symbolizer, open_symbolizers;
static struct pep_window window_seen;
static int leaving_seen;
static int is_waiting; /* the window lasts until the client goes */
static char path[64];

struct pep_dump *__wrap_pep_dump_take(struct pep_arena *arena,
                                      const struct pep_dump_options *options) {
    leaving_seen = options->leaving_tid;
    struct pep_dump *dump = pep_arena_alloc(arena, sizeof(*dump));
    if (dump && !has_no_dump)
        *dump = example_dump;
    return has_no_dump ? NULL : dump;
}

int __wrap_pep_window_run(struct pep_arena *arena, const struct pep_window *window,
                          struct pep_profile **profile) {
    window_seen = *window;
    while (pep_load_acquire(&is_waiting) && window->client->wait(window->client, 1000000000))
        continue;
    if (pep_load_acquire(&is_waiting))
        return -ECONNRESET;
    *profile = pep_arena_alloc(arena, sizeof(**profile));
    if (*profile)
        **profile = example_profile;
    return window_error;
}

struct pep_symbolizer *__wrap_pep_symbolizer_begin(struct pep_arena *arena) {
    (void)arena;
    bool is_refused = ++symbolizers == failing_symbolizer;
    open_symbolizers += !is_refused;
    return is_refused ? NULL : &example_symbolizer;
}

void __wrap_pep_symbolizer_end(struct pep_symbolizer *symbolizer) {
    open_symbolizers -= symbolizer != NULL;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument) {
    if (has_no_thread)
        return EAGAIN;
    return __real_pthread_create(thread, attributes, run, argument);
}

/* -- what is printed ------------------------------------------------------------------------ */

static bool go_on(struct pep_client *client, uint64_t ns) {
    (void)client;
    (void)ns;
    return true;
}

static const char *read_report(int fd) {
    static char text[1 << 16];
    ssize_t count = pread(fd, text, sizeof(text) - 1, 0);
    text[count > 0 ? count : 0] = '\0';
    close(fd);
    unlink(path);
    return text;
}

static int make_file(void) {
    strcpy(path, "/tmp/profep-test-peek.XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    return fd;
}

static const char *report(int sig, const struct pep_peek_options *options) {
    struct pep_client client = {.wait = go_on};
    struct pep_stderr to = {.number = make_file()};
    const struct pep_peek_job job = {
        .sig = sig, .tid = 4711, .options = *options, .client = &client, .to = &to};
    assert_int_equal(pep_peek_report(&job), 0);
    assert_int_equal(open_symbolizers, 0);
    return read_report(to.number);
}

/* The next line, which is as wanted; where the one after it begins. */
static const char *line(const char *text, const char *wanted) {
    size_t length = strcspn(text, "\n");
    if (strlen(wanted) != length || strncmp(text, wanted, length) != 0)
        fail_msg("%.*s instead of %s", (int)length, text, wanted);
    return text + length + 1;
}

#define LONG_LINE \
    "======================================================================================"
#define SHORT_LINE "======================================================================"
#define COLLECTED "Profile collected. A report will print if the Profile module is loaded"

static const char *head(const char *text, const char *duration) {
    char sentence[128], command[4200], exe[4096];
    snprintf(sentence, sizeof(sentence),
             "Information request received. A stacktrace will print followed by a %s second "
             "profile",
             duration);
    text = line(text, "");
    text = line(text, LONG_LINE);
    text = line(text, sentence);
    text = line(text, LONG_LINE);
    text = line(text, "");
    ssize_t count = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[count] = '\0';
    snprintf(command, sizeof(command), "cmd: %s %d running 2 of 7", exe, getpid());
    text = line(text, command);
    return line(text, "");
}

static void test_layout(void **state) {
    (void)state;
    const char *text = report(SIGUSR1, &(struct pep_peek_options){0});
    text = head(text, "1.0");
    text = line(text, "signal (10): User defined signal 1");
    text = line(text, "          (thread 12 (worker), mutex of thread 13 (io), for 2 min, mutex "
                      "0x5581)");
    const char *main_thread = strstr(text, "          (thread 4711 (example), running)\n");
    const char *hostile = strstr(text, "          (thread 4715 (</b>, 9 min]), epoll, [wait])\n");
    assert_true(main_thread && hostile && hostile < main_thread);
    assert_non_null(strstr(text, "          (thread 4712 (mute), running)\n"
                                 "      no backtrace recorded: it did not answer in 500 ms\n"));
    assert_null(strstr(text, "pep_hook"));
    text = strstr(main_thread, "\n\n");
    assert_non_null(text);
    text = line(text + 2, SHORT_LINE);
    text = line(text, COLLECTED);
    text = line(text, SHORT_LINE);
    text = line(text, "");
    text = line(text, "Overhead \xE2\x95\x8E [+additional indent] Count File:Line; Function");
    text = line(text, "=========================================================");
    assert_int_equal(strncmp(text, "Thread ", 7), 0);
    assert_non_null(strstr(text, "Total snapshots: "));
    assert_non_null(strstr(text, "Utilization: "));
    assert_int_equal(window_seen.clock, PEP_WINDOW_CPU);
    assert_int_equal(window_seen.hz, 1000);
    assert_int_equal(leaving_seen, 4711);
    assert_true(window_seen.duration_ns == 1000000000);
}

static void test_duration_and_signal(void **state) {
    (void)state;
    const char *text =
        report(SIGRTMIN + 3, &(struct pep_peek_options){.duration_ns = 2550000000, 0});
    text = head(text, "2.6");
    char name[64];
    snprintf(name, sizeof(name), "signal (%d): Real-time signal 3", SIGRTMIN + 3);
    line(text, name);
    assert_true(window_seen.duration_ns == 2550000000);
    assert_null(strstr(text, "snapshots are not"));
}

static void test_snapshot(void **state) {
    (void)state;
    const char *text = report(SIGUSR1, &(struct pep_peek_options){.has_snapshot = true});
    const char *last = strstr(text, "Heap snapshots are not available yet: none was saved.\n");
    assert_non_null(last);
    assert_string_equal(strchr(last, '\n'), "\n");
}

static void test_refusals(void **state) {
    static const struct pep_peek_options options = {0};
    (void)state;
    has_no_dump = true;
    const char *text = report(SIGUSR1, &options);
    assert_non_null(strstr(text, "There is not enough memory for the stacks.\n"));
    assert_non_null(strstr(text, COLLECTED));
    has_no_dump = false;
    failing_symbolizer = symbolizers + 1;
    text = report(SIGUSR1, &options);
    assert_non_null(strstr(text, "There is not enough memory for the stacks.\n"));
    failing_symbolizer = symbolizers + 2;
    text = report(SIGUSR1, &options);
    assert_non_null(strstr(text, "The report ends here: Cannot allocate memory.\n"));
    failing_symbolizer = 0;
    window_error = -EBUSY;
    text = report(SIGUSR1, &options);
    assert_non_null(strstr(text, "\nThere is no profile: Device or resource busy.\n"));
    assert_null(strstr(text, COLLECTED));
    window_error = -ECONNRESET;
    text = report(SIGUSR1, &options);
    assert_null(strstr(text, "There is no profile"));
}

/* -- who is heard --------------------------------------------------------------------------- */

static const struct pep_peek_options second = {.duration_ns = 1000000000};
static int kept_stderr, report_fd;

/* Descriptor 2 is a file from here on. */
static void begin_report(void) {
    report_fd = make_file();
    kept_stderr = fcntl(2, F_DUPFD_CLOEXEC, 10);
    dup2(report_fd, 2);
}

static const char *end_report(void) {
    dup2(kept_stderr, 2);
    close(kept_stderr);
    return read_report(report_fd);
}

static enum pep_peek_answer ask(void) {
    return pep_peek_ask(SIGUSR1, getpid());
}

/* Until the report's thread is done. */
static void await_end(void) {
    while (ask() == PEP_PEEK_BUSY)
        pep_os_sleep_ns(1000000);
}

static int set_up(void **state) {
    (void)state;
    pep_peek_after_fork_child();
    has_no_dump = has_no_thread = false;
    window_error = failing_symbolizer = 0;
    is_waiting = 0;
    return 0;
}

static void test_nobody(void **state) {
    (void)state;
    assert_int_equal(ask(), PEP_PEEK_NOBODY);
    pep_peek_stop(0);
    assert_int_equal(ask(), PEP_PEEK_NOBODY);
    pep_peek_serve();
    assert_int_equal(ask(), PEP_PEEK_NOBODY);
}

static void test_one_at_a_time(void **state) {
    (void)state;
    uint64_t peeks = PEP_COUNTED(peeks);
    begin_report();
    pep_peek_open(&second);
    pep_peek_serve(); /* nobody asked */
    assert_int_equal(PEP_COUNTED(peeks), peeks);
    is_waiting = 1;
    assert_int_equal(ask(), PEP_PEEK_TAKEN);
    assert_int_equal(ask(), PEP_PEEK_BUSY);
    pep_peek_serve();
    assert_int_equal(ask(), PEP_PEEK_BUSY);
    pep_peek_serve();
    pep_peek_open(&second); /* a report that runs goes on */
    assert_int_equal(ask(), PEP_PEEK_BUSY);
    pep_store_release(&is_waiting, 0);
    pep_peek_stop(0); /* wakes it */
    pep_peek_open(&second);
    await_end();
    const char *text = end_report();
    assert_int_equal(PEP_COUNTED(peeks), peeks + 1);
    assert_non_null(strstr(text, COLLECTED));
    assert_null(strstr(strstr(text, COLLECTED), "Information request"));
}

/* The end of the process, or of its being alone with us for a moment. */
static void test_stop(void **state) {
    (void)state;
    begin_report();
    pep_peek_open(&second);
    pep_peek_stop(1000000000);
    assert_int_equal(ask(), PEP_PEEK_BUSY);
    pep_peek_open(&second);
    is_waiting = 1;
    assert_int_equal(ask(), PEP_PEEK_TAKEN);
    pep_peek_serve();
    pep_peek_stop(60000000000);
    assert_int_equal(ask(), PEP_PEEK_BUSY);
    pep_peek_open(&second);
    assert_int_equal(ask(), PEP_PEEK_TAKEN);
    pep_peek_stop(0); /* asked, and not yet served */
    pep_peek_serve();
    assert_int_equal(ask(), PEP_PEEK_BUSY);
    const char *text = end_report();
    assert_null(strstr(text, COLLECTED));
}

static void test_no_thread(void **state) {
    (void)state;
    pep_peek_open(&second);
    assert_int_equal(ask(), PEP_PEEK_TAKEN);
    has_no_thread = true;
    pep_peek_serve();
    assert_int_equal(ask(), PEP_PEEK_TAKEN);
}

/* Descriptor 2 is closed: nothing is printed, and the next one is heard. */
static void test_no_stderr(void **state) {
    (void)state;
    begin_report();
    close(2);
    pep_peek_open(&second);
    assert_int_equal(ask(), PEP_PEEK_TAKEN);
    pep_peek_serve();
    await_end();
    assert_string_equal(end_report(), "");
}

/* Whether the signal is ours, or has to do what it would have done. */
static void test_server(void **state) {
    static char dir[] = "/tmp/profep-test-peek-run.XXXXXX";
    assert_non_null(mkdtemp(dir));
    const struct pep_server_options options = {.listen = "127.0.0.1:0", .rundir = dir};
    (void)state;
    assert_false(pep_server_peek(SIGUSR1));
    begin_report();
    assert_int_equal(pep_server_start(&options), 0);
    while (!pep_server_url())
        pep_os_sleep_ns(1000000);
    bool is_heard = pep_server_peek(SIGUSR1);
    pep_server_stop();
    while (!pep_server_is_stopped())
        pep_server_stop();
    bool is_kept_quiet = pep_server_peek(SIGUSR1);
    (void)end_report();
    rmdir(dir);
    assert_true(is_heard);
    assert_true(is_kept_quiet);
    pep_server_after_fork_child();
    assert_false(pep_server_peek(SIGUSR1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_layout, set_up),
        cmocka_unit_test_setup(test_duration_and_signal, set_up),
        cmocka_unit_test_setup(test_snapshot, set_up),
        cmocka_unit_test_setup(test_refusals, set_up),
        cmocka_unit_test_setup(test_nobody, set_up),
        cmocka_unit_test_setup(test_one_at_a_time, set_up),
        cmocka_unit_test_setup(test_stop, set_up),
        cmocka_unit_test_setup(test_no_thread, set_up),
        cmocka_unit_test_setup(test_no_stderr, set_up),
        cmocka_unit_test_setup(test_server, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
