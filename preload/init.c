/*
 * The guest enters and leaves: constructor, destructor, fork. The order of everything.
 *
 * Model:   the constructor decides whether to wake up at all, then makes in order: settings, the
 *          environment for descendants, threads, the signal, fork handlers, and last the agent.
 * Writers: the main thread before main; the forking thread in a child.  [normal]
 * Readers: the hooks.
 * Memory:  static.
 * When full: what could not be made is logged, and the host runs without it.
 */
#include "preload/init.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "http/record.h"
#include "http/server.h"
#include "preload/config.h"
#include "preload/config_apply.h"
#include "preload/environment.h"
#include "preload/real.h"
#include "sampler/ask.h"
#include "sampler/birth.h"
#include "sampler/cpu.h"
#include "sampler/heap.h"
#include "sampler/lock.h"
#include "sampler/mmap.h"
#include "sampler/modules.h"
#include "sampler/rt/arena.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/log.h"
#include "sampler/rt/os.h"
#include "sampler/rt/spawn.h"
#include "sampler/thread.h"
#include "sampler/wall.h"

/* How old a process must be before it listens, when it is one of many: a child. */
#define CHILD_DELAY_NS 1000000000ull
#define GONE_TRIES 100
#define GONE_PAUSE_NS 100000ull

static int is_awake;
static int process_pid;    /* whose state this is; a child of vfork has another */
static bool is_descendant; /* started below a preloaded process, or forked from one */
static bool is_agent_running;
static bool is_recorded; /* a recording was begun in this process, and may have ended */
static bool is_finished; /* what is stopped now stays so: the destructor has run, or see leaves */
static bool is_heir;     /* what is forked next takes the program over: daemon(3) */

static PEP_TLS bool is_starting_own;
static PEP_TLS bool fork_was_unmasked;

PEP_SIGNAL_SAFE bool pep_init_is_awake(void) {
    return pep_load_acquire(&is_awake) != 0;
}

PEP_SIGNAL_SAFE bool pep_init_is_this_process(void) {
    return pep_os_getpid() == pep_load_relaxed(&process_pid);
}

PEP_SIGNAL_SAFE bool pep_init_is_descendant(void) {
    return is_descendant;
}

PEP_HOOK_SAFE bool pep_init_is_starting_own(void) {
    return is_starting_own;
}

int pep_init_spawn(void *(*function)(void *)) {
    is_starting_own = true;
    int error = pep_spawn(function, NULL, NULL);
    is_starting_own = false;
    return error;
}

/* -- the agent ------------------------------------------------------------------------------ */

static void start_server(void) {
    struct pep_server_options options = {.listen = pep_config.listen,
                                         .rundir = pep_config.rundir,
                                         .service = pep_config.service,
                                         .token = pep_config.token,
                                         .stage_path = pep_config.stage_path,
                                         .allow_host = pep_config.allow_host,
                                         .allow_origin = pep_config.allow_origin,
                                         .hz = pep_config.hz,
                                         .is_apart = true,
                                         .delay_ns = is_descendant ? CHILD_DELAY_NS : 0,
                                         .describe = pep_config_describe,
                                         .settings = &pep_config_settings,
                                         .peek_signal = pep_hook_signal_of_peek,
                                         .peek_ns = pep_config.peek_ns,
                                         .has_peek_snapshot = pep_config.peek_snapshot != 0};
    int error = pep_server_start(&options);
    if (error)
        pep_log("the listener could not be started: error %d", -error);
}

/* Without %p the file is the first process's alone. */
static bool is_recording_wanted(void) {
    return pep_config.output && (!is_descendant || pep_record_is_per_process(pep_config.output));
}

static void start_recording(void) {
    bool is_heap = pep_config.heap == PEP_CONFIG_HEAP_ALL;
    int error = pep_record_start(pep_config.output, is_heap ? 0 : pep_config.hz);
    if (error)
        pep_log("PROFEP_OUTPUT=%s cannot be recorded: error %d", pep_config.output, -error);
    else
        pep_hook_signal_guard();
    is_recorded = true;
}

static void watch_peek(void) {
    const int n = (int)pep_config.peek_signal;
    if (n != 0 && n == pep_cpu_signal())
        pep_log("PROFEP_PEEK_SIGNAL=%d is the sampling signal: there is no peek", n);
    else if (n != 0)
        pep_hook_signal_peek(n);
}

/* The listener and, where asked for, the recorder. Idempotent and quiet. */
static void start_agent(void) {
    if (is_agent_running || is_finished)
        return;
    is_agent_running = true;
    is_starting_own = true;
    if (pep_record_is_active())
        (void)pep_record_resume();
    else if (is_recording_wanted() && !is_recorded)
        start_recording();
    start_server();
    pep_wall_resume();
    is_starting_own = false;
}

/* Returns when its threads have ended, or after the server's patience; at the end of the process
 * some may end with it. */
static void stop_agent(void (*stop_server)(void)) {
    if (!is_agent_running)
        return;
    is_agent_running = false;
    is_starting_own = true; /* this wait is not the program's */
    pep_wall_pause();
    pep_record_pause();
    stop_server();
    is_starting_own = false;
}

