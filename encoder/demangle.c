/*
 * Readable names, by libiberty's demanglers.
 *
 * Model:   a name goes in, pieces of text come out through a callback. The demangler recurses and
 *          allocates on the stack as the name demands, so it runs on a stack of its own behind a
 *          guard page: profep's threads have small ones.
 * Writers: pep_demangle.  [normal]
 * Readers: -
 * Memory:  8 MiB of address space, of which what is used is touched; a second one when two
 *          threads demangle at once. The text: the caller's arena.
 * When full: NULL, so that the name stays as it is; names beyond 1,024 bytes are refused by
 *          libiberty's own recursion limit (it would take stack in the square of the length).
 */
#include <libiberty/demangle.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "encoder/symbolize.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

#define NAME_BYTES_MAX 16384 /* longer ones are not names anybody reads */
#define TEXT_BYTES_MAX 8192  /* a doubling name of 100 bytes would print for hours */
#define READABLE_BYTES 240   /* beyond, deep template arguments are left out */
#define STACK_BYTES ((size_t)8 << 20)
#define GUARD_BYTES ((size_t)64 << 10)

struct run {
    const char *mangled;
    size_t count; /* of text */
    bool is_done;
    void *caller; /* stack_call's */
    char text[TEXT_BYTES_MAX];
    char shallow[TEXT_BYTES_MAX]; /* the shortened text while it is made */
};

static char *shared_stack; /* mapped at first use, kept */
static int is_stack_taken; /* by the thread that demangles now */

/* Calls function(argument) with the stack pointer at top (a multiple of 16). *saved gets the
 * caller's stack pointer, above which lie its preserved registers. True when the function
 * returned, false when it was left by stack_leave(*saved). Not setjmp: libc's checks that a jump
 * goes up the same stack, and the compiler's own lands wrong when the function is inlined.
 * Source: System V ABI, AMD64 supplement, 3.2.1 and 3.2.3. */
static __attribute__((naked, noinline)) bool stack_call(void **saved PEP_UNUSED,
                                                        char *top PEP_UNUSED,
                                                        void (*function)(void *) PEP_UNUSED,
                                                        void *argument PEP_UNUSED) {
    __asm__("pushq %rbp\n\t"
            "pushq %rbx\n\t"
            "pushq %r12\n\t"
            "pushq %r13\n\t"
            "pushq %r14\n\t"
            "pushq %r15\n\t"
            "movq %rsp, (%rdi)\n\t"
            "movq %rsp, %rbx\n\t"
            "movq %rsi, %rsp\n\t"
            "movq %rcx, %rdi\n\t"
            "call *%rdx\n\t"
            "movq %rbx, %rsp\n\t"
            "movl $1, %eax\n\t"
            "popq %r15\n\t"
            "popq %r14\n\t"
            "popq %r13\n\t"
            "popq %r12\n\t"
            "popq %rbx\n\t"
            "popq %rbp\n\t"
            "ret");
}

/* Ends a stack_call from anywhere inside it; does not return, which the sanitizers must not know:
 * they would clean the wrong stack. */
static __attribute__((naked, noinline)) void stack_leave(void *saved PEP_UNUSED) {
    __asm__("movq %rdi, %rsp\n\t"
            "xorl %eax, %eax\n\t"
            "popq %r15\n\t"
            "popq %r14\n\t"
            "popq %r13\n\t"
            "popq %r12\n\t"
            "popq %rbx\n\t"
            "popq %rbp\n\t"
            "ret");
}

/* The demangler allocates nothing in callback mode, so leaving it in the middle loses nothing. */
static void take_piece(const char *piece, size_t count, void *opaque) {
    struct run *run = opaque;
    if (count >= TEXT_BYTES_MAX - run->count) {
        stack_leave(run->caller);
        return;
    }
    memcpy(run->text + run->count, piece, count);
    run->count += count;
}

