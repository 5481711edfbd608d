/* Walks where nothing can be trusted: no call frame information, foreign stacks, garbage. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/modules.h"
#include "sampler/rt/os.h"
#include "sampler/unwind_guess.h"
#include "walk.h"

#define NOINLINE __attribute__((noinline, noclone))
#define PAGE 4096

static volatile int sink; /* a result that is kept keeps a call from becoming a jump */

static int know_stack(void **state) {
    (void)state;
    walk_max = PEP_UNWIND_DEPTH_MAX;
    walk_know_stack();
    return 0;
}

/* -- code without call frame information ------------------------------------------------------ */

/* Leaves that trap: with the return address on top of the stack, and one word above. */
__attribute__((visibility("hidden"))) int bare_leaf(void);
__attribute__((visibility("hidden"))) int bare_leaf_pushed(void);
int bare_with_bp(int (*callback)(void));
__asm__(".text\n.type bare_leaf, @function\nbare_leaf:\nint3\nmov $1, %eax\nret\n"
        ".size bare_leaf, . - bare_leaf\n"
        ".type bare_leaf_pushed, @function\nbare_leaf_pushed:\n"
        "push %rbx\nint3\nmov $1, %eax\npop %rbx\nret\n"
        ".size bare_leaf_pushed, . - bare_leaf_pushed\n"
        ".type bare_with_bp, @function\nbare_with_bp:\n"
        "push %rbp\nmov %rsp, %rbp\nsub $48, %rsp\nand $-32, %rsp\ncall *%rdi\nleave\nret\n"
        ".size bare_with_bp, . - bare_with_bp\n");

NOINLINE static int calls_bare_leaf(int is_pushed) {
    return (is_pushed ? bare_leaf_pushed() : bare_leaf()) + 1;
}

static void on_int3(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)info;
    walk_context(context);
}

static void the_caller_of_a_bare_leaf_is_found(void **state) {
    (void)state;
    int (*const leaves[2])(void) = {bare_leaf, bare_leaf_pushed};
    struct sigaction action = {.sa_sigaction = on_int3, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &action, NULL);
    for (int i = 0; i < 2; i++) {
        sink = calls_bare_leaf(i);
        assert_false(walk_last.is_partial);
        assert_true(walk_last.pcs[0] - (uintptr_t)leaves[i] < 8);
        assert_true(walk_last.pcs[1] - (uintptr_t)calls_bare_leaf < 64);
    }
}

static void bare_code_with_a_frame_pointer_is_left(void **state) {
    (void)state;
    sink = bare_with_bp(walk_trap);
    assert_false(walk_last.is_partial);
    assert_true(walk_has(bare_with_bp));
    assert_true(walk_has(bare_code_with_a_frame_pointer_is_left));
}

/* -- generated code -----------------------------------------------------------------------------
 */

/* push %rbp; mov %rsp,%rbp; sub $32,%rsp; mov %rsi,%rax; call *%rdi; leave; ret. rax as callback
 * of the callback is passed on in rdi where the callback is generated code too. */
static const unsigned char with_frame[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0x48,
                                           0x89, 0xf8, 0x48, 0x89, 0xf7, 0xff, 0xd0, 0xc9, 0xc3};
/* The same, with rbp used as data: mov $8,%ebp instead of a frame. */
static const unsigned char without_frame[] = {0x55, 0x48, 0x83, 0xec, 0x20, 0xbd, 0x08, 0,    0,
                                              0,    0xff, 0xd7, 0x48, 0x83, 0xc4, 0x20, 0x5d, 0xc3};

typedef int (*generated)(void *callback, void *argument);

static generated generate(const unsigned char *code, size_t size) {
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page + 64, code, size);
    mprotect(page, PAGE, PROT_READ | PROT_EXEC);
    return (generated)(page + 64);
}

static void drop(generated code) {
    munmap((char *)code - 64, PAGE);
}

NOINLINE static int calls_generated(generated code, void *callback, void *argument) {
    return code(callback, argument) + 1;
}

