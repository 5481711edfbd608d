#include "http/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sampler/rt/log.h"
#include "sampler/rt/os.h"

/* Every process of a big family takes one port: enough for a server with a thousand workers. */
#define PORTS_TRIED 1024
/* A burst of clients waits in the kernel. */
#define BACKLOG 256

static bool parse_port(const char *text, struct pep_listen *where) {
    unsigned port = 0;
    size_t count = strspn(text, "0123456789");
    if (count == 0 || count > 5)
        return false;
    for (size_t i = 0; i < count; i++)
        port = port * 10 + (unsigned)(text[i] - '0');
    where->is_next_good = text[count] == '+';
    where->port = (uint16_t)port;
    return port <= 65535 && text[count + where->is_next_good] == '\0';
}

static bool parse_path(const char *path, struct pep_listen *where) {
    size_t count = strlen(path);
    /* Room for ".PID", which a child puts behind its parent's path. */
    if (path[0] != '/' || count + 12 > sizeof(where->address.path.sun_path))
        return false;
    where->family = where->address.path.sun_family = AF_UNIX;
    memcpy(where->address.path.sun_path, path, count + 1);
    return true;
}

static bool parse_host(const char *text, size_t count, struct pep_listen *where) {
    char host[INET6_ADDRSTRLEN];
    bool is_v6 = count > 2 && text[0] == '[' && text[count - 1] == ']';
    size_t length = is_v6 ? count - 2 : count;
    if (length >= sizeof(host))
        return false;
    memcpy(host, text + is_v6, length);
    host[length] = '\0';
    if (is_v6) {
        where->family = where->address.v6.sin6_family = AF_INET6;
        where->is_any = strcmp(host, "::") == 0;
        return inet_pton(AF_INET6, host, &where->address.v6.sin6_addr) == 1;
    }
    const char *address = length == 0 || strcasecmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    where->family = where->address.v4.sin_family = AF_INET;
    if (inet_pton(AF_INET, address, &where->address.v4.sin_addr) != 1)
        return false;
    where->is_any = where->address.v4.sin_addr.s_addr == htonl(INADDR_ANY);
    return true;
}

bool pep_listen_parse(const char *text, struct pep_listen *where) {
    memset(where, 0, sizeof(*where));
    if (!text)
        return false;
    if (strncmp(text, "unix:", 5) == 0)
        return parse_path(text + 5, where);
    const char *colon = strrchr(text, ':');
    return colon && parse_port(colon + 1, where) && parse_host(text, (size_t)(colon - text), where);
}

static socklen_t address_bytes(const struct pep_listen *where) {
    if (where->family == AF_INET)
        return sizeof(where->address.v4);
    return where->family == AF_INET6 ? sizeof(where->address.v6) : sizeof(where->address.path);
}