void pep_init_agent_restart_in_child(void) {
    if (!pep_init_is_awake() || !pep_config.children || !pep_init_is_this_process())
        return;
    int saved_errno = errno;
    start_agent();
    errno = saved_errno;
}

/* Threads of the host that we know of. */
static uint32_t host_threads(void) {
    uint32_t count = 0;
    for (uint32_t i = 0, limit = pep_threads_limit(); i < limit; i++) {
        const struct pep_thread *thread = pep_thread_at(i);
        count += thread && thread->tid != 0 && !thread->is_own;
    }
    return count;
}

static uint32_t task_count(void) {
    struct stat found; /* the links of the directory, proc(5) */
    if (pep_os_call6(SYS_newfstatat, AT_FDCWD, (long)"/proc/self/task", (long)&found, 0, 0, 0) < 0)
        return 0;
    return (uint32_t)found.st_nlink - 2;
}

/* A thread that was joined is there until the kernel has buried it. */
static void stop_and_wait(void) {
    const uint32_t hosts = host_threads();
    stop_agent(pep_server_stop);
    for (int tries = 0; tries < GONE_TRIES && !pep_server_is_stopped(); tries++)
        pep_server_stop();
    pep_cpu_pause();
    for (int tries = 0; tries < GONE_TRIES && task_count() > hosts; tries++)
        pep_os_sleep_ns(GONE_PAUSE_NS);
}

bool pep_init_agent_steps_out(void) {
    if (!pep_init_is_awake() || !pep_init_is_this_process() || pep_thread_is_own() ||
        host_threads() > 1 || !(is_agent_running || is_finished))
        return false;
    int saved_errno = errno;
    stop_and_wait();
    errno = saved_errno;
    return true;
}

void pep_init_agent_leaves(void) {
    if (!pep_init_is_awake() || !pep_init_is_this_process() || pep_thread_is_own() ||
        host_threads() > 1 || is_finished || !is_agent_running)
        return;
    int saved_errno = errno;
    pep_log("the program counts its threads and has one: from here on ours is not there");
    pep_record_finish();
    pep_hook_signal_unguard();
    pep_hook_signal_unpeek();
    is_finished = true;
    stop_and_wait();
    errno = saved_errno;
}

void pep_init_agent_steps_in(void) {
    int saved_errno = errno;
    is_starting_own = true;
    pep_cpu_resume();
    is_starting_own = false;
    start_agent();
    errno = saved_errno;
}

/* Hooks that are asleep make no call of their own, and a thread that is disarmed gets no signal. */
bool pep_init_retire(void) {
    if (!pep_init_is_awake())
        return false;
    if (!pep_init_is_this_process()) {
        if (pep_hook_vfork_has_own_memory()) {
            pep_heap_retire();
            pep_store_release(&is_awake, 0);
        }
        return false;
    }
    int saved_errno = errno;
    pep_log("the program filters its system calls: it is left alone from here on");
    pep_record_finish();
    pep_hook_signal_unguard();
    pep_hook_signal_unpeek();
    pep_server_lines_recall();
    stop_and_wait();
    pep_cpu_exec_begin();
    pep_server_unpublish();
    pep_heap_retire();
    pep_store_release(&is_awake, 0);
    errno = saved_errno;
    return true;
}

void pep_init_unretire(void) {
    int saved_errno = errno;
    pep_log("there is no filter; the program is watched again");
    pep_store_release(&is_awake, 1);
    pep_server_lines_recall_end();
    pep_heap_unretire();
    pep_cpu_exec_failed();
    watch_peek();
    is_starting_own = true;
    if (pep_record_revive() == 0 && pep_record_is_active())
        pep_hook_signal_guard();
    is_starting_own = false;
    start_agent();
    errno = saved_errno;
}

/* -- fork ----------------------------------------------------------------------------------- */

/* Our signal is kept out of fork(2), which older kernels begin again for each signal. Registered
 * early, so this is the last handler before and the first after. */
static void before_fork(void) {
    fork_was_unmasked = pep_hook_signal_mask();
}

static void after_fork_parent(void) {
    pep_hook_signal_unmask(fork_was_unmasked);
}

void pep_init_after_fork_child(void) {
    if (!pep_init_is_awake())
        return;
    pep_store_relaxed(&process_pid, pep_os_getpid());
    is_descendant = is_descendant || !is_heir;
    is_agent_running = is_recorded = is_finished = false;
    pep_malloc_after_fork();
    pep_modules_after_fork();
    pep_cpu_after_fork_child();
    pep_ask_after_fork_child();
    pep_wall_after_fork_child();
    pep_heap_after_fork_child();
    pep_mmap_after_fork_child();
    pep_birth_after_fork_child();
    pep_lock_after_fork_child();
    pep_threads_after_fork();
    pep_hook_end_after_fork_child();
    pep_server_after_fork_child();
    pep_record_after_fork_child();
}

static void after_fork_child(void) {
    pep_init_after_fork_child();
    pep_hook_signal_unmask(fork_was_unmasked);
}

void pep_init_expect_heir(bool is_expected) {
    is_heir = is_expected;
}

