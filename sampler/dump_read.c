/*
 * The stacks of a dump: waiting threads are read, running ones asked, as many at a time as the
 * kernel's queue of signals bears.
 *
 * Model:   a first round looks at everybody; whoever runs goes on a list. The list is asked, and
 *          who does not answer soon is looked at again: it may wait by now, in a call that no
 *          signal ends. Threads that block our signal are not asked: it would stay behind. Many
 *          block it for a moment only, as when they create a thread: they are asked after that.
 * Writers: the thread that takes the dump.  [normal]
 * Readers: the same.
 * Memory:  the dump's arena.
 * When full: the task has a note instead of a stack.
 */
#include <errno.h>
#include <string.h>

#include "sampler/ask.h"
#include "sampler/cpu.h"
#include "sampler/dump_internal.h"
#include "sampler/look_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"
#include "sampler/thread.h"

#define WALKS 3               /* of a thread that moves each time, before it is asked */
#define PAUSE_NS 500000       /* between two looks for answers */
#define PATIENCE_NS 20000000u /* for one answer before its thread is looked at again; doubles */
#define EXTRA_NS 100000000u   /* an answer moves the deadline that far away, */
#define EXTRA_TIMES 5         /* to this many times of it at most */
#define LOOKS_MAX 3           /* again, at a thread that ran and cannot be asked */
#define TICKET_NONE (-1)      /* not asked: blocks our signal */

static const char blocks_signal[] = "blocks our signal";
static const char no_answer[] = "did not answer in time";
static const char in_fault[] = "handles a fault";
static const char no_signal[] = "runs, and the program took our signal";
static const char queue_full[] = "runs, and the queue of signals is full";

struct question {
    uint32_t index; /* of the task; UINT32_MAX: dealt with */
    int ticket, looks;
    uint64_t sent_ns, cpu_ns; /* cpu_ns: of its thread then */
};

struct reading {
    struct pep_dump_work *work;
    struct question *questions;
    uint32_t count, first, sent; /* [first, sent) are out */
    uint64_t end_ns, latest_ns;
    uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
};

static void set_stack(struct reading *reading, uint32_t index, int count) {
    struct pep_sample *sample = &reading->work->samples[index];
    uintptr_t *pcs = pep_arena_array(reading->work->arena, (size_t)count, sizeof *pcs);
    if (pcs == NULL)
        return;
    memcpy(pcs, reading->pcs, (size_t)count * sizeof *pcs);
    sample->pcs = pcs;
    sample->pc_count = (uint32_t)count;
    reading->work->dump->tasks[index].note = NULL;
}

static void set_note(struct reading *reading, uint32_t index, const char *note) {
    static const uintptr_t unknown = PEP_PC_UNKNOWN;
    reading->work->dump->tasks[index].note = note;
    reading->work->samples[index].pcs = &unknown;
    reading->work->samples[index].pc_count = 1;
}

/* True when there is nothing more to do for the thread: it has its stack, or is gone. */
static bool read_one(struct reading *reading, uint32_t index) {
    struct pep_looker *looker = reading->work->looker;
    struct pep_look *look = &reading->work->looks[index];
    for (int i = 0; i < WALKS; i++) {
        pep_look_at(looker, look->tid, look);
        if (look->kind == PEP_LOOK_GONE)
            return true;
        int count = pep_look_walk(looker, look, reading->pcs, PEP_UNWIND_DEPTH_MAX);
        if (count > 0) {
            reading->work->dump->tasks[index].waited_ns = pep_look_since(looker, look);
            set_stack(reading, index, count);
            return true;
        }
        if (look->kind == PEP_LOOK_RUNS || look->kind == PEP_LOOK_REFUSED)
            return false;
    }
    look->kind = PEP_LOOK_RUNS; /* whenever one looks it has moved */
    return false;
}

