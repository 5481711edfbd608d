/*
 * The real functions of locks and waiting, as real.h has the others.
 *
 * Model:   a table of pointers, each leading to a stub until it is resolved: with the first call of
 *          any, or before a second thread is made, for a look-up waits for the loader's lock, whose
 *          holder may be waiting for others. Most processes of a build are gone before. sem_post,
 *          which signal handlers may call, is there from the start. A look-up may take locks of a
 *          library that stands before the loader's dlsym: what comes by from there, on the same
 *          thread, is answered with success and nothing is done, lock and unlock alike. What this
 *          libc lacks is looked for again when it is called. Condition variables have two versions
 *          on x86-64; ours stand for the newer (exports.map) and go on to it.
 * Writers: pep_real_lock_resolve, all to the same values.  [normal]
 * Readers: the hooks.
 * Memory:  static.
 * When full: a function that is nowhere answers ENOSYS.
 */
#ifndef PEP_PRELOAD_REAL_LOCK_H
#define PEP_PRELOAD_REAL_LOCK_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <threads.h>
#include <time.h>

#include "sampler/rt/attrs.h"

/* X(name, parameters, arguments): all of them give an int. */
#define PEP_REAL_LOCKS(X) \
    X(pthread_mutex_lock, (pthread_mutex_t * m), (m)) \
    X(pthread_mutex_trylock, (pthread_mutex_t * m), (m)) \
    X(pthread_mutex_timedlock, (pthread_mutex_t * m, const struct timespec *t), (m, t)) \
    X(pthread_mutex_clocklock, (pthread_mutex_t * m, clockid_t c, const struct timespec *t), \
      (m, c, t)) \
    X(pthread_mutex_unlock, (pthread_mutex_t * m), (m)) \
    X(pthread_rwlock_rdlock, (pthread_rwlock_t * l), (l)) \
    X(pthread_rwlock_tryrdlock, (pthread_rwlock_t * l), (l)) \
    X(pthread_rwlock_timedrdlock, (pthread_rwlock_t * l, const struct timespec *t), (l, t)) \
    X(pthread_rwlock_clockrdlock, (pthread_rwlock_t * l, clockid_t c, const struct timespec *t), \
      (l, c, t)) \
    X(pthread_rwlock_wrlock, (pthread_rwlock_t * l), (l)) \
    X(pthread_rwlock_trywrlock, (pthread_rwlock_t * l), (l)) \
    X(pthread_rwlock_timedwrlock, (pthread_rwlock_t * l, const struct timespec *t), (l, t)) \
    X(pthread_rwlock_clockwrlock, (pthread_rwlock_t * l, clockid_t c, const struct timespec *t), \
      (l, c, t)) \
    X(pthread_rwlock_unlock, (pthread_rwlock_t * l), (l)) \
    X(pthread_cond_clockwait, \
      (pthread_cond_t * v, pthread_mutex_t * m, clockid_t c, const struct timespec *t), \
      (v, m, c, t)) \
    X(sem_wait, (sem_t * s), (s)) \
    X(sem_timedwait, (sem_t * s, const struct timespec *t), (s, t)) \
    X(sem_clockwait, (sem_t * s, clockid_t c, const struct timespec *t), (s, c, t)) \
    X(sem_post, (sem_t * s), (s)) \
    X(pthread_barrier_wait, (pthread_barrier_t * b), (b)) \
    X(pthread_join, (pthread_t t, void **r), (t, r)) \
    X(pthread_timedjoin_np, (pthread_t t, void **r, const struct timespec *l), (t, r, l)) \
    X(pthread_clockjoin_np, (pthread_t t, void **r, clockid_t c, const struct timespec *l), \
      (t, r, c, l)) \
    X(pthread_spin_lock, (pthread_spinlock_t * l), (l)) \
    X(pthread_spin_trylock, (pthread_spinlock_t * l), (l)) \
    X(pthread_spin_unlock, (pthread_spinlock_t * l), (l)) \
    X(mtx_lock, (mtx_t * m), (m)) \
    X(mtx_trylock, (mtx_t * m), (m)) \
    X(mtx_timedlock, (mtx_t * m, const struct timespec *t), (m, t)) \
    X(mtx_unlock, (mtx_t * m), (m)) \
    X(cnd_wait, (cnd_t * v, mtx_t * m), (v, m)) \
    X(cnd_timedwait, (cnd_t * v, mtx_t * m, const struct timespec *t), (v, m, t)) \
    X(cnd_signal, (cnd_t * v), (v)) \
    X(cnd_broadcast, (cnd_t * v), (v)) \
    X(thrd_join, (thrd_t t, int *r), (t, r))

/* The same in the version PEP_REAL_COND_VERSION. */
#define PEP_REAL_COND_VERSION "GLIBC_2.3.2"
#define PEP_REAL_CONDS(X) \
    X(pthread_cond_wait, (pthread_cond_t * v, pthread_mutex_t * m), (v, m)) \
    X(pthread_cond_timedwait, (pthread_cond_t * v, pthread_mutex_t * m, const struct timespec *t), \
      (v, m, t)) \
    X(pthread_cond_signal, (pthread_cond_t * v), (v)) \
    X(pthread_cond_broadcast, (pthread_cond_t * v), (v))

struct pep_real_lock {
#define PEP_REAL_FIELD(name, parameters, arguments) int(*name) parameters;
    PEP_REAL_LOCKS(PEP_REAL_FIELD)
    PEP_REAL_CONDS(PEP_REAL_FIELD)
#undef PEP_REAL_FIELD
};

extern PEP_HIDDEN struct pep_real_lock pep_real_lock;
/* Looks all of them up; idempotent. errno is kept. */
void pep_real_lock_resolve(void);
extern PEP_HIDDEN bool pep_real_lock_is_resolved;
/* What the constructor needs. */
void pep_real_lock_resolve_first(void);

#endif
