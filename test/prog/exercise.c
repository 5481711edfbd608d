/*
 * A small plain HTTP server with everything wrong that a person at 3 in the morning looks for.
 *
 * usage: exercise [PORT]   (or PORT in the environment; 8080; 0 takes a free one and prints it)
 * DISK_MS in the environment: how slow the disk is that the journal is pretended to be on (2).
 *
 * Model:   one thread accepts, WORKERS threads answer. GET /data?n=N makes N orders, prices and
 *          sorts them, and notes the best in a journal under one lock. GET /leak?on=1 makes every
 *          /data keep a copy of its answer for ever, up to LEAK_LIMIT bytes. GET /stuck makes two
 *          threads wait for each other's lock for ever. GET /health says ok.
 * Writers: the workers.
 * Readers: the workers.
 * Memory:  malloc; what leaks is bounded.
 * When full: 503 when every worker is busy and the queue is full.
 *
 * Nothing here knows of a profiler.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 8
#define QUEUE_MAX 256
#define ORDERS_DEFAULT 500
#define ORDERS_MAX 20000
#define JOURNAL_LINES 64
#define LEAK_LIMIT (256ul << 20)
#define NOINLINE __attribute__((noipa)) /* a function keeps its name and its frame */

struct order {
    char *customer;
    uint32_t amount;
    double price;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    int sockets[QUEUE_MAX];
    unsigned head, count;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER};

static struct {
    pthread_mutex_t lock;
    char *lines[JOURNAL_LINES];
    unsigned written;
} journal = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct keepsake {
    struct keepsake *next;
    char text[];
};

static struct timespec slow_disk = {.tv_nsec = 2000000};

static int is_leaking;
static size_t leaked_bytes;
static struct keepsake *keepsakes;
static pthread_mutex_t keepsake_lock = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *what) {
    fprintf(stderr, "exercise: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *must(void *block) {
    if (!block)
        die("malloc");
    return block;
}

/* -- the work ------------------------------------------------------------------------------- */

static uint32_t next_random(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

NOINLINE static char *make_customer(uint32_t number) {
    static const char *const names[] = {"Ada", "Barbara", "Grace", "Hedy", "Katherine", "Margaret"};
    char *name = must(malloc(64));
    snprintf(name, 64, "%s-%u", names[number % 6], number % 100000);
    return name;
}

NOINLINE static struct order *make_orders(size_t count, uint32_t seed) {
    struct order *orders = must(calloc(count, sizeof(*orders)));
    for (size_t i = 0; i < count; i++) {
        orders[i].customer = make_customer(next_random(&seed));
        orders[i].amount = 1 + next_random(&seed) % 50;
    }
    return orders;
}

/* The hot function: a price by way of a needlessly long series. */
NOINLINE static double price_of(const struct order *order) {
    double price = 0, term = order->amount;
    for (int i = 1; i < 1000; i++) {
        price += term / i;
        term *= 0.99;
    }
    return price;
}

NOINLINE static void price_orders(struct order *orders, size_t count) {
    for (size_t i = 0; i < count; i++)
        orders[i].price = price_of(&orders[i]);
}

static int by_price(const void *a, const void *b) {
    const struct order *left = a, *right = b;
    return left->price < right->price ? 1 : left->price > right->price ? -1 : 0;
}

NOINLINE static void sort_orders(struct order *orders, size_t count) {
    qsort(orders, count, sizeof(*orders), by_price);
}

NOINLINE static void free_orders(struct order *orders, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(orders[i].customer);
    free(orders);
}

/* The contended lock: the disk is pretended to be slow, and everybody waits for it. Returns the
 * number of the line. */
NOINLINE static unsigned write_journal(const char *line) {
    pthread_mutex_lock(&journal.lock);
    unsigned number = journal.written++;
    char **place = &journal.lines[number % JOURNAL_LINES];
    free(*place);
    *place = must(strdup(line));
    nanosleep(&slow_disk, NULL);
    pthread_mutex_unlock(&journal.lock);
    return number;
}

/* The leak: what is kept is never looked at again. */
NOINLINE static void remember_answer(const char *answer) {
    size_t bytes = sizeof(struct keepsake) + strlen(answer) + 4096;
    pthread_mutex_lock(&keepsake_lock);
    if (leaked_bytes + bytes <= LEAK_LIMIT) {
        struct keepsake *keepsake = must(malloc(bytes));
        strcpy(keepsake->text, answer);
        keepsake->next = keepsakes;
        keepsakes = keepsake;
        leaked_bytes += bytes;
    }
    pthread_mutex_unlock(&keepsake_lock);
}

/* -- two threads that wait for each other ----------------------------------------------------- */

static pthread_mutex_t stock_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t ledger_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t both_hold;

NOINLINE static void take_both(pthread_mutex_t *first, pthread_mutex_t *second) {
    pthread_mutex_lock(first);
    pthread_barrier_wait(&both_hold);
    pthread_mutex_lock(second);
    pthread_mutex_unlock(second);
    pthread_mutex_unlock(first);
}

static void *move_stock(void *unused) {
    (void)unused;
    prctl(PR_SET_NAME, "move-stock");
    take_both(&stock_lock, &ledger_lock);
    return NULL;
}

static void *close_ledger(void *unused) {
    (void)unused;
    prctl(PR_SET_NAME, "close-ledger");
    take_both(&ledger_lock, &stock_lock);
    return NULL;
}

static void start(void *(*run)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, NULL) != 0 || pthread_detach(thread) != 0)
        die("pthread_create");
}

