/*
 * The one place that knows civetweb: its source is compiled into this file, so that its parser
 * and socket loops can be called without its threads. Everything unused falls away, because its
 * interface is made static here.
 *
 * What is changed from outside, by names defined before its source is read:
 * - memory comes from pep_malloc;
 * - poll, recv and send look first whether the descriptor is still ours, and keep the deadline
 *   of the connection;
 * - worker threads, listeners, files, CGI, TLS, caching and web sockets are left out.
 */
#include "http/civetweb_glue.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "http/fd.h"
#include "sampler/rt/arena.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

static int glue_poll(struct pollfd *fds, unsigned long count, int timeout_ms);
static ssize_t glue_recv(int fd, void *to, size_t max);
static ssize_t glue_send(int fd, const void *bytes, size_t count);

#define NO_FILES
#define NO_FILESYSTEMS
#define NO_CGI
#define NO_SSL
#define NO_CACHING
#define MG_EXTERNAL_FUNCTION_mg_cry_internal_impl
#define MG_EXTERNAL_FUNCTION_log_access
#define NDEBUG
#define CIVETWEB_API static
#define STOP_FLAG_NEEDS_LOCK
#define SOCKET_TIMEOUT_QUANTUM 100
#define malloc(bytes) pep_malloc(bytes)
#define calloc(count, bytes) pep_calloc(count, bytes)
#define realloc(block, bytes) pep_realloc(block, bytes)
#define free(block) pep_free(block)
#define poll(fds, count, timeout) glue_poll(fds, count, timeout)
#define recv(fd, to, max, flags) glue_recv(fd, to, max)
#define send(fd, bytes, count, flags) glue_send(fd, bytes, count)

/* Not popped: what is declared and never used is reported at the end of the file. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "civetweb.c"

/* civetweb's two logs: nothing is written. */
static void mg_cry_internal_impl(const struct mg_connection *conn PEP_UNUSED,
                                 const char *func PEP_UNUSED, unsigned line PEP_UNUSED,
                                 const char *fmt PEP_UNUSED, va_list ap PEP_UNUSED) {
}

static void log_access(const struct mg_connection *conn PEP_UNUSED) {
}

#undef malloc
#undef calloc
#undef realloc
#undef free
#undef poll
#undef recv
#undef send

struct pep_wire {
    struct mg_context context; /* one each: its stop flag cuts this connection alone */
    struct mg_connection connection;
    struct pep_fd fd;
    uint64_t deadline_ns; /* of the reading that goes on, 0: none */
    bool is_lost;         /* the descriptor was taken from us */
    bool is_late;         /* the client was told that it took too long */
    char buffer[PEP_WIRE_REQUEST_BYTES];
};

/* civetweb hands its socket number around, not its connection; a thread serves one at a time. */
static PEP_TLS struct pep_wire *current;

static bool wire_is_usable(int number) {
    return current && current->fd.number == number && pep_wire_is_intact(current);
}

static int glue_poll(struct pollfd *fds, unsigned long count, int timeout_ms) {
    if (count != 1 || !wire_is_usable(fds->fd)) {
        errno = EBADF;
        return -1;
    }
    /* Among hundreds of busy threads it may be we who are late: what is there has come in time. */
    bool is_late = current->deadline_ns && pep_os_clock_ns(CLOCK_MONOTONIC) > current->deadline_ns;
    int ready = pep_os_poll(fds, 1, is_late ? 0 : timeout_ms * INT64_C(1000000));
    if (ready == 0 && is_late)
        ready = -ETIMEDOUT;
    if (ready >= 0)
        return ready;
    errno = -ready;
    return -1;
}

static ssize_t glue_recv(int fd, void *to, size_t max) {
    if (!wire_is_usable(fd)) {
        errno = EBADF;
        return -1;
    }
    return recv(fd, to, max, MSG_DONTWAIT);
}

