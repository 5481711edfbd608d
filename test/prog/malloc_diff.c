/*
 * Random operations of the whole malloc family; prints what came of them, to be compared between
 * a bare run and one that is watched.
 *
 *     malloc_diff OPERATIONS SEED THREADS [tame]
 *
 * Model:   each thread owns SLOTS blocks with a pattern in them, and gives some to the others. The
 *          hash takes in the call, whether NULL came, errno, alignment, the relation of the
 *          usable size to what was asked, and whether the pattern was whole; no addresses.
 * Writers: the threads; the mailbox by exchange.
 * Readers: test/e2e, test/soak.
 * Memory:  static, so that nothing but the operations allocates.
 * When full: -
 *
 * The seeds decide which call comes when, so one allocator gives one output. Some allocators die
 * of what libc answers with an error; tame leaves that out.
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS 512
#define THREADS_MAX 64
#define MAILBOX 256
#define EDGE 32        /* bytes at both ends of a block that carry the pattern */
#define UNTOUCHED 4242 /* errno before each call */

struct slot {
    unsigned char *block;
    size_t size;
    unsigned char seed;
};

struct worker {
    struct slot slots[SLOTS];
    uint64_t random, hash, operations, live_bytes;
    unsigned long wrong; /* patterns, zeroes, alignments: must stay 0 */
    int number;
};

static int is_tame;
static struct worker workers[THREADS_MAX];
static struct slot *mailbox[MAILBOX];
static struct slot letters[THREADS_MAX][MAILBOX];

/* The compiler must not know what these are. */
static void *(*volatile f_malloc)(size_t) = malloc;
static void *(*volatile f_calloc)(size_t, size_t) = calloc;
static void *(*volatile f_realloc)(void *, size_t) = realloc;
static void *(*volatile f_reallocarray)(void *, size_t, size_t) = reallocarray;
static void *(*volatile f_memalign)(size_t, size_t) = memalign;
static void *(*volatile f_aligned_alloc)(size_t, size_t) = aligned_alloc;
static int (*volatile f_posix_memalign)(void **, size_t, size_t) = posix_memalign;
static void *(*volatile f_valloc)(size_t) = valloc;
static void *(*volatile f_pvalloc)(size_t) = pvalloc;
static size_t (*volatile f_usable)(void *) = malloc_usable_size;
static void (*volatile f_free)(void *) = free;
void free_sized(void *block, size_t size) __attribute__((weak));
void free_aligned_sized(void *block, size_t alignment, size_t size) __attribute__((weak));

static uint64_t next(struct worker *w) {
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    return w->random ^= w->random << 17;
}

static void mix(struct worker *w, uint64_t value) {
    w->hash = (w->hash ^ value) * 0x100000001b3u;
    w->hash ^= w->hash >> 29;
}

/* Mostly small, some of every size up to 4 MiB, edges among them. */
static size_t some_size(struct worker *w) {
    uint64_t r = next(w);
    switch (r % 64) {
    case 0:
        return 0;
    case 1:
        return 1;
    case 2:
        return (size_t)(r >> 8) % (4u << 20);
    case 3:
    case 4:
        return (size_t)(r >> 8) % (128u << 10) + 1;
    case 5:
    case 6:
    case 7:
    case 8:
        return (size_t)(r >> 8) % 16384 + 1;
    default:
        return (size_t)(r >> 8) % 512 + 1;
    }
}

static size_t impossible_size(struct worker *w) {
    static const size_t sizes[] = {SIZE_MAX,
                                   SIZE_MAX - 16,
                                   SIZE_MAX - 4096,
                                   (size_t)PTRDIFF_MAX,
                                   (size_t)PTRDIFF_MAX + 1,
                                   (size_t)1 << 62,
                                   (size_t)1 << 48};
    return sizes[next(w) % (sizeof sizes / sizeof *sizes)];
}

static unsigned char at(const struct slot *slot, size_t i) {
    return (unsigned char)(slot->seed + i * 7);
}

static void paint(struct slot *slot) {
    size_t edge = slot->size < EDGE ? slot->size : EDGE;
    for (size_t i = 0; i < edge; i++)
        slot->block[i] = at(slot, i);
    for (size_t i = slot->size - edge; i < slot->size; i++)
        slot->block[i] = at(slot, i);
}

