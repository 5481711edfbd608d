#include "sampler/wall_watch.h"

#include <errno.h>
#include <stdbool.h>
#include <time.h>

#include "sampler/ask.h"
#include "sampler/cpu.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"
#include "sampler/rt/reserve.h"
#include "sampler/thread.h"

/* Of the process's CPU time beyond ours, what may be noise of reading two clocks. A thread that
 * wakes and sleeps again uses twice that and more. */
#define NOISE_NS 1000
/* A thread that cannot be looked at is asked, which is CPU time too; more than that is its own. */
#define ASK_NOISE_NS 500000
#define PATIENCE_NS 500000000ull /* for an answer; doubles while there is none */
#define PATIENCE_DOUBLINGS 6
#define SILENT_MAX 2       /* answers that did not come before the stack is called unknown */
#define QUESTIONS_MAX 128u /* on their way: half of the pool is left to others */
#define OWN_MAX 16u
#define NEVER_SECONDS 1000000000
#define TRIES 2 /* to read a thread that moves meanwhile, before it is asked */
/* A thread that did nothing for STILL beats is looked after every COLD beats. */
#define STILL 64u
#define COLD 4u

struct watch {
    int tid; /* 0: nobody */
    uint32_t identity;
    pep_stack_id stack; /* of the last reading; 0: none yet */
    uint16_t tag;
    uint8_t silent;      /* questions in a row that were not answered */
    bool is_open;        /* has run since its last reading: its time waits for the next */
    bool is_refused;     /* the kernel does not let us look: it is asked */
    int ticket;          /* of a question on its way, while asked_ns is not 0 */
    uint32_t still;      /* times in a row that it was found not to have run */
    uint32_t carry_ns;   /* charged weight that is not yet a whole sample */
    uint64_t clock_ns;   /* its CPU time just before its last reading */
    uint64_t charged_ns; /* up to when its time is charged */
    uint64_t checked_ns; /* when it was last found as stack and tag say, or as its answer will */
    uint64_t asked_ns;   /* 0: no question is on its way */
} PEP_ALIGNED(64);

_Static_assert(sizeof(struct watch) == 64, "as the header says");

static struct watch *watches;
static struct pep_cells *cells;
static uint32_t limit; /* watches [0, limit) may be in use */
static uint32_t count, open_count;
static uint32_t questions[QUESTIONS_MAX], question_count; /* watches that were asked */
static uint32_t beats;
static uint64_t last_beat_ns; /* or the start */
static uint64_t quiet_ns;     /* the last beat at which nobody had run */
static uint64_t rest_ns; /* CPU time of all but the reading thread, at the last beat that looked */
static uint64_t sample_ns; /* the period */
static pep_stack_id unknown;
static int own_tids[OWN_MAX]; /* profep's other threads, as the last beat that looked saw them */
static uint32_t own_count;
static int timer_id;
static bool has_timer;

int pep_watches_init(struct pep_cells *set) {
    cells = set;
    if (watches != NULL)
        return 0;
    size_t bytes = PEP_THREADS_MAX * sizeof *watches;
    watches = pep_reserve_alone(bytes);
    return watches != NULL ? 0 : -ENOMEM;
}

/* -- charging ------------------------------------------------------------------------------- */

static void charge(struct watch *watch, uint64_t until_ns) {
    if (until_ns <= watch->charged_ns)
        return;
    uint64_t weight = until_ns - watch->charged_ns, owed = weight + watch->carry_ns;
    uint64_t sums[2] = {owed / sample_ns, weight};
    watch->carry_ns = (uint32_t)(owed % sample_ns);
    watch->charged_ns = until_ns;
    pep_cells_add(cells, watch->stack != 0 ? watch->stack : unknown, watch->identity, watch->tag,
                  sums);
}

/* Up to when the thread is known to have stood as its last reading says. */
static uint64_t checked(const struct watch *watch) {
    return watch->checked_ns > quiet_ns ? watch->checked_ns : quiet_ns;
}

static void open_watch(struct watch *watch, uint64_t now_ns) {
    /* It moved at some time since it was checked. If that is several beats ago, then for all we
     * know in the middle of them; the beat that finds it is its new place's. */
    uint64_t from_ns = checked(watch);
    if (last_beat_ns > from_ns && now_ns > last_beat_ns)
        from_ns += (last_beat_ns - from_ns) / 2;
    charge(watch, from_ns);
    watch->is_open = true;
    watch->still = 0;
}

static void observe(struct watch *watch, pep_stack_id stack, uint16_t tag, uint64_t at_ns) {
    watch->stack = stack;
    watch->tag = tag;
    watch->is_open = false;
    watch->checked_ns = at_ns;
    charge(watch, at_ns);
}

static uint16_t running_tag(void) {
    const struct pep_look runs = {.kind = PEP_LOOK_RUNS, .call = -1, .state = 'R'};
    return pep_look_state_tag(&runs);
}

static void observe_unknown(struct watch *watch, uint64_t at_ns) {
    observe(watch, unknown, running_tag(), at_ns);
}