/* -- start ---------------------------------------------------------------------------------- */

/* Sanitizers own memory, threads and signals in ways that bear no second guest. */
extern void __asan_init(void) __attribute__((weak));
extern void __tsan_init(void) __attribute__((weak));
extern void __msan_init(void) __attribute__((weak));
extern void __hwasan_init(void) __attribute__((weak));

/* AddressSanitizer's shadow of user memory on x86-64: [first, last page]. A program with the static
 * runtime of gcc shows no symbol of it. */
#define SHADOW_FIRST 0x7fff8000l
#define SHADOW_LAST 0x10007fff7000l

/* mincore(2) fails for addresses that are not mapped. Memory checkers have no objection to it. */
static bool is_mapped(long address) {
    unsigned char page;
    return pep_os_call6(SYS_mincore, address, 4096, (long)&page, 0, 0, 0) == 0;
}

static bool has_sanitizer(void) {
    return __asan_init || __tsan_init || __msan_init || __hwasan_init ||
           (is_mapped(SHADOW_FIRST) && is_mapped(SHADOW_LAST));
}

/* A library opened by dlopen stands behind libc, so the program's calls do not come by us. */
static bool is_preloaded(void) {
    static const char *const names[] = {"unshare", "fork"};
    for (size_t i = 0; i < PEP_COUNT_OF(names); i++) {
        if (pep_hook_process_is_ours(names[i], dlsym(RTLD_DEFAULT, names[i])))
            return true;
    }
    return false;
}

static bool may_wake(int marked_pid) {
    if (!is_preloaded()) {
        pep_log("opened by dlopen; only LD_PRELOAD works");
        return false;
    }
    if (has_sanitizer()) {
        pep_log("the program is built with a sanitizer; not profiled");
        return false;
    }
    return pep_config.children || marked_pid == 0 || marked_pid == process_pid;
}

static void prepare_environment(int marked_pid) {
    Dl_info self;
    if (!pep_config.children) {
        if (dladdr(&pep_config, &self) != 0 && self.dli_fname)
            pep_environment_leave(self.dli_fname);
    } else if (marked_pid == 0) {
        pep_environment_mark(process_pid);
    }
}

/* A heap that cannot be sampled is no reason to stay asleep. */
static void watch_heap(void) {
    /* Off, the hooks still have to serve our own threads, and a window may ask for samples. */
    const bool is_on = pep_config.heap != PEP_CONFIG_HEAP_OFF;
    const struct pep_heap_options heap = {
        .rate_bytes = is_on ? pep_config.heap_rate : 0,
        .has_live_map = is_on && pep_config.live_map != 0,
        .live_map_bytes = (uint64_t)pep_config.live_map_mib << 20,
        .is_recording_all = pep_config.heap == PEP_CONFIG_HEAP_ALL,
    };
    pep_hook_malloc_init();
    int error = pep_heap_init(&heap);
    if (error)
        pep_log("the heap is not sampled: error %d", -error);
    if (is_on)
        pep_hook_mmap_init();
    else
        pep_mmap_set_unreachable("PROFEP_HEAP is off");
}

/* Off, a window may still ask for it. */
static void watch_locks(void) {
    int error = pep_lock_init(pep_config.lock_rate);
    if (error)
        pep_log("waiting for locks is not recorded: error %d", -error);
}

static int wake(void) {
    const struct pep_cpu_options cpu = {.engine = (enum pep_cpu_choice)pep_config.cpu_engine,
                                        .signal = (int)pep_config.signal};
    pep_hook_end_init();
    int error = pep_threads_init();
    if (!error)
        error = pep_cpu_init(&cpu);
    if (!error)
        error = -pthread_atfork(before_fork, after_fork_parent, after_fork_child);
    if (error)
        return error;
    pep_hook_process_init();
    watch_heap();
    watch_locks();
    watch_peek();
    if (pep_birth_init() != 0) /* no reason to stay asleep */
        pep_log("births of threads are not recorded: no memory");
    /* release: the hooks see all of the above. */
    pep_store_release(&is_awake, 1);
    pep_hook_signal_adopt();
    return 0;
}

__attribute__((constructor)) static void start(void) {
    /* A set-user-id program must not be watched by whoever started it. */
    if (getauxval(AT_SECURE))
        return;
    int saved_errno = errno;
    process_pid = pep_os_getpid();
    pep_real_resolve();
    pep_hook_syscall_init();
    pep_hook_vfork_resolve();
    pep_hook_rights_init();
    pep_config_load(environ);
    int marked_pid = pep_environment_marked_pid(environ);
    is_descendant = marked_pid != 0 && marked_pid != process_pid;
    if (may_wake(marked_pid)) {
        prepare_environment(marked_pid);
        pep_server_lines_init(pep_config.lines != 0);
        int error = wake();
        if (error)
            pep_log("could not start: error %d", -error);
        else
            start_agent();
    }
    errno = saved_errno;
}

__attribute__((destructor)) static void finish(void) {
    if (!pep_init_is_awake() || !pep_init_is_this_process())
        return;
    pep_record_finish();
    pep_server_lines_recall();
    stop_agent(pep_server_leave);
    is_finished = true;
}