static void get_stuck(void) {
    static int is_stuck;
    if (__atomic_exchange_n(&is_stuck, 1, __ATOMIC_RELAXED))
        return;
    pthread_barrier_init(&both_hold, NULL, 2);
    start(move_stock);
    start(close_ledger);
}

/* -- HTTP ----------------------------------------------------------------------------------- */

static void send_all(int socket, const char *text, size_t bytes) {
    while (bytes > 0) {
        ssize_t sent = send(socket, text, bytes, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        text += sent;
        bytes -= (size_t)sent;
    }
}

static void answer(int socket, int status, const char *body) {
    char head[160];
    int bytes = snprintf(head, sizeof(head),
                         "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
                         "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                         status, status == 200 ? "OK" : "Error", strlen(body));
    send_all(socket, head, (size_t)bytes);
    send_all(socket, body, strlen(body));
}

/* The number after name= in a request line, or otherwise. */
static unsigned long parameter(const char *line, const char *name, unsigned long otherwise) {
    const char *at = strchr(line, '?');
    size_t length = strlen(name);
    for (; at && *at != ' '; at = strpbrk(at + 1, "& ")) {
        if (strncmp(at + 1, name, length) == 0 && at[1 + length] == '=')
            return strtoul(at + 2 + length, NULL, 10);
    }
    return otherwise;
}

NOINLINE static void serve_data(int socket, const char *line) {
    static uint32_t seeds = 2463534242u;
    size_t count = parameter(line, "n", ORDERS_DEFAULT);
    if (count < 1 || count > ORDERS_MAX) {
        answer(socket, 400, "n must be a number of orders from 1 to 20000.\n");
        return;
    }
    struct order *orders =
        make_orders(count, __atomic_add_fetch(&seeds, 2654435761u, __ATOMIC_RELAXED) | 1);
    price_orders(orders, count);
    sort_orders(orders, count);
    char body[160];
    snprintf(body, sizeof(body), "%zu orders, the best: %s with %.2f\n", count, orders[0].customer,
             orders[0].price);
    unsigned number = write_journal(body);
    if (__atomic_load_n(&is_leaking, __ATOMIC_RELAXED))
        remember_answer(body);
    free_orders(orders, count);
    size_t used = strlen(body);
    snprintf(body + used, sizeof(body) - used, "line %u of the journal\n", number + 1);
    answer(socket, 200, body);
}

static void serve(int socket) {
    char line[1024];
    ssize_t bytes = recv(socket, line, sizeof(line) - 1, 0);
    if (bytes <= 0)
        return;
    line[bytes] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    if (strncmp(line, "GET /data", 9) == 0) {
        serve_data(socket, line);
    } else if (strncmp(line, "GET /leak", 9) == 0) {
        __atomic_store_n(&is_leaking, parameter(line, "on", 1) != 0, __ATOMIC_RELAXED);
        answer(socket, 200, "done\n");
    } else if (strncmp(line, "GET /stuck", 10) == 0) {
        get_stuck();
        answer(socket, 200, "done\n");
    } else if (strncmp(line, "GET /health", 11) == 0) {
        answer(socket, 200, "ok\n");
    } else {
        answer(socket, 404, "There is /data?n=, /leak?on=, /stuck and /health.\n");
    }
}

static void *work(void *number) {
    char name[16];
    snprintf(name, sizeof(name), "worker-%zu", (size_t)number);
    prctl(PR_SET_NAME, name);
    for (;;) {
        pthread_mutex_lock(&queue.lock);
        while (queue.count == 0)
            pthread_cond_wait(&queue.filled, &queue.lock);
        int socket = queue.sockets[queue.head];
        queue.head = (queue.head + 1) % QUEUE_MAX;
        queue.count--;
        pthread_mutex_unlock(&queue.lock);
        serve(socket);
        close(socket);
    }
    return NULL;
}

NOINLINE static void enqueue(int socket) {
    pthread_mutex_lock(&queue.lock);
    int is_full = queue.count == QUEUE_MAX;
    if (!is_full)
        queue.sockets[(queue.head + queue.count++) % QUEUE_MAX] = socket;
    pthread_cond_signal(&queue.filled);
    pthread_mutex_unlock(&queue.lock);
    if (is_full) {
        answer(socket, 503, "Too many requests wait already.\n");
        close(socket);
    }
}

static int listen_on(unsigned port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(at);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, bytes) != 0 ||
        listen(listener, 128) != 0 || getsockname(listener, (struct sockaddr *)&at, &bytes) != 0)
        die("the port");
    printf("http://127.0.0.1:%u/data\n", ntohs(at.sin_port));
    fflush(stdout);
    return listener;
}

int main(int count, char **arguments) {
    const char *port = count > 1 ? arguments[1] : getenv("PORT");
    const char *disk_ms = getenv("DISK_MS");
    if (disk_ms)
        slow_disk.tv_nsec = atoi(disk_ms) % 1000 * 1000000l;
    int listener = listen_on(port ? (unsigned)atoi(port) : 8080);
    for (size_t i = 0; i < WORKERS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)(i + 1)) != 0)
            die("pthread_create");
    }
    for (;;) {
        int socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (socket >= 0)
            enqueue(socket);
        else if (errno != EINTR && errno != ECONNABORTED)
            die("accept");
    }
}
