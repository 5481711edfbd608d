/*
 * The wall clock's eye on threads whose every move is told: who is looked at, who is asked, and
 * that each nanosecond is charged once, to what the thread did.
 * LDFLAGS: -Wl,--wrap=pep_os_clock_ns,--wrap=pep_os_map
 * LDFLAGS: -Wl,--wrap=pep_look_at,--wrap=pep_look_walk,--wrap=pep_look_state_tag
 * LDFLAGS: -Wl,--wrap=pep_ask_send,--wrap=pep_ask_take,--wrap=pep_ask_is_answered
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/ask.h"
#include "sampler/cells.h"
#include "sampler/look.h"
#include "sampler/rt/os.h"
#include "sampler/stack_table.h"
#include "sampler/thread.h"
#include "sampler/wall_watch.h"

#define PERIOD 10000000ull
#define FIRST_TID (getpid() > 1 << 21 ? 1 << 20 : 3 << 20) /* far from where the kernel counts */
#define ACTORS 200
#define RUNNING 1
#define WAITING 2
#define ANY 0xffff

struct pep_looker *const no_looker;

/* A thread as the kernel would show it. */
static struct actor {
    enum pep_look_kind kind;
    uint64_t cpu_ns;
    uintptr_t pc; /* its stack is this one address */
    int walk;     /* 0, or the walk's error */
    int send;     /* 0, or the question's error */
    bool is_deaf;
    bool is_asked;
    uintptr_t answered_pc; /* where the question found it */
} actors[ACTORS];
static int actor_count;
static int looks, asks, clocks;
static uint64_t now_ns, own_cpu_ns;

static struct actor *actor_of(int tid) {
    int number = tid - FIRST_TID;
    return number >= 0 && number < actor_count ? &actors[number] : NULL;
}

uint64_t __wrap_pep_os_clock_ns(clockid_t clock);
uint64_t __wrap_pep_os_clock_ns(clockid_t clock) {
    if (clock == CLOCK_MONOTONIC || clock == CLOCK_REALTIME)
        return now_ns;
    if (clock == CLOCK_THREAD_CPUTIME_ID)
        return own_cpu_ns;
    uint64_t sum = own_cpu_ns;
    if (clock == CLOCK_PROCESS_CPUTIME_ID) {
        for (int i = 0; i < actor_count; i++)
            sum += actors[i].cpu_ns;
        return sum;
    }
    clocks++;
    const struct actor *actor = actor_of((int)~(unsigned)(clock >> 3));
    return actor == NULL || actor->kind == PEP_LOOK_GONE ? 0 : actor->cpu_ns;
}

static int refuse_maps;
void *__real_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes);
void *__wrap_pep_os_map(size_t size_bytes) {
    return refuse_maps ? NULL : __real_pep_os_map(size_bytes);
}

void __wrap_pep_look_at(struct pep_looker *looker, int tid, struct pep_look *look);
void __wrap_pep_look_at(struct pep_looker *looker, int tid, struct pep_look *look) {
    (void)looker;
    looks++;
    *look = (struct pep_look){.tid = tid, .kind = actor_of(tid)->kind};
}

int __wrap_pep_look_walk(struct pep_looker *looker, const struct pep_look *look, uintptr_t *pcs,
                         int max);
int __wrap_pep_look_walk(struct pep_looker *looker, const struct pep_look *look, uintptr_t *pcs,
                         int max) {
    (void)looker;
    assert_true(max > 0);
    pcs[0] = actor_of(look->tid)->pc;
    return actor_of(look->tid)->walk != 0 ? actor_of(look->tid)->walk : 1;
}

uint16_t __wrap_pep_look_state_tag(const struct pep_look *look);
uint16_t __wrap_pep_look_state_tag(const struct pep_look *look) {
    return look->kind == PEP_LOOK_RUNS ? RUNNING : WAITING;
}

int __wrap_pep_ask_send(int tid);
int __wrap_pep_ask_send(int tid) {
    struct actor *actor = actor_of(tid);
    asks++;
    if (actor->send != 0)
        return actor->send;
    assert_false(actor->is_asked);
    actor->is_asked = true;
    actor->answered_pc = actor->pc;
    actor->cpu_ns += actor->is_deaf ? 0 : 20000; /* answering is work, too */
    return tid - FIRST_TID;
}

