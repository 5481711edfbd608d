#include "test/unit/example_dump.h"

#include "test/unit/example_profile.h"

#define MAIN 0x400010u
#define WORK 0x400020u
#define RECURSE 0x400030u
#define HOSTILE 0x400040u
#define WAIT 0x7f0000000100u
#define OWN 0x7f2000000010u
#define MINUTE 60000000000u

#define STACK(...) \
    .pcs = (const uintptr_t[]){__VA_ARGS__}, \
    .pc_count = sizeof((const uintptr_t[]){__VA_ARGS__}) / sizeof(uintptr_t)
#define BIRTH(...) \
    .birth_pcs = (const uintptr_t[]){__VA_ARGS__}, \
    .birth_count = sizeof((const uintptr_t[]){__VA_ARGS__}) / sizeof(uintptr_t)

static struct pep_sample samples[] = {
    {STACK(RECURSE, MAIN), .tid = 4711, .thread = "example", .state = "running", .values = {1}},
    {STACK(WAIT, RECURSE), .tid = 12, .thread = "worker", .state = "mutex", .values = {1}},
    {STACK(WAIT, RECURSE), .tid = 13, .thread = "io", .state = "mutex", .values = {1}},
    {STACK(PEP_PC_UNKNOWN), .tid = 4712, .thread = "mute", .state = "running", .values = {1}},
    {STACK(OWN, WAIT, WORK), .tid = 4713, .thread = "pool-1", .state = "sleep", .values = {1}},
    {STACK(OWN, WAIT, WORK), .tid = 4714, .thread = "pool-2", .state = "sleep", .values = {1}},
    {STACK(HOSTILE), .tid = 4715, .thread = "</b>, 9 min]", .state = "epoll, [wait]",
     .values = {1}},
};

static struct pep_task tasks[] = {
    {.tid = 4711, .name = "example", .state = 'R', .doing = "running"},
    {.tid = 12,
     .name = "worker",
     .state = 'S',
     .doing = "mutex of thread 13 (io)",
     .call = "futex",
     .waited_ns = 2 * MINUTE,
     .is_blocked = true,
     .lock = 0x5581,
     .lock_kind = "mutex",
     .owner_tid = 13,
     .owner = "io",
     .created_by_tid = 4711,
     .created_by = "example",
     BIRTH(WAIT, WORK, MAIN)},
    {.tid = 13,
     .name = "io",
     .state = 'S',
     .doing = "mutex of thread 12 (worker)",
     .call = "futex",
     .waited_ns = 59 * (MINUTE / 60),
     .is_blocked = true,
     .lock = 0x5582,
     .lock_kind = "mutex",
     .owner_tid = 12,
     .owner = "worker",
     .created_by_tid = 4711,
     .created_by = "example",
     BIRTH(WAIT, MAIN)},
    {.tid = 4712,
     .name = "mute",
     .state = 'R',
     .doing = "running",
     .note = "it did not answer in 500 ms"},
    {.tid = 4713,
     .name = "pool-1",
     .state = 'S',
     .doing = "sleep",
     .call = "clock_nanosleep",
     .waited_ns = 1,
     .is_blocked = true,
     BIRTH(WAIT)},
    {.tid = 4714,
     .name = "pool-2",
     .state = 'S',
     .doing = "sleep",
     .call = "clock_nanosleep",
     .waited_ns = 25 * 60 * MINUTE,
     .is_blocked = true,
     BIRTH(WAIT)},
    {.tid = 4715,
     .name = "</b>, 9 min]",
     .state = 'S',
     .doing = "epoll, [wait]",
     .is_blocked = true},
};

static const int circle[] = {12, 13};
static const struct pep_cycle cycles[] = {{circle, 2}};
static const char *comments[] = {"1 threads that did not answer in time <ask_late>."};
static struct pep_profile profile = {
    .kind = "goroutine",
    .types = {{"goroutine", "count"}},
    .type_count = 1,
    .period_type = {"goroutine", "count"},
    .period = 1,
    .samples = samples,
    .sample_count = sizeof(samples) / sizeof(samples[0]),
    .comments = comments,
    .comment_count = 1,
    .pid = 4711,
};

const struct pep_dump example_dump = {
    .tasks = tasks,
    .task_count = sizeof(tasks) / sizeof(tasks[0]),
    .unread = 1,
    .cycles = cycles,
    .cycle_count = 1,
    .profile = &profile,
    .time_ns = 1769903999000000000,
    .took_ns = 2000000,
};

__attribute__((constructor)) static void complete(void) {
    profile.mappings = example_profile.mappings;
    profile.mapping_count = example_profile.mapping_count;
    profile.main_mapping = example_profile.main_mapping;
}
