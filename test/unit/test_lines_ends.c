/*
 * Reads of source lines that end early or must not begin, and what is kept for the next request.
 * LDFLAGS: -Wl,--wrap=pep_os_clone_child,--wrap=pep_lines_child
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "encoder/lines_child.h"
#include "encoder/lines_permit.h"
#include "encoder/symbolize.h"
#include "lines_help.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

int __real_pep_os_clone_child(void);
int __wrap_pep_os_clone_child(void);
void __real_pep_lines_child(const struct pep_lines_task *task) __attribute__((noreturn));
void __wrap_pep_lines_child(const struct pep_lines_task *task) __attribute__((noreturn));

enum { HONEST, CRASHES, IS_KILLED, IS_OUT_OF_TIME, IS_FILTERED }; /* what lines_child_is says */

int __wrap_pep_os_clone_child(void) {
    lines_clones++;
    return lines_clone_error != 0 ? lines_clone_error : __real_pep_os_clone_child();
}

void __wrap_pep_lines_child(const struct pep_lines_task *task) {
    static const int signals[] = {
        [IS_KILLED] = SIGKILL, [IS_OUT_OF_TIME] = SIGXCPU, [IS_FILTERED] = SIGSYS};
    const struct pep_ksigaction by_default = {.handler = SIG_DFL};
    const uint64_t all = ~UINT64_C(0);
    if (lines_child_is == HONEST)
        __real_pep_lines_child(task);
    if (lines_child_is == CRASHES)
        __builtin_trap();
    pep_os_sigaction(signals[lines_child_is], &by_default, NULL);
    pep_os_sigprocmask(SIG_UNBLOCK, &all, NULL);
    pep_os_kill(pep_os_getpid(), signals[lines_child_is]);
    _exit(1);
}

static enum pep_lines_end read_three(int wanted_error) {
    struct pep_mapping mapping = lines_mapping_of(lines_at("mix"));
    lines_list_addresses(lines_at("mix"));
    struct pep_lines_file file = {.mapping = &mapping, .addresses = lines_addresses, .count = 3};
    uint64_t deadline = pep_os_clock_ns(CLOCK_MONOTONIC) + 20 * LINES_SECOND_NS;
    assert_int_equal(pep_lines_read(&lines_arena, &file, 1, deadline), wanted_error);
    return file.end;
}

static void a_child_that_somebody_killed_damns_no_file(void **state) {
    (void)state;
    uint64_t ended = PEP_COUNTED(lines_ended), late = PEP_COUNTED(lines_late);
    lines_child_is = IS_KILLED;
    assert_int_equal(read_three(-ECHILD), PEP_LINES_ENDED);
    assert_int_equal(PEP_COUNTED(lines_ended), ended + 1);
    assert_int_equal(lines_clones, 1); /* not at once again */
    lines_child_is = IS_OUT_OF_TIME;
    assert_int_equal(read_three(-ETIME), PEP_LINES_LATE);
    assert_int_equal(PEP_COUNTED(lines_late), late + 1);
    lines_child_is = HONEST;
    assert_int_equal(read_three(0), PEP_LINES_READ);
}

