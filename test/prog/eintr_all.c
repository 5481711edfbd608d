/*
 * eintr_all quiet|own SECONDS: 64 threads in every call that a signal can cut short.
 * quiet: nobody sends a signal, so no call may return EINTR, or before its time.
 * own: each waiting thread is sent a signal whose handler is not SA_RESTART, once, when it is seen
 * to sleep in its call; every call must return EINTR.
 * SIGTERM, which all block, ends it earlier. Prints how many calls were made and how many went
 * wrong; which, on stderr.
 */
#include <sched.h>

#include "test/prog/eintr_calls.h"

#define THREADS 64
#define FORKERS 4
#define QUIET_NS 8000000ull
#define BURN_NS 150000ull
#define GRACE_NS 100000000ull
#define TICK_NS 10000000ull /* at most: limits counted in ticks may end one early */

static struct slot slots[THREADS];
static int ready;
static uint64_t end_ns;
static char directory[64];
static __thread struct slot *own_slot;

static long made[CALLS], cut[CALLS], early[CALLS], wrong[CALLS], lost[CALLS];
static uint64_t latest_ns;

/* -- those who wait -----------------------------------------------------------------------------
 */

static void add(long *count) {
    __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
}

static void judge_quiet(const struct slot *slot, int kind, int result, uint64_t took_ns) {
    const int is_limited = !(calls[kind].traits & WHOLE);
    const uint64_t slack_ns = calls[kind].traits & TICKS ? TICK_NS : 0;
    if (result < 0 && errno == EINTR)
        add(&cut[kind]);
    else if (is_limited ? result >= 0 || errno != ETIMEDOUT : result < 0)
        add(&wrong[kind]);
    else if (is_limited && took_ns + slack_ns < slot->limit_ns)
        add(&early[kind]);
    else if (is_limited && took_ns > slot->limit_ns + latest_ns)
        latest_ns = took_ns - slot->limit_ns;
}

static void judge_own(int kind, int result) {
    if (result >= 0 || errno != EINTR)
        add(&wrong[kind]);
}

/* Limits counted in ticks are held to the clock of the ticks as well: where a busy machine is late
 * with them, one clock falls behind the other, and goes faster afterwards. */
static uint64_t ticks_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void wait_once(struct slot *slot, int kind) {
    uint64_t began_ns = now_ns(), began_ticks_ns = ticks_ns();
    slot->limit_ns = is_own ? OWN_NS : QUIET_NS + (calls[kind].traits & TICKS ? TICK_NS : 0);
    slot->sent_ns = 0;
    slot->hits = slot->signals = 0;
    slot->since_ns = began_ns;
    slot->number_of_call = kind + 1;
    if (!(calls[kind].traits & SAYS))
        __atomic_store_n(&slot->kind, kind + 1, __ATOMIC_RELEASE);
    errno = 0;
    int result = calls[kind].make(slot), error = errno;
    __atomic_store_n(&slot->kind, 0, __ATOMIC_SEQ_CST);
    /* What was sent may be on its way still, and would end the next call. */
    while (__atomic_load_n(&slot->is_waking, __ATOMIC_SEQ_CST) ||
           __atomic_load_n(&slot->hits, __ATOMIC_RELAXED) < slot->signals)
        sched_yield();
    uint64_t took_ns = now_ns() - began_ns, took_ticks_ns = ticks_ns() - began_ticks_ns;
    if (calls[kind].traits & TICKS && took_ticks_ns > took_ns)
        took_ns = took_ticks_ns;
    errno = error;
    add(&made[kind]);
    if (is_own)
        judge_own(kind, result);
    else
        judge_quiet(slot, kind, result, took_ns);
}

static int is_for(const struct slot *slot, int kind) {
    if (calls[kind].traits & FEW && slot->number % (THREADS / FORKERS) != 0)
        return 0;
    return !is_own || !(calls[kind].traits & NEVER_CUT);
}

static void *wait_much(void *argument) {
    struct slot *slot = own_slot = argument;
    slot->tid = (int)syscall(SYS_gettid);
    __atomic_fetch_add(&ready, 1, __ATOMIC_RELEASE);
    for (int kind = slot->number % CALLS; now_ns() < __atomic_load_n(&end_ns, __ATOMIC_RELAXED);
         kind = (kind + 1) % CALLS) {
        if (!is_for(slot, kind))
            continue;
        for (uint64_t end = now_ns() + BURN_NS; now_ns() < end;)
            ;
        wait_once(slot, kind);
    }
    __atomic_store_n(&slot->kind, -1, __ATOMIC_RELEASE);
    return NULL;
}

/* -- who wakes them -----------------------------------------------------------------------------
 */

