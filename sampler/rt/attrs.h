/*
 * The rooms a function may run in, and the few compiler words used everywhere.
 *
 * Every function of the product is in exactly one room. The marker stands on its prototype
 * and puts the code into a section of its own; scripts/check-context.sh reads the
 * relocations of those sections and refuses a call that leaves the room.
 *
 *   PEP_SIGNAL_SAFE  inside a signal handler, at any instruction, on any thread: no lock, no
 *                    allocation, no interposed symbol, no errno, no unbounded loop.
 *   PEP_HOOK_SAFE    inside the host's malloc, dlopen or pthread call: no allocation through an
 *                    interposed symbol, errno and result of the real call untouched.
 *   (none)           profep's own threads and the constructor.
 */
#ifndef PEP_SAMPLER_RT_ATTRS_H
#define PEP_SAMPLER_RT_ATTRS_H

#define PEP_SIGNAL_SAFE __attribute__((section(".text.pep_signal")))
#define PEP_HOOK_SAFE __attribute__((section(".text.pep_hook")))
#define PEP_EXPORT __attribute__((visibility("default")))
/* On a declaration of data: reached directly, without a load from the table of globals. */
#define PEP_HIDDEN __attribute__((visibility("hidden")))
#define PEP_MUST_CHECK __attribute__((warn_unused_result))
#define PEP_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define PEP_TLS __thread __attribute__((tls_model("initial-exec")))
/* For static arrays of a page and more: behind the small variables, which then share a page or two
 * instead of one each (a page costs a fault at the start of every process). */
#define PEP_LARGE __attribute__((section(".bss.~large")))
#define PEP_UNUSED __attribute__((unused))
#define PEP_ALIGNED(n) __attribute__((aligned(n)))

#define pep_likely(x) __builtin_expect(!!(x), 1)
#define pep_unlikely(x) __builtin_expect(!!(x), 0)
#define PEP_COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

/* A broken invariant stops a test build at the spot; a release build goes on. */
#ifdef PEP_DEBUG
#define PEP_CHECK(cond) \
    do { \
        if (!(cond)) \
            __builtin_trap(); \
    } while (0)
#else
#define PEP_CHECK(cond) ((void)0)
#endif

#endif
