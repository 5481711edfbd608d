#include "http/connection.h"
#include "sampler/rt/attrs.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "http/civetweb_glue.h"
#include "http/server.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/rt/spawn.h"
#include "sampler/rt/table.h"
#include "sampler/thread.h"

#define WARM_STACKS 3 /* two connections, and the thread that holds events of perf */
#define DRAIN_NS 500000000ull
#define DRAIN_BYTES_MAX (1 << 20)

enum state { FREE, READING, SERVING };

struct slot {
    int state; /* enum state; the listening thread moves FREE, its own thread the rest */
    int lock;  /* held for a few instructions: whoever cuts a slot must find its socket alive */
    struct pep_fd fd;
    struct pep_wire *wire;
    const struct pep_service *service;
    uid_t euid;
    bool is_apart; /* of the host's table of descriptors */
    uint64_t since_ns;
};

/* The parts of one exchange that callbacks need; sink and client are found from their fields. */
struct talk {
    struct pep_sink sink;
    struct pep_client client;
    struct pep_exchange exchange;
    struct slot *slot;
    bool is_body_asked;
};

static struct slot slots[PEP_SERVER_CONNECTIONS_MAX] PEP_LARGE;
static int active;      /* slots not FREE; a futex word */
static int is_stopping; /* only rises */

#define CONTAINER(pointer, type, field) ((type *)((char *)(pointer)-offsetof(type, field)))

static int send_bytes(struct pep_sink *sink, const void *bytes, size_t count) {
    return pep_wire_send(CONTAINER(sink, struct talk, sink)->slot->wire, bytes, count);
}

/* Some clients hold a body back until they are told that it is wanted (RFC 9110 10.1.1). */
static long read_body(struct pep_exchange *exchange, void *to, size_t max) {
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct talk *talk = CONTAINER(exchange, struct talk, exchange);
    const char *expect = pep_request_header(exchange->request, "Expect", NULL);
    if (!talk->is_body_asked && !exchange->request->is_old && expect &&
        strcasecmp(expect, "100-continue") == 0)
        pep_wire_send(talk->slot->wire, go_on, sizeof(go_on) - 1);
    talk->is_body_asked = true;
    return pep_wire_read_body(talk->slot->wire, to, max);
}

/* A client that closed and one that only ended its sending look the same on TCP; like Go we take
 * both for gone. On a unix socket the kernel tells them apart. */
static bool wait_client(struct pep_client *client, uint64_t ns) {
    const struct slot *slot = CONTAINER(client, struct talk, client)->slot;
    bool is_unix = slot->service->access.own_host == NULL;
    struct pollfd poll_fd = {.fd = slot->fd.number, .events = (short)(is_unix ? 0 : POLLRDHUP)};
    if (pep_load_relaxed(&is_stopping) || !pep_wire_is_intact(slot->wire))
        return false;
    int count = pep_os_poll(&poll_fd, 1, (int64_t)ns);
    return count == 0 || count == -EINTR;
}