static int open_at(struct pep_listen *where, uint16_t port, struct pep_fd *fd) {
    int one = 1;
    int number = socket(where->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (number < 0)
        return -errno;
    if (where->family == AF_INET)
        where->address.v4.sin_port = htons(port);
    else if (where->family == AF_INET6)
        where->address.v6.sin6_port = htons(port);
    /* A socket's file mode before bind(2) is what the path is made with, less the umask. */
    if (where->family == AF_UNIX)
        fchmod(number, 0600);
    else
        setsockopt(number, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (where->family == AF_INET6)
        setsockopt(number, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    int error = bind(number, &where->address.any, address_bytes(where)) ? -errno : 0;
    if (error) {
        close(number);
        return error;
    }
    *fd = pep_fd_take(number);
    return fd->number >= 0 ? 0 : -EBADF;
}

/* Two sockets with SO_REUSEADDR may both be bound to a port; the second listen(2) is refused. */
static int start_listening(struct pep_fd *fd) {
    if (listen(fd->number, BACKLOG) == 0)
        return 0;
    int error = -errno;
    pep_fd_drop(fd);
    return error;
}

static int try_port(struct pep_listen *where, uint16_t port, struct pep_fd *fd) {
    int error = open_at(where, port, fd);
    return error ? error : start_listening(fd);
}

static uint16_t port_of(const struct pep_fd *fd) {
    struct sockaddr_in6 bound; /* the port stands at the same place for both families */
    socklen_t count = sizeof(bound);
    memset(&bound, 0, sizeof(bound));
    getsockname(fd->number, (struct sockaddr *)&bound, &count);
    return ntohs(bound.sin6_port);
}

static int open_port(struct pep_listen *where, struct pep_fd *fd) {
    uint16_t asked = where->port;
    int error = try_port(where, asked, fd);
    for (int i = 1; error == -EADDRINUSE && asked && i < PORTS_TRIED && asked + i < 65536; i++)
        error = try_port(where, (uint16_t)(asked + i), fd);
    if (error == -EADDRINUSE || (error == -EACCES && asked))
        error = try_port(where, 0, fd);
    if (error)
        return error;
    where->port = port_of(fd);
    if (asked && where->port != asked && !where->is_next_good)
        pep_log("port %u is taken, listening on %u instead", asked, where->port);
    return 0;
}

/* A path that refuses connections is left over from a process that is gone. */
static bool is_left_over(const struct pep_listen *where) {
    struct stat status;
    if (pep_os_stat_at(AT_FDCWD, where->address.path.sun_path, &status, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISSOCK(status.st_mode))
        return false;
    int number = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (number < 0)
        return false;
    bool is_dead =
        connect(number, &where->address.any, address_bytes(where)) != 0 && errno == ECONNREFUSED;
    close(number);
    return is_dead && status.st_uid == geteuid();
}

static int open_path(struct pep_listen *where, struct pep_fd *fd) {
    char *path = where->address.path.sun_path;
    int error = try_port(where, 0, fd);
    if (error != -EADDRINUSE)
        return error;
    if (is_left_over(where)) {
        unlink(path);
    } else {
        size_t count = strlen(path);
        snprintf(path + count, sizeof(where->address.path.sun_path) - count, ".%d",
                 pep_os_getpid());
        unlink(path); /* our own pid: nobody alive has it */
        pep_log("socket path is taken, listening on %s instead", path);
    }
    return try_port(where, 0, fd);
}

int pep_listen_open(struct pep_listen *where, struct pep_fd *fd) {
    return where->family == AF_UNIX ? open_path(where, fd) : open_port(where, fd);
}

void pep_listen_target(const struct pep_listen *where, bool with_port, char *to,
                       size_t size_bytes) {
    char host[INET6_ADDRSTRLEN] = "127.0.0.1", port[8] = "";
    if (with_port)
        snprintf(port, sizeof(port), ":%u", where->port);
    if (where->family == AF_UNIX) {
        snprintf(to, size_bytes, "unix:%s", where->address.path.sun_path);
        return;
    }
    if (where->family == AF_INET && !where->is_any)
        inet_ntop(AF_INET, &where->address.v4.sin_addr, host, sizeof(host));
    if (where->family == AF_INET6)
        inet_ntop(AF_INET6, where->is_any ? &in6addr_loopback : &where->address.v6.sin6_addr, host,
                  sizeof(host));
    bool is_v6 = where->family == AF_INET6;
    snprintf(to, size_bytes, "%s%s%s%s", is_v6 ? "[" : "", host, is_v6 ? "]" : "", port);
}

void pep_listen_url(const struct pep_listen *where, char *to, size_t size_bytes) {
    char target[PEP_LISTEN_URL_BYTES - 10];
    pep_listen_target(where, true, target, sizeof(target));
    bool is_path = where->family == AF_UNIX;
    snprintf(to, size_bytes, is_path ? "%s%s" : "http://%s%s", target, is_path ? "" : "/");
}

void pep_listen_unlink(const struct pep_listen *where, const struct pep_fd *fd) {
    if (where->family == AF_UNIX && pep_fd_is_held(fd))
        unlink(where->address.path.sun_path);
}