static bool set_filter(struct sock_filter *code, size_t count) {
    struct sock_fprog program = {.len = (unsigned short)count, .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

/* Kills for copies of the process, not for threads, and for whatever waits for them. */
static bool forbid_children(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_wait4, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_VM, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    return set_filter(code, PEP_COUNT_OF(code));
}

/* As a container has: what it forbids is of no interest here. */
static bool set_containers_filter(void) {
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    return set_filter(code, PEP_COUNT_OF(code));
}

static int read_three_of(const struct pep_mapping *mapping) {
    struct pep_lines_file file = {.mapping = mapping, .addresses = lines_addresses, .count = 3};
    return pep_lines_read(&lines_arena, &file, 1,
                          pep_os_clock_ns(CLOCK_MONOTONIC) + 20 * LINES_SECOND_NS);
}

/* What becomes of a process that reads after a filter came. */
static int status_of_filtered(const struct pep_mapping *mapping, bool is_in_container) {
    uint64_t refused = PEP_COUNTED(lines_refused);
    int status, pid = fork();
    if (pid == 0) {
        if (is_in_container && !set_containers_filter())
            _exit(2);
        pep_lines_permit_init(true);
        if (read_three_of(mapping) != 0)
            _exit(3);
        if (!forbid_children())
            _exit(4);
        bool is_refused = read_three_of(mapping) == -EPERM;
        _exit(is_refused && PEP_COUNTED(lines_refused) == refused + 1 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void a_filter_that_came_later_is_not_provoked(void **state) {
    (void)state;
    struct pep_mapping mapping = lines_mapping_of(lines_at("mix"));
    lines_list_addresses(lines_at("mix"));
    assert_int_equal(status_of_filtered(&mapping, false), 0);
    assert_int_equal(status_of_filtered(&mapping, true), 0); /* the first is no hindrance */
}

static void turned_off_no_child_is_made(void **state) {
    (void)state;
    pep_lines_permit_init(false);
    assert_int_equal(read_three(-ENOTSUP), PEP_LINES_UNREAD);
    assert_int_equal(lines_clones, 0);
    pep_lines_permit_init(true);
}

/* In a process of its own: it is for good. */
static void a_child_that_a_filter_killed_is_the_last(void **state) {
    (void)state;
    int status, pid = fork();
    if (pid == 0) {
        lines_child_is = IS_FILTERED;
        bool is_told = read_three(-EPERM) == PEP_LINES_UNREAD;
        lines_child_is = HONEST;
        _exit(is_told && read_three(-EPERM) == PEP_LINES_UNREAD && lines_clones == 1 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* -- the symbolizer -------------------------------------------------------------------------- */

#define BIAS UINT64_C(0x10000000)

struct subject {
    struct pep_mapping mapping;
    struct pep_sample sample;
    struct pep_profile profile;
    uintptr_t pcs[LINES_ADDRESSES_MAX];
};

static void make_subject(struct subject *subject, uint32_t count) {
    *subject = (struct subject){.mapping = lines_mapping_of(lines_at("mix"))};
    subject->mapping.start = subject->mapping.bias = BIAS;
    subject->mapping.limit = BIAS + (1 << 20);
    for (uint32_t i = 0; i < count; i++)
        subject->pcs[i] = BIAS + lines_addresses[i];
    subject->sample = (struct pep_sample){.pcs = subject->pcs, .pc_count = count};
    subject->profile = (struct pep_profile){.samples = &subject->sample,
                                            .sample_count = 1,
                                            .mappings = &subject->mapping,
                                            .mapping_count = 1,
                                            .main_mapping = PEP_MAPPING_NONE};
}

static uint32_t count_inlined(struct subject *subject, uint32_t count) {
    struct pep_symbolizer *symbolizer = pep_symbolizer_begin(&lines_arena);
    assert_non_null(symbolizer);
    pep_symbolizer_prepare(symbolizer, &lines_arena, &subject->profile);
    struct pep_frame frames[PEP_LINES_FRAMES_MAX], outer;
    uint32_t inlined = 0;
    for (uint32_t i = 0; i < count; i++) {
        int found = symbolizer->lookup(symbolizer, &subject->profile, subject->pcs[i], frames,
                                       PEP_LINES_FRAMES_MAX);
        assert_true(found >= 1);
        const char *name = frames[found - 1].name;
        assert_true(!strcmp(name, "outermost") || !strcmp(name, "apart") || !strcmp(name, "main"));
        assert_int_equal(
            symbolizer->lookup(symbolizer, &subject->profile, subject->pcs[i], &outer, 1), 1);
        assert_string_equal(outer.name, name);
        if (strcmp(name, "outermost") == 0 && frames[found - 1].line != 0)
            assert_int_equal(frames[found - 1].start_line, 7);
        inlined += found > 1;
    }
    pep_symbolizer_end(symbolizer);
    return inlined;
}

static void lines_are_kept_for_the_next_request(void **state) {
    (void)state;
    static struct subject subject;
    uint32_t count = lines_list_addresses(lines_at("mix"));
    make_subject(&subject, count);
    uint32_t inlined = count_inlined(&subject, count);
    assert_true(inlined > 50);
    assert_int_equal(lines_clones, 1);
    assert_int_equal(count_inlined(&subject, count), inlined);
    assert_int_equal(lines_clones, 1);
    assert_int_equal(subject.profile.comment_count, 0);
}

static void without_a_child_there_are_names(void **state) {
    (void)state;
    static struct subject subject;
    uint32_t count = lines_list_addresses(lines_at("mix"));
    uint64_t refused = PEP_COUNTED(lines_refused);
    make_subject(&subject, count);
    lines_clone_error = -EAGAIN;
    assert_int_equal(count_inlined(&subject, count), 0);
    assert_int_equal(PEP_COUNTED(lines_refused), refused + 1);
    assert_int_equal(subject.profile.comment_count, 1);
    assert_non_null(strstr(subject.profile.comments[0], "no process to read them"));
    lines_clone_error = 0;
    make_subject(&subject, count);
    assert_true(count_inlined(&subject, count) > 50);
    assert_int_equal(subject.profile.comment_count, 0);
}

static void a_deadly_file_is_tried_once(void **state) {
    (void)state;
    static struct subject subject;
    uint32_t count = lines_list_addresses(lines_at("mix"));
    lines_child_is = CRASHES;
    for (int i = 0; i < 2; i++) {
        make_subject(&subject, count);
        assert_int_equal(count_inlined(&subject, count), 0);
        assert_int_equal(lines_clones, 1);
        assert_int_equal(subject.profile.comment_count, 1);
        assert_non_null(strstr(subject.profile.comments[0], "mix are missing: its debug"));
    }
}

static void a_file_whose_reader_was_killed_is_tried_later(void **state) {
    (void)state;
    static struct subject subject;
    uint32_t count = lines_list_addresses(lines_at("mix"));
    lines_child_is = IS_KILLED;
    for (int i = 0; i < 2; i++) { /* the second time it is left alone for a while */
        make_subject(&subject, count);
        assert_int_equal(count_inlined(&subject, count), 0);
        assert_int_equal(lines_clones, 1);
        assert_int_equal(subject.profile.comment_count, 1);
        assert_non_null(strstr(subject.profile.comments[0], "it is tried again later"));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, lines_begin, lines_end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_child_that_somebody_killed_damns_no_file),
        TEST(a_filter_that_came_later_is_not_provoked),
        TEST(turned_off_no_child_is_made),
        TEST(a_child_that_a_filter_killed_is_the_last),
        TEST(lines_are_kept_for_the_next_request),
        TEST(without_a_child_there_are_names),
        TEST(a_deadly_file_is_tried_once),
        TEST(a_file_whose_reader_was_killed_is_tried_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
