/*
 * The functions that stand behind our hooks: what the host would have called without us.
 *
 * Model:   one table of pointers. Before the first resolution each leads to a stub that resolves
 *          all of them and goes on, so a hook may be called before our constructor (by the
 *          constructor of another library) and needs no test of its own. dlsym(RTLD_NEXT), so
 *          that other preloads behind us keep their turn.
 * Writers: pep_real_resolve, all to the same values.  [normal]
 * Readers: the hooks, any room; the constructor resolves before a handler can run.
 * Memory:  static.
 * When full: a function this libc does not have answers -1 with ENOSYS.
 */
#ifndef PEP_PRELOAD_REAL_H
#define PEP_PRELOAD_REAL_H

#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <threads.h>
#include <time.h>

#include "sampler/rt/attrs.h"

/* X(result, name, parameters, arguments) */
#define PEP_REALS(X) \
    X(int, pthread_create, (pthread_t * t, const pthread_attr_t *a, void *(*f)(void *), void *v), \
      (t, a, f, v)) \
    X(int, thrd_create, (thrd_t * t, thrd_start_t f, void *v), (t, f, v)) \
    X(int, pthread_key_create, (pthread_key_t * k, void (*f)(void *)), (k, f)) \
    X(int, tss_create, (tss_t * k, tss_dtor_t f), (k, f)) \
    X(int, dlclose, (void *handle), (handle)) \
    X(int, sigaction, (int n, const struct sigaction *set, struct sigaction *old), (n, set, old)) \
    X(sighandler_t, signal, (int n, sighandler_t f), (n, f)) \
    X(sighandler_t, sysv_signal, (int n, sighandler_t f), (n, f)) \
    X(sighandler_t, sigset, (int n, sighandler_t f), (n, f)) \
    X(int, sigignore, (int n), (n)) \
    X(int, siginterrupt, (int n, int flag), (n, flag)) \
    X(int, sigprocmask, (int how, const sigset_t *set, sigset_t *old), (how, set, old)) \
    X(int, pthread_sigmask, (int how, const sigset_t *set, sigset_t *old), (how, set, old)) \
    X(int, sigpending, (sigset_t * set), (set)) \
    X(int, sigwait, (const sigset_t *set, int *n), (set, n)) \
    X(int, sigwaitinfo, (const sigset_t *set, siginfo_t *info), (set, info)) \
    X(int, sigtimedwait, (const sigset_t *set, siginfo_t *info, const struct timespec *limit), \
      (set, info, limit)) \
    X(int, signalfd, (int fd, const sigset_t *set, int flags), (fd, set, flags)) \
    X(pid_t, fork, (void), ()) \
    X(pid_t, _Fork, (void), ()) \
    X(int, daemon, (int no_chdir, int no_close), (no_chdir, no_close)) \
    X(int, forkpty, (int *fd, char *name, const struct termios *t, const struct winsize *w), \
      (fd, name, t, w)) \
    X(int, stat, (const char *path, struct stat *to), (path, to)) \
    X(int, stat64, (const char *path, struct stat64 *to), (path, to)) \
    X(int, fstatat, (int fd, const char *path, struct stat *to, int flags), (fd, path, to, flags)) \
    X(int, fstatat64, (int fd, const char *path, struct stat64 *to, int flags), \
      (fd, path, to, flags)) \
    X(int, unshare, (int flags), (flags)) \
    X(int, setns, (int fd, int type), (fd, type)) \
    X(int, capset, (void *header, const void *data), (header, data)) \
    X(int, prctl, (int option, long a, long b, long c, long d), (option, a, b, c, d)) \
    X(int, execve, (const char *path, char *const v[], char *const e[]), (path, v, e)) \
    X(int, execv, (const char *path, char *const v[]), (path, v)) \
    X(int, execvp, (const char *file, char *const v[]), (file, v)) \
    X(int, execvpe, (const char *file, char *const v[], char *const e[]), (file, v, e)) \
    X(int, fexecve, (int fd, char *const v[], char *const e[]), (fd, v, e)) \
    X(int, execveat, (int fd, const char *path, char *const v[], char *const e[], int flags), \
      (fd, path, v, e, flags))

/* The same for functions that do not return. X(name, parameters, arguments) */
#define PEP_REALS_NORETURN(X) \
    X(_exit, (int status), (status)) \
    X(_Exit, (int status), (status)) \
    X(abort, (void), ()) \
    X(exit, (int status), (status)) \
    X(pthread_exit, (void *result), (result)) \
    X(thrd_exit, (int result), (result))

/* The family of malloc stands apart: dlsym(3) may allocate, so the hooks of these are called
 * while they are being looked up, and are served from bootstrap memory (hook_malloc_real.c). */
#define PEP_REAL_MALLOCS(X) \
    X(void *, malloc, (size_t size), (size)) \
    X(void, free, (void *block), (block)) \
    X(void *, calloc, (size_t count, size_t size), (count, size)) \
    X(void *, realloc, (void *block, size_t size), (block, size)) \
    X(void *, memalign, (size_t alignment, size_t size), (alignment, size)) \
    X(void *, aligned_alloc, (size_t alignment, size_t size), (alignment, size)) \
    X(int, posix_memalign, (void **to, size_t alignment, size_t size), (to, alignment, size)) \
    X(void *, valloc, (size_t size), (size)) \
    X(void *, pvalloc, (size_t size), (size)) \
    X(size_t, malloc_usable_size, (void *block), (block))

struct pep_real_malloc {
#define PEP_REAL_FIELD(result, name, parameters, arguments) result(*name) parameters;
    PEP_REAL_MALLOCS(PEP_REAL_FIELD)
#undef PEP_REAL_FIELD
};

extern PEP_HIDDEN struct pep_real_malloc pep_real_malloc;
void pep_real_malloc_resolve(void);

/* The program's own, which may be those of an allocator that stands before the hooks. */
struct pep_public_malloc {
    void (*free)(void *block);
    void *(*realloc)(void *block, size_t size);
    bool (*has_reallocarray)(void); /* the allocator that brings realloc brings it too */
};
extern struct pep_public_malloc pep_public_malloc;

/* And so does mmap's, and syscall, by which allocators map too: see hook_mmap_real.c. mremap is
 * called with its fifth argument always. */
struct pep_real_map {
    void *(*mmap)(void *hint, size_t bytes, int protection, int flags, int fd, off_t offset);
    int (*munmap)(void *address, size_t bytes);
    void *(*mremap)(void *old, size_t old_bytes, size_t bytes, int flags, void *hint);
    void *(*sbrk)(intptr_t by);
    int (*brk)(void *to);
    long (*syscall)(long nr, long a, long b, long c, long d, long e, long f);
};

extern struct pep_real_map pep_real_map;
void pep_real_map_resolve(void);

struct pep_real {
#define PEP_REAL_FIELD(result, name, parameters, arguments) result(*name) parameters;
    PEP_REALS(PEP_REAL_FIELD)
#undef PEP_REAL_FIELD
#define PEP_REAL_FIELD(name, parameters, arguments) void(*name) parameters;
    PEP_REALS_NORETURN(PEP_REAL_FIELD)
#undef PEP_REAL_FIELD
};

extern struct pep_real pep_real;

/* The function of that name behind our hooks; one that answers -1 with ENOSYS where libc has none.
 */
void *pep_real_look_up(const char *name);
/* Looks all of them up. Idempotent; the constructor's first act. */
void pep_real_resolve(void);

#endif