bool __wrap_pep_ask_is_answered(int ticket);
bool __wrap_pep_ask_is_answered(int ticket) {
    return !actors[ticket].is_deaf;
}

int __wrap_pep_ask_take(int ticket, uint64_t deadline_ns, uintptr_t *pcs, int max);
int __wrap_pep_ask_take(int ticket, uint64_t deadline_ns, uintptr_t *pcs, int max) {
    assert_int_equal(deadline_ns, 0);
    assert_true(max > 0);
    assert_true(actors[ticket].is_asked);
    actors[ticket].is_asked = false;
    pcs[0] = actors[ticket].answered_pc;
    return actors[ticket].is_deaf ? -ETIMEDOUT : 1;
}

/* -- what was charged ----------------------------------------------------------------------- */

static struct pep_cells cells;

static uint64_t charged(int number, uintptr_t pc, uint16_t tag, bool is_count) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < pep_cells_count(&cells); i++) {
        const struct pep_tagged_cell *cell = &cells.cells[i];
        const struct pep_identity *identity = pep_identity_get(pep_cell_identity(cell->key));
        const struct pep_stack *stack = pep_stack_table_get(pep_cell_stack(cell->key));
        if (cell->key == 0 || identity == NULL || identity->tid != FIRST_TID + number)
            continue;
        if ((pc == 0 || stack->pcs[0] == pc) && (tag == ANY || pep_cell_tag(cell->key) == tag))
            sum += is_count ? cell->count : cell->weight;
    }
    return sum;
}

static uint64_t weight(int number, uintptr_t pc, uint16_t tag) {
    return charged(number, pc, tag, false);
}

static uint64_t samples(int number) {
    return charged(number, 0, ANY, true);
}

/* -- the stage ------------------------------------------------------------------------------ */

static int enter(enum pep_look_kind kind, uintptr_t pc) {
    actors[actor_count] = (struct actor){.kind = kind, .pc = pc, .cpu_ns = 50000};
    assert_non_null(pep_thread_adopt(FIRST_TID + actor_count));
    return actor_count++;
}

static void leave(int number) {
    actors[number].cpu_ns += 9000;
    actors[number].kind = PEP_LOOK_GONE;
    pep_thread_forget(pep_thread_of(FIRST_TID + number));
}

static void beat(uint64_t after_ns) {
    now_ns += after_ns;
    own_cpu_ns += 3000;
    pep_watches_beat(no_looker, now_ns, PERIOD);
}

static void beats(int count) {
    while (count-- > 0)
        beat(PERIOD);
}

static void move(int number, uintptr_t pc) {
    actors[number].pc = pc;
    actors[number].cpu_ns += 5000;
}

static int begin(void **state) {
    (void)state;
    memset(actors, 0, sizeof actors);
    actor_count = looks = asks = clocks = 0;
    now_ns += 1000000000;
    if (cells.index != NULL) { /* from nothing again */
        memset(cells.index, 0, 2 * cells.capacity * sizeof *cells.index);
        memset(cells.cells, 0, cells.capacity * sizeof *cells.cells);
        cells.used = 0;
    }
    pep_watches_start(now_ns);
    return 0;
}

static int end(void **state) {
    (void)state;
    pep_watches_stop();
    for (int i = 0; i < actor_count; i++) {
        assert_false(actors[i].is_asked); /* every question was taken back */
        struct pep_thread *thread = pep_thread_of(FIRST_TID + i);
        if (thread != NULL)
            pep_thread_forget(thread);
    }
    return 0;
}

static int make_tables(void **state) {
    (void)state;
    assert_int_equal(pep_threads_init(), 0);
    assert_int_equal(pep_stack_table_init(), 0);
    assert_int_equal(pep_cells_init(&cells, 4096), 0);
    refuse_maps = 1;
    assert_int_equal(pep_watches_init(&cells), -ENOMEM);
    refuse_maps = 0;
    assert_int_equal(pep_watches_init(&cells), 0);
    assert_int_equal(pep_watches_init(&cells), 0);
    pep_thread_at(0)->is_own = true; /* this thread is not on the stage */
    return 0;
}

