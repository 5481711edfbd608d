/*
 * Connections where the system refuses a thread, or memory.
 * LDFLAGS: -Wl,--wrap=pthread_create,--wrap=pep_wire_open
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/civetweb_glue.h"
#include "http/server.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

static int create_errors, wire_errors; /* how many calls are still to fail */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument) {
    if (pep_load_acquire(&create_errors) > 0 && pep_sub_acq_rel(&create_errors, 1) > 0)
        return EAGAIN;
    return __real_pthread_create(thread, attributes, run, argument);
}

struct pep_wire *__real_pep_wire_open(const struct pep_fd *fd);
struct pep_wire *__wrap_pep_wire_open(const struct pep_fd *fd);
struct pep_wire *__wrap_pep_wire_open(const struct pep_fd *fd) {
    if (pep_load_acquire(&wire_errors) > 0 && pep_sub_acq_rel(&wire_errors, 1) > 0)
        return NULL;
    return __real_pep_wire_open(fd);
}

static char dir[] = "/tmp/test_refused.XXXXXX";
static char reply[8192];

static const char *start(void) {
    const struct pep_server_options options = {.listen = ":0", .rundir = dir, .hz = 100};
    int error;
    /* A stop may run out of its time; the thread ends all the same. */
    while ((error = pep_server_start(&options)) == -EALREADY)
        pep_os_sleep_ns(1000000);
    assert_int_equal(error, 0);
    while (!pep_server_url())
        pep_os_sleep_ns(1000000);
    return pep_server_url();
}

static int connect_to(const char *url) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    to.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static int ask(const char *url) {
    static const char text[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    size_t used = 0;
    int fd = connect_to(url);
    ssize_t count = send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL);
    while (count > 0 && (count = read(fd, reply + used, sizeof(reply) - 1 - used)) > 0)
        used += (size_t)count;
    reply[used] = '\0';
    close(fd);
    return used > 12 ? atoi(reply + 9) : 0;
}

static int stop(void **state) {
    (void)state;
    pep_server_stop();
    create_errors = wire_errors = 0;
    return 0;
}

static void without_threads_the_listening_one_serves(void **state) {
    (void)state;
    const char *url = start();
    pep_store_release(&create_errors, 2);
    assert_int_equal(ask(url), 200);
    assert_int_equal(ask(url), 200);
    assert_int_equal(pep_load_acquire(&create_errors), 0);
    assert_int_equal(ask(url), 200);
}

static void a_silent_client_of_it_does_not_keep_the_server(void **state) {
    (void)state;
    const char *url = start();
    pep_store_release(&create_errors, 1);
    int fd = connect_to(url);
    while (pep_load_acquire(&create_errors) > 0)
        pep_os_sleep_ns(1000000);
    pep_server_stop();
    assert_int_equal(ask(start()), 200);
    close(fd);
}

static void without_memory_it_is_refused(void **state) {
    (void)state;
    const char *url = start();
    uint64_t refused = PEP_COUNTED(http_refused);
    pep_store_release(&wire_errors, 1);
    assert_int_equal(ask(url), 503);
    assert_non_null(strstr(reply, "X-Go-Pprof: 1"));
    const char *body = strstr(reply, "\r\n\r\n");
    assert_non_null(body);
    assert_string_equal(body + 4, "The process has no memory to answer you in.\n");
    char length[48];
    snprintf(length, sizeof(length), "Content-Length: %zu\r\n", strlen(body + 4));
    assert_non_null(strstr(reply, length));
    assert_int_equal(PEP_COUNTED(http_refused), refused + 1);
    assert_int_equal(ask(url), 200);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(without_threads_the_listening_one_serves, stop),
        cmocka_unit_test_teardown(a_silent_client_of_it_does_not_keep_the_server, stop),
        cmocka_unit_test_teardown(without_memory_it_is_refused, stop),
    };
    if (!mkdtemp(dir) || pep_threads_init() != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