/* -- asking --------------------------------------------------------------------------------- */

static void forget_question(struct watch *watch) {
    uint32_t index = (uint32_t)(watch - watches);
    for (uint32_t i = 0; i < question_count; i++) {
        if (questions[i] == index) {
            questions[i] = questions[--question_count];
            break;
        }
    }
    watch->asked_ns = 0;
}

/* The answer, if it is there. The question is over in any case. */
static void take_answer(struct watch *watch, uint64_t now_ns) {
    uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
    forget_question(watch);
    int depth = pep_ask_take(watch->ticket, 0, pcs, PEP_UNWIND_DEPTH_MAX);
    if (depth > 0) {
        watch->silent = 0;
        /* As long as there was no answer it did not come to run its own code either. */
        observe(watch, pep_stack_table_add(pcs, depth), watch->tag, watch->checked_ns);
        return;
    }
    if (depth == -EBUSY) /* no room to walk in: the next beat asks again */
        return;
    if (watch->silent < UINT8_MAX)
        watch->silent++;
    if (watch->silent >= SILENT_MAX)
        observe_unknown(watch, now_ns);
}

static void collect_answers(uint64_t now_ns) {
    for (uint32_t i = 0; i < question_count;) {
        struct watch *watch = &watches[questions[i]];
        if (pep_ask_is_answered(watch->ticket))
            take_answer(watch, now_ns); /* another question stands at i now */
        else
            i++;
    }
}

static bool is_patient(const struct watch *watch, uint64_t now_ns) {
    uint32_t doublings = watch->silent < PATIENCE_DOUBLINGS ? watch->silent : PATIENCE_DOUBLINGS;
    return now_ns - watch->asked_ns < PATIENCE_NS << doublings;
}

static void drop(struct watch *watch) {
    if (watch->asked_ns != 0) {
        uintptr_t pc;
        forget_question(watch);
        (void)pep_ask_take(watch->ticket, 0, &pc, 1);
    }
    if (!watch->is_open)
        charge(watch, checked(watch));
    pep_zero(watch, sizeof *watch);
}

static void ask(struct watch *watch, const struct pep_look *look, uint64_t now_ns) {
    if (question_count == QUESTIONS_MAX)
        return;
    int ticket = pep_ask_send(watch->tid);
    if (ticket >= 0) {
        watch->ticket = ticket;
        watch->asked_ns = watch->checked_ns = now_ns;
        watch->tag = pep_look_state_tag(look);
        questions[question_count++] = (uint32_t)(watch - watches);
    } else if (ticket == -ESRCH) {
        drop(watch);
    } else if (ticket == -ENOSYS || ticket == -ENOTSUP) {
        observe_unknown(watch, now_ns);
    }
}

/* -- looking -------------------------------------------------------------------------------- */

/* True when that settles it. */
static bool read_waiting(struct watch *watch, struct pep_looker *looker, uint64_t now_ns,
                         struct pep_look *look) {
    uintptr_t pcs[PEP_UNWIND_DEPTH_MAX];
    pep_look_at(looker, watch->tid, look);
    watch->is_refused = look->kind == PEP_LOOK_REFUSED;
    if (look->kind == PEP_LOOK_GONE) {
        drop(watch);
        return true;
    }
    if (look->kind != PEP_LOOK_WAITS && look->kind != PEP_LOOK_STOPPED)
        return false;
    int depth = pep_look_walk(looker, look, pcs, PEP_UNWIND_DEPTH_MAX);
    if (depth == -ESRCH)
        drop(watch);
    else if (depth > 0)
        observe(watch, pep_stack_table_add(pcs, depth), pep_look_state_tag(look), now_ns);
    return depth == -ESRCH || depth > 0;
}

static void read_thread(struct watch *watch, struct pep_looker *looker, uint64_t now_ns) {
    struct pep_look look;
    for (int i = 0; i < TRIES; i++) {
        if (read_waiting(watch, looker, now_ns, &look))
            return;
        if (look.kind == PEP_LOOK_RUNS || look.kind == PEP_LOOK_REFUSED)
            break;
    }
    ask(watch, &look, now_ns);
}

static bool has_run(const struct watch *watch, uint64_t clock_ns) {
    if (watch->stack == 0 || watch->is_open)
        return true;
    uint64_t noise_ns = watch->is_refused ? ASK_NOISE_NS : 0;
    return clock_ns < watch->clock_ns || clock_ns - watch->clock_ns > noise_ns;
}

/* Its identity is made now: the name of a thread that has ended cannot be read. */
static void start(struct watch *watch, int tid, struct pep_thread *thread) {
    *watch = (struct watch){.tid = tid,
                            .identity = pep_thread_identity_of_other(thread),
                            .is_open = true,
                            .charged_ns = last_beat_ns,
                            .checked_ns = last_beat_ns};
}