static int is_whole(const struct slot *slot, size_t kept) {
    size_t head = kept < EDGE ? kept : EDGE;
    int is_good = 1;
    for (size_t i = 0; i < head; i++)
        is_good &= slot->block[i] == at(slot, i);
    for (size_t i = slot->size - (slot->size < EDGE ? slot->size : EDGE); i < slot->size; i++)
        is_good &= i >= kept || slot->block[i] == at(slot, i);
    return is_good;
}

static int is_zero(const unsigned char *block, size_t size) {
    size_t step = size > 65536 ? 509 : 1;
    for (size_t i = 0; i < size; i += step)
        if (block[i] != 0)
            return 0;
    return size == 0 || block[size - 1] == 0;
}

static void count_wrong(struct worker *w, int is_right) {
    mix(w, (uint64_t)is_right);
    w->wrong += !is_right;
}

/* A new block came; alignment is what was promised, at least 16 from 16 bytes on. */
static void take_in(struct worker *w, struct slot *slot, void *block, size_t size,
                    size_t alignment) {
    int seen = errno;
    mix(w, (uint64_t)seen << 1 | (block != NULL));
    if (block == NULL)
        return;
    if (alignment < 2)
        alignment = size >= 16 ? 16 : 8;
    if (is_tame && size == 0)
        alignment = 1; /* some do not care then */
    count_wrong(w, ((uintptr_t)block & (alignment - 1)) == 0);
    count_wrong(w, f_usable(block) >= size);
    *slot = (struct slot){.block = block, .size = size, .seed = (unsigned char)next(w)};
    paint(slot);
    w->live_bytes += size;
}

static void let_go(struct worker *w, struct slot *slot) {
    if (slot->block != NULL)
        count_wrong(w, is_whole(slot, slot->size));
    w->live_bytes -= slot->size;
    void *block = slot->block;
    size_t size = slot->size;
    *slot = (struct slot){0};
    errno = UNTOUCHED;
    if (free_sized != NULL && size % 4 == 1)
        free_sized(block, size);
    else
        f_free(block);
    mix(w, (uint64_t)errno);
}

static void do_aligned(struct worker *w, struct slot *slot, unsigned which) {
    size_t alignment = (size_t)8 << next(w) % 14, size = some_size(w), page = 4096;
    void *block = (void *)(uintptr_t)0x5a5a, *before = block;
    int result = 0;
    errno = UNTOUCHED;
    switch (which) {
    case 0:
        take_in(w, slot, f_memalign(alignment, size), size, alignment);
        return;
    case 1:
        size = (size + alignment - 1) & ~(alignment - 1);
        errno = UNTOUCHED;
        take_in(w, slot, f_aligned_alloc(alignment, size), size, alignment);
        return;
    case 2:
        result = f_posix_memalign(&block, alignment, size);
        mix(w, (uint64_t)result);
        if (result == 0)
            take_in(w, slot, block, size, alignment);
        else
            count_wrong(w, block == before);
        return;
    case 3:
        take_in(w, slot, f_valloc(size), size, page);
        return;
    default:
        take_in(w, slot, f_pvalloc(size), size, page);
        return;
    }
}

static void do_realloc(struct worker *w, struct slot *slot, int is_array) {
    size_t size = some_size(w), count = is_array ? size % 7 + 1 : 1;
    size_t total = size / count * count;
    struct slot old = *slot;
    errno = UNTOUCHED;
    void *block =
        is_array ? f_reallocarray(old.block, count, size / count) : f_realloc(old.block, total);
    int seen = errno;
    if (block == NULL && total == 0 && old.block != NULL) { /* freed */
        w->live_bytes -= old.size;
        *slot = (struct slot){0};
        mix(w, (uint64_t)seen << 1);
        return;
    }
    if (block != NULL && old.block != NULL) {
        struct slot moved = {.block = block, .size = old.size, .seed = old.seed};
        count_wrong(w, is_whole(&moved, old.size < total ? old.size : total));
    }
    w->live_bytes -= block != NULL ? old.size : 0;
    errno = seen;
    take_in(w, slot, block, total, 1);
}

