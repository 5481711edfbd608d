/* LDFLAGS: -Wl,--wrap=pep_os_map -Wl,--wrap=pep_mmap_pieces_insert */
/* Who mapped which page is known after any mixture of calls, and what is not known is counted. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "heap_help.h"
#include "mmap_help.h"
#include "sampler/mmap_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/stack_table.h"
#include "sampler/thread.h"

#define ROUNDS 60000u
#define LABELS 8u
#define OWNERS_MAX (2 * ROUNDS)

static int maps_left = -1; /* how many pep_os_map may succeed; -1: all */
void *__real_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes) {
    if (maps_left == 0)
        return NULL;
    maps_left -= maps_left > 0;
    return __real_pep_os_map(size_bytes);
}

/* Called with the lock held. */
static void (*below_lock)(void);
static bool has_no_room;
bool __real_pep_mmap_pieces_insert(struct pep_mmap_pieces *pieces,
                                   const struct pep_mmap_piece *piece);
bool __wrap_pep_mmap_pieces_insert(struct pep_mmap_pieces *pieces,
                                   const struct pep_mmap_piece *piece);
bool __wrap_pep_mmap_pieces_insert(struct pep_mmap_pieces *pieces,
                                   const struct pep_mmap_piece *piece) {
    void (*call)(void) = below_lock;
    below_lock = NULL;
    if (call != NULL)
        call();
    return !has_no_room && __real_pep_mmap_pieces_insert(pieces, piece);
}

/* -- first: no memory ----------------------------------------------------------------------- */

static void test_no_memory(void **state) {
    (void)state;
    maps_left = 0;
    help_map(HELP_BASE, HELP_PAGE, "early");
    assert_int_equal(PEP_COUNTED(mmap_missed), 1); /* not even a table of stacks */
    maps_left = -1;
    assert_int_equal(pep_stack_table_init(), 0);
    maps_left = 0;
    help_map(HELP_BASE, HELP_PAGE, "early");
    assert_int_equal(PEP_COUNTED(mmap_full), 1);
    assert_false(pep_mmap_is_used());
    help_unmap(HELP_BASE, HELP_PAGE);
    maps_left = -1;
    assert_int_equal(help_mapped(NULL).samples, 0);
    help_map(HELP_BASE, HELP_PAGE, "early");
    assert_true(pep_mmap_is_used());
    assert_int_equal(help_mapped("early").values[3], HELP_PAGE);
    help_map_clear();
}

/* -- against a model ------------------------------------------------------------------------ */

static struct {
    uint32_t owner[HELP_PAGES]; /* 0: nobody */
    uint8_t label[OWNERS_MAX];
    uint32_t owners;
    uint64_t mapped[LABELS], calls[LABELS];
} model;

static uint32_t new_owner(uint8_t label, uint32_t pages) {
    model.label[++model.owners] = label;
    model.mapped[label] += pages * HELP_PAGE;
    model.calls[label]++;
    return model.owners;
}

static void own(uint32_t from, uint32_t count, uint32_t owner) {
    for (uint32_t i = from; i < from + count; i++)
        model.owner[i] = owner;
}

static void name(char text[16], uint32_t label) {
    snprintf(text, 16, "model-%u", (unsigned)label);
}

/* mremap: to a place that does not overlap the old one, or in place. */
static void move(uint32_t from, uint32_t old, uint32_t to, uint32_t new) {
    struct pep_mmap_taken taken;
    uint32_t kept[HELP_PAGES];
    pep_mmap_take(HELP_BASE + from * HELP_PAGE, old * HELP_PAGE, &taken);
    if (taken.has_more || taken.count == 0) { /* a mapping that the kernel would not move */
        pep_mmap_drop(&taken);
        own(from, old, 0);
        return;
    }
    const struct pep_mmap_move how = {HELP_BASE + from * HELP_PAGE, HELP_BASE + to * HELP_PAGE,
                                      old * HELP_PAGE, new *HELP_PAGE};
    pep_mmap_moved(&taken, &how);
    uint8_t label = 0;
    for (uint32_t i = old; i > 0; i--)
        label = model.owner[from + i - 1] != 0 ? model.label[model.owner[from + i - 1]] : label;
    memcpy(kept, model.owner + from, old * sizeof kept[0]);
    own(from, old, 0);
    own(to, new, 0);
    memcpy(model.owner + to, kept, (old < new ? old : new) * sizeof kept[0]);
    if (new > old)
        own(to + old, new - old, new_owner(label, new - old));
}

