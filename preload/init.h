/*
 * What the hooks know of the guest's life: is it awake, and in which process.
 *
 * Model:   asleep (before the constructor, or for good: setuid, sanitizers, opened by dlopen) the
 *          hooks are transparent. Awake, they keep our threads and our signal out of sight.
 * Writers: the constructor; the handlers of fork.  [normal]
 * Readers: the hooks.  [signal, hook]
 * Memory:  static.
 * When full: -
 */
#ifndef PEP_PRELOAD_INIT_H
#define PEP_PRELOAD_INIT_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/rt/attrs.h"

/* Hooks do nothing of their own while this is 0. */
PEP_SIGNAL_SAFE bool pep_init_is_awake(void);
/* False in a child of vfork or of a raw clone, which runs on our memory or on a copy that was
 * never told: nothing there may be touched. One getpid(2). */
PEP_SIGNAL_SAFE bool pep_init_is_this_process(void);

/* True when it was started below a preloaded process, or forked from one. */
PEP_SIGNAL_SAFE bool pep_init_is_descendant(void);

/* The agent: the listener and, where asked for, the recorder. Around a call that fails while there
 * is a second thread, or that gives rights to the calling thread alone, so that the agent would
 * keep others: true when the agent was stopped, which has no effect but in a process whose only
 * other thread it is. in starts it again, with the caller's rights. Both keep errno. */
bool pep_init_agent_steps_out(void);
void pep_init_agent_steps_in(void);
/* The only thread of the program wants to know whether it is alone: then it is, and stays so. */
void pep_init_agent_leaves(void);
/* The process is about to be killed for calls like ours: what was recorded is written, no thread of
 * ours is left. True when there was something to leave, and unretire may follow if no filter came.
 * A copy that clone made falls asleep for good: its allocations were still looked at. */
bool pep_init_retire(void);
void pep_init_unretire(void);
/* In the child, after all handlers of fork ran. */
void pep_init_agent_restart_in_child(void);
/* Around daemon(3): the child is the program, and its parent only ends. */
void pep_init_expect_heir(bool is_expected);
/* State put right in the child. For forks that run no handlers of pthread_atfork. */
void pep_init_after_fork_child(void);
/* True while the calling thread starts threads for profep itself, or waits for their end. */
PEP_HOOK_SAFE bool pep_init_is_starting_own(void);

/* A thread of profep's own, detached. 0 or -errno. */
int pep_init_spawn(void *(*function)(void *));

/* hook_end.c: the key whose destructor sees threads off. Without one the host's are only counted.
 */
void pep_hook_end_init(void);
void pep_hook_end_after_fork_child(void);
/* A thread is about to be born, or was not; and, on the new thread itself: its end is awaited. */
PEP_HOOK_SAFE void pep_hook_end_expect(void);
PEP_HOOK_SAFE void pep_hook_end_expect_not(void);
PEP_HOOK_SAFE void pep_hook_end_watch(void);

/* hook_malloc.c: before the heap is sampled. */
void pep_hook_malloc_init(void);

/* hook_mmap.c: from now on mappings are recorded. */
void pep_hook_mmap_init(void);

/* hook_process.c: the exit that runs no destructor but handlers of its own. */
void pep_hook_process_init(void);
/* True when found is our definition of name ("unshare" or "fork"), not somebody else's. */
bool pep_hook_process_is_ours(const char *name, const void *found);

/* After pep_real_resolve: from here on the calls go to the next library's function. */
void pep_hook_syscall_init(void);
void pep_hook_rights_init(void);
/* hook_rights.c: before seccomp(2) is called so. True as pep_init_retire. */
bool pep_hook_rights_filter(long operation, long program);

/* hook_lock_futex.c: false when a futex's call neither waits nor wakes anybody; otherwise the call
 * and its arguments, as syscall(2) has them. */
PEP_HOOK_SAFE bool pep_hook_lock_is_futex_noted(const void *word, long operation);
PEP_HOOK_SAFE long pep_hook_lock_futex(const long call[7]);

/* hook_signal_guard.c: while a recording wants to be written at the end, fatal signals that the
 * host left at their default come by us first. */
void pep_hook_signal_guard(void);
void pep_hook_signal_unguard(void);
/* Signal n, wherever the host leaves it at its default, asks for a peek; or no more. The handler is
 * there from the start of the process; as long as nobody can print, the signal does what it would
 * have done. */
void pep_hook_signal_peek(int n);
void pep_hook_signal_unpeek(void);
/* That signal; 0 when there is none, or the host has an action of its own for it. */
int pep_hook_signal_of_peek(void);
/* hook_signal_mask.c: the host's mask as the host sees it, for a thread that is born with it. */
PEP_SIGNAL_SAFE bool pep_hook_signal_is_blocked_by_host(void);
PEP_SIGNAL_SAFE void pep_hook_signal_inherit(bool is_blocked);
/* The same for the mask that the program began with. */
void pep_hook_signal_adopt(void);
/* In a child that is not watched, such as one of vfork(2): what the new program begins with. */
PEP_SIGNAL_SAFE void pep_hook_signal_before_exec_apart(void);
/* Our signal blocked in the kernel, around calls that it must not meet. Returns what to give to
 * unmask. */
PEP_SIGNAL_SAFE bool pep_hook_signal_mask(void);
PEP_SIGNAL_SAFE void pep_hook_signal_unmask(bool was_unmasked);
/* hook_vfork.c: false: no child that runs on its parent's memory, by vfork(2) or clone(2), is here
 * for certain; true: ask pep_init_is_this_process, and say so when it is the parent. */
PEP_SIGNAL_SAFE bool pep_hook_vfork_may_be_child(void);
PEP_SIGNAL_SAFE void pep_hook_vfork_is_parent(void);
/* False where it cannot be told. True in a process that clone(2) made with a copy of our memory. */
PEP_SIGNAL_SAFE bool pep_hook_vfork_has_own_memory(void);
/* syscall(2) was called to make one: vfork, or another process. */
PEP_SIGNAL_SAFE void pep_hook_vfork_note(bool is_vfork);
void pep_hook_vfork_resolve(void);

#endif