/* "SigBlk:\t0000000000000000" of its status (proc(5)). */
static bool is_blocking(struct reading *reading, uint32_t index) {
    struct pep_looker *looker = reading->work->looker;
    if (pep_look_read(looker, reading->work->looks[index].tid, "status") <= 0)
        return false;
    const char *at = strstr(looker->text, "\nSigBlk:\t");
    uint64_t mask = 0;
    for (at = at != NULL ? at + 9 : ""; *at != '\0' && *at != '\n'; at++)
        mask = mask << 4 | (uint64_t)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
    int sig = pep_cpu_signal();
    return sig != 0 && (mask >> (sig - 1) & 1) != 0;
}

static void done(struct question *question) {
    question->index = UINT32_MAX;
}

/* False when it cannot be asked now, as others must answer first. */
static bool ask(struct reading *reading, struct question *question) {
    uint32_t index = question->index;
    struct pep_look *look = &reading->work->looks[index];
    question->sent_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    question->ticket = TICKET_NONE;
    question->cpu_ns = look->cpu_ns;
    if (question->sent_ns >= reading->end_ns ||
        (look->tid != reading->work->leaving_tid && is_blocking(reading, index)))
        return true;
    bool is_waiting = look->kind == PEP_LOOK_REFUSED && look->state != 'R';
    uint64_t since = is_waiting ? pep_look_since(reading->work->looker, look) : 0;
    reading->work->dump->tasks[index].waited_ns = since; /* pep_dump_explain makes it a time */
    int ticket = pep_ask_send_since(look->tid, since);
    bool is_full = ticket == -EBUSY || ticket == -EAGAIN;
    if (is_full && reading->sent > reading->first)
        return false;
    question->ticket = ticket;
    if (ticket >= 0)
        return true;
    if (ticket == -ENOTSUP) { /* it has just begun to block our signal */
        question->ticket = TICKET_NONE;
        return true;
    }
    if (ticket == -ESRCH)
        look->kind = PEP_LOOK_GONE;
    else
        set_note(reading, index, is_full ? queue_full : no_signal);
    done(question);
    return true;
}

static void took(struct reading *reading, struct question *question, int count) {
    if (count > 0) {
        uint64_t end = pep_os_clock_ns(CLOCK_MONOTONIC) + EXTRA_NS;
        end = end < reading->latest_ns ? end : reading->latest_ns;
        reading->end_ns = end > reading->end_ns ? end : reading->end_ns;
        set_stack(reading, question->index, count);
    } else {
        set_note(reading, question->index, count == -EFAULT ? in_fault : no_answer);
    }
    done(question);
}

static void blocked(struct reading *reading, struct question *question) {
    set_note(reading, question->index, blocks_signal);
    done(question);
}

/* A thread that has not run since blocks what it blocked: such a look tells nothing. */
static bool has_not_run(const struct pep_look *look, const struct question *question) {
    return look->kind == PEP_LOOK_RUNS && look->cpu_ns != 0 && look->cpu_ns == question->cpu_ns;
}

/* One that was not asked, as it blocked our signal. */
static void try_to_ask(struct reading *reading, struct question *question, bool is_end) {
    const struct pep_look *look = &reading->work->looks[question->index];
    bool is_still = is_blocking(reading, question->index);
    if (is_still && has_not_run(look, question))
        question->looks--;
    question->cpu_ns = look->cpu_ns;
    if (is_still && (is_end || question->looks >= LOOKS_MAX))
        blocked(reading, question);
    else if (is_end)
        took(reading, question, -ETIMEDOUT);
    else if (!is_still)
        (void)ask(reading, question);
}

/* At the deadline the question is taken back. */
static void give_up(struct reading *reading, struct question *question) {
    int count = pep_ask_take(question->ticket, 0, reading->pcs, PEP_UNWIND_DEPTH_MAX);
    if (count <= 0 && is_blocking(reading, question->index))
        blocked(reading, question);
    else
        took(reading, question, count);
}

/* One that does not answer: it may have gone to wait where no signal reaches it, or be stopped. */
static void look_again(struct reading *reading, struct question *question, bool is_end) {
    struct pep_look *look = &reading->work->looks[question->index];
    bool is_read = look->kind != PEP_LOOK_REFUSED && read_one(reading, question->index);
    bool is_asked = question->ticket != TICKET_NONE;
    if (is_read) {
        if (is_asked)
            (void)pep_ask_take(question->ticket, 0, reading->pcs, PEP_UNWIND_DEPTH_MAX);
        done(question);
    } else if (!is_asked) {
        try_to_ask(reading, question, is_end);
    } else if (is_end) {
        give_up(reading, question);
    }
}

