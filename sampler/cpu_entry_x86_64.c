/*
 * The pieces of signal handling that C cannot say.
 *
 * Model:   call_on_stack: run pep_cpu_record on another stack and come back. restorer: what the
 *          kernel returns to when the handler ends; unwinders know these exact bytes.
 *          host_restorer: the same for the host's handlers.
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

/* Returns from a handler of the host's to where its thread was interrupted: what will be restored
 * is the ucontext at rsp, with rax at 144, rcx at 152, rip at 168. Behind a system call that
 * returned EINTR, rcx is still the address of what follows, of use to nobody; a sample in the
 * moment of the return would take the call for one that it cut short itself, so rcx is cleared. And
 * where the thread was on its way back into a call that a sample had cut short, as rcx tells
 * (cpu_restart.c), the host's signal ends the call: with EINTR, past syscall. Of two restorers the
 * first is for handlers after which calls begin again that can (SA_RESTART). The tables for
 * unwinders are as those of libc's own, and begin a byte early, because what they look up is the
 * return address less one. */
#define RESTORER(name, also_calls_that_begin_again) \
    __asm__(".pushsection .text.pep_signal, \"ax\", @progbits\n\t" \
            ".cfi_startproc simple\n\t" \
            ".cfi_signal_frame\n\t" REGISTERS "nop\n\t" \
            ".globl " #name "\n\t" \
            ".hidden " #name "\n\t" \
            ".type " #name ", @function\n" #name ":\n\t" \
            "mov 168(%rsp), %rax\n\t" \
            "cmp %rax, 152(%rsp)\n\t" \
            "je 2f\n\t" \
            "not %rax\n\t" \
            "cmp %rax, 152(%rsp)\n\t" \
            "je 1f\n\t" also_calls_that_begin_again "jmp 3f\n" \
            "1:\n\t" \
            "addq $2, 168(%rsp)\n\t" \
            "movq $-4, 144(%rsp)\n" \
            "2:\n\t" \
            "cmpq $-4, 144(%rsp)\n\t" \
            "jne 3f\n\t" \
            "movq $0, 152(%rsp)\n" \
            "3:\n\t" \
            "mov $15, %rax\n\t" \
            "syscall\n\t" \
            ".size " #name ", . - " #name "\n\t" \
            ".cfi_endproc\n\t" \
            ".popsection")

/* Where each of them was saved. */
#define REGISTERS \
    ".cfi_escape 0xf, 0x4, 0x77, 0xa0, 0x1, 0x6\n\t"   /* rsp, at 160(%rsp) */ \
    ".cfi_escape 0x10, 0x8, 0x2, 0x77, 0x28\n\t"       /* r8 */ \
    ".cfi_escape 0x10, 0x9, 0x2, 0x77, 0x30\n\t"       /* r9 */ \
    ".cfi_escape 0x10, 0xa, 0x2, 0x77, 0x38\n\t"       /* r10 */ \
    ".cfi_escape 0x10, 0xb, 0x3, 0x77, 0xc0, 0x0\n\t"  /* r11 */ \
    ".cfi_escape 0x10, 0xc, 0x3, 0x77, 0xc8, 0x0\n\t"  /* r12 */ \
    ".cfi_escape 0x10, 0xd, 0x3, 0x77, 0xd0, 0x0\n\t"  /* r13 */ \
    ".cfi_escape 0x10, 0xe, 0x3, 0x77, 0xd8, 0x0\n\t"  /* r14 */ \
    ".cfi_escape 0x10, 0xf, 0x3, 0x77, 0xe0, 0x0\n\t"  /* r15 */ \
    ".cfi_escape 0x10, 0x5, 0x3, 0x77, 0xe8, 0x0\n\t"  /* rdi */ \
    ".cfi_escape 0x10, 0x4, 0x3, 0x77, 0xf0, 0x0\n\t"  /* rsi */ \
    ".cfi_escape 0x10, 0x6, 0x3, 0x77, 0xf8, 0x0\n\t"  /* rbp */ \
    ".cfi_escape 0x10, 0x3, 0x3, 0x77, 0x80, 0x1\n\t"  /* rbx */ \
    ".cfi_escape 0x10, 0x1, 0x3, 0x77, 0x88, 0x1\n\t"  /* rdx */ \
    ".cfi_escape 0x10, 0x0, 0x3, 0x77, 0x90, 0x1\n\t"  /* rax */ \
    ".cfi_escape 0x10, 0x2, 0x3, 0x77, 0x98, 0x1\n\t"  /* rcx */ \
    ".cfi_escape 0x10, 0x10, 0x3, 0x77, 0xa8, 0x1\n\t" /* rip */

RESTORER(pep_cpu_host_restorer, "");
RESTORER(pep_cpu_host_restorer_ending, "inc %rax\n\tcmp %rax, 152(%rsp)\n\tje 1f\n\t");