/* -- tests ---------------------------------------------------------------------------------- */

static void a_sleeper_is_looked_at_once(void **state) {
    (void)state;
    int sleeper = enter(PEP_LOOK_WAITS, 0x401000);
    beat(0);
    assert_int_equal(pep_watches_count(), 1);
    int clocks_before = clocks;
    beats(100);
    assert_int_equal(looks, 1);
    assert_int_equal(asks, 0);
    assert_int_equal(clocks, clocks_before); /* the process's clock says it all */
    pep_watches_settle(now_ns + 5);
    assert_int_equal(weight(sleeper, 0x401000, WAITING), 100 * PERIOD + 5);
    assert_int_equal(samples(sleeper), 100);
    pep_watches_settle(now_ns + 5);
    pep_watches_settle(now_ns); /* time that is charged is not charged again */
    assert_int_equal(weight(sleeper, 0, ANY), 100 * PERIOD + 5);
}

static void who_moves_is_charged_where_each_beat_finds_it(void **state) {
    (void)state;
    int mover = enter(PEP_LOOK_WAITS, 0x401000);
    beat(0);
    beats(5);
    move(mover, 0x402000);
    beats(1);
    beats(3);
    pep_watches_settle(now_ns);
    assert_int_equal(looks, 2);
    assert_int_equal(weight(mover, 0x401000, WAITING), 5 * PERIOD);
    assert_int_equal(weight(mover, 0x402000, WAITING), 4 * PERIOD);
    assert_int_equal(samples(mover), 9);
}

static void lives_are_charged_while_they_are_seen(void **state) {
    (void)state;
    int lasting = enter(PEP_LOOK_WAITS, 0x401000);
    beat(0);
    beats(2);
    int born = enter(PEP_LOOK_WAITS, 0x402000);
    beats(3);
    leave(born);
    beats(2);
    pep_watches_settle(now_ns);
    assert_int_equal(weight(born, 0, ANY), 3 * PERIOD);
    assert_int_equal(weight(lasting, 0, ANY), 7 * PERIOD);
    assert_int_equal(pep_watches_count(), 1);
    /* Ended, but its slot was not given back yet. */
    actors[lasting].kind = PEP_LOOK_GONE;
    actors[lasting].cpu_ns += 9000;
    beats(2);
    pep_watches_settle(now_ns);
    assert_int_equal(weight(lasting, 0, ANY), 7 * PERIOD);
    assert_int_equal(pep_watches_count(), 0);
}

static void another_thread_in_the_same_slot_is_another(void **state) {
    (void)state;
    int first = enter(PEP_LOOK_WAITS, 0x401000);
    beat(0);
    beats(2);
    leave(first);
    int second = enter(PEP_LOOK_WAITS, 0x401000);
    pep_watches_settle(now_ns + PERIOD / 2); /* seen by a reading first */
    beats(2);
    pep_watches_settle(now_ns);
    assert_int_equal(weight(first, 0, ANY), 2 * PERIOD);
    assert_int_equal(weight(second, 0, ANY), 2 * PERIOD);
}

static void who_runs_is_asked_and_never_waited_for(void **state) {
    (void)state;
    int runner = enter(PEP_LOOK_RUNS, 0x401000);
    beat(0);
    assert_int_equal(asks, 1);
    for (int i = 0; i < 4; i++) {
        move(runner, i < 2 ? 0x401000 : 0x402000);
        beat(PERIOD);
    }
    assert_int_equal(asks, 5);
    pep_watches_settle(now_ns + 7);
    /* Asked at 0, 1, 2 in the one place, at 3 and 4 in the other. */
    assert_int_equal(weight(runner, 0x401000, RUNNING), 2 * PERIOD);
    assert_int_equal(weight(runner, 0x402000, RUNNING), 2 * PERIOD + 7);
    assert_int_equal(samples(runner), 4);
    actors[runner].kind = PEP_LOOK_WAITS; /* it sleeps from now on */
    beats(1);
    int asks_then = asks;
    beats(5);
    assert_int_equal(asks, asks_then);
    pep_watches_settle(now_ns);
    assert_int_equal(weight(runner, 0x402000, WAITING), 6 * PERIOD - 7);
}