static void visit(struct watch *watch, struct pep_looker *looker, uint64_t now_ns) {
    if (watch->asked_ns != 0) {
        if (is_patient(watch, now_ns)) {
            watch->checked_ns = now_ns;
            return;
        }
        take_answer(watch, now_ns);
    }
    if (watch->still >= STILL && ((uint32_t)(watch - watches) + beats) % COLD != 0)
        return;
    uint64_t clock_ns = pep_os_clock_ns(pep_os_thread_cpu_clock(watch->tid));
    if (clock_ns == 0) { /* ended, or has not run at all */
        drop(watch);
    } else if (!has_run(watch, clock_ns)) {
        watch->checked_ns = now_ns;
        watch->still++;
    } else {
        if (!watch->is_open)
            open_watch(watch, now_ns);
        /* Read before the stack is: whatever happens from here on is found at the next beat. */
        watch->clock_ns = clock_ns;
        read_thread(watch, looker, now_ns);
    }
}

static void visit_slot(uint32_t index, struct pep_looker *looker, uint64_t now_ns) {
    struct pep_thread *thread = pep_thread_at(index);
    struct watch *watch = &watches[index];
    int tid = pep_load_acquire(&thread->tid);
    if (thread->is_own) {
        if (tid != 0 && tid != pep_os_gettid() && own_count < OWN_MAX)
            own_tids[own_count++] = tid;
        tid = 0;
    }
    if (watch->tid != tid) {
        if (watch->tid != 0)
            drop(watch);
        if (tid != 0)
            start(watch, tid, thread);
    }
    if (watch->tid != 0)
        visit(watch, looker, now_ns);
    count += watch->tid != 0;
    open_count += watch->tid != 0 && watch->is_open;
}

/* While a CPU timer of the process runs, the kernel keeps its sum of CPU time at hand instead of
 * visiting every thread (posix-cpu-timers): 0.3 us for 1,000 threads instead of 130. This one
 * is due after the process has used 30 years of CPU time. */
static void start_timer(void) {
    struct sigevent event;
    const struct itimerspec far = {.it_value = {.tv_sec = NEVER_SECONDS}};
    has_timer = false;
    pep_zero(&event, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = pep_cpu_signal();
    if (event.sigev_signo == 0 ||
        pep_os_timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer_id) < 0)
        return; /* dearer, but right */
    has_timer = true;
    (void)pep_os_timer_settime(timer_id, 0, &far);
}

static void stop_timer(void) {
    if (has_timer)
        (void)pep_os_timer_delete(timer_id);
    has_timer = false;
}

/* What all threads but ours have used. Reading a thread's clock brings the process's up to date
 * with it. Time of threads that run now, elsewhere, comes with the kernel's tick. */
static uint64_t read_rest(void) {
    uint64_t own_ns = pep_os_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    for (uint32_t i = 0; i < own_count; i++)
        own_ns += pep_os_clock_ns(pep_os_thread_cpu_clock(own_tids[i]));
    return pep_os_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_ns;
}

void pep_watches_beat(struct pep_looker *looker, uint64_t now_ns, uint64_t period_ns) {
    sample_ns = period_ns;
    beats++;
    collect_answers(now_ns);
    uint64_t now_rest_ns = read_rest();
    if (beats > 1 && open_count == 0 && question_count == 0 &&
        now_rest_ns - rest_ns + NOISE_NS <= 2 * NOISE_NS) {
        quiet_ns = last_beat_ns = now_ns;
        return;
    }
    rest_ns = now_rest_ns;
    count = open_count = own_count = 0;
    uint32_t slots = pep_threads_limit();
    limit = slots > limit ? slots : limit;
    for (uint32_t i = 0; i < slots; i++)
        visit_slot(i, looker, now_ns);
    last_beat_ns = now_ns;
}

/* -- windows -------------------------------------------------------------------------------- */

void pep_watches_start(uint64_t now_ns) {
    static const uintptr_t nothing = PEP_PC_UNKNOWN;
    unknown = pep_stack_table_add(&nothing, 1);
    beats = count = open_count = own_count = 0;
    last_beat_ns = now_ns;
    quiet_ns = 0;
    start_timer();
}

void pep_watches_settle(uint64_t now_ns) {
    collect_answers(now_ns);
    for (uint32_t i = 0; i < limit; i++) {
        struct watch *watch = &watches[i];
        if (watch->tid == 0)
            continue;
        if (pep_load_acquire(&pep_thread_at(i)->tid) != watch->tid) {
            drop(watch);
            continue;
        }
        charge(watch, now_ns);
    }
}

void pep_watches_stop(void) {
    for (uint32_t i = 0; i < limit; i++) {
        if (watches[i].tid != 0)
            drop(&watches[i]);
    }
    limit = question_count = 0;
    stop_timer();
}

void pep_watches_forget(void) {
    if (watches != NULL)
        pep_zero(watches, limit * sizeof *watches);
    limit = question_count = 0;
    has_timer = false; /* timers are not inherited */
}

uint32_t pep_watches_count(void) {
    return pep_load_relaxed(&count);
}