static void generated_frames_are_followed_by_their_frame_pointer(void **state) {
    (void)state;
    generated outer = generate(with_frame, sizeof(with_frame));
    generated inner = generate(with_frame, sizeof(with_frame));
    for (int is_known = 0; is_known < 2; is_known++) {
        /* Code made after the last refresh is believed when it is near. */
        if (is_known)
            assert_int_equal(pep_modules_refresh(), 0);
        sink = calls_generated(outer, (void *)inner, (void *)walk_trap);
        assert_true(pep_modules_is_stale() == !is_known);
        assert_false(walk_last.is_partial);
        assert_true(walk_has((void *)inner));
        assert_true(walk_has((void *)outer));
        assert_true(walk_has(calls_generated));
    }
    drop(inner);
    drop(outer);
    assert_int_equal(pep_modules_refresh(), 0);
}

static void generated_code_without_frames_ends_the_walk(void **state) {
    (void)state;
    generated code = generate(without_frame, sizeof(without_frame));
    assert_int_equal(pep_modules_refresh(), 0);
    sink = code((void *)walk_trap, NULL);
    assert_true(walk_last.is_partial);
    assert_true(walk_has((void *)code));
    drop(code);
    assert_int_equal(pep_modules_refresh(), 0);
}

/* push %rbp; mov %rsp,%rbp; int3; pop %rbp; ret, called by code with a frame. */
static void a_frame_just_set_up_keeps_its_callers(void **state) {
    static const unsigned char just_set_up[] = {0x55, 0x48, 0x89, 0xe5, 0xcc, 0x5d, 0xc3};
    struct sigaction action = {.sa_sigaction = on_int3, .sa_flags = SA_SIGINFO};
    (void)state;
    generated outer = generate(with_frame, sizeof(with_frame));
    generated inner = generate(just_set_up, sizeof(just_set_up));
    assert_int_equal(pep_modules_refresh(), 0);
    sigaction(SIGTRAP, &action, NULL);
    sink = calls_generated(outer, (void *)inner, NULL);
    assert_false(walk_last.is_partial);
    assert_true(walk_has((void *)inner));
    assert_true(walk_has((void *)outer));
    assert_true(walk_has(calls_generated));
    drop(inner);
    drop(outer);
    assert_int_equal(pep_modules_refresh(), 0);
}

/* -- a trampoline that no object describes --------------------------------------------------------
 */

void bare_restorer(void);
__asm__(".text\nbare_restorer:\nmov $15, %eax\nsyscall\n");

NOINLINE static void on_bare_signal(int sig) {
    (void)sig;
    sink = walk_trap();
}

static void an_unknown_signal_trampoline_is_recognised(void **state) {
    (void)state;
    struct pep_ksigaction action = {.handler = (void *)on_bare_signal,
                                    .flags = 0x04000000, /* SA_RESTORER */
                                    .restorer = (void *)bare_restorer};
    assert_int_equal(pep_os_sigaction(SIGUSR2, &action, NULL), 0);
    raise(SIGUSR2);
    assert_false(walk_last.is_partial);
    assert_true(walk_has(on_bare_signal));
    assert_true(walk_has(bare_restorer));
    assert_true(walk_has(an_unknown_signal_trampoline_is_recognised));
}

/* -- foreign stacks
 * -------------------------------------------------------------------------------- */

static ucontext_t main_context, coroutine_context;

NOINLINE static int in_coroutine(int depth) {
    volatile char room[64];
    room[0] = 1;
    return depth > 0 ? in_coroutine(depth - 1) + room[0] : walk_trap();
}

static void coroutine(void) {
    for (;;) {
        sink = in_coroutine(5);
        swapcontext(&coroutine_context, &main_context);
    }
}

static void a_coroutine_is_walked_as_far_as_its_stack_goes(void **state) {
    (void)state;
    size_t size = 64 << 10;
    char *stack = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(stack + PAGE, size, PROT_READ | PROT_WRITE);
    getcontext(&coroutine_context);
    coroutine_context.uc_stack.ss_sp = stack + PAGE;
    coroutine_context.uc_stack.ss_size = size;
    coroutine_context.uc_link = NULL;
    makecontext(&coroutine_context, coroutine, 0);
    for (int i = 0; i < 100; i++) {
        swapcontext(&main_context, &coroutine_context);
        assert_true(walk_has(coroutine));
        assert_true(walk_has(in_coroutine));
        assert_false(walk_has(a_coroutine_is_walked_as_far_as_its_stack_goes));
    }
    munmap(stack, size + 2 * PAGE);
}

/* -- garbage ------------------------------------------------------------------------------------
 */