static void demangle_now(void *opaque) {
    struct run *run = opaque;
    /* Rust first: its legacy form is also a valid C++ name. No DMGL_PARAMS: pprof and the flame
     * graph show functions, not signatures. */
    run->is_done = rust_demangle_callback(run->mangled, DMGL_NO_OPTS, take_piece, run) != 0;
    if (run->is_done)
        return;
    run->count = 0;
    run->is_done = cplus_demangle_v3_callback(run->mangled, DMGL_NO_OPTS, take_piece, run) != 0;
}

static char *map_stack(void) {
    char *stack = pep_os_map(STACK_BYTES);
    if (stack != NULL)
        pep_os_call6(SYS_mprotect, (long)stack, GUARD_BYTES, PROT_NONE, 0, 0, 0);
    return stack;
}

/* Runs on the kept stack, or on one made for this call while another thread uses that. */
static bool run_somewhere(struct run *run) {
    bool is_ours = pep_swap_acq_rel(&is_stack_taken, 1) == 0;
    if (is_ours && shared_stack == NULL)
        shared_stack = map_stack();
    char *stack = is_ours ? shared_stack : map_stack();
    bool is_done = stack != NULL &&
                   stack_call(&run->caller, stack + STACK_BYTES, demangle_now, run) && run->is_done;
    if (is_ours)
        pep_store_release(&is_stack_taken, 0); /* pairs with the swap above */
    else if (stack != NULL)
        pep_os_unmap(stack, STACK_BYTES);
    return is_done;
}

/* 1 where a list of template arguments opens, -1 where one closes, else 0. The signs of operators
 * and of Rust's "->" are none. */
static int bracket_at(const char *text, size_t at) {
    static const char word[] = "operator";
    size_t length = sizeof(word) - 1, first = at;
    if (text[at] != '<' && text[at] != '>')
        return 0;
    while (first > 0 && strchr("<>=-", text[first - 1]) != NULL)
        first--;
    if (first >= length && memcmp(text + first - length, word, length) == 0)
        return 0;
    if (text[at] == '<')
        return 1;
    return at > 0 && text[at - 1] == '-' ? 0 : -1;
}

/* Copies text without what stands in brackets deeper than deepest; the length of the copy, or 0
 * when the brackets do not match. to may be NULL. */
static size_t copy_shallow(const char *text, size_t count, int deepest, char *to) {
    size_t copied = 0;
    int depth = 0;
    for (size_t i = 0; i < count; i++) {
        int bracket = bracket_at(text, i);
        depth += bracket < 0 ? -1 : 0;
        if (depth < 0)
            return 0;
        if (depth <= deepest) {
            if (bracket < 0 && depth == deepest) {
                if (to != NULL)
                    memcpy(to + copied, "...", 3);
                copied += 3;
            }
            if (to != NULL)
                to[copied] = text[i];
            copied++;
        }
        depth += bracket > 0 ? 1 : 0;
    }
    return depth == 0 ? copied : 0;
}

/* Takes the innermost template arguments out of a long name until it can be read. */
static void shorten(struct run *run) {
    for (int deepest = 5; run->count > READABLE_BYTES && deepest >= 0; deepest--) {
        size_t count = copy_shallow(run->text, run->count, deepest, NULL);
        if (count == 0)
            return;
        if ((count > READABLE_BYTES && deepest > 0) || count >= run->count)
            continue;
        copy_shallow(run->text, run->count, deepest, run->shallow);
        memcpy(run->text, run->shallow, count);
        run->count = count;
    }
}

char *pep_demangle(struct pep_arena *arena, const char *text) {
    if (text[0] != '_' || (text[1] != 'Z' && text[1] != 'R' && text[1] != '_'))
        return NULL;
    if (strnlen(text, NAME_BYTES_MAX) == NAME_BYTES_MAX)
        return NULL;
    struct run *job = pep_malloc(sizeof(*job));
    if (job == NULL)
        return NULL;
    job->mangled = text;
    job->count = 0;
    job->is_done = false;
    char *name = NULL;
    if (run_somewhere(job) && job->count > 0) {
        shorten(job);
        name = pep_arena_strndup(arena, job->text, job->count);
    }
    pep_free(job);
    return name;
}
