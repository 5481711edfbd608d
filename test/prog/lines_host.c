/*
 * What a program does to the child that reads its source lines.
 *
 *     lines_host exec|syscall|raw   computes until it has a child, replaces itself at once, and
 *                                   tells what the new program has: "no child" or "a child"
 *     lines_host filter             forbids copies of itself, on pain of death, then computes
 *
 * The filter and "raw" come by system calls that no library sees; the filter is for all threads.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

static volatile unsigned long sink;

static void compute(void) {
    for (int i = 0; i < 1000; i++)
        sink += sink;
}

/* Alive or dead, with a signal for its end or without. */
static int has_child(void) {
    siginfo_t info;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 || errno != ECHILD;
}

static long raw(long nr, long a, long b, long c, long d) {
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "+a"(nr)
                     : "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return nr;
}

static int forbid_copies(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_VM, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {.len = COUNT_OF(code), .filter = code};
    if (raw(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0) != 0)
        return -1;
    return (int)raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, (long)&program,
                    0);
}

int main(int argc, char **argv) {
    extern char **environ;
    if (argc == 1) {
        puts(has_child() ? "a child" : "no child");
        return 0;
    }
    if (strcmp(argv[1], "filter") == 0) {
        if (forbid_copies() != 0)
            return 1;
        puts("filtered");
        fflush(stdout);
        for (;;)
            compute();
    }
    char *next[] = {argv[0], NULL};
    while (!has_child())
        compute();
    if (strcmp(argv[1], "exec") == 0)
        execv("/proc/self/exe", next);
    else if (strcmp(argv[1], "raw") == 0)
        raw(SYS_execve, (long)"/proc/self/exe", (long)next, (long)environ, 0);
    else
        syscall(SYS_execve, "/proc/self/exe", next, environ);
    return 1;
}