static int wake_fifo(const struct slot *slot) {
    int fd = open(slot->fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0; /* else nobody has it open yet */
}

/* One that comes before the call is lost, so there are several, each after the last was handled;
 * none may come after the call. */
static void wake_by_signal(struct slot *slot, int (*make)(struct slot *)) {
    __atomic_store_n(&slot->is_waking, 1, __ATOMIC_SEQ_CST);
    int kind = __atomic_load_n(&slot->kind, __ATOMIC_SEQ_CST) - 1;
    if (kind >= 0 && calls[kind].make == make &&
        slot->signals == __atomic_load_n(&slot->hits, __ATOMIC_RELAXED)) {
        slot->signals++;
        syscall(SYS_tgkill, getpid(), slot->tid, SIGUSR1);
    }
    __atomic_store_n(&slot->is_waking, 0, __ATOMIC_SEQ_CST);
}

/* True when that is all it takes. */
static int wake(struct slot *slot, int (*make)(struct slot *)) {
    static const struct {
        long type;
        char text[8];
    } message = {1, "wake"};
    const uint64_t one = 1;
    ssize_t written = 1;
    if (make == do_sem_wait)
        sem_post(&slot->semaphore);
    else if (make == do_recv)
        written = write(slot->pair[1], "", 1);
    else if (make == do_msgrcv)
        msgsnd(slot->queue, &message, sizeof(message.text), 0);
    else if (make == do_sigwaitinfo)
        syscall(SYS_tgkill, getpid(), slot->tid, SIGUSR2);
    else if (make == do_read_pipe)
        written = write(slot->pipe[1], "", 1);
    else if (make == do_read_event || make == do_epoll_for_ever)
        written = write(slot->event, &one, sizeof(one));
    else if (make == do_read_inotify)
        futimens(slot->file, NULL);
    else if (make == do_open_fifo)
        return wake_fifo(slot);
    if (make == do_pause || make == do_sigsuspend) {
        wake_by_signal(slot, make);
        return 0;
    }
    if (written < 0)
        perror("wake");
    return 1;
}

/* True when the thread sleeps in a system call; which, with its arguments and place, as proc(5)
 * tells. */
static int is_asleep(const struct slot *slot, char text[PLACE_BYTES]) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", slot->tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t count = fd >= 0 ? read(fd, text, PLACE_BYTES - 1) : 0;
    close(fd);
    text[count > 0 ? count : 0] = '\0';
    return text[0] >= '0' && text[0] <= '9';
}

static void interrupt_once(struct slot *slot) {
    slot->sent_ns = now_ns();
    syscall(SYS_tgkill, getpid(), slot->tid, SIGUSR1);
}

/* The number of the call and its place: the arguments between them may change while it goes on. */
static int is_same_call(const char *a, const char *b) {
    unsigned long number[2], sp[2], pc[2];
    const char *const texts[2] = {a, b};
    for (int i = 0; i < 2; i++)
        if (sscanf(texts[i], "%lu %*s %*s %*s %*s %*s %*s %lx %lx", &number[i], &sp[i], &pc[i]) !=
            3)
            return 0;
    return number[0] == number[1] && sp[0] == sp[1] && pc[0] == pc[1];
}

/* Whoever sleeps in the same call although the signal's handler has run has lost it. (On a machine
 * with much to do the handler may come late.) Who slept elsewhere, as before the call for the sake
 * of memory, has the signal behind him and is sent another. */
static void interrupt(struct slot *slot, int kind) {
    uint64_t since_ns = slot->since_ns, sent_ns = slot->sent_ns;
    char place[PLACE_BYTES];
    if ((sent_ns != 0 && (slot->hits == 0 || now_ns() - sent_ns < GRACE_NS)) ||
        !is_asleep(slot, place) || __atomic_load_n(&slot->kind, __ATOMIC_ACQUIRE) != kind + 1 ||
        slot->since_ns != since_ns)
        return;
    if (sent_ns != 0 && is_same_call(place, slot->place))
        add(&lost[kind]);
    slot->hits = 0;
    strcpy(slot->place, place);
    interrupt_once(slot);
}

/* A call that ends without us may do so at any moment: what was done for it counts for that one
 * alone, which since_ns names. */
static void look_after(struct slot *slot) {
    uint64_t since_ns = __atomic_load_n(&slot->since_ns, __ATOMIC_ACQUIRE);
    int kind = __atomic_load_n(&slot->kind, __ATOMIC_ACQUIRE) - 1;
    if (kind < 0 || since_ns != slot->since_ns)
        return;
    if (is_own)
        interrupt(slot, kind);
    else if (calls[kind].traits & WHOLE && slot->woken_ns != since_ns &&
             now_ns() - since_ns >= WAKE_NS && wake(slot, calls[kind].make))
        slot->woken_ns = since_ns;
}

static void end_if_told(void) {
    sigset_t pending;
    sigpending(&pending);
    if (sigismember(&pending, SIGTERM))
        __atomic_store_n(&end_ns, 0, __ATOMIC_RELAXED);
}

