/* Makes a child in the way its argument names; both then stay until they are told to go. Prints
 * "parent PID" and "child PID". */
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile unsigned long sink;

__attribute__((noinline)) static void burn_in_child(void) {
    for (;;) {
        for (unsigned i = 0; i < 100000; i++)
            sink += i;
        usleep(10);
    }
}

static pid_t make_child(const char *way) {
    int terminal;
    if (strcmp(way, "fork") == 0)
        return fork();
    if (strcmp(way, "_Fork") == 0)
        return _Fork();
    if (strcmp(way, "raw") == 0)
        return (pid_t)syscall(SYS_fork);
    if (strcmp(way, "forkpty") == 0)
        return forkpty(&terminal, NULL, NULL, NULL);
    if (strcmp(way, "daemon") == 0)
        return daemon(1, 1);
    exit(2);
}

/* A child that starts another program, by a way that a hook might spoil. */
static int run_and_wait(const char *way) {
    pid_t pid = -1;
    int status = 0;
    if (strcmp(way, "system") == 0)
        return WEXITSTATUS(system("exit 21"));
    if (strcmp(way, "popen") == 0)
        return WEXITSTATUS(pclose(popen("exit 21", "r")));
    if (strcmp(way, "vfork") == 0) {
        pid = vfork();
        if (pid == 0) {
            execl("/bin/sh", "sh", "-c", "exit 21", (char *)NULL);
            _exit(127);
        }
    } else {
        pid = fork();
        if (pid == 0) {
            char *arguments[] = {"sh", "-c", "exit 21", NULL};
            char *environment[] = {"A=b", NULL};
            if (strcmp(way, "execv") == 0)
                execv("/bin/sh", arguments);
            else if (strcmp(way, "execvp") == 0)
                execvp("sh", arguments);
            else if (strcmp(way, "execvpe") == 0)
                execvpe("sh", arguments, environment);
            else if (strcmp(way, "execlp") == 0)
                execlp("sh", "sh", "-c", "exit 21", (char *)NULL);
            else if (strcmp(way, "execle") == 0)
                execle("/bin/sh", "sh", "-c", "test $A = b && exit 21", (char *)NULL, environment);
            else if (strcmp(way, "execve") == 0)
                execve("/bin/sh", arguments, environment);
            else if (strcmp(way, "failing") == 0) {
                execl("/no/such/program", "x", (char *)NULL);
                execvp("no-such-program", arguments);
                _exit(21);
            }
            _exit(126);
        }
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int count, char **arguments) {
    if (count > 2)
        return run_and_wait(arguments[2]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count < 2)
        return 2;
    printf("parent %d\n", getpid());
    pid_t pid = make_child(arguments[1]);
    if (pid == 0) {
        FILE *out = strcmp(arguments[1], "forkpty") == 0 ? stderr : stdout;
        fprintf(out, "child %d\n", getpid());
        fflush(out);
        burn_in_child();
    }
    if (strcmp(arguments[1], "forkpty") == 0)
        printf("child %d\n", pid);
    waitpid(pid, NULL, 0);
    return 0;
}
