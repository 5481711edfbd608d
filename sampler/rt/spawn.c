#include "sampler/rt/spawn.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/rt/os.h"

#define STACK_BYTES (256u << 10)
#define STACK_BYTES_MAX (16u << 20)

#define LIBCS_OWN (3ull << 31) /* 32 and 33, so that setuid() still reaches us */

/* Past our own hook of pthread_sigmask, which would leave our signal open. */
static void block_signals(uint64_t *old) {
    const uint64_t all = ~LIBCS_OWN;
    (void)pep_os_sigprocmask(SIG_SETMASK, &all, old);
}

int pep_spawn(void *(*function)(void *), void *argument, pthread_t *joinable) {
    pthread_attr_t attributes;
    pthread_t thread;
    uint64_t old = 0;
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
    (void)pep_os_sigprocmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return -error;
}