static int is_anybody_left(void) {
    for (int i = 0; i < THREADS; i++)
        if (__atomic_load_n(&slots[i].kind, __ATOMIC_ACQUIRE) >= 0)
            return 1;
    return 0;
}

/* The lock of flock: quiet, held half of the time; own, always. */
static void *hold_file(void *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (is_anybody_left()) {
        flock(fd, LOCK_EX);
        __atomic_fetch_add(&ready, 1, __ATOMIC_RELEASE);
        do
            usleep(WAKE_NS / 1000);
        while (is_own && is_anybody_left());
        flock(fd, LOCK_UN);
        usleep(WAKE_NS / 1000);
    }
    return NULL;
}

static void on_usr1(int sig) {
    (void)sig;
    if (own_slot)
        __atomic_fetch_add(&own_slot->hits, 1, __ATOMIC_RELAXED);
}

/* -- the whole -------------------------------------------------------------------------------- */

static void make_slot(struct slot *slot, int number) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct epoll_event event = {.events = EPOLLIN};
    slot->number = number;
    snprintf(slot->fifo, sizeof(slot->fifo), "%s/fifo.%d", directory, number);
    snprintf(slot->name, sizeof(slot->name), "%s/file.%d", directory, number);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket.%d", directory, number);
    slot->file = open(slot->name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    slot->locked = open(directory, O_RDONLY | O_CLOEXEC);
    slot->event = eventfd(0, EFD_CLOEXEC);
    slot->epoll = epoll_create1(EPOLL_CLOEXEC);
    slot->inotify = inotify_init1(IN_CLOEXEC);
    slot->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    slot->queue = msgget(IPC_PRIVATE, 0600);
    slot->sems = semget(IPC_PRIVATE, 1, 0600);
    slot->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sem_init(&slot->semaphore, 0, 0);
    sem_init(&slot->never, 0, 0);
    pthread_mutex_init(&slot->mutex, NULL);
    pthread_cond_init(&slot->cond, NULL);
    if (slot->file < 0 || slot->locked < 0 || slot->queue < 0 || slot->sems < 0 ||
        mkfifo(slot->fifo, 0600) != 0 || pipe2(slot->pipe, O_CLOEXEC) != 0 ||
        inotify_add_watch(slot->inotify, slot->name, IN_ATTRIB) < 0 ||
        epoll_ctl(slot->epoll, EPOLL_CTL_ADD, slot->event, &event) != 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, slot->pair) != 0 ||
        bind(slot->listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(slot->listener, 1) != 0) {
        perror("a slot");
        exit(2);
    }
}

static void drop_slot(struct slot *slot) {
    char path[96];
    snprintf(path, sizeof(path), "%s/socket.%d", directory, slot->number);
    unlink(path);
    unlink(slot->fifo);
    unlink(slot->name);
    msgctl(slot->queue, IPC_RMID, NULL);
    semctl(slot->sems, 0, IPC_RMID);
}

static void print_result(void) {
    long all = 0, bad = 0;
    for (int i = 0; i < CALLS; i++) {
        all += made[i];
        bad += cut[i] + early[i] + wrong[i] + lost[i];
        fprintf(stderr, "%-24s %7ld calls, %ld cut short, %ld early, %ld wrong, %ld lost\n",
                calls[i].name, made[i], cut[i], early[i], wrong[i], lost[i]);
    }
    fprintf(stderr, "all %ld calls; the latest limit was late by %llu us\n", all,
            (unsigned long long)latest_ns / 1000);
    printf("%s, %ld wrong\n", all > THREADS * CALLS ? "waited" : "did not wait", bad);
}

int main(int count, char **arguments) {
    struct sigaction action = {.sa_handler = on_usr1};
    pthread_t threads[THREADS + 1];
    sigset_t blocked;
    is_own = count > 1 && strcmp(arguments[1], "own") == 0;
    snprintf(directory, sizeof(directory), "/tmp/eintr-all.%d", getpid());
    mkdir(directory, 0700);
    sigaction(SIGUSR1, &action, NULL);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigaddset(&blocked, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    end_ns = now_ns() + (uint64_t)(count > 2 ? atoi(arguments[2]) : 5) * 1000000000;
    for (int i = 0; i < THREADS; i++)
        make_slot(&slots[i], i);
    pthread_create(&threads[THREADS], NULL, hold_file, directory);
    while (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) < 1)
        usleep(100);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, wait_much, &slots[i]);
    while (is_anybody_left()) {
        end_if_told();
        for (int i = 0; i < THREADS; i++)
            look_after(&slots[i]);
        usleep(500);
    }
    for (int i = 0; i <= THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++)
        drop_slot(&slots[i]);
    rmdir(directory);
    print_result();
    return 0;
}
