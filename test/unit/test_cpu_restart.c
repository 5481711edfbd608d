/* Which calls are made again, and that no other instruction is ever taken for one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/counters.h"

static unsigned char text[64];

/* What the handler finds: a call that returned EINTR to the end of these bytes. */
static ucontext_t context_at_end(const void *code, size_t count) {
    ucontext_t context;
    memset(&context, 0, sizeof(context));
    memset(text, 0x90, sizeof(text));
    memcpy(text + sizeof(text) - count, code, count);
    context.uc_mcontext.gregs[REG_RAX] = -EINTR;
    context.uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)(text + sizeof(text));
    context.uc_mcontext.gregs[REG_RCX] = context.uc_mcontext.gregs[REG_RIP];
    return context;
}

/* The number the call is made again with, -1: it is not. */
static long again(ucontext_t *context) {
    const greg_t *registers = context->uc_mcontext.gregs;
    greg_t before = registers[REG_RIP];
    uint64_t counted = PEP_COUNTED(calls_restarted);
    pep_cpu_restart_call(context);
    if (registers[REG_RIP] == before) {
        assert_int_equal(registers[REG_RAX], -EINTR);
        assert_true(PEP_COUNTED(calls_restarted) == counted);
        return -1;
    }
    assert_int_equal(registers[REG_RIP], before - 2);
    assert_int_equal(registers[REG_RCX], ~registers[REG_RIP]);
    assert_true(PEP_COUNTED(calls_restarted) == counted + 1);
    return (long)registers[REG_RAX];
}

#define CODE(...) \
    ((const unsigned char[]){__VA_ARGS__}), sizeof((const unsigned char[]){__VA_ARGS__})

static long again_after(const unsigned char *code, size_t count) {
    ucontext_t context = context_at_end(code, count);
    return again(&context);
}

static void test_calls(void **state) {
    (void)state;
    assert_int_equal(again_after(CODE(0xb8, 7, 0, 0, 0, 0x0f, 5)), SYS_poll);
    assert_int_equal(again_after(CODE(0xb8, 34, 0, 0, 0, 0x0f, 5)), SYS_pause);
    assert_int_equal(again_after(CODE(0xb8, 130, 0, 0, 0, 0x0f, 5)), SYS_rt_sigsuspend);
    assert_int_equal(again_after(CODE(0xb8, 39, 0, 0, 0, 0x0f, 5)), -1); /* getpid */
    assert_int_equal(again_after(CODE(0xb8, 42, 0, 0, 0, 0x0f, 5)), -1); /* connect */
    assert_int_equal(again_after(CODE(0xb8, 7, 0, 0, 1, 0x0f, 5)), -1);  /* no such number */
    assert_int_equal(again_after(CODE(0xb8, 7, 0, 0, 0, 0x0f, 0x34)), -1);
}

/* As libc's functions have them. */
static void test_arguments_in_between(void **state) {
    (void)state;
    /* mov 0x1c(%rsp),%edi: pselect beside other threads */
    assert_int_equal(again_after(CODE(0xb8, 0x0e, 1, 0, 0, 0x8b, 0x7c, 0x24, 0x1c, 0x0f, 5)),
                     SYS_pselect6);
    /* xor $0x80,%sil: futexes */
    assert_int_equal(again_after(CODE(0xb8, 202, 0, 0, 0, 0x40, 0x80, 0xf6, 0x80, 0x0f, 5)),
                     SYS_futex);
    /* xor %edx,%edx; lea 0x1178dd(%rip),%rsi; cmovbe %r8,%rsi; mov $0x7fffffff,%edx */
    assert_int_equal(
        again_after(CODE(0xb8, 23, 0, 0, 0, 0x31, 0xd2, 0x48, 0x8d, 0x35, 0xdd, 0x78, 0x11, 0, 0x49,
                         0x0f, 0x46, 0xf0, 0xba, 0xff, 0xff, 0xff, 0x7f, 0x0f, 5)),
        SYS_select);
    /* mov 0x10(%rax,%rbp,8),%rdi; mov 0x11223344(%r12),%rdi; mov 0x11223344(,%rbx,4),%edi */
    assert_int_equal(again_after(CODE(0xb8, 35, 0, 0, 0, 0x48, 0x8b, 0x7c, 0xe8, 0x10, 0x49, 0x8b,
                                      0xbc, 0x24, 0x44, 0x33, 0x22, 0x11, 0x8b, 0x3c, 0x9d, 0x44,
                                      0x33, 0x22, 0x11, 0x0f, 5)),
                     SYS_nanosleep);
    /* What writes eax, or is not known, might change the number. */
    assert_int_equal(again_after(CODE(0xb8, 7, 0, 0, 0, 0x89, 0xd0, 0x0f, 5)), -1);
    assert_int_equal(again_after(CODE(0xb8, 7, 0, 0, 0, 0x8b, 0x07, 0x0f, 5)), -1);
    assert_int_equal(again_after(CODE(0xb8, 7, 0, 0, 0, 0x48, 0x83, 0xc0, 1, 0x0f, 5)), -1);
    assert_int_equal(again_after(CODE(0xb8, 7, 0, 0, 0, 0x31, 0xc0, 0x0f, 5)), -1);
    assert_int_equal(again_after(CODE(0xb8, 7, 0, 0, 0, 0xff, 0xd0, 0x0f, 5)), -1);
}