static void a_jump_to_nowhere_still_tells_its_caller(void **state) {
    (void)state;
    ucontext_t here;
    walk_trap();
    uintptr_t caller = walk_last.pcs[walk_last.count - 4] + 1;
    uintptr_t stack[64] = {caller};
    getcontext(&here);
    here.uc_mcontext.gregs[REG_RIP] = 0;
    here.uc_mcontext.gregs[REG_RSP] = (greg_t)(uintptr_t)stack;
    here.uc_mcontext.gregs[REG_RBP] = 0;
    walk_context(&here);
    assert_true(walk_last.count >= 2);
    assert_int_equal(walk_last.pcs[0], PEP_PC_UNKNOWN);
    assert_int_equal(walk_last.pcs[1], caller - 1);
}

static void nothing_at_all_is_one_unknown_frame(void **state) {
    (void)state;
    struct pep_regs none = {0};
    walk_registers(&none);
    assert_int_equal(walk_last.count, 1);
    assert_int_equal(walk_last.pcs[0], PEP_PC_UNKNOWN);
    assert_true(walk_last.is_partial);
}

/* BP and SP next to a page that cannot be read: the words that straddle the border too. */
static void walks_stop_at_unmapped_pages(void **state) {
    (void)state;
    char *pages = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t middle = (uintptr_t)pages + PAGE;
    mprotect(pages + PAGE, PAGE, PROT_READ | PROT_WRITE);
    memset(pages + PAGE, 0xff, PAGE);
    walk_range = (struct pep_stack_range){middle, middle + PAGE};
    for (int offset = -24; offset <= PAGE + 24; offset += offset == 24 ? PAGE - 48 : 1) {
        struct pep_regs regs = {.pc = (uintptr_t)walk_trap + 8,
                                .sp = middle + (uintptr_t)(intptr_t)offset,
                                .bp = middle + (uintptr_t)(intptr_t)offset};
        walk_registers(&regs);
        assert_true(walk_last.count >= 1);
        regs.pc = middle;
        walk_registers(&regs);
        assert_true(walk_last.count >= 1);
    }
    munmap(pages, 3 * PAGE);
}

/* A stack whose frames point back to themselves. */
static void circles_are_left(void **state) {
    (void)state;
    generated code = generate(with_frame, sizeof(with_frame));
    assert_int_equal(pep_modules_refresh(), 0);
    uintptr_t stack[32];
    for (int i = 0; i < 32; i += 2) {
        stack[i] = (uintptr_t)&stack[i % 4];
        stack[i + 1] = (uintptr_t)code + 16;
    }
    struct pep_regs regs = {
        .pc = (uintptr_t)code + 16, .sp = (uintptr_t)stack, .bp = (uintptr_t)&stack[0]};
    walk_registers(&regs);
    assert_true(walk_last.count < 40);
    assert_true(walk_last.is_partial);
    /* And a chain of signal frames that lead to themselves. */
    ucontext_t *loop = calloc(1, sizeof(*loop));
    loop->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)bare_restorer;
    loop->uc_mcontext.gregs[REG_RSP] = (greg_t)(uintptr_t)loop;
    regs = (struct pep_regs){.pc = (uintptr_t)bare_restorer, .sp = (uintptr_t)loop};
    walk_registers(&regs);
    assert_true(walk_last.count < 40);
    assert_true(walk_last.is_partial);
    free(loop);
    drop(code);
    assert_int_equal(pep_modules_refresh(), 0);
}

