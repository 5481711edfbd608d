/*
 * The two pieces of the handler that C cannot say.
 *
 * Model:   call_on_stack: run pep_cpu_record on another stack and come back. restorer: what the
 *          kernel returns to when the handler ends; unwinders know these exact bytes.
 * Writers: -
 * Readers: the handler.  [signal]
 * Memory:  the caller's stack block.
 * When full: -
 */
#include "sampler/cpu_internal.h"

/* rbp keeps the way back, and the CFA for a debugger that looks at us from inside. */
__attribute__((naked)) void pep_cpu_call_on_stack(struct pep_cpu_job *job PEP_UNUSED,
                                                  void *stack_top PEP_UNUSED) {
    __asm__("push %rbp\n\t"
            ".cfi_adjust_cfa_offset 8\n\t"
            ".cfi_rel_offset %rbp, 0\n\t"
            "mov %rsp, %rbp\n\t"
            ".cfi_def_cfa_register %rbp\n\t"
            "mov %rsi, %rsp\n\t"
            "call pep_cpu_record\n\t"
            "mov %rbp, %rsp\n\t"
            ".cfi_def_cfa_register %rsp\n\t"
            "pop %rbp\n\t"
            ".cfi_adjust_cfa_offset -8\n\t"
            ".cfi_restore %rbp\n\t"
            "ret");
}

/* rt_sigreturn(2), spelt as in libc: unwinders compare the bytes. */
__attribute__((naked)) void pep_cpu_restorer(void) {
    __asm__("mov $15, %rax\n\t"
            "syscall");
}
