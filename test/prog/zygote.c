/*
 * As the zygote of Chromium: ends where it is not alone, and makes children by clone that forbid
 * themselves what they do not need, here to read another process's memory. zygote [STAY_SECONDS]
 * stays for so long before. The output, and the end by SIGUSR1, must be the same bare and watched.
 */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK_BYTES 65536

static void check_alone(const char *when) {
    struct stat found;
    int proc = open("/proc/", O_RDONLY | O_DIRECTORY);
    if (stat("/proc/self/task", &found) != 0)
        perror("stat");
    printf("%s: %d threads", when, (int)found.st_nlink - 2);
    if (fstatat(proc, "self/task/", &found, 0) != 0)
        perror("fstatat");
    printf(", %d threads\n", (int)found.st_nlink - 2);
    close(proc);
}

__attribute__((noinline)) static void *deeper(int depth) {
    void *block = depth > 0 ? deeper(depth - 1) : malloc(1000);
    __asm__ volatile("" : "+r"(block));
    return block;
}

static int confined(void *unused) {
    (void)unused;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
        _exit(1);
    for (int i = 0; i < 10000; i++)
        free(deeper(i % 20));
    _exit(7);
}

static void run(const char *way, pid_t child) {
    int status = 0;
    if (child == 0)
        confined(NULL);
    waitpid(child, &status, 0);
    printf("%s: status %x\n", way, (unsigned)status);
    fflush(stdout);
}

int main(int count, char **arguments) {
    static _Alignas(16) char stack[STACK_BYTES];
    if (count > 1)
        sleep((unsigned)atoi(arguments[1]));
    check_alone("at first");
    usleep(10000);
    check_alone("later");
    fflush(stdout);
    run("syscall", (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0));
    run("clone", clone(confined, stack + STACK_BYTES, SIGCHLD, NULL));
    check_alone("at last");
    run("fork", fork());
    /* Nobody is there to print a peek, so it ends the program. */
    if (fork() == 0) {
        kill(getppid(), SIGUSR1);
        _exit(0);
    }
    sleep(5);
    return 0;
}
