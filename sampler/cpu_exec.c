/*
 * Around an exec by a profiled thread.
 *
 * Model:   a signal of ours that is pending over execve(2) ends the new program, unless a timer
 *          sent it; one of the host's stays pending, as does what the host blocks, or ignores.
 * Writers: the thread that replaces the program.  [hook]
 * Readers: -
 * Memory:  the stack.
 * When full: -
 */
#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"

PEP_SIGNAL_SAFE void pep_cpu_exec_ignored(void) {
    struct pep_ksigaction host, now;
    int sig = pep_load_relaxed(&pep_cpu.signal);
    pep_cpu_host_action(NULL, &host);
    if (host.handler == (void *)SIG_IGN && pep_os_sigaction(sig, NULL, &now) == 0 &&
        pep_cpu_is_handler(now.handler))
        (void)pep_os_sigaction(sig, &host, NULL);
}

PEP_HOOK_SAFE static void heed_again(void) {
    struct pep_ksigaction now;
    int sig = pep_load_relaxed(&pep_cpu.signal);
    if (sig > 0 && pep_os_sigaction(sig, NULL, &now) == 0 && now.handler == (void *)SIG_IGN)
        (void)pep_cpu_handler_install(sig);
}

/* What the host blocks is blocked in the new program too. */
PEP_HOOK_SAFE void pep_cpu_exec_begin(void) {
    struct pep_thread *thread = pep_thread_self();
    if (thread == NULL || pep_cpu.signal == 0)
        return;
    uint64_t ours = 1ull << (pep_cpu.signal - 1), before = 0;
    thread->is_leaving = true;
    thread->is_newborn = false;
    pep_cpu_exec_ignored();
    bool is_armed = pep_load_relaxed(&pep_cpu.hz) != 0;
    if (!is_armed && !pep_cpu_host_blocks())
        return;
    pep_os_sigprocmask(SIG_BLOCK, &ours, &before);
    if (is_armed)
        (void)pep_cpu_disarm_self(thread);
    /* What is pending now would outlive the handler. A real-time signal may queue; not without
     * end, since nothing sends any more. */
    if (is_armed && !pep_cpu_gives_way())
        pep_cpu_drop_pending(NULL);
    if (!pep_cpu_host_blocks())
        pep_os_sigprocmask(SIG_SETMASK, &before, NULL);
}

PEP_HOOK_SAFE void pep_cpu_exec_failed(void) {
    struct pep_thread *thread = pep_thread_self();
    if (thread == NULL)
        return;
    uint64_t ours = pep_cpu.signal > 0 ? 1ull << (pep_cpu.signal - 1) : 0;
    thread->is_leaving = false;
    heed_again();
    pep_cpu_thread_enter(thread);
    if (pep_cpu_host_blocks() && !pep_cpu_gives_way())
        pep_os_sigprocmask(SIG_UNBLOCK, &ours, NULL);
}