static void who_answers_late_stood_still_until_then(void **state) {
    (void)state;
    int starved = enter(PEP_LOOK_RUNS, 0x401000);
    actors[starved].is_deaf = true;
    beat(0);
    beats(5); /* no processor for it */
    actors[starved].is_deaf = false;
    actors[starved].kind = PEP_LOOK_WAITS;
    move(starved, 0x402000);
    beats(3);
    pep_watches_settle(now_ns);
    assert_int_equal(asks, 1);
    assert_int_equal(weight(starved, 0x401000, RUNNING), 5 * PERIOD);
    assert_int_equal(weight(starved, 0x402000, WAITING), 3 * PERIOD);
}

static void who_does_not_answer_is_unknown_and_asked_less_and_less(void **state) {
    (void)state;
    int deaf = enter(PEP_LOOK_RUNS, 0x401000);
    beat(0);
    actors[deaf].is_deaf = true;
    actors[deaf].is_asked = true; /* the first question meets it deaf already */
    for (int i = 0; i < 1000; i++) {
        actors[deaf].cpu_ns += PERIOD;
        beat(PERIOD);
    }
    /* After 0.5, 1, 2, 4 s. */
    assert_int_equal(asks, 5);
    pep_watches_settle(now_ns);
    assert_int_equal(weight(deaf, PEP_PC_UNKNOWN, RUNNING), 1000 * PERIOD);
    actors[deaf].is_deaf = false;
    beats(2);
    pep_watches_settle(now_ns);
    assert_int_equal(weight(deaf, 0, ANY), 1002 * PERIOD);
    assert_int_equal(weight(deaf, PEP_PC_UNKNOWN, RUNNING), 1000 * PERIOD);
    assert_int_equal(weight(deaf, 0x401000, RUNNING), 2 * PERIOD);
}

static void questions_that_cannot_be_sent(void **state) {
    (void)state;
    int busy = enter(PEP_LOOK_RUNS, 0x401000), taken = enter(PEP_LOOK_RUNS, 0x402000);
    int gone = enter(PEP_LOOK_RUNS, 0x403000);
    actors[busy].send = -EBUSY;
    actors[taken].send = -ENOSYS;
    actors[gone].send = -ESRCH;
    beat(0);
    beats(3);
    assert_int_equal(weight(gone, 0, ANY), 0);
    pep_thread_forget(pep_thread_of(FIRST_TID + gone));
    actors[busy].send = 0;
    beats(2); /* all of its time waited for this answer */
    pep_watches_settle(now_ns);
    assert_int_equal(weight(busy, 0x401000, RUNNING), 5 * PERIOD);
    assert_int_equal(weight(taken, PEP_PC_UNKNOWN, RUNNING), 5 * PERIOD);
}

static void no_more_questions_than_places(void **state) {
    (void)state;
    for (int i = 0; i < ACTORS; i++)
        actors[enter(PEP_LOOK_RUNS, 0x401000)].is_deaf = true;
    beat(0);
    assert_int_equal(asks, 128);
    for (int i = 0; i < ACTORS; i++)
        actors[i].is_deaf = false;
    beats(1);
    assert_true(asks >= ACTORS);
    beats(1);
    pep_watches_settle(now_ns);
    for (int i = 0; i < ACTORS; i++)
        assert_int_equal(weight(i, 0x401000, RUNNING), 2 * PERIOD);
}

static void who_moves_under_our_eyes_is_asked(void **state) {
    (void)state;
    int restless = enter(PEP_LOOK_WAITS, 0x401000);
    actors[restless].walk = -EAGAIN;
    beat(0);
    assert_int_equal(looks, 2);
    assert_int_equal(asks, 1);
    actors[restless].walk = -ESRCH;
    beats(1);
    assert_int_equal(pep_watches_count(), 0);
    actors[restless].walk = 0;
}

