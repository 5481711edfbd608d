/*
 * Since when a thread waits, as the scheduler remembers it.
 *
 * Model:   /proc/self/task/T/sched tells the scheduler's clock when the thread last ran. That clock
 *          leaves out time that a hypervisor took (and interrupts, where the kernel counts them),
 *          by processor; /proc/stat tells how much. The rest is one offset, read from our own
 *          thread, which runs now. (Two processors here: 2.67 s and 2.47 s apart from the
 *          monotonic clock, of these 2.88 and 2.67 stolen.) Whatever is uncertain makes the wait
 *          told too short, never too long: what is left of a call's time is reckoned from it.
 * Writers: -
 * Readers: the dump.  [normal]
 * Memory:  the looker's; two numbers a processor.
 * When full: -
 *
 * Source: proc(5), kernel/sched/debug.c (se.exec_start, ms with six digits); update_rq_clock_task.
 */
#include <string.h>

#include "sampler/look_internal.h"
#include "sampler/rt/os.h"

#define UNKNOWN INT64_MAX
#define MEASURES 8
#define GOOD_NS 100000u
#define TICK_NS 10000000u /* of /proc/stat: USER_HZ is 100 */
/* What /proc/stat does not tell of a processor yet: less than a tick of its own, which it rounds
 * off, and less than one of the kernel's (at least 100 a second), at which it counts. */
#define UNTOLD_NS (2 * TICK_NS)

static uint64_t take_number(const char **text) {
    uint64_t value = 0;
    while (**text == ' ')
        (*text)++;
    for (; **text >= '0' && **text <= '9'; (*text)++)
        value = value * 10 + (uint64_t)(**text - '0');
    return value;
}

/* "se.exec_start   :   11649441.016776": ns, or 0. */
static uint64_t last_ran(struct pep_looker *looker, int tid) {
    if (pep_look_read(looker, tid, "sched") <= 0)
        return 0;
    const char *at = strstr(looker->text, "se.exec_start");
    at = at != NULL ? strchr(at, ':') : NULL;
    if (at == NULL)
        return 0;
    at++;
    uint64_t ms = take_number(&at);
    if (*at++ != '.')
        return 0;
    return ms * 1000000 + take_number(&at);
}

/* "cpu3 user nice system idle iowait irq softirq steal ..."; processors that are off are missing.
 * False behind the last one. */
struct processor {
    uint64_t number, stolen_ns, interrupts_ns;
};

static bool parse_processor(const char *line, struct processor *processor) {
    uint64_t values[8];
    if (strncmp(line, "cpu", 3) != 0)
        return false;
    const char *at = line + 3;
    processor->number = *at == ' ' ? PEP_LOOK_PROCESSORS : take_number(&at); /* "cpu ": the sum */
    for (int i = 0; i < 8; i++)
        values[i] = take_number(&at);
    processor->interrupts_ns = (values[5] + values[6]) * TICK_NS;
    processor->stolen_ns = values[7] * TICK_NS;
    return true;
}

