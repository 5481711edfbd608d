/* Raw calls: reading our own memory never faults; errno is never touched. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/rt/os.h"

#define PAGE 4096

static void peek_stops_at_the_first_unmapped_page(void **state) {
    (void)state;
    char *pages = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(pages, 9, 4 * PAGE);
    munmap(pages + 2 * PAGE, PAGE);
    char to[4 * PAGE];
    assert_int_equal(pep_os_peek(to, (uintptr_t)pages, 2 * PAGE), 2 * PAGE);
    assert_int_equal(to[2 * PAGE - 1], 9);
    assert_int_equal(pep_os_peek(to, (uintptr_t)pages + 100, 3 * PAGE), 2 * PAGE - 100);
    assert_true(pep_os_peek(to, (uintptr_t)pages + 2 * PAGE, 8) < 0);
    assert_true(pep_os_peek(to, 8, 8) < 0);
    assert_true(pep_os_peek(to, UINTPTR_MAX - 7, 8) < 0);
    munmap(pages, 4 * PAGE);
}

static void peek_reads_more_than_one_batch(void **state) {
    (void)state;
    size_t size = 100 * PAGE;
    char *from = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *to = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < size; i++)
        from[i] = (char)(i * 7 + i / PAGE);
    assert_int_equal(pep_os_peek(to, (uintptr_t)from + 5, size - 5), (long)size - 5);
    assert_memory_equal(to, from + 5, size - 5);
    munmap(from, size);
    munmap(to, size);
}

static void errors_are_negative_and_errno_is_left_alone(void **state) {
    (void)state;
    errno = 42;
    assert_int_equal(pep_os_open("/nonexistent/file", O_RDONLY, 0), -ENOENT);
    assert_int_equal(pep_os_close(-1), -EBADF);
    assert_int_equal(pep_os_timer_delete(12345678), -EINVAL);
    assert_int_equal(errno, 42);
    assert_null(pep_os_map((size_t)1 << 62));
}

static void opened_files_do_not_pass_exec(void **state) {
    (void)state;
    int fd = pep_os_open("/proc/self/maps", O_RDONLY, 0);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(pep_os_close(fd), 0);
}

static void small_files_are_read_whole_and_cut(void **state) {
    (void)state;
    char text[64];
    long count = pep_os_read_file("/proc/self/comm", text, sizeof(text));
    assert_int_equal(count, strlen(text));
    assert_string_equal(text, "test_os\n");
    assert_int_equal(pep_os_read_file("/proc/self/comm", text, 4), 3);
    assert_string_equal(text, "tes");
    assert_int_equal(pep_os_read_file("/nonexistent", text, sizeof(text)), -ENOENT);
    assert_int_equal(pep_os_read_file("/proc/self/comm", text, 0), -EINVAL);
}

static void copy_and_zero_do_what_they_say(void **state) {
    (void)state;
    char from[300], to[300];
    for (size_t i = 0; i < sizeof(from); i++)
        from[i] = (char)i;
    memset(to, 1, sizeof(to));
    pep_copy(to + 1, from + 3, 200);
    assert_memory_equal(to + 1, from + 3, 200);
    assert_int_equal(to[0], 1);
    assert_int_equal(to[201], 1);
    pep_zero(to, 150);
    assert_int_equal(to[149], 0);
    assert_int_equal(to[150], from[152]);
}

static void the_cpu_clock_of_a_thread_is_the_kernels(void **state) {
    (void)state;
    uint64_t mine = pep_os_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    uint64_t by_tid = pep_os_clock_ns(pep_os_thread_cpu_clock(pep_os_gettid()));
    assert_true(mine > 0 && by_tid >= mine);
    assert_int_equal(pep_os_clock_ns(pep_os_thread_cpu_clock(4000000)), 0);
}

/* A filter cannot be taken back, so this test is the last. */
static void peek_works_where_process_vm_readv_is_refused(void **state) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = 4, .filter = code};
    assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    peek_stops_at_the_first_unmapped_page(state);
    peek_reads_more_than_one_batch(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peek_stops_at_the_first_unmapped_page),
        cmocka_unit_test(peek_reads_more_than_one_batch),
        cmocka_unit_test(errors_are_negative_and_errno_is_left_alone),
        cmocka_unit_test(opened_files_do_not_pass_exec),
        cmocka_unit_test(small_files_are_read_whole_and_cut),
        cmocka_unit_test(copy_and_zero_do_what_they_say),
        cmocka_unit_test(the_cpu_clock_of_a_thread_is_the_kernels),
        cmocka_unit_test(peek_works_where_process_vm_readv_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
