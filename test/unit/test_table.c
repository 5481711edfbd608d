/*
 * Two tables of descriptors: a thread that left sees nothing of the other.
 * LDFLAGS: -Wl,--wrap=pep_os_call6
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

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
    int fd;        /* open in the host's table */
    bool is_left;  /* the thread has a table of its own */
    bool has_fd;   /* and finds fd there */
    bool is_apart; /* and knows it */
    bool is_null;  /* what it writes goes nowhere */
};

static void *leave(void *argument) {
    struct seen *seen = argument;
    seen->is_left = pep_table_leave();
    seen->has_fd = fcntl(seen->fd, F_GETFD) >= 0;
    seen->is_apart = pep_table_is_apart();
    struct stat one, null;
    seen->is_null =
        fstat(1, &one) == 0 && stat("/dev/null", &null) == 0 && one.st_rdev == null.st_rdev;
    return NULL;
}

static void look(struct seen *seen) {
    pthread_t thread;
    *seen = (struct seen){.fd = open("/dev/zero", O_RDONLY)};
    assert_int_equal(pthread_create(&thread, NULL, leave, seen), 0);
    pthread_join(thread, NULL);
    assert_false(pep_table_is_apart());
    assert_int_equal(close(seen->fd), 0);
}

static void apart(void **state) {
    (void)state;
    struct seen seen;
    look(&seen);
    if (!seen.is_left)
        skip(); /* a kernel before 5.9 */
    assert_false(seen.has_fd);
    assert_true(seen.is_apart);
    assert_true(seen.is_null);
}

static void together_where_refused(void **state) {
    (void)state;
    struct seen seen;
    is_refused = 1;
    look(&seen);
    is_refused = 0;
    assert_false(seen.is_left);
    assert_true(seen.has_fd);
    assert_false(seen.is_apart);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apart),
        cmocka_unit_test(together_where_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
