#include "sampler/ask.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "sampler/cpu_internal.h"
#include "sampler/modules.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/reserve.h"
#include "sampler/thread.h"

/* si_value: cookie << 48 | word of the place without its state << 16 | number of the place. As with
 * timers, no canonical address. */
#define COOKIE 0x70f6ull
#define STATES 8u
#define CALLS 512 /* numbers of system calls are below */

enum state {
    FREE = 0,
    ASKED,    /* the signal is on its way */
    ANSWERED, /* result and pcs are there */
    WRITING,  /* the handler is at work */
    LEFT      /* the same, and nobody waits for it any more: the handler gives the place back */
};

/* word: serial * STATES + state; a futex. A serial belongs to one question. */
struct place {
    uint32_t word;
    int result;
    uint64_t since_ns; /* the thread waits since then; 0: it runs */
    bool was_cut;      /* a signal of ours has cut the call short, which will be made again */
    long call;         /* that it waited in; -1: none, or not known */
    uint64_t arguments[6];
    uintptr_t sp, pc;
    uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
};

static struct place *places;
static uint32_t places_max; /* that may be in use at once */
static uint32_t next_place; /* where the search for a free one begins */

/* Each question is a queued signal of the user's limit, which the host's own sigqueue(3) needs. */
static uint32_t limit_places(void) {
    uint64_t limit[2] = {PEP_ASK_PLACES * 4, 0};
    pep_os_call6(SYS_prlimit64, 0, RLIMIT_SIGPENDING, 0, (long)limit, 0, 0);
    uint64_t quarter = limit[0] / 4;
    return quarter < PEP_ASK_PLACES ? (uint32_t)quarter + 1 : PEP_ASK_PLACES;
}

int pep_ask_init(void) {
    pep_store_relaxed(&places_max, limit_places());
    int r = pep_cpu_scratch_init();
    if (r == 0)
        r = pep_unwind_init();
    if (r < 0 || pep_load_acquire(&places) != NULL)
        return r;
    size_t size = sizeof(struct place) * PEP_ASK_PLACES;
    struct place *fresh = pep_reserve_alone(size), *none = NULL;
    if (fresh == NULL)
        return -ENOMEM;
    if (!pep_cas_acq_rel(&places, &none, fresh))
        pep_os_unmap(fresh, size);
    return 0;
}

PEP_SIGNAL_SAFE static uint32_t serial_of(uint32_t word) {
    return word / STATES;
}

/* Goes to another state unless somebody else did; a new serial when the place becomes free. */
PEP_SIGNAL_SAFE static bool change(struct place *place, uint32_t from, enum state to) {
    uint32_t word = serial_of(from) * STATES + to + (to == FREE ? STATES : 0);
    return pep_cas_acq_rel(&place->word, &from, word);
}

static int take_place(void) {
    uint32_t first = pep_add_relaxed(&next_place, 1), most = pep_load_relaxed(&places_max);
    for (uint32_t i = 0; i < most; i++) {
        struct place *place = &places[(first + i) % most];
        uint32_t word = pep_load_relaxed(&place->word);
        if (word % STATES == FREE && change(place, word, ASKED))
            return (int)((first + i) % most);
    }
    return -EBUSY;
}

/* A thread that begins to give way waits until those have been sent that it does not know of. */
static int send_to(struct pep_thread *thread, int tid, const siginfo_t *info) {
    if (thread != NULL)
        (void)pep_add_acq_rel(&thread->asks, 1);
    pep_fence_seq_cst(); /* pairs with give_way: it sees ours, or we see that it gives way */
    bool gives_way = thread != NULL && pep_load_relaxed(&thread->gives_way);
    int r =
        gives_way ? -ENOTSUP : pep_os_tgsigqueueinfo(pep_os_getpid(), tid, pep_cpu.signal, info);
    if (thread != NULL)
        (void)pep_sub_acq_rel(&thread->asks, 1);
    return r;
}

static int send(int tid, int number) {
    siginfo_t info;
    pep_zero(&info, sizeof info);
    info.si_signo = pep_cpu.signal;
    info.si_code = SI_TIMER; /* as a timer's, so that an exec flushes it */
    uint64_t serial = serial_of(pep_load_relaxed(&places[number].word));
    info.si_value.sival_ptr = (void *)(COOKIE << 48 | serial << 16 | (uint64_t)number);
    return send_to(pep_thread_of(tid), tid, &info);
}

int pep_ask_send_since(int tid, uint64_t since_ns) {
    if (pep_load_acquire(&places) == NULL || pep_cpu.signal == 0 || pep_cpu_handler_check() < 0)
        return -ENOSYS;
    int number = take_place();
    if (number < 0)
        return number;
    struct place *place = &places[number];
    pep_store_relaxed(&place->since_ns, since_ns);
    int r = send(tid, number);
    if (r < 0) {
        (void)change(place, pep_load_relaxed(&place->word), FREE);
        return r;
    }
    PEP_COUNT(asks, 1);
    return number;
}