static void who_may_not_be_looked_at_is_asked_when_it_ran_for_itself(void **state) {
    (void)state;
    int hidden = enter(PEP_LOOK_REFUSED, 0x401000);
    beat(0);
    beats(10); /* answering takes CPU time, which is no reason to ask again */
    assert_int_equal(asks, 1);
    actors[hidden].cpu_ns += 600000;
    actors[hidden].pc = 0x402000;
    beats(10);
    assert_int_equal(asks, 2);
    pep_watches_settle(now_ns);
    assert_int_equal(weight(hidden, 0x401000, WAITING), 10 * PERIOD);
    assert_int_equal(weight(hidden, 0x402000, WAITING), 10 * PERIOD);
}

static void who_is_long_still_is_looked_after_less_often(void **state) {
    (void)state;
    int worker = enter(PEP_LOOK_WAITS, 0x401000), still = enter(PEP_LOOK_WAITS, 0x402000);
    beat(0);
    for (int i = 0; i < 200; i++) {
        move(worker, 0x401000);
        beat(PERIOD);
    }
    clocks = 0;
    for (int i = 0; i < 40; i++) {
        move(worker, 0x401000);
        beat(PERIOD);
    }
    assert_int_equal(clocks, 40 + 10);
    move(still, 0x403000);
    for (int i = 0; i < 4; i++) {
        move(worker, 0x401000);
        beat(PERIOD);
    }
    pep_watches_settle(now_ns);
    assert_int_equal(weight(still, 0, ANY), 244 * PERIOD);
    uint64_t found = weight(still, 0x403000, WAITING);
    /* It was last checked 4 beats before it is found: half of the time in between is the new's. */
    assert_true(found >= PERIOD * 5 / 2 && found <= PERIOD * 11 / 2);
    assert_int_equal(weight(worker, 0, ANY), 244 * PERIOD);
}

static void readings_in_between_change_no_sum(void **state) {
    (void)state;
    int runner = enter(PEP_LOOK_RUNS, 0x401000), sleeper = enter(PEP_LOOK_WAITS, 0x402000);
    uint64_t began_ns = now_ns;
    for (int i = 0; i < 50; i++) {
        move(runner, i % 3 ? 0x401000 : 0x403000);
        if (i % 7 == 0)
            move(sleeper, 0x402000 + (uintptr_t)i * 16);
        beat(PERIOD / 2 + (uint64_t)i * 1000);
        pep_watches_settle(now_ns + (uint64_t)i * 100);
        assert_int_equal(weight(runner, 0, ANY), now_ns + (uint64_t)i * 100 - began_ns);
        assert_int_equal(weight(sleeper, 0, ANY), now_ns + (uint64_t)i * 100 - began_ns);
    }
    assert_int_equal(samples(runner), weight(runner, 0, ANY) / PERIOD);
}

static void a_forked_child_watches_nobody(void **state) {
    (void)state;
    int parent = enter(PEP_LOOK_RUNS, 0x401000);
    beat(0);
    pep_watches_forget();
    actors[parent].is_asked = false; /* its answer is nobody's */
    pep_watches_start(now_ns);
    pep_watches_settle(now_ns + PERIOD);
    assert_int_equal(weight(parent, 0, ANY), 0);
}

int main(void) {
#define WATCH_TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        WATCH_TEST(a_sleeper_is_looked_at_once),
        WATCH_TEST(who_moves_is_charged_where_each_beat_finds_it),
        WATCH_TEST(lives_are_charged_while_they_are_seen),
        WATCH_TEST(another_thread_in_the_same_slot_is_another),
        WATCH_TEST(who_runs_is_asked_and_never_waited_for),
        WATCH_TEST(who_answers_late_stood_still_until_then),
        WATCH_TEST(who_does_not_answer_is_unknown_and_asked_less_and_less),
        WATCH_TEST(questions_that_cannot_be_sent),
        WATCH_TEST(no_more_questions_than_places),
        WATCH_TEST(who_moves_under_our_eyes_is_asked),
        WATCH_TEST(who_may_not_be_looked_at_is_asked_when_it_ran_for_itself),
        WATCH_TEST(who_is_long_still_is_looked_after_less_often),
        WATCH_TEST(readings_in_between_change_no_sum),
        WATCH_TEST(a_forked_child_watches_nobody),
    };
    return cmocka_run_group_tests(tests, make_tables, NULL);
}
