/*
 * Processes that are born, change, or end: fork, exec, exit, namespaces.
 *
 * Model:   fork: state is put right by pthread_atfork (init.c), so that every way through libc's
 *          fork is covered; the wrapper only starts the child's agent, after all other handlers.
 *          exec: the thread's sampler is taken off first, for a signal of ours that is pending
 *          over execve(2) ends the new program; children that read lines are ended, for they would
 *          be the new program's. Exits that run no destructor: the recording is written first.
 *          A child of vfork is recognised by its pid and left alone (hook_vfork.c).
 * Writers: any thread, also in the host's handlers.  [hook]
 * Readers: -
 * Memory:  the stack; the execl family's arguments, as in libc.
 * When full: -
 */
#include <errno.h>
#include <pty.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http/record.h"
#include "http/server.h"
#include "preload/init.h"
#include "preload/real.h"
#include "sampler/cpu.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

/* -- fork ----------------------------------------------------------------------------------- */

PEP_EXPORT pid_t fork(void) {
    pid_t pid = pep_real.fork();
    if (pid == 0)
        pep_init_agent_restart_in_child();
    return pid;
}

/* No handler of pthread_atfork runs here and little may be called in the child, so it gets its
 * state put right and no agent: _Fork(3). */
PEP_EXPORT pid_t _Fork(void) {
    bool was_unmasked = pep_hook_signal_mask();
    pid_t pid = pep_real._Fork();
    if (pid == 0)
        pep_init_after_fork_child();
    pep_hook_signal_unmask(was_unmasked);
    return pid;
}

/* The parent ends inside, by an _exit that no hook sees. */
PEP_EXPORT int daemon(int no_chdir, int no_close) {
    if (!pep_init_is_awake() || !pep_init_is_this_process())
        return pep_real.daemon(no_chdir, no_close);
    pep_record_checkpoint();
    pep_init_expect_heir(true);
    int result = pep_real.daemon(no_chdir, no_close);
    pep_init_expect_heir(false);
    if (result == 0)
        pep_init_agent_restart_in_child();
    return result;
}

PEP_EXPORT int forkpty(int *fd, char *name, const struct termios *terminal,
                       const struct winsize *size) {
    int pid = pep_real.forkpty(fd, name, terminal, size);
    if (pid == 0)
        pep_init_agent_restart_in_child();
    return pid;
}

/* -- namespaces ----------------------------------------------------------------------------- */

/* These fail for a process with a second thread: unshare(2), setns(2). */
#define ALONE_FLAGS (CLONE_NEWUSER | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM)
#define ALONE_TRIES 100
#define ALONE_PAUSE_NS 1000000ull

/* A joined thread is counted until the kernel has buried it, so a refusal is tried again. */
#define RETRY_ALONE(result, call) \
    for (int tries = 0; ((result) = (call)) == -1 && errno == EINVAL && tries < ALONE_TRIES; \
         tries++) \
    pep_os_sleep_ns(ALONE_PAUSE_NS)

PEP_EXPORT int unshare(int flags) {
    if (!(flags & ALONE_FLAGS) || !pep_init_agent_steps_out())
        return pep_real.unshare(flags);
    int result;
    RETRY_ALONE(result, pep_real.unshare(flags));
    pep_init_agent_steps_in();
    return result;
}

PEP_EXPORT int setns(int fd, int type) {
    if (!pep_init_agent_steps_out())
        return pep_real.setns(fd, type);
    int result;
    RETRY_ALONE(result, pep_real.setns(fd, type));
    pep_init_agent_steps_in();
    return result;
}

/* -- exec ----------------------------------------------------------------------------------- */

/* True when the thread has to be given its sampler back, should the exec fail. */
static bool before_exec(void) {
    if (!pep_init_is_awake() || pep_thread_is_own())
        return false;
    if (!pep_init_is_this_process()) {
        pep_hook_signal_before_exec_apart();
        return false;
    }
    int saved_errno = errno;
    pep_record_checkpoint();
    pep_server_lines_recall();
    pep_cpu_exec_begin();
    errno = saved_errno;
    return true;
}

static int after_exec(bool was_known, int result) {
    if (was_known) {
        pep_cpu_exec_failed();
        pep_server_lines_recall_end();
    }
    return result;
}

