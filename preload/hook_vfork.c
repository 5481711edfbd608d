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
 *          and not looked for. Who was made by clone may have memory of its own, with no handler of
 *          fork to tell: the kernel does.
 * Writers: any host thread, also in the host's handlers.  [signal]
 * Readers: the hooks of masks and of filters.  [signal]
 * Memory:  static; one thread-local byte; a page where clone was called.
 * When full: -
 */
#include <errno.h>
#include <sys/mman.h>

#include "preload/init.h"
#include "preload/real.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/attrs.h"
#include "sampler/rt/os.h"

/* Hidden, not static: what is used in assembler alone would be left out. The first is how often
 * the parent will ask before it forgets: 8 in the hook, too. */
#define PARENT_ASKS 8
#define STAMP_BYTES 4096
PEP_HIDDEN PEP_TLS unsigned char pep_hook_vfork_called;
PEP_HIDDEN unsigned char pep_hook_vfork_is_cloned;

PEP_SIGNAL_SAFE bool pep_hook_vfork_may_be_child(void) {
    return pep_hook_vfork_called || pep_load_relaxed(&pep_hook_vfork_is_cloned);
}

PEP_SIGNAL_SAFE void pep_hook_vfork_is_parent(void) {
    if (pep_hook_vfork_called > 0)
        pep_hook_vfork_called--;
}

/* In a page that the kernel wipes in a child with memory of its own: madvise(2), MADV_WIPEONFORK.
 * Without it (Linux before 4.14) no child is known to be one. */
static unsigned char *has_parents_memory;

PEP_SIGNAL_SAFE static void put_stamp(void) {
    unsigned char *page = pep_load_acquire(&has_parents_memory), *none = NULL;
    if (page == NULL) {
        page = pep_os_map(STAMP_BYTES);
        if (page == NULL || pep_os_madvise(page, STAMP_BYTES, MADV_WIPEONFORK) != 0 ||
            !pep_cas_acq_rel(&has_parents_memory, &none, page)) {
            if (page != NULL)
                (void)pep_os_unmap(page, STAMP_BYTES);
            page = none;
        }
    }
    if (page != NULL)
        pep_store_release(page, 1);
}

PEP_SIGNAL_SAFE bool pep_hook_vfork_has_own_memory(void) {
    const unsigned char *page = pep_load_acquire(&has_parents_memory);
    return page != NULL && pep_load_acquire(page) == 0;
}

PEP_HIDDEN PEP_SIGNAL_SAFE void pep_hook_vfork_cloning(void);
PEP_HIDDEN PEP_SIGNAL_SAFE void pep_hook_vfork_cloning(void) {
    put_stamp();
    pep_store_relaxed(&pep_hook_vfork_is_cloned, 1);
}

PEP_SIGNAL_SAFE void pep_hook_vfork_note(bool is_vfork) {
    if (is_vfork)
        pep_hook_vfork_called = PARENT_ASKS;
    else
        pep_hook_vfork_cloning();
}

/* The functions behind the hooks; until they are looked up, the two ways to do so. */
void pep_hook_vfork_first(void);
void pep_hook_vfork_first_clone(void);
PEP_HIDDEN void (*pep_hook_vfork_next)(void) = pep_hook_vfork_first;
PEP_HIDDEN void (*pep_hook_vfork_next_clone)(void) = pep_hook_vfork_first_clone;

PEP_HIDDEN void pep_hook_vfork_resolve(void) {
    int saved_errno = errno;
    pep_store_release((void **)(void *)&pep_hook_vfork_next, pep_real_look_up("vfork"));
    pep_store_release((void **)(void *)&pep_hook_vfork_next_clone, pep_real_look_up("clone"));
    errno = saved_errno;
}

/* All registers that arguments travel in are kept (System V ABI for x86-64, 3.2.3), and the stack
 * can be walked at every instruction. */
#define PUSH(name) "push %" name "\n\t.cfi_adjust_cfa_offset 8\n\t"
#define POP(name) "pop %" name "\n\t.cfi_adjust_cfa_offset -8\n\t"
#define SAVE_1 PUSH("rdi") PUSH("rsi") PUSH("rdx")
#define SAVE_2 PUSH("rcx") PUSH("r8") PUSH("r9") PUSH("rax")
#define RESTORE_2 POP("rax") POP("r9") POP("r8") POP("rcx")
#define RESTORE_1 POP("rdx") POP("rsi") POP("rdi")
#define CALL(function) SAVE_1 SAVE_2 "call " #function "\n\t" RESTORE_2 RESTORE_1

__attribute__((naked)) PEP_HIDDEN void pep_hook_vfork_first(void) {
    __asm__(CALL(pep_hook_vfork_resolve) "jmp *pep_hook_vfork_next(%rip)");
}

__attribute__((naked)) PEP_HIDDEN void pep_hook_vfork_first_clone(void) {
    __asm__(CALL(pep_hook_vfork_resolve) "jmp *pep_hook_vfork_next_clone(%rip)");
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
            "jnz 1f\n\t" CALL(pep_hook_vfork_cloning) "1:\n\t"
                                                      "jmp *pep_hook_vfork_next_clone(%rip)");
}

/* libc shows both by these names too. */
PEP_EXPORT __attribute__((alias("vfork"))) void pep_hook_vfork_too(void) __asm__("__vfork");
PEP_EXPORT __attribute__((alias("clone"))) void pep_hook_clone_too(void) __asm__("__clone");
