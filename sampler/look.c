#include "sampler/look.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#include "sampler/look_internal.h"
#include "sampler/modules.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/rt/table.h"

#define TRIES 3
#define NO_CALL (-1)

static const char tasks_path[] = "/proc/self/task";

/* Where the host shares our table it could close the number under us and put another there. */
static int open_tasks(void) {
    return pep_table_is_apart() ? pep_os_open(tasks_path, O_RDONLY | O_DIRECTORY, 0) : -1;
}

struct pep_looker *pep_looker_open(struct pep_arena *arena) {
    struct pep_looker *looker = pep_arena_alloc(arena, sizeof *looker);
    if (looker == NULL || pep_unwind_init() < 0)
        return NULL;
    looker->scratch = pep_arena_alloc(arena, pep_unwind_scratch_bytes());
    if (looker->scratch == NULL)
        return NULL;
    pep_modules_refresh(); /* without modules the stacks are short, not wrong */
    looker->tasks = open_tasks();
    return looker;
}

void pep_looker_close(struct pep_looker *looker) {
    if (looker->tasks >= 0)
        pep_os_close(looker->tasks);
    looker->tasks = -1;
}

static char *put(char *at, const char *text) {
    size_t bytes = strlen(text);
    memcpy(at, text, bytes + 1);
    return at + bytes;
}

static char *put_number(char *at, int number) {
    char digits[12];
    int count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

long pep_look_read(struct pep_looker *looker, int tid, const char *name) {
    char path[64], *at = path;
    if (looker->tasks < 0)
        at = put(put(at, tasks_path), "/");
    put(put(put_number(at, tid), "/"), name);
    int directory = looker->tasks < 0 ? AT_FDCWD : looker->tasks;
    int fd = (int)pep_os_call6(SYS_openat, directory, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
    if (fd < 0)
        return fd;
    long count = pep_os_read(fd, looker->text, sizeof looker->text - 1);
    pep_os_close(fd);
    looker->text[count > 0 ? count : 0] = '\0';
    return count;
}

/* A number in hexadecimal with 0x, or a decimal one that may be negative; NULL at the end. */
static const char *next_number(const char *text, uint64_t *number) {
    while (*text == ' ')
        text++;
    bool is_negative = *text == '-';
    text += is_negative;
    bool is_hex = text[0] == '0' && text[1] == 'x';
    text += is_hex ? 2 : 0;
    const char *first = text;
    uint64_t value = 0;
    for (;; text++) {
        unsigned digit = (unsigned)(*text - '0');
        if (is_hex && *text >= 'a' && *text <= 'f')
            digit = (unsigned)(*text - 'a') + 10;
        if (digit > (is_hex ? 15u : 9u))
            break;
        value = value * (is_hex ? 16 : 10) + digit;
    }
    *number = is_negative ? -value : value;
    return text > first ? text : NULL;
}

/* "running", "-1 SP PC", or "NR six arguments SP PC" (proc(5)). False: it runs. */
static bool parse_call(const char *text, struct pep_look *look) {
    uint64_t words[9];
    int count = 0;
    while (count < 9 && (text = next_number(text, &words[count])) != NULL)
        count++;
    if (count != 9 && count != 3)
        return false;
    look->call = (long)words[0];
    for (int i = 0; count == 9 && i < 6; i++)
        look->arguments[i] = words[i + 1];
    look->sp = words[count - 2];
    look->pc = words[count - 1];
    return true;
}

/* "TID (name) STATE ..."; field 39 is the processor (proc(5)). The name may hold anything. */
static void parse_stat(const char *text, struct pep_look *look) {
    const char *open = strchr(text, '('), *close = strrchr(text, ')');
    if (open == NULL || close == NULL || close[1] != ' ')
        return;
    size_t bytes = (size_t)(close - open - 1);
    bytes = bytes < sizeof look->name - 1 ? bytes : sizeof look->name - 1;
    memcpy(look->name, open + 1, bytes);
    look->name[bytes] = '\0';
    look->state = close[2];
    const char *at = close + 3;
    uint64_t number = 0;
    for (int field = 4; field <= 39 && at != NULL; field++)
        at = next_number(at, &number);
    look->processor = at != NULL ? (int)number : 0;
}

static enum pep_look_kind kind_of(char state) {
    switch (state) {
    case 'Z':
    case 'X':
        return PEP_LOOK_GONE;
    case 'T':
    case 't':
        return PEP_LOOK_STOPPED;
    case 'R':
        return PEP_LOOK_RUNS;
    default:
        return PEP_LOOK_WAITS;
    }
}

/* 0 for a thread that is gone, and for one that never ran. */
static uint64_t cpu_of(int tid) {
    return pep_os_clock_ns(pep_os_thread_cpu_clock(tid));
}

/* One reading; false when the thread was seen to do something in its course. */
static bool look_once(struct pep_looker *looker, int tid, struct pep_look *look) {
    *look = (struct pep_look){.tid = tid, .call = NO_CALL, .cpu_ns = cpu_of(tid)};
    long count = pep_look_read(looker, tid, "stat");
    if (count > 0)
        parse_stat(looker->text, look);
    look->kind = kind_of(look->state);
    if (count == -ESRCH || (count <= 0 && look->cpu_ns == 0))
        look->kind = PEP_LOOK_GONE;
    if (look->kind == PEP_LOOK_GONE || look->kind == PEP_LOOK_RUNS)
        return true;
    count = pep_look_read(looker, tid, "syscall");
    if (count <= 0) {
        look->kind = count == -ESRCH ? PEP_LOOK_GONE : PEP_LOOK_REFUSED;
        return true;
    }
    return parse_call(looker->text, look) && cpu_of(tid) == look->cpu_ns;
}

void pep_look_at(struct pep_looker *looker, int tid, struct pep_look *look) {
    for (int i = 0; i < TRIES; i++)
        if (look_once(looker, tid, look))
            return;
    look->kind = PEP_LOOK_RUNS;
    look->call = NO_CALL;
}

bool pep_look_is_same(const struct pep_look *a, const struct pep_look *b) {
    return a->tid == b->tid && a->kind == b->kind && a->call == b->call && a->sp == b->sp &&
           a->pc == b->pc && a->cpu_ns == b->cpu_ns &&
           memcmp(a->arguments, b->arguments, sizeof a->arguments) == 0;
}

int pep_look_walk(struct pep_looker *looker, const struct pep_look *look, uintptr_t *pcs, int max) {
    if (look->kind != PEP_LOOK_WAITS && look->kind != PEP_LOOK_STOPPED)
        return look->kind == PEP_LOOK_GONE ? -ESRCH : -EAGAIN;
    int count = pep_look_stack(looker, look, pcs, max);
    /* The clock stood still: so did the thread, and its stack is the one that was read. */
    uint64_t cpu_ns = cpu_of(look->tid);
    if (cpu_ns != look->cpu_ns || cpu_ns == 0) {
        struct pep_look again;
        pep_look_at(looker, look->tid, &again);
        if (again.kind == PEP_LOOK_GONE)
            return -ESRCH;
        if (!pep_look_is_same(look, &again)) {
            PEP_COUNT(look_raced, 1);
            return -EAGAIN;
        }
    }
    PEP_COUNT(looks, 1);
    return count;
}