static void read_processors(struct pep_looker *looker) {
    struct processor found;
    const char *line = looker->text;
    while (line != NULL && parse_processor(line, &found)) {
        if (found.number < PEP_LOOK_PROCESSORS) {
            looker->left_out_ns[found.number] = found.stolen_ns;
            looker->interrupts_ns[found.number] = found.interrupts_ns;
            looker->processor_count = (uint32_t)found.number + 1;
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
}

static uint64_t distance_from_zero(int64_t number) {
    return number < 0 ? -(uint64_t)number : (uint64_t)number;
}

/* How far CLOCK_MONOTONIC is ahead of the scheduler's clock of the processor that we are on, and
 * which it is. Our own thread's clock is brought up to date by asking for its CPU time; the reading
 * that took least counts, as we may lose the processor in the midst of it. Its end counts: no later
 * can the scheduler's clock have been brought up to date. */
static int64_t measure_ahead(struct pep_looker *looker, int *processor) {
    uint64_t least = UINT64_MAX;
    int64_t ahead = UNKNOWN;
    int tid = pep_os_gettid();
    for (int i = 0; i < MEASURES && least > GOOD_NS; i++) {
        struct pep_look before, after;
        pep_look_at(looker, tid, &before);
        (void)pep_os_clock_ns(CLOCK_THREAD_CPUTIME_ID);
        uint64_t began = pep_os_clock_ns(CLOCK_MONOTONIC), ran = last_ran(looker, tid);
        uint64_t took = pep_os_clock_ns(CLOCK_MONOTONIC) - began;
        pep_look_at(looker, tid, &after);
        if (ran == 0 || took >= least || before.processor != after.processor)
            continue;
        least = took;
        ahead = (int64_t)(began + took - ran);
        *processor = after.processor;
    }
    return ahead;
}

/* Whether the kernel's clock leaves interrupts out is not told: both clocks began at the start of
 * the machine, and the right guess brings them together. */
static bool has_interrupts(const struct pep_looker *looker, int64_t ahead, int processor) {
    int64_t without = ahead - (int64_t)looker->left_out_ns[processor];
    int64_t with = without - (int64_t)looker->interrupts_ns[processor];
    return distance_from_zero(with) < distance_from_zero(without);
}

static void count_interrupts(struct pep_looker *looker) {
    for (uint32_t i = 0; i < looker->processor_count; i++)
        looker->left_out_ns[i] += looker->interrupts_ns[i];
}

static bool leaves_out(const struct pep_looker *looker) {
    for (uint32_t i = 0; i < looker->processor_count; i++)
        if (looker->left_out_ns[i] > 0)
            return true;
    return false;
}

/* First what is left out, then the clocks: what is taken meanwhile makes a wait shorter. */
static void calibrate(struct pep_looker *looker) {
    looker->clock_offset_ns = UNKNOWN;
    looker->processor_count = 0;
    looker->calibrated_ns = pep_os_clock_ns(CLOCK_MONOTONIC);
    if (pep_os_read_file("/proc/stat", looker->text, sizeof looker->text) <= 0)
        return;
    read_processors(looker);
    int processor = -1;
    int64_t ahead = measure_ahead(looker, &processor);
    if (ahead == UNKNOWN || processor < 0 || (uint32_t)processor >= looker->processor_count)
        return;
    looker->untold_ns = UNTOLD_NS;
    if (has_interrupts(looker, ahead, processor)) {
        count_interrupts(looker);
        looker->untold_ns += 2 * TICK_NS; /* two numbers more */
    }
    if (!leaves_out(looker))
        looker->untold_ns = 0;
    looker->clock_offset_ns = ahead - (int64_t)looker->left_out_ns[processor];
    looker->clock_processor = processor;
}

/* 0 when it cannot be told. */
static uint64_t since_when(const struct pep_looker *looker, int processor, uint64_t ran) {
    if (looker->clock_offset_ns == UNKNOWN || processor < 0 ||
        (uint32_t)processor >= looker->processor_count)
        return 0;
    /* What was taken since it waits is counted too. */
    uint64_t since = ran + (uint64_t)looker->clock_offset_ns + looker->left_out_ns[processor];
    return processor == looker->clock_processor ? since : since + looker->untold_ns;
}

uint64_t pep_look_since(struct pep_looker *looker, const struct pep_look *look) {
    if (look->kind == PEP_LOOK_RUNS || look->kind == PEP_LOOK_GONE)
        return 0;
    if (looker->calibrated_ns == 0)
        calibrate(looker);
    uint64_t ran = last_ran(looker, look->tid);
    if (ran == 0)
        return 0;
    uint64_t since = since_when(looker, look->processor, ran);
    /* What was taken between the calibration and a wait that began after it is not in it yet. */
    if (since > looker->calibrated_ns && leaves_out(looker)) {
        calibrate(looker);
        since = since_when(looker, look->processor, ran);
    }
    uint64_t now = pep_os_clock_ns(CLOCK_MONOTONIC);
    return since < now ? since : now;
}