static ssize_t glue_send(int fd, const void *bytes, size_t count) {
    if (!wire_is_usable(fd)) {
        errno = EBADF;
        return -1;
    }
    return send(fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* civetweb reads its configuration as texts; the ones its parser and loops look at. */
static void set_options(struct mg_context *context) {
    context->max_request_size = PEP_WIRE_REQUEST_BYTES;
    context->context_type = CONTEXT_SERVER;
    context->dd.config[REQUEST_TIMEOUT] = (char *)"3000";
    context->dd.config[KEEP_ALIVE_TIMEOUT] = (char *)"0";
    context->dd.config[ENABLE_KEEP_ALIVE] = (char *)"no";
    context->dd.config[AUTHENTICATION_DOMAIN] = (char *)"localhost";
    context->dd.config[LINGER_TIMEOUT] = (char *)"-2";
}

struct pep_wire *pep_wire_open(const struct pep_fd *fd) {
    struct pep_wire *wire = pep_calloc(1, sizeof(*wire));
    if (!wire)
        return NULL;
    set_options(&wire->context);
    wire->fd = *fd;
    wire->connection.phys_ctx = &wire->context;
    wire->connection.dom_ctx = &wire->context.dd;
    wire->connection.client.sock = wire->fd.number;
    wire->connection.buf = wire->buffer;
    wire->connection.buf_size = sizeof(wire->buffer) - 1;
    wire->connection.must_close = 1;
    return wire;
}

void pep_wire_close(struct pep_wire *wire) {
    if (current == wire)
        current = NULL;
    pep_free(wire);
}

void pep_wire_cut(struct pep_wire *wire) {
    pep_store_release(&wire->context.stop_flag, 1);
}

bool pep_wire_is_cut(const struct pep_wire *wire) {
    return pep_load_acquire(&wire->context.stop_flag) != 0;
}

void pep_wire_mend(struct pep_wire *wire) {
    pep_store_release(&wire->context.stop_flag, 0);
}

bool pep_wire_is_intact(struct pep_wire *wire) {
    if (wire->is_lost)
        return false;
    if (pep_fd_is_ours(&wire->fd))
        return true;
    wire->is_lost = true;
    PEP_COUNT(fd_lost, 1);
    return false;
}

/* 0, or 431: civetweb stops reading headers when its table is full, so one that matters (Origin)
 * might stand behind the last one seen. */
static int export_message(const struct mg_request_info *info, struct pep_message *message) {
    message->method = info->request_method;
    message->target = info->request_uri;
    message->version = info->http_version;
    message->header_count = 0;
    for (int i = 0; i < info->num_headers && i < PEP_MESSAGE_HEADERS_MAX; i++) {
        message->headers[i].name = info->http_headers[i].name;
        message->headers[i].value = info->http_headers[i].value;
        message->header_count++;
    }
    return message->header_count < PEP_MESSAGE_HEADERS_MAX ? 0 : 431;
}

static int too_large(const struct pep_wire *wire, const char **sentence) {
    bool has_line = memchr(wire->buffer, '\n', (size_t)wire->connection.data_len) != NULL;
    *sentence = has_line ? "The request's headers are longer than 4 KiB."
                         : "The request's first line is longer than 4 KiB.";
    return has_line ? 431 : 414;
}

/* Why get_request failed. civetweb says little: a full buffer, a time-out and bad bytes are all
 * "malformed" to it, and a client that sent nothing at all is status 0. */
static int explain(struct pep_wire *wire, int status, const char **sentence) {
    const struct mg_connection *connection = &wire->connection;
    bool is_whole = connection->request_len > 0;
    if (!is_whole && connection->data_len >= connection->buf_size)
        return too_large(wire, sentence);
    wire->is_late = !is_whole && (pep_wire_is_cut(wire) ||
                                  pep_os_clock_ns(CLOCK_MONOTONIC) >= wire->deadline_ns);
    if (wire->is_late) {
        *sentence = "The request did not arrive in time.";
        return 408;
    }
    if (status == 0)
        return -ECONNRESET;
    *sentence = status == 411 ? "Content-Length must be a number."
                              : "This is not a well-formed HTTP request.";
    return 400;
}

int pep_wire_read_request(struct pep_wire *wire, struct pep_message *message,
                          const char **sentence) {
    char text[100];
    int status = 0;
    current = wire;
    wire->deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + PEP_WIRE_TIMEOUT_MS * 1000000ull;
    if (!get_request(&wire->connection, text, sizeof(text), &status))
        return explain(wire, status, sentence);
    wire->deadline_ns = 0;
    message->has_body = wire->connection.is_chunked || wire->connection.content_len > 0;
    *sentence = "The request has more than 63 headers.";
    return export_message(&wire->connection.request_info, message);
}

long pep_wire_read_body(struct pep_wire *wire, void *to, size_t max) {
    current = wire;
    if (!wire->deadline_ns)
        wire->deadline_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + PEP_WIRE_TIMEOUT_MS * 1000000ull;
    int count = mg_read(&wire->connection, to, max);
    return count < 0 ? -EIO : count;
}

int pep_wire_send(struct pep_wire *wire, const void *bytes, size_t count) {
    const char *from = bytes;
    current = wire;
    wire->deadline_ns = 0;
    while (count > 0) {
        size_t part = count < (1u << 20) ? count : (1u << 20);
        int sent = mg_write(&wire->connection, from, part);
        if (sent < (int)part)
            return -EPIPE;
        from += part;
        count -= part;
    }
    return 0;
}

bool pep_wire_is_unread(const struct pep_wire *wire) {
    const struct mg_connection *connection = &wire->connection;
    if (wire->is_late)
        return false;
    return connection->request_len <= 0 || connection->is_chunked ||
           connection->consumed_content < connection->content_len ||
           connection->data_len > connection->request_len;
}

int pep_wire_parse(char *text, size_t count, struct pep_message *message) {
    struct mg_request_info info;
    if (count > PEP_WIRE_REQUEST_BYTES)
        return 431;
    memset(&info, 0, sizeof(info));
    text[count] = '\0';
    if (parse_http_request(text, (int)count, &info) <= 0)
        return 400;
    return export_message(&info, message);
}