static void collect_one(struct reading *reading, struct question *question, uint64_t now) {
    bool is_end = now >= reading->end_ns;
    struct pep_look *look = &reading->work->looks[question->index];
    if (question->ticket != TICKET_NONE && pep_ask_is_answered(question->ticket)) {
        if (pep_ask_call_of(question->ticket, look))
            look->kind = PEP_LOOK_WAITS; /* as if it could have been read */
        took(reading, question,
             pep_ask_take(question->ticket, 0, reading->pcs, PEP_UNWIND_DEPTH_MAX));
    } else if (is_end || now - question->sent_ns > (uint64_t)PATIENCE_NS << question->looks) {
        question->sent_ns = now;
        question->looks++;
        look_again(reading, question, is_end);
    }
}

/* Takes what is there, and moves on past those that are done. */
static void collect(struct reading *reading) {
    uint64_t now = pep_os_clock_ns(CLOCK_MONOTONIC);
    for (uint32_t i = reading->first; i < reading->sent; i++)
        if (reading->questions[i].index != UINT32_MAX)
            collect_one(reading, &reading->questions[i], now);
    while (reading->first < reading->sent && reading->questions[reading->first].index == UINT32_MAX)
        reading->first++;
}

/* Asks as many as bear to be asked now. */
static void ask_more(struct reading *reading) {
    while (reading->sent < reading->count && ask(reading, &reading->questions[reading->sent]))
        reading->sent++;
}

static void begin_waiting(struct reading *reading) {
    reading->end_ns = pep_os_clock_ns(CLOCK_MONOTONIC) + reading->work->deadline_ns;
    reading->latest_ns = reading->end_ns + (EXTRA_TIMES - 1) * reading->work->deadline_ns;
}

/* Who runs is asked at once, and answers while others are looked at. */
static void look_at_all(struct reading *reading) {
    struct pep_dump *dump = reading->work->dump;
    reading->end_ns = UINT64_MAX;
    for (uint32_t i = 0; i < dump->task_count; i++) {
        if (read_one(reading, i))
            continue;
        if (reading->count == 0)
            (void)pep_ask_init(); /* refused: every question is, too */
        reading->questions[reading->count++].index = i;
        ask_more(reading);
    }
}

static void wait_for_answers(struct reading *reading) {
    begin_waiting(reading);
    while (reading->first < reading->count) {
        ask_more(reading);
        collect(reading);
        if (reading->first < reading->sent)
            pep_os_sleep_ns(PAUSE_NS);
    }
}

/* Without /proc: the name that it had when it was last sampled, if it ever was. */
static void name_by_identity(struct pep_look *look) {
    const struct pep_thread *thread = pep_thread_of(look->tid);
    uint32_t identity = thread != NULL ? pep_load_relaxed(&thread->identity) : 0;
    if (identity != 0)
        pep_identity_name(identity, look->name);
}

static void name_all(struct pep_dump_work *work) {
    for (uint32_t i = 0; i < work->dump->task_count; i++) {
        struct pep_task *task = &work->dump->tasks[i];
        struct pep_look *look = &work->looks[i];
        if (look->state == 0)
            name_by_identity(look);
        task->state = look->state;
        task->is_blocked = look->kind != PEP_LOOK_RUNS;
        task->name = pep_arena_strdup(work->arena, look->name);
        work->samples[i].thread = task->name;
    }
}

void pep_dump_read(struct pep_dump_work *work) {
    struct reading *reading = pep_arena_alloc(work->arena, sizeof *reading);
    if (reading == NULL)
        return;
    reading->work = work;
    reading->questions =
        pep_arena_array(work->arena, work->dump->task_count, sizeof *reading->questions);
    if (reading->questions == NULL)
        return;
    look_at_all(reading);
    wait_for_answers(reading);
    name_all(work);
}