static void random_call(uint64_t *seed) {
    uint32_t from = (uint32_t)(help_random(seed) % (HELP_PAGES - 64)), label;
    uint32_t count = 1 + (uint32_t)(help_random(seed) % 32);
    uint32_t other = 1 + (uint32_t)(help_random(seed) % 32);
    struct pep_mmap_taken taken;
    char text[16];
    switch (help_random(seed) % 8) {
    case 0:
        help_unmap(HELP_BASE + from * HELP_PAGE, count * HELP_PAGE);
        own(from, count, 0);
        break;
    case 1: /* refused */
        pep_mmap_take(HELP_BASE + from * HELP_PAGE, count * HELP_PAGE, &taken);
        pep_mmap_put_back(&taken);
        if (taken.has_more) {
            help_unmap(HELP_BASE + from * HELP_PAGE, count * HELP_PAGE);
            own(from, count, 0);
        }
        break;
    case 2:
        move(from, count, from, other);
        break;
    case 3:
        move(from, count,
             from > HELP_PAGES / 2 ? from - HELP_PAGES / 2 : from + HELP_PAGES / 2 - 64, other);
        break;
    default:
        label = (uint32_t)(help_random(seed) % LABELS);
        name(text, label);
        help_map(HELP_BASE + from * HELP_PAGE, count * HELP_PAGE, text);
        own(from, count, new_owner((uint8_t)label, count));
    }
}

static void compare(void) {
    static uint8_t is_met[OWNERS_MAX];
    memset(is_met, 0, sizeof is_met);
    int64_t bytes[LABELS] = {0}, objects[LABELS] = {0};
    for (uint32_t i = 0; i < HELP_PAGES; i++) {
        uint32_t owner = model.owner[i];
        if (owner == 0)
            continue;
        bytes[model.label[owner]] += (int64_t)HELP_PAGE;
        objects[model.label[owner]] += !is_met[owner];
        is_met[owner] = 1;
    }
    for (uint32_t i = 0; i < LABELS; i++) {
        char text[16];
        name(text, i);
        const struct help_mapped sums = help_mapped(text);
        assert_int_equal(sums.values[0], model.calls[i]);
        assert_int_equal(sums.values[1], model.mapped[i]);
        assert_int_equal(sums.values[2], objects[i]);
        assert_int_equal(sums.values[3], bytes[i]);
    }
}

static void test_against_model(void **state) {
    (void)state;
    uint64_t seed = 20, full = PEP_COUNTED(mmap_full), missed = PEP_COUNTED(mmap_missed);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        random_call(&seed);
        if (round % 512 == 0)
            pep_mmap_check();
        if (round % 6000 == 0)
            compare();
    }
    compare();
    assert_int_equal(PEP_COUNTED(mmap_full), full);
    assert_int_equal(PEP_COUNTED(mmap_missed), missed);
    help_map_clear();
}

/* -- single cases --------------------------------------------------------------------------- */