/* Bytes of another instruction that look like the loading of a number. */
static void test_two_ways_to_read(void **state) {
    (void)state;
    /* xor %r8d,%r8d */
    assert_int_equal(again_after(CODE(0xb8, 7, 0, 0, 0, 0x45, 0x31, 0xc0, 0x0f, 5)), SYS_poll);
    /* mov $7,%r8d */
    assert_int_equal(again_after(CODE(0xb8, 34, 0, 0, 0, 0x41, 0xb8, 7, 0, 0, 0, 0x0f, 5)),
                     SYS_pause);
    /* mov 0xe8(%r8),%edi */
    assert_int_equal(again_after(CODE(0xb8, 34, 0, 0, 0, 0x41, 0x8b, 0xb8, 232, 0, 0, 0, 0x0f, 5)),
                     SYS_pause);
    /* mov 0xe8(%r8,%rdi,4),%edi */
    assert_int_equal(
        again_after(CODE(0xb8, 34, 0, 0, 0, 0x41, 0x8b, 0xbc, 0xb8, 232, 0, 0, 0, 0x0f, 5)), -1);
}

static void test_what_is_not_a_call_cut_short(void **state) {
    (void)state;
    const unsigned char poll[] = {0xb8, 7, 0, 0, 0, 0x0f, 5};
    ucontext_t context = context_at_end(poll, sizeof(poll));
    context.uc_mcontext.gregs[REG_RAX] = 0;
    pep_cpu_restart_call(&context);
    assert_int_equal(context.uc_mcontext.gregs[REG_RAX], 0);
    context = context_at_end(poll, sizeof(poll));
    context.uc_mcontext.gregs[REG_RCX]--; /* the code after it has begun */
    assert_int_equal(again(&context), -1);
    context = context_at_end(poll, sizeof(poll));
    context.uc_mcontext.gregs[REG_RIP] = context.uc_mcontext.gregs[REG_RCX] = 4096;
    assert_int_equal(again(&context), -1); /* not readable */
}

/* Only what the kernel does not begin again by itself. */
static void test_sockets(void **state) {
    (void)state;
    const unsigned char read_code[] = {0x31, 0xc0, 0x0f, 5};
    const unsigned char recv_code[] = {0xb8, 45, 0, 0, 0, 0x0f, 5};
    const struct timeval limit = {1, 0};
    int pair[2], pipes[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(pipe(pipes), 0);
    for (int has_limit = 0; has_limit < 2; has_limit++) {
        ucontext_t context = context_at_end(read_code, sizeof(read_code));
        context.uc_mcontext.gregs[REG_RDI] = pair[0];
        assert_int_equal(again(&context), has_limit ? SYS_read : -1);
        context = context_at_end(recv_code, sizeof(recv_code));
        context.uc_mcontext.gregs[REG_RDI] = pair[0];
        assert_int_equal(again(&context), has_limit ? SYS_recvfrom : -1);
        setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    }
    ucontext_t context = context_at_end(read_code, sizeof(read_code));
    context.uc_mcontext.gregs[REG_RDI] = pipes[0];
    assert_int_equal(again(&context), -1);
    close(pair[0]);
    close(pair[1]);
    close(pipes[0]);
    close(pipes[1]);
}

/* A call that the kernel begins again is left as it is, but for rcx. */
static void test_calls_that_begin_again(void **state) {
    (void)state;
    const unsigned char read_code[] = {0x31, 0xc0, 0x0f, 5};
    for (int i = 0; i < 4; i++) {
        ucontext_t context = context_at_end(read_code, sizeof(read_code));
        greg_t *registers = context.uc_mcontext.gregs, behind = registers[REG_RIP];
        registers[REG_RIP] -= 2;
        registers[REG_RAX] = i == 1 ? 512 : i == 2 ? -1 : SYS_read;
        if (i == 3)
            text[sizeof(text) - 1] = 0x34; /* no call */
        greg_t rax = registers[REG_RAX];
        pep_cpu_restart_call(&context);
        assert_int_equal(registers[REG_RIP], behind - 2);
        assert_int_equal(registers[REG_RAX], rax);
        assert_int_equal(registers[REG_RCX], i == 0 ? -registers[REG_RIP] : behind);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_arguments_in_between),
        cmocka_unit_test(test_two_ways_to_read),
        cmocka_unit_test(test_what_is_not_a_call_cut_short),
        cmocka_unit_test(test_sockets),
        cmocka_unit_test(test_calls_that_begin_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
