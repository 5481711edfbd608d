/*
 * vfork and clone: who may be a child that runs on its parent's memory.
 *
 * Model:   a child of vfork(2) has its parent's thread-local memory, and what tells it from its
 *          parent is its pid alone: a system call, in hooks that a program may call all the while.
 *          So it is noted on the thread that it has called vfork, and for good that the program
 *          has called clone(2) for a process; who finds neither need not ask. The parent forgets
 *          only after a few answers: a handler, or a vfork of another library's behind ours, may
 *          change masks on the way into the kernel. The hooks jump and leave nothing on the stack:
 *          the child of vfork returns first, on its parent's. One that is made by an instruction
 *          of the program's own, or by a function that was looked up in libc alone, is not noted,
 *          and not looked for.
 * Writers: any host thread, also in the host's handlers.  [signal]
 * Readers: the hooks of masks.  [signal]
 * Memory:  static; one thread-local byte.
 * When full: -
 */
#include <dlfcn.h>
#include <errno.h>

#include "preload/init.h"
#include "preload/real.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"

/* Hidden, not static: what is used in assembler alone would be left out. The first is how often
 * the parent will ask before it forgets: 8 in the hook, too. */
#define PARENT_ASKS 8
PEP_HIDDEN PEP_TLS unsigned char pep_hook_vfork_called;
PEP_HIDDEN unsigned char pep_hook_vfork_is_cloned;

PEP_SIGNAL_SAFE bool pep_hook_vfork_may_be_child(void) {
    return pep_hook_vfork_called || pep_load_relaxed(&pep_hook_vfork_is_cloned);
}

PEP_SIGNAL_SAFE void pep_hook_vfork_is_parent(void) {
    if (pep_hook_vfork_called > 0)
        pep_hook_vfork_called--;
}

PEP_SIGNAL_SAFE void pep_hook_vfork_note(bool is_vfork) {
    if (is_vfork)
        pep_hook_vfork_called = PARENT_ASKS;
    else
        pep_store_relaxed(&pep_hook_vfork_is_cloned, 1);
}

/* The functions behind the hooks; until they are looked up, the two ways to do so. */
void pep_hook_vfork_first(void);
void pep_hook_vfork_first_clone(void);
PEP_HIDDEN void (*pep_hook_vfork_next)(void) = pep_hook_vfork_first;
PEP_HIDDEN void (*pep_hook_vfork_next_clone)(void) = pep_hook_vfork_first_clone;

static long is_missing(void) {
    errno = ENOSYS;
    return -1;
}

static void look_up(void (**to)(void), const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    pep_store_release((void **)(void *)to, found ? found : (void *)is_missing);
}

PEP_HIDDEN void pep_hook_vfork_resolve(void) {
    int saved_errno = errno;
    look_up(&pep_hook_vfork_next, "vfork");
    look_up(&pep_hook_vfork_next_clone, "clone");
    errno = saved_errno;
}

/* All registers that arguments travel in are kept (System V ABI for x86-64, 3.2.3), and the stack
 * can be walked at every instruction. */
#define PUSH(name) "push %" name "\n\t.cfi_adjust_cfa_offset 8\n\t"
#define POP(name) "pop %" name "\n\t.cfi_adjust_cfa_offset -8\n\t"
#define RESOLVE_AND_GO_ON(next) \
    __asm__(PUSH("rdi") PUSH("rsi") PUSH("rdx") PUSH("rcx") PUSH("r8") PUSH("r9") \
                PUSH("rax") "call pep_hook_vfork_resolve\n\t" POP("rax") POP("r9") POP("r8") \
                    POP("rcx") POP("rdx") POP("rsi") POP("rdi") "jmp *" #next "(%rip)")

__attribute__((naked)) PEP_HIDDEN void pep_hook_vfork_first(void) {
    RESOLVE_AND_GO_ON(pep_hook_vfork_next);
}

__attribute__((naked)) PEP_HIDDEN void pep_hook_vfork_first_clone(void) {
    RESOLVE_AND_GO_ON(pep_hook_vfork_next_clone);
}

/* Their names in C are their own, for the headers know what they return. */
PEP_EXPORT void pep_hook_vfork(void) __asm__("vfork");
PEP_EXPORT void pep_hook_clone(void) __asm__("clone");

PEP_EXPORT __attribute__((naked)) void pep_hook_vfork(void) {
    __asm__("mov pep_hook_vfork_called@gottpoff(%rip), %rax\n\t"
            "movb $8, %fs:(%rax)\n\t"
            "jmp *pep_hook_vfork_next(%rip)");
}

/* clone(2)'s flags are the third argument; 0x10000 is CLONE_THREAD. */
PEP_EXPORT __attribute__((naked)) void pep_hook_clone(void) {
    __asm__("test $0x10000, %edx\n\t"
            "jnz 1f\n\t"
            "movb $1, pep_hook_vfork_is_cloned(%rip)\n"
            "1:\n\t"
            "jmp *pep_hook_vfork_next_clone(%rip)");
}

/* libc shows both by these names too. */
PEP_EXPORT __attribute__((alias("vfork"))) void pep_hook_vfork_too(void) __asm__("__vfork");
PEP_EXPORT __attribute__((alias("clone"))) void pep_hook_clone_too(void) __asm__("__clone");
