#include "sampler/rt/spawn.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

#define STACK_BYTES (256u << 10)
#define STACK_BYTES_MAX (16u << 20)

static void block_signals(sigset_t *old) {
    sigset_t all;
    sigfillset(&all); /* libc keeps its own two out of this, so setuid() still reaches us */
    pthread_sigmask(SIG_SETMASK, &all, old);
}

int pep_spawn(void *(*function)(void *), void *argument, pthread_t *joinable) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t old;
    int error = pthread_attr_init(&attributes);
    if (error)
        return -error;
    if (!joinable)
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    block_signals(&old);
    error = EINVAL;
    for (size_t size = STACK_BYTES; error == EINVAL && size <= STACK_BYTES_MAX; size *= 4) {
        pthread_attr_setstacksize(&attributes, size);
        error = pthread_create(joinable ? joinable : &thread, &attributes, function, argument);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return -error;
}
