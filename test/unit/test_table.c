/*
 * Two tables of descriptors: a thread that left sees nothing of the other, and has its work done
 * there by the thread that serves.
 * LDFLAGS: -Wl,--wrap=pep_os_call6
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"
#include "sampler/rt/table.h"

long __real_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f);

static int is_refused;

long __wrap_pep_os_call6(long nr, long a, long b, long c, long d, long e, long f) {
    if (is_refused && nr == 436) /* close_range */
        return -ENOSYS;
    return __real_pep_os_call6(nr, a, b, c, d, e, f);
}

struct seen {
    int fd;          /* open in the host's table */
    bool is_left;    /* the thread has a table of its own */
    bool has_fd;     /* and finds fd there */
    bool is_done;    /* its work was done */
    bool is_apart;   /* and by whom */
    bool had_fd;     /* who finds fd */
    bool is_refused; /* after the end of serving */
};

static void work(void *argument) {
    struct seen *seen = argument;
    seen->is_apart = pep_table_is_apart();
    seen->had_fd = fcntl(seen->fd, F_GETFD) >= 0;
}

static void *leave(void *argument) {
    struct seen *seen = argument;
    seen->is_left = pep_table_leave();
    seen->has_fd = fcntl(seen->fd, F_GETFD) >= 0;
    seen->is_done = pep_table_run(work, seen);
    pep_table_serve_end();
    seen->is_refused = !pep_table_run(work, seen);
    return NULL;
}

static void look(struct seen *seen) {
    pthread_t thread;
    *seen = (struct seen){.fd = open("/dev/null", O_RDONLY)};
    pep_table_serve_anew();
    assert_int_equal(pthread_create(&thread, NULL, leave, seen), 0);
    pep_table_serve(0);
    pthread_join(thread, NULL);
    assert_int_equal(close(seen->fd), 0);
}

static void apart(void **state) {
    (void)state;
    struct seen seen;
    look(&seen);
    if (!seen.is_left)
        skip(); /* a kernel before 5.9 */
    assert_false(seen.has_fd);
    assert_true(seen.is_done);
    assert_false(seen.is_apart);
    assert_true(seen.had_fd);
    assert_true(seen.is_refused);
}

static void together_where_refused(void **state) {
    (void)state;
    struct seen seen;
    is_refused = 1;
    look(&seen);
    is_refused = 0;
    assert_false(seen.is_left);
    assert_true(seen.has_fd);
    assert_true(seen.is_done);
    assert_true(seen.had_fd);
    assert_false(seen.is_refused); /* it needs nobody */
}

static void serving_ends_in_time(void **state) {
    (void)state;
    pep_table_serve_anew();
    pep_table_serve(1); /* long over */
    pep_table_serve_end();
    pep_table_serve(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apart),
        cmocka_unit_test(together_where_refused),
        cmocka_unit_test(serving_ends_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