static void test_labels(void **state) {
    (void)state;
    const int hidden = MAP_PRIVATE | MAP_ANONYMOUS, shared = MAP_SHARED | MAP_ANONYMOUS;
    struct pep_mmap_label label;
    int fd = open("/dev/null", 0);
    pep_mmap_label(&label, PROT_READ, hidden, -1);
    assert_string_equal(label.text, "[anon]");
    pep_mmap_label(&label, PROT_NONE, hidden, -1);
    assert_string_equal(label.text, "[reserved]");
    pep_mmap_label(&label, PROT_READ, shared, -1);
    assert_string_equal(label.text, "[shared]");
    pep_mmap_label(&label, PROT_READ, hidden | MAP_STACK, -1);
    assert_string_equal(label.text, "[stack]");
    pep_mmap_label(&label, PROT_NONE, MAP_PRIVATE, fd);
    assert_string_equal(label.text, "/dev/null");
    pep_mmap_label(&label, PROT_READ, MAP_SHARED, 1 << 30);
    assert_string_equal(label.text, "[file]");
    pep_mmap_label(&label, PROT_READ, MAP_SHARED, -1);
    assert_string_equal(label.text, "[file]");
    close(fd);
}

static void grow_break(void) {
    for (uint32_t i = 0; i < 100000; i++)
        pep_mmap_added(HELP_FAR + i * 48ul, 48, NULL);
}

static void test_break(void **state) {
    (void)state;
    uint64_t full = PEP_COUNTED(mmap_full);
    struct help_mapped before = help_mapped("[heap]");
    grow_break();
    struct help_mapped sums = help_mapped("[heap]");
    assert_int_equal(sums.values[0] - before.values[0], 100000);
    assert_int_equal(sums.values[3], 4800000);
    help_unmap(HELP_FAR + 4000000, 800000);
    assert_int_equal(help_mapped("[heap]").values[3], 4000000);
    help_unmap(HELP_FAR, 4000000);
    assert_int_equal(help_mapped("[heap]").values[2], 0);
    assert_int_equal(PEP_COUNTED(mmap_full), full);
    help_map_clear();
}

static void test_window(void **state) {
    (void)state;
    struct pep_arena arena;
    pep_arena_init(&arena, 0);
    help_map(HELP_FAR, 10 * HELP_PAGE, "window");
    struct pep_mmap_snapshot *before = pep_mmap_snapshot_take(&arena);
    help_map(HELP_FAR + 100 * HELP_PAGE, HELP_PAGE, "window-new");
    help_unmap(HELP_FAR, 4 * HELP_PAGE);
    struct pep_mmap_query query = {.mapping = "window"};
    const struct pep_profile *profile = pep_profile_mmap(&arena, before, &query);
    assert_non_null(profile);
    assert_true(profile->is_signed && profile->is_exact);
    assert_int_equal(profile->sample_count, 2);
    const int64_t went[] = {0, 0, 0, -4 * (int64_t)HELP_PAGE},
                  came[] = {1, HELP_PAGE, 1, HELP_PAGE};
    for (int i = 0; i < 2; i++) {
        const struct pep_sample *sample = &profile->samples[i];
        bool is_new = strcmp(sample->mapping, "window-new") == 0;
        assert_memory_equal(sample->values, is_new ? came : went, sizeof came);
    }
    query.has_absolute_inuse = true;
    profile = pep_profile_mmap(&arena, before, &query);
    assert_false(profile->is_signed);
    int64_t left = 0;
    for (uint32_t i = 0; i < profile->sample_count; i++)
        left += profile->samples[i].values[3];
    assert_int_equal(left, 7 * HELP_PAGE);
    query = (struct pep_mmap_query){0};
    assert_int_equal(pep_profile_mmap(&arena, NULL, &query)->sample_count, pep_mmap_record_count());
    query.filter.thread = "nobody-of-that-name";
    assert_int_equal(pep_profile_mmap(&arena, before, &query)->sample_count, 0);
    pep_arena_drop(&arena);
    help_map_clear();
}