static uint64_t next_random(void) {
    static uint64_t x = 88172645463325252u;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

static uint64_t some_word(const void *stack, size_t size) {
    const struct pep_module *m = pep_modules_get(1 + next_random() % pep_modules_count());
    switch (next_random() % 5) {
    case 0:
        return next_random();
    case 1:
        return m->exec_start + next_random() % (m->limit - m->exec_start);
    case 2:
        return (uintptr_t)stack + next_random() % size;
    case 3:
        return (uintptr_t)stack + (next_random() % size & ~7u);
    default:
        return next_random() % 5000;
    }
}

static void random_registers_and_stacks_never_fault(void **state) {
    (void)state;
    size_t size = 64 << 10;
    char *stack = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack += PAGE;
    mprotect(stack, size, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < size / 8; i++)
        ((uint64_t *)stack)[i] = some_word(stack, size);
    for (int i = 0; i < 100000; i++) {
        ucontext_t context;
        uint64_t *gregs = (uint64_t *)context.uc_mcontext.gregs;
        for (int k = 0; k < NGREG; k++)
            gregs[k] = some_word(stack, size);
        bool is_known = next_random() % 2;
        walk_range.lo = is_known ? (uintptr_t)stack : 0;
        walk_range.hi = is_known ? (uintptr_t)stack + size : 0;
        walk_max = 1 + (int)(next_random() % PEP_UNWIND_DEPTH_MAX);
        struct pep_regs regs = {.pc = gregs[REG_RIP],
                                .sp = gregs[REG_RSP],
                                .bp = gregs[REG_RBP],
                                .ucontext = next_random() % 4 ? &context : NULL};
        walk_registers(&regs);
        assert_true(walk_last.count >= 1 && walk_last.count <= walk_max);
    }
    munmap(stack - PAGE, size + 2 * PAGE);
}

/* -- C that Go called ---------------------------------------------------------------------------
 */

NOINLINE static uintptr_t after_call(void) {
    return (uintptr_t)__builtin_return_address(0);
}

/* The stack of C as Go's asmcgocall leaves it, and the goroutine's, 64 bytes deep. */
static struct { uintptr_t go_stack[16], goroutine[2], c_stack[16]; } made;

static bool leaves_c(size_t kept_at, uintptr_t bp, uintptr_t address,
                     struct pep_learner_frame *frame) {
    static struct pep_unwind_memory memory;
    memset(&made, 0, sizeof made);
    made.goroutine[0] = (uintptr_t)made.go_stack;
    made.goroutine[1] = (uintptr_t)(made.go_stack + 16);
    made.c_stack[kept_at] = 64;
    made.c_stack[kept_at + 1] = (uintptr_t)made.goroutine;
    made.go_stack[8] = address;
    pep_unwind_memory_begin(&memory, 0, 0);
    *frame = (struct pep_learner_frame){.pc = 1, .sp = (uintptr_t)made.c_stack, .bp = bp};
    return pep_guess_caller(&memory, false, frame);
}

static void the_goroutine_that_called_c_is_found(void **state) {
    (void)state;
    struct pep_learner_frame frame;
    uintptr_t address = after_call(), bp = (uintptr_t)(made.go_stack + 10);
    for (size_t kept_at = 0; kept_at <= 5; kept_at += 5) {
        assert_true(leaves_c(kept_at, bp, address, &frame));
        assert_int_equal(frame.pc, address);
        assert_int_equal(frame.sp, (uintptr_t)(made.go_stack + 9));
        assert_int_equal(frame.bp, bp);
    }
    assert_false(leaves_c(1, bp, address, &frame));
    assert_false(leaves_c(5, bp, address + 1, &frame)); /* nothing returns to there */
    assert_false(leaves_c(5, bp + 4, address, &frame));
    assert_false(leaves_c(5, (uintptr_t)(made.go_stack + 8), address, &frame)); /* below SP */
    assert_false(leaves_c(5, (uintptr_t)(made.go_stack + 16), address, &frame));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_caller_of_a_bare_leaf_is_found, know_stack),
        cmocka_unit_test_setup(bare_code_with_a_frame_pointer_is_left, know_stack),
        cmocka_unit_test_setup(generated_frames_are_followed_by_their_frame_pointer, know_stack),
        cmocka_unit_test_setup(a_frame_just_set_up_keeps_its_callers, know_stack),
        cmocka_unit_test_setup(generated_code_without_frames_ends_the_walk, know_stack),
        cmocka_unit_test_setup(an_unknown_signal_trampoline_is_recognised, know_stack),
        cmocka_unit_test_setup(a_coroutine_is_walked_as_far_as_its_stack_goes, know_stack),
        cmocka_unit_test_setup(a_jump_to_nowhere_still_tells_its_caller, know_stack),
        cmocka_unit_test_setup(nothing_at_all_is_one_unknown_frame, know_stack),
        cmocka_unit_test_setup(walks_stop_at_unmapped_pages, know_stack),
        cmocka_unit_test_setup(circles_are_left, know_stack),
        cmocka_unit_test_setup(the_goroutine_that_called_c_is_found, know_stack),
        cmocka_unit_test_setup(random_registers_and_stacks_never_fault, know_stack),
    };
    return cmocka_run_group_tests(tests, walk_setup, NULL);
}