PEP_EXPORT int execve(const char *path, char *const v[], char *const e[]) {
    bool was_known = before_exec();
    return after_exec(was_known, pep_real.execve(path, v, e));
}

PEP_EXPORT int execv(const char *path, char *const v[]) {
    bool was_known = before_exec();
    return after_exec(was_known, pep_real.execv(path, v));
}

PEP_EXPORT int execvp(const char *file, char *const v[]) {
    bool was_known = before_exec();
    return after_exec(was_known, pep_real.execvp(file, v));
}

PEP_EXPORT int execvpe(const char *file, char *const v[], char *const e[]) {
    bool was_known = before_exec();
    return after_exec(was_known, pep_real.execvpe(file, v, e));
}

PEP_EXPORT int fexecve(int fd, char *const v[], char *const e[]) {
    bool was_known = before_exec();
    return after_exec(was_known, pep_real.fexecve(fd, v, e));
}

PEP_EXPORT int execveat(int fd, const char *path, char *const v[], char *const e[], int flags) {
    bool was_known = before_exec();
    return after_exec(was_known, pep_real.execveat(fd, path, v, e, flags));
}

/* Arguments up to and with the NULL. */
static size_t count_arguments(va_list list) {
    size_t count = 1;
    while (va_arg(list, char *))
        count++;
    return count;
}

static void copy_arguments(char **v, size_t count, va_list list) {
    for (size_t i = 0; i < count; i++)
        v[i] = va_arg(list, char *);
}

/* v[0..] on the caller's stack from first and what follows it; list is left after the NULL. The
 * headers swear that first is never NULL; hosts do not. */
#define COLLECT_ARGUMENTS(v, list, first) \
    const char *zeroth = (first); \
    __asm__("" : "+r"(zeroth)); \
    va_start(list, first); \
    size_t rest = zeroth ? count_arguments(list) : 0; \
    va_end(list); \
    char **v = __builtin_alloca((rest + 1) * sizeof(char *)); \
    v[0] = (char *)(uintptr_t)zeroth; \
    va_start(list, first); \
    copy_arguments(v + 1, rest, list)

PEP_EXPORT int execl(const char *path, const char *first, ...) {
    va_list list;
    COLLECT_ARGUMENTS(v, list, first);
    va_end(list);
    return execv(path, v);
}

PEP_EXPORT int execlp(const char *file, const char *first, ...) {
    va_list list;
    COLLECT_ARGUMENTS(v, list, first);
    va_end(list);
    return execvp(file, v);
}

PEP_EXPORT int execle(const char *path, const char *first, ...) {
    va_list list;
    COLLECT_ARGUMENTS(v, list, first);
    char **e = va_arg(list, char **);
    va_end(list);
    return execve(path, v, e);
}

/* -- exit ----------------------------------------------------------------------------------- */

static void on_way_out(void) {
    if (!pep_init_is_awake() || !pep_init_is_this_process())
        return;
    pep_record_finish();
    pep_server_lines_recall(); /* an orphan would be told to whoever takes these in */
    pep_server_unpublish();
}

void pep_hook_process_init(void) {
    /* Called last of all: at_quick_exit(3). */
    (void)at_quick_exit(on_way_out);
}

PEP_EXPORT void _exit(int status) {
    on_way_out();
    pep_real._exit(status);
    __builtin_unreachable();
}

PEP_EXPORT void _Exit(int status) {
    on_way_out();
    pep_real._Exit(status);
    __builtin_unreachable();
}

/* A handler of SIGABRT may leave by longjmp: not the end yet. */
PEP_EXPORT void abort(void) {
    if (pep_init_is_awake() && pep_record_is_active() && pep_init_is_this_process())
        pep_record_checkpoint();
    pep_real.abort();
    __builtin_unreachable();
}

/* -- were we preloaded ---------------------------------------------------------------------- */

extern int own_unshare(int flags)
    __attribute__((alias("unshare"), visibility("hidden"), nothrow, leaf));
extern pid_t own_fork(void) __attribute__((alias("fork"), visibility("hidden"), nothrow));

bool pep_hook_process_is_ours(const char *name, const void *found) {
    if (strcmp(name, "unshare") == 0)
        return found == (const void *)own_unshare;
    return found == (const void *)own_fork;
}