/* Sizes that wrap, and more pieces than can be put back. */
static void test_edges(void **state) {
    (void)state;
    struct pep_mmap_taken taken;
    pep_mmap_take(HELP_BASE, 0, &taken);
    assert_int_equal(taken.count, 0);
    pep_mmap_take(HELP_BASE, SIZE_MAX - HELP_PAGE + 1, &taken);
    assert_int_equal(taken.count, 0);
    for (uint32_t i = 0; i < 40; i++)
        help_map(HELP_FAR + i * HELP_PAGE, HELP_PAGE, "edge");
    pep_mmap_take(HELP_FAR, 40 * HELP_PAGE, &taken);
    assert_int_equal(taken.count, PEP_MMAP_TAKEN_MAX);
    assert_true(taken.has_more);
    pep_mmap_put_back(&taken);
    assert_int_equal(help_mapped("edge").values[2], PEP_MMAP_TAKEN_MAX);
    help_map_clear();
}

/* -- losses --------------------------------------------------------------------------------- */

static void call_again(void) {
    help_map(HELP_FAR + (1ul << 30), HELP_PAGE, "nested");
    help_unmap(HELP_BASE, HELP_PAGE);
}

/* A signal handler that maps, just when its thread holds the lock. */
static void test_nested(void **state) {
    (void)state;
    uint64_t missed = PEP_COUNTED(mmap_missed);
    below_lock = call_again;
    help_map(HELP_BASE, HELP_PAGE, "outer");
    assert_int_equal(PEP_COUNTED(mmap_missed), missed + 2);
    assert_int_equal(help_mapped("outer").values[3], HELP_PAGE);
    assert_int_equal(help_mapped("nested").samples, 0);
    help_map_clear();
}

static int is_held, may_go;

static void hold(void) {
    pep_store_release(&is_held, 1);
    while (!pep_load_acquire(&may_go))
        usleep(100);
}

static void *holder(void *unused) {
    (void)unused;
    below_lock = hold;
    help_map(HELP_BASE, HELP_PAGE, "held");
    return NULL;
}

static void start_holder(pthread_t *thread) {
    is_held = may_go = 0;
    assert_int_equal(pthread_create(thread, NULL, holder, NULL), 0);
    while (!pep_load_acquire(&is_held))
        usleep(100);
}