/* What cannot be had: NULL, errno, and the block that was there is untouched. */
static void do_impossible(struct worker *w, struct slot *slot) {
    size_t size = impossible_size(w);
    void *block = (void *)(uintptr_t)0x5a5a;
    unsigned which = (unsigned)(next(w) % 8);
    int result = 0;
    errno = UNTOUCHED;
    switch (which) {
    case 0:
        block = f_malloc(size);
        break;
    case 1:
        block = f_calloc(size, 3);
        break;
    case 2:
        block = f_calloc(size / 2, 2);
        break;
    case 3:
        block = f_realloc(slot->block, size);
        break;
    case 4:
        block = f_reallocarray(slot->block, size / 3, 7);
        break;
    case 5:
        block = f_memalign(64, size);
        break;
    case 6:
        block = f_aligned_alloc(4096, size & ~(size_t)4095);
        break;
    default:
        result = f_posix_memalign(&block, 64, size);
        break;
    }
    mix(w, (uint64_t)errno << 8 | (uint64_t)result);
    count_wrong(w, which == 7 ? result != 0 && block == (void *)(uintptr_t)0x5a5a : block == NULL);
    if (slot->block != NULL)
        count_wrong(w, is_whole(slot, slot->size));
}

/* libc's own ways into the family. */
static void do_text(struct worker *w, struct slot *slot) {
    char text[200], *made = NULL;
    size_t length = (size_t)(next(w) % (sizeof text - 1));
    memset(text, 'a' + (int)(length % 26), length);
    text[length] = '\0';
    errno = UNTOUCHED;
    switch (next(w) % 3) {
    case 0:
        made = strdup(text);
        break;
    case 1:
        made = strndup(text, length / 2);
        break;
    default:
        if (asprintf(&made, "%s-%d", text, 7) < 0)
            made = NULL;
        break;
    }
    mix(w, made != NULL ? strlen(made) : 0);
    take_in(w, slot, made, made != NULL ? strlen(made) + 1 : 0, 1);
}

/* Blocks are allocated here and freed there; whose they become is chance, so only what is wrong
 * counts. */
static void trade(struct worker *w, struct slot *slot) {
    struct slot *letter = &letters[w->number][next(w) % MAILBOX];
    if (__atomic_load_n(&letter->block, __ATOMIC_ACQUIRE) != NULL)
        letter = NULL;
    else
        *letter = *slot;
    uint64_t place = next(w) % MAILBOX;
    if (letter == NULL || letter->block == NULL)
        return;
    w->live_bytes -= slot->size;
    *slot = (struct slot){0};
    struct slot *got = __atomic_exchange_n(&mailbox[place], letter, __ATOMIC_ACQ_REL);
    if (got == NULL)
        return;
    w->wrong += !is_whole(got, got->size);
    void *block = got->block;
    __atomic_store_n(&got->block, NULL, __ATOMIC_RELEASE);
    f_free(block);
}

static void operate(struct worker *w, int has_others) {
    struct slot *slot = &w->slots[next(w) % SLOTS];
    unsigned what = (unsigned)(next(w) % 64);
    size_t size, count;
    mix(w, what);
    if (what >= 24 && what < 44) {
        do_realloc(w, slot, what >= 40);
        return;
    }
    if (what >= 62) {
        do_impossible(w, slot);
        return;
    }
    if (has_others && what == 61 && slot->size != 0) {
        trade(w, slot);
        return;
    }
    if (slot->block != NULL) {
        let_go(w, slot);
        return;
    }
    size = some_size(w);
    errno = UNTOUCHED;
    if (what < 16) {
        take_in(w, slot, f_malloc(size), size, 1);
    } else if (what < 24) {
        count = size % 9 + 1;
        void *block = f_calloc(count, size / count);
        count_wrong(w, block == NULL || is_zero(block, size / count * count));
        take_in(w, slot, block, size / count * count, 1);
    } else if (what < 56) {
        do_aligned(w, slot, what % 5);
    } else {
        do_text(w, slot);
    }
}

static void *work(void *argument) {
    struct worker *w = argument;
    for (uint64_t i = 0; i < w->operations; i++)
        operate(w, workers[1].operations != 0);
    for (int i = 0; i < SLOTS; i++)
        if (workers[1].operations == 0 || w->slots[i].block != NULL)
            let_go(w, &w->slots[i]);
    return NULL;
}

/* -- the table of errors -------------------------------------------------------------------- */

static void say(const char *format, ...) {
    char line[200];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (write(1, line, (size_t)length) != length)
        _exit(3);
}

static void row(const char *name, size_t a, size_t b, void *block) {
    int seen = errno;
    say("%s(%#zx, %#zx): %s, errno %d\n", name, a, b, block != NULL ? "block" : "NULL", seen);
    f_free(block);
}