int pep_ask_send(int tid) {
    return pep_ask_send_since(tid, 0);
}

bool pep_ask_is_answered(int ticket) {
    return pep_load_acquire(&places[ticket].word) % STATES == ANSWERED;
}

/* At the deadline; false when the answer came just now. */
static bool give_up(struct place *place, uint32_t word) {
    enum state state = (enum state)(word % STATES);
    return state != ANSWERED && change(place, word, state == ASKED ? FREE : LEFT);
}

int pep_ask_take(int ticket, uint64_t deadline_ns, uintptr_t *pcs, int max) {
    struct place *place = &places[ticket];
    uint32_t word = pep_load_acquire(&place->word); /* acquire: pairs with change in answer */
    while (word % STATES != ANSWERED) {
        uint64_t now = pep_os_clock_ns(CLOCK_MONOTONIC);
        if (now < deadline_ns) {
            (void)pep_os_futex_wait((int *)(void *)&place->word, (int)word, deadline_ns - now);
        } else if (give_up(place, word)) {
            PEP_COUNT(ask_late, 1);
            return -ETIMEDOUT;
        }
        word = pep_load_acquire(&place->word);
    }
    int count = place->result;
    if (count > max) {
        count = max;
        place->pcs[max - 1] = PEP_PC_TRUNCATED;
    }
    for (int i = 0; i < count; i++)
        pcs[i] = place->pcs[i];
    (void)change(place, word, FREE);
    return count;
}

/* A call that will be made again has its number in RAX, and its instruction comes next; RCX tells
 * that it was cut short (cpu_restart.c). */
PEP_SIGNAL_SAFE static void note_call(struct place *place, const ucontext_t *context) {
    const greg_t *registers = context->uc_mcontext.gregs;
    static const int order[6] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
    uint8_t code[2];
    place->pc = (uintptr_t)registers[REG_RIP];
    place->sp = (uintptr_t)registers[REG_RSP];
    place->was_cut =
        registers[REG_RCX] == ~registers[REG_RIP] || registers[REG_RCX] == -registers[REG_RIP];
    place->call = -1;
    if (pep_os_peek(code, place->pc, sizeof code) == (long)sizeof code && code[0] == 0x0f &&
        code[1] == 0x05 && registers[REG_RAX] >= 0 && registers[REG_RAX] < CALLS)
        place->call = registers[REG_RAX];
    for (int i = 0; i < 6; i++)
        place->arguments[i] = (uint64_t)registers[order[i]];
}

PEP_SIGNAL_SAFE static void answer(struct place *place, uint32_t serial,
                                   const ucontext_t *context) {
    const struct pep_thread *thread = pep_thread_self();
    const struct pep_stack_range unknown = {0, 0};
    note_call(place, context);
    place->result = pep_cpu_walk(context, thread != NULL ? &thread->stack : &unknown, place->pcs);
    if (!change(place, serial * STATES + WRITING, ANSWERED)) {
        (void)change(place, serial * STATES + LEFT, FREE);
        return;
    }
    (void)pep_os_futex_wake((int *)(void *)&place->word, 1);
}

PEP_SIGNAL_SAFE bool pep_ask_is_question(const siginfo_t *info) {
    uint64_t value = (uint64_t)info->si_value.sival_ptr;
    return info->si_code == SI_TIMER && value >> 48 == COOKIE;
}

PEP_SIGNAL_SAFE bool pep_ask_answer(const siginfo_t *info, ucontext_t *context) {
    uint64_t value = (uint64_t)info->si_value.sival_ptr;
    if (!pep_ask_is_question(info) || pep_load_acquire(&places) == NULL)
        return false;
    struct place *place = &places[value % PEP_ASK_PLACES];
    uint32_t serial = (uint32_t)(value >> 16);
    bool is_wanted = change(place, serial * STATES + ASKED, WRITING);
    uint64_t since_ns = is_wanted ? pep_load_relaxed(&place->since_ns) : 0;
    bool is_again = pep_cpu_restart_call(context);
    if (is_wanted)
        answer(place, serial, context);
    if (is_again && since_ns != 0)
        pep_ask_shorten(context, since_ns);
    return true;
}

bool pep_ask_call_of(int ticket, struct pep_look *look) {
    const struct place *place = &places[ticket];
    if (!pep_ask_is_answered(ticket) || (place->since_ns == 0 && !place->was_cut) ||
        place->call < 0)
        return false;
    look->call = place->call;
    look->sp = place->sp;
    look->pc = place->pc;
    for (int i = 0; i < 6; i++)
        look->arguments[i] = place->arguments[i];
    return true;
}

void pep_ask_after_fork_child(void) {
    for (uint32_t i = 0; places != NULL && i < PEP_ASK_PLACES; i++)
        if (places[i].word % STATES != FREE)
            places[i].word = (serial_of(places[i].word) + 1) * STATES + FREE;
}