static void end_holder(pthread_t thread) {
    pep_store_release(&may_go, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* A holder that was stopped keeps nobody. */
static void test_stopped_holder(void **state) {
    (void)state;
    pthread_t thread;
    uint64_t missed = PEP_COUNTED(mmap_missed);
    start_holder(&thread);
    for (uint32_t i = 0; i < 1000; i++)
        help_map(HELP_FAR, HELP_PAGE, "kept");
    assert_int_equal(PEP_COUNTED(mmap_missed), missed + 1000);
    end_holder(thread);
    assert_int_equal(help_mapped("held").values[3], HELP_PAGE);
    help_map(HELP_FAR, HELP_PAGE, "kept");
    assert_int_equal(help_mapped("kept").values[0], 1);
    help_map_clear();
}

/* The child of a fork below somebody else's lock knows no mappings, and goes on. */
static void test_fork(void **state) {
    (void)state;
    pthread_t thread;
    help_map(HELP_FAR, 5 * HELP_PAGE, "parent");
    start_holder(&thread);
    pid_t pid = fork();
    if (pid == 0) {
        pep_mmap_after_fork_child();
        pep_mmap_check();
        bool is_empty = help_mapped(NULL).values[3] == 0 && help_mapped("parent").values[1] > 0;
        help_map(HELP_FAR, HELP_PAGE, "child");
        pep_mmap_check();
        _exit(is_empty && help_mapped(NULL).values[3] == HELP_PAGE ? 0 : 1);
    }
    int status;
    end_holder(thread);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(help_mapped("parent").values[3], 5 * HELP_PAGE);
    pep_mmap_after_fork_child(); /* nobody held it: everything stays */
    assert_int_equal(help_mapped("parent").values[3], 5 * HELP_PAGE);
    help_map_clear();
}

static void test_no_room_for_pieces(void **state) {
    (void)state;
    uint64_t full = PEP_COUNTED(mmap_full);
    help_map(HELP_FAR, 3 * HELP_PAGE, "roomless");
    has_no_room = true;
    help_map(HELP_FAR + 8 * HELP_PAGE, HELP_PAGE, "roomless");
    help_unmap(HELP_FAR + HELP_PAGE, HELP_PAGE); /* leaves two pieces, and there is room for one */
    has_no_room = false;
    assert_int_equal(PEP_COUNTED(mmap_full), full + 2);
    assert_int_equal(help_mapped("roomless").values[0], 2);
    assert_int_equal(help_mapped("roomless").values[3], HELP_PAGE);
    help_map_clear();
}

/* Really full: single pages that do not touch. */
static void test_many_pieces(void **state) {
    (void)state;
    uint64_t full = PEP_COUNTED(mmap_full);
    uint32_t count = 2 * PEP_MMAP_MAPPINGS;
    for (uint32_t i = 0; i < count; i++)
        help_map(HELP_FAR + 2 * i * HELP_PAGE, HELP_PAGE, "many");
    uint64_t refused = PEP_COUNTED(mmap_full) - full;
    assert_in_range(count - refused, PEP_MMAP_MAPPINGS / 2, PEP_MMAP_MAPPINGS);
    struct help_mapped sums = help_mapped("many");
    assert_int_equal(sums.values[0], count);
    assert_int_equal(sums.values[2], count - refused);
    help_map_clear();
    help_map(HELP_FAR, HELP_PAGE, "many");
    assert_int_equal(help_mapped("many").values[2], 1);
    help_map_clear();
}

static void *map_and_unmap(void *number) {
    uintptr_t start = HELP_FAR + ((uintptr_t)number << 36);
    for (uint32_t i = 0; i < 20000; i++) {
        help_map(start + (i % 64) * HELP_PAGE, HELP_PAGE, "threads");
        if (i % 3 == 0)
            help_unmap(start + (i % 61) * HELP_PAGE, 2 * HELP_PAGE);
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    pthread_t threads[8];
    uint64_t missed = PEP_COUNTED(mmap_missed);
    for (uintptr_t i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, map_and_unmap, (void *)i), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    pep_mmap_check();
    missed = PEP_COUNTED(mmap_missed) - missed;
    int64_t calls = help_mapped("threads").values[0];
    assert_in_range(calls, 160000 - (int64_t)missed, 160000);
    help_map_clear();
}

/* Last: these stay full. */
__attribute__((noinline)) static void add_from(uint32_t depth, const char *text) {
    if (depth > 0)
        add_from(depth - 1, text);
    else
        help_map(HELP_FAR, HELP_PAGE, text);
    __asm__ volatile("" ::: "memory");
}

static void test_full_tables(void **state) {
    (void)state;
    uint64_t full = PEP_COUNTED(mmap_full);
    char text[32];
    for (uint32_t i = 0; i < PEP_MMAP_LABELS; i++) {
        snprintf(text, sizeof text, "label-%u", (unsigned)i);
        help_map(HELP_FAR, HELP_PAGE, text);
    }
    assert_true(PEP_COUNTED(mmap_full) > full); /* the last ones have none */
    full = PEP_COUNTED(mmap_full);
    for (uint32_t i = 0; i < 990 * 18; i++) {
        snprintf(text, sizeof text, "label-%u", (unsigned)i / 18);
        add_from(i % 18, text);
    }
    assert_true(PEP_COUNTED(mmap_full) > full);
    assert_int_equal(pep_mmap_cell_count(), PEP_MMAP_CELLS);
    assert_int_equal(help_mapped(NULL).values[3], HELP_PAGE);
    help_map_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_memory),   cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_labels),      cmocka_unit_test(test_break),
        cmocka_unit_test(test_window),      cmocka_unit_test(test_edges),
        cmocka_unit_test(test_nested),      cmocka_unit_test(test_stopped_holder),
        cmocka_unit_test(test_fork),        cmocka_unit_test(test_no_room_for_pieces),
        cmocka_unit_test(test_many_pieces), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_full_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