#define ROW(name, a, b, call) (errno = UNTOUCHED, row(name, a, b, call))

/* Alignments that are no power of two, or none at all. */
static int is_wild(size_t alignment) {
    return alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0 || alignment > 4096;
}

static void table_aligned(size_t a, size_t b) {
    void *to = (void *)(uintptr_t)0x5a5a;
    int is_skipped = is_tame && (is_wild(a) || b > (size_t)PTRDIFF_MAX);
    if (!is_skipped) {
        ROW("memalign", a, b, f_memalign(a, b));
        ROW("aligned_alloc", a, b, f_aligned_alloc(a, b));
    }
    if (is_tame && a == 0)
        return;
    errno = UNTOUCHED;
    int result = f_posix_memalign(&to, a, b);
    say("posix_memalign(%#zx, %#zx): %d, errno %d, %s\n", a, b, result, errno,
        to == (void *)(uintptr_t)0x5a5a ? "untouched"
        : to == NULL                    ? "NULL"
                                        : "block");
    if (result == 0)
        f_free(to);
}

static void table(void) {
    static const size_t values[] = {0,
                                    1,
                                    2,
                                    3,
                                    8,
                                    24,
                                    4096,
                                    (size_t)1 << 48,
                                    (size_t)1 << 62,
                                    (size_t)1 << 63,
                                    SIZE_MAX - 4096,
                                    SIZE_MAX / 2,
                                    SIZE_MAX / 2 + 2,
                                    SIZE_MAX};
    enum { COUNT = sizeof values / sizeof *values };
    for (int i = 0; i < COUNT; i++) {
        size_t a = values[i];
        ROW("malloc", a, 0, f_malloc(a));
        ROW("realloc NULL", a, 0, f_realloc(NULL, a));
        if (!is_tame || a <= (size_t)PTRDIFF_MAX) {
            ROW("valloc", a, 0, f_valloc(a));
            ROW("pvalloc", a, 0, f_pvalloc(a));
        }
        void *kept = f_malloc(40);
        errno = UNTOUCHED;
        void *moved = f_realloc(kept, a);
        say("realloc(block, %#zx): %s, errno %d\n", a, moved != NULL ? "block" : "NULL", errno);
        f_free(moved != NULL ? moved : a != 0 ? kept : NULL);
        for (int j = 0; j < COUNT; j++) {
            size_t b = values[j];
            ROW("calloc", a, b, f_calloc(a, b));
            ROW("reallocarray NULL", a, b, f_reallocarray(NULL, a, b));
            table_aligned(a, b);
        }
    }
    errno = UNTOUCHED;
    say("malloc_usable_size(NULL): %zu, errno %d\n", f_usable(NULL), errno);
    f_free(NULL);
    say("free(NULL): errno %d\n", errno);
}

int main(int count, char **arguments) {
    if (count != 4 && count != 5)
        return 2;
    is_tame = count == 5;
    if (is_tame)
        f_pvalloc = valloc; /* jemalloc has none, so that libc's block would come to its free */
    f_free(f_malloc(100));  /* an allocator that starts may set errno */
    uint64_t operations = strtoull(arguments[1], NULL, 10), seed = strtoull(arguments[2], NULL, 10);
    int threads = atoi(arguments[3]);
    unsigned long wrong = 0;
    pthread_t ids[THREADS_MAX];
    if (threads < 1 || threads > THREADS_MAX)
        return 2;
    table();
    for (int i = 0; i < threads; i++)
        workers[i] = (struct worker){.random = (seed + (uint64_t)i + 1) * 0x9e3779b97f4a7c15u | 1,
                                     .hash = 0xcbf29ce484222325u,
                                     .operations = operations / (uint64_t)threads,
                                     .number = i};
    for (int i = 1; i < threads; i++)
        if (pthread_create(&ids[i], NULL, work, &workers[i]) != 0)
            return 3;
    work(&workers[0]);
    for (int i = 1; i < threads; i++)
        pthread_join(ids[i], NULL);
    for (int i = 0; i < threads; i++)
        wrong += workers[i].wrong;
    for (int i = 0; i < threads && threads == 1; i++)
        say("hash %016llx\n", (unsigned long long)workers[i].hash);
    say("%lu wrong\n", wrong);
    return wrong != 0;
}