static bool is_peer_allowed(const struct slot *slot) {
    struct ucred peer;
    socklen_t size = sizeof(peer);
    if (slot->service->access.own_host)
        return true;
    return getsockopt(slot->fd.number, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

/* While this is set a close sends a reset: an HTTP/1.0 body has no other mark of its end, and
 * the close may be the kernel's when the host exits. */
static void set_abortive(const struct slot *slot, bool is_abortive) {
    struct linger linger = {.l_onoff = is_abortive, .l_linger = 0};
    if (pep_wire_is_intact(slot->wire))
        setsockopt(slot->fd.number, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static void lock_slot(struct slot *slot) {
    while (pep_swap_acq_rel(&slot->lock, 1))
        sched_yield();
}

static void unlock_slot(struct slot *slot) {
    pep_store_release(&slot->lock, 0);
}

static void set_state(struct slot *slot, enum state state) {
    lock_slot(slot);
    pep_store_release(&slot->state, state);
    pep_wire_mend(slot->wire); /* who was cut is told so */
    unlock_slot(slot);
}

static void refuse(struct talk *talk, int status, const char *sentence) {
    pep_response_error(talk->exchange.response, status, sentence);
}

static void answer(struct talk *talk, const struct pep_message *message) {
    struct pep_request request;
    const char *sentence = "";
    int status = pep_request_init(&request, message, talk->exchange.arena, &sentence);
    talk->exchange.request = &request;
    talk->exchange.response->is_old = request.is_old;
    talk->exchange.response->is_head = request.method == PEP_HEAD;
    if (status)
        refuse(talk, status, sentence);
    else if (geteuid() != talk->slot->euid)
        refuse(talk, 503, "The process changed its user after profiling began; nothing is served.");
    else if (!is_peer_allowed(talk->slot))
        refuse(talk, 403, "Only the user that runs this process may connect.");
    else
        pep_routes_serve(&talk->exchange);
}

/* False: there was nothing to answer. */
static bool read_and_answer(struct talk *talk) {
    struct pep_message message;
    const char *sentence = "";
    int status = pep_wire_read_request(talk->slot->wire, &message, &sentence);
    set_state(talk->slot, SERVING);
    if (status < 0)
        return false;
    if (status > 0) {
        refuse(talk, status, sentence);
        return true;
    }
    bool is_old = strcmp(message.version, "1.0") == 0;
    if (is_old)
        set_abortive(talk->slot, true);
    answer(talk, &message);
    return true;
}

/* A close with unread bytes sends a reset, which can overtake the answer. While somebody waits for
 * the slot this ends early, like reading. */
static void drain(struct slot *slot) {
    uint64_t deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + DRAIN_NS;
    char waste[4096];
    set_state(slot, READING);
    for (long total = 0; total < DRAIN_BYTES_MAX && !pep_wire_is_cut(slot->wire);) {
        struct pollfd poll_fd = {.fd = slot->fd.number, .events = POLLIN};
        if (pep_os_clock_ns(CLOCK_MONOTONIC) > deadline_ns || !pep_wire_is_intact(slot->wire) ||
            pep_os_poll(&poll_fd, 1, 10000000) < 0)
            return;
        if (!poll_fd.revents)
            continue;
        ssize_t count = recv(slot->fd.number, waste, sizeof(waste), MSG_DONTWAIT);
        if (count <= 0)
            return;
        total += count;
    }
}

static void hang_up(struct slot *slot, bool is_whole) {
    if (!pep_wire_is_intact(slot->wire))
        return;
    if (!is_whole) {
        set_abortive(slot, true);
        return;
    }
    set_abortive(slot, false);
    shutdown(slot->fd.number, SHUT_WR);
    if (pep_wire_is_unread(slot->wire))
        drain(slot);
}

static void serve(struct slot *slot) {
    struct pep_response response;
    struct pep_arena arena;
    struct talk talk = {.sink = {send_bytes}, .client = {wait_client}, .slot = slot};
    pep_arena_init(&arena, 0);
    pep_response_init(&response, &talk.sink);
    talk.exchange = (struct pep_exchange){.service = slot->service,
                                          .response = &response,
                                          .arena = &arena,
                                          .client = &talk.client,
                                          .read_body = read_body};
    if (read_and_answer(&talk)) {
        bool is_gone = response.writer.error == -ECONNRESET && !response.is_begun;
        hang_up(slot, !is_gone && pep_response_end(&response) == 0);
    }
    pep_arena_drop(&arena);
}

static void free_slot(struct slot *slot) {
    lock_slot(slot);
    pep_fd_drop(&slot->fd);
    pep_wire_close(slot->wire);
    slot->wire = NULL;
    pep_store_release(&slot->state, FREE);
    unlock_slot(slot);
    pep_sub_acq_rel(&active, 1);
    pep_os_futex_wake(&active, INT_MAX);
}

static void *run(void *argument) {
    struct slot *slot = argument;
    pep_thread_become_own();
    if (slot->is_apart)
        pep_table_inherit();
    serve(slot);
    free_slot(slot);
    return NULL;
}

static void *wait_until_warm(void *argument) {
    int *is_warm = argument;
    while (!pep_load_acquire(is_warm))
        pep_os_futex_wait(is_warm, 0, 1000000000u);
    return NULL;
}

/* pthread_create(3) callocs what a new stack needs, in the host's malloc, which may be just what is
 * stuck when somebody asks what the host is doing. libc keeps the stacks of threads that ended,
 * with all they need, and takes one of the right size again. */
void pep_connections_warm(void) {
    pthread_t threads[WARM_STACKS];
    int count = 0, is_warm = 0;
    while (count < WARM_STACKS && pep_spawn(wait_until_warm, &is_warm, &threads[count]) == 0)
        count++;
    pep_store_release(&is_warm, 1);
    pep_os_futex_wake(&is_warm, INT_MAX);
    while (count > 0)
        pthread_join(threads[--count], NULL);
}

static void send_busy(struct pep_fd *fd) {
    static const char text[] = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
                               "X-Content-Type-Options: nosniff\r\nX-Go-Pprof: 1\r\n"
                               "Content-Type: text/plain; charset=utf-8\r\n"
                               "Content-Length: 44\r\n\r\n"
                               "The process has no memory to answer you in.\n";
    PEP_COUNT(http_refused, 1);
    if (pep_fd_is_ours(fd))
        send(fd->number, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    pep_fd_drop(fd);
}

static struct slot *free_one(void) {
    for (size_t i = 0; i < PEP_COUNT_OF(slots); i++)
        if (pep_load_acquire(&slots[i].state) == FREE)
            return &slots[i];
    return NULL;
}

void pep_connection_start(struct pep_fd fd, const struct pep_service *service, uid_t euid) {
    struct slot *slot = pep_load_acquire(&is_stopping) ? NULL : free_one();
    struct pep_wire *wire = slot ? pep_wire_open(&fd) : NULL;
    if (!wire) {
        send_busy(&fd);
        return;
    }
    lock_slot(slot);
    slot->fd = fd;
    slot->wire = wire;
    slot->service = service;
    slot->euid = euid;
    slot->is_apart = pep_table_is_apart();
    slot->since_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    pep_store_release(&slot->state, READING);
    unlock_slot(slot);
    pep_add_acq_rel(&active, 1);
    if (pep_spawn(run, slot, NULL) != 0) {
        /* At the limit of threads, when one wants to see most what they are: one client at a time,
         * on the listening thread. */
        serve(slot);
        free_slot(slot);
    }
}

/* A reader ends at once, and when all is to end so does a window that waits, as if its client had
 * left: no more will be received. An answer on its way is not disturbed. */
static void cut(struct slot *slot, bool is_end) {
    lock_slot(slot);
    if (slot->state == READING)
        pep_wire_cut(slot->wire);
    if ((slot->state == READING || (is_end && slot->state == SERVING)) && pep_fd_is_ours(&slot->fd))
        shutdown(slot->fd.number, SHUT_RD);
    unlock_slot(slot);
}

/* Cuts the longest reader if its grace is over. How long to wait before asking again. */
static uint64_t make_room(void) {
    struct slot *oldest = NULL;
    for (size_t i = 0; i < PEP_COUNT_OF(slots); i++)
        if (pep_load_acquire(&slots[i].state) == READING &&
            (!oldest || slots[i].since_ns < oldest->since_ns))
            oldest = &slots[i];
    if (!oldest)
        return PEP_CONNECTION_GRACE_NS * 40;
    uint64_t age_ns = pep_os_clock_ns(CLOCK_MONOTONIC) - oldest->since_ns;
    if (age_ns < PEP_CONNECTION_GRACE_NS)
        return PEP_CONNECTION_GRACE_NS - age_ns;
    cut(oldest, false);
    return PEP_CONNECTION_GRACE_NS;
}

void pep_connections_wait_free(void) {
    for (;;) {
        int now = pep_load_acquire(&active);
        if (now < PEP_SERVER_CONNECTIONS_MAX || pep_load_acquire(&is_stopping))
            return;
        pep_os_futex_wait(&active, now, make_room());
    }
}

uint32_t pep_connections_count(void) {
    return (uint32_t)pep_load_relaxed(&active);
}

void pep_connections_stop(uint64_t ns) {
    uint64_t deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + ns;
    pep_store_release(&is_stopping, 1);
    pep_os_futex_wake(&active, INT_MAX);
    for (size_t i = 0; i < PEP_COUNT_OF(slots); i++)
        if (pep_load_acquire(&slots[i].state) != FREE)
            cut(&slots[i], true);
    for (;;) {
        uint64_t now_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
        int now = pep_load_acquire(&active);
        if (now == 0 || now_ns >= deadline_ns)
            break;
        pep_os_futex_wait(&active, now, deadline_ns - now_ns);
    }
}

void pep_connections_resume(void) {
    pep_store_release(&is_stopping, 0);
}

void pep_connections_after_fork_child(void) {
    for (size_t i = 0; i < PEP_COUNT_OF(slots); i++)
        if (slots[i].state != FREE)
            pep_fd_drop(&slots[i].fd);
    memset(slots, 0, sizeof(slots));
    active = 0;
    is_stopping = 0;
}
