/*
 * A host that burns 100 ms of CPU and then becomes /bin/true by syscall(SYS_execve), past libc's
 * exec functions.
 *
 * usage: raw_exec      exit status 0 when /bin/true ran, 9 when the call failed
 */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

int main(void) {
    struct timespec used;
    do {
        for (volatile int i = 0; i < 10000; i++)
            continue;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    } while (used.tv_sec == 0 && used.tv_nsec < 100000000);
    char *arguments[] = {"true", NULL};
    syscall(SYS_execve, "/bin/true", arguments, environ);
    return 9;
}
