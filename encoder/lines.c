#include "encoder/lines.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#include "encoder/lines_child.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

#define HEAP_BYTES_MIN (UINT64_C(1) << 20)
#define HEAP_BYTES_MAX (UINT64_C(256) << 20)
#define HEAP_BYTES_AN_ADDRESS 2048 /* only touched pages are memory */
#define LOOK_NS UINT64_C(5000000)  /* how soon a child that died is noticed */
#define KILL_LOOK_NS UINT64_C(200000)
#define KILL_LOOKS_MAX 2500 /* 500 ms: many that end at once on a busy machine take long */
#define CHILDREN_MAX 4
#define TAKEN (-1)
/* Making the child copies the page tables of private memory, some 5 ms a GiB during which the host
 * cannot map or fault; and what it writes next is copied page by page: a host of 2 GiB that wrote
 * all the while stood still for 130 ms and was slower for a second. */
#define HOST_BYTES_MAX (UINT64_C(1) << 30)
#define DAMAGED_MAX 8 /* files that may end their child before the rest is left */

static uint64_t now_ns(void) {
    return pep_os_clock_ns(CLOCK_MONOTONIC);
}

static bool make_sheet(struct pep_lines_task *task, uint64_t *size_bytes) {
    uint64_t addresses = 0;
    for (uint32_t i = 0; i < task->file_count; i++)
        addresses += task->files[i].count;
    uint64_t heap = HEAP_BYTES_MIN + addresses * HEAP_BYTES_AN_ADDRESS;
    heap = heap < HEAP_BYTES_MAX ? heap : HEAP_BYTES_MAX;
    if (addresses > UINT32_MAX / sizeof(uint32_t) / 2)
        return false;
    *size_bytes =
        sizeof(struct pep_lines_sheet) + (addresses + task->file_count) * sizeof(uint32_t) + heap;
    task->address_count = (uint32_t)addresses;
    task->heap_bytes = (uint32_t)heap;
    task->sheet = pep_os_map_shared(*size_bytes);
    if (task->sheet != NULL)
        task->sheet->used_bytes = PEP_LINES_HEAP_FIRST;
    return task->sheet != NULL;
}

/* Every child has a place before it is made, so that none is lost: 0 is free, TAKEN is awaited by
 * the request that made it. A process id: it did not even die in time, the kernel holds it, reading
 * from a file server that does not answer; it is waited for when the next one is made. */
static int places[CHILDREN_MAX];

void pep_lines_after_fork_child(void) {
    for (size_t i = 0; i < CHILDREN_MAX; i++)
        pep_store_relaxed(&places[i], 0);
}

/* NULL when there is none; *is_hopeless when it makes no sense to wait for one. */
static int *find_place(bool *is_hopeless) {
    size_t hanging = 0;
    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        int status, pid = pep_load_relaxed(&places[i]);
        if (pid > 0 && pep_os_wait_child(pid, &status, WNOHANG) != 0)
            pep_cas_acq_rel(&places[i], &pid, 0);
        else if (pid > 0)
            hanging++;
    }
    *is_hopeless = hanging == CHILDREN_MAX;
    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        int none = 0;
        if (pep_cas_acq_rel(&places[i], &none, TAKEN))
            return &places[i];
    }
    return NULL;
}

/* Many requests at once wait for each other. 0 or -errno. */
static int take_place(int **place, uint64_t deadline_ns) {
    bool is_hopeless;
    while ((*place = find_place(&is_hopeless)) == NULL) {
        if (is_hopeless)
            return -EBUSY;
        if (now_ns() >= deadline_ns)
            return -ETIME;
        pep_os_sleep_ns(LOOK_NS);
    }
    return 0;
}

/* Waits until the child has written all, has died, or is late. The host may have waited for it with
 * __WALL: then there is nobody to end. True when it is gone. */
static bool await(struct pep_lines_sheet *sheet, int pid, uint64_t deadline_ns) {
    int status, waited;
    for (;;) {
        uint64_t now = now_ns();
        waited = pep_os_wait_child(pid, &status, WNOHANG);
        if ((waited != 0 && waited != -EINTR) || now >= deadline_ns ||
            pep_load_acquire(&sheet->is_done) != 0) /* pairs with the release in the child */
            break;
        uint64_t left = deadline_ns - now;
        pep_os_futex_wait_shared(&sheet->is_done, 0, left < LOOK_NS ? left : LOOK_NS);
    }
    if (waited != 0 && waited != -EINTR)
        return true;
    pep_os_kill(pid, SIGKILL);
    for (int i = 0; i < KILL_LOOKS_MAX; i++) {
        waited = pep_os_wait_child(pid, &status, WNOHANG);
        if (waited != 0 && waited != -EINTR)
            return true;
        pep_os_sleep_ns(KILL_LOOK_NS);
    }
    return false;
}

static uint64_t read_number(const char **at) {
    uint64_t value = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++)
        value = value * 10 + (uint64_t)(**at - '0');
    while (**at == ' ')
        (*at)++;
    return value;
}

/* Memory of this process that a copy would have to describe: resident and not of a file. Source:
 * proc(5), statm. */
static uint64_t private_bytes(void) {
    char text[128] = "";
    if (pep_os_read_file("/proc/thread-self/statm", text, sizeof(text)) <= 0)
        return 0;
    const char *at = text;
    read_number(&at); /* size */
    uint64_t resident = read_number(&at), shared = read_number(&at);
    return resident > shared ? (resident - shared) * 4096 : 0;
}

/* One child. 0, or -errno when there is none. */
static int run(const struct pep_lines_task *task, uint64_t deadline_ns) {
    if (private_bytes() > HOST_BYTES_MAX)
        return -EFBIG;
    int *place, error = take_place(&place, deadline_ns);
    if (error != 0)
        return error;
    const uint64_t all = ~UINT64_C(0);
    uint64_t old;
    pep_os_sigprocmask(SIG_BLOCK, &all, &old); /* a handler in the child would be the host's */
    int pid = pep_os_clone_child();
    if (pid == 0)
        pep_lines_child(task);
    pep_os_sigprocmask(SIG_SETMASK, &old, NULL);
    bool is_gone = pid < 0 || await(task->sheet, pid, deadline_ns);
    pep_store_release(place, is_gone ? 0 : pid); /* pairs with the exchange in find_place */
    return pid < 0 ? pid : 0;
}

/* Children until all is read, one more for each that died of a file. */
static int run_all(struct pep_lines_task *task, uint64_t deadline_ns) {
    for (int damaged = 0; damaged < DAMAGED_MAX; damaged++) {
        int error = run(task, deadline_ns);
        if (error != 0) {
            PEP_COUNT(lines_refused, 1);
            return error;
        }
        if (task->sheet->is_done != 0)
            return 0;
        uint32_t file = task->sheet->file;
        if (file < task->first || file >= task->file_count)
            file = task->first;
        bool is_late = now_ns() >= deadline_ns;
        pep_lines_ends(task)[file] = is_late ? PEP_LINES_LATE : PEP_LINES_DAMAGED;
        if (is_late) {
            PEP_COUNT(lines_late, 1);
            return -ETIME;
        }
        task->first = file + 1;
        if (task->first == task->file_count)
            return 0;
        if (task->sheet->used_bytes < PEP_LINES_HEAP_FIRST)
            task->sheet->used_bytes = PEP_LINES_HEAP_FIRST;
        if (task->sheet->used_bytes > task->heap_bytes)
            task->sheet->used_bytes = task->heap_bytes;
    }
    return 0;
}

/* -- the answers ----------------------------------------------------------------------------- */

/* What the child wrote, in memory that nobody else can change, with a NUL behind it. */
struct answers {
    struct pep_arena *arena;
    char *heap;
    uint32_t used_bytes;
};

static const char *text_at(const struct answers *answers, uint32_t at) {
    return at >= PEP_LINES_HEAP_FIRST && at < answers->used_bytes ? answers->heap + at : NULL;
}

/* NULL when the record does not lie in the heap, or without memory. */
static struct pep_lines *answer_at(const struct answers *answers, uint32_t at) {
    uint32_t left = at < answers->used_bytes ? answers->used_bytes - at : 0;
    if (at < PEP_LINES_HEAP_FIRST || at % 4 != 0 || left < sizeof(struct pep_lines_record))
        return NULL;
    const struct pep_lines_record *record = (const void *)(answers->heap + at);
    if (record->count > PEP_LINES_FRAMES_MAX ||
        record->count * sizeof(record->frames[0]) > left - sizeof(*record))
        return NULL;
    struct pep_lines *lines = pep_arena_alloc(answers->arena, sizeof(*lines));
    struct pep_line *frames = pep_arena_array(answers->arena, record->count, sizeof(*frames));
    if (lines == NULL || frames == NULL)
        return NULL;
    for (uint32_t i = 0; i < record->count; i++)
        frames[i] = (struct pep_line){.function = text_at(answers, record->frames[i].function),
                                      .file = text_at(answers, record->frames[i].file),
                                      .line = record->frames[i].line};
    *lines = (struct pep_lines){.frames = frames, .count = record->count};
    return lines;
}

static void take_end(struct pep_lines_file *file, uint32_t end) {
    file->end = end <= PEP_LINES_DAMAGED ? (enum pep_lines_end)end : PEP_LINES_DAMAGED;
    if (file->end == PEP_LINES_DAMAGED || file->end == PEP_LINES_PARTLY)
        PEP_COUNT(lines_damaged, 1);
}

static void take_answers(struct pep_arena *arena, const struct pep_lines_task *task) {
    struct answers answers = {.arena = arena, .used_bytes = task->sheet->used_bytes};
    if (answers.used_bytes > task->heap_bytes)
        answers.used_bytes = task->heap_bytes;
    answers.heap = pep_arena_alloc(arena, answers.used_bytes + 1u);
    if (answers.heap == NULL)
        return;
    memcpy(answers.heap, pep_lines_heap(task), answers.used_bytes);
    const uint32_t *word = task->sheet->words;
    for (uint32_t i = 0; i < task->file_count; i++) {
        struct pep_lines_file *file = &task->files[i];
        take_end(file, pep_lines_ends(task)[i]);
        for (uint32_t j = 0; j < file->count; j++)
            file->answers[j] = answer_at(&answers, *word++);
    }
}

int pep_lines_read(struct pep_arena *arena, struct pep_lines_file *files, uint32_t file_count,
                   uint64_t deadline_ns) {
    struct pep_lines_task task = {
        .files = files, .parent = pep_os_getpid(), .file_count = file_count};
    uint64_t size_bytes;
    for (uint32_t i = 0; i < file_count; i++) {
        files[i].end = PEP_LINES_UNREAD;
        files[i].answers = pep_arena_array(arena, files[i].count, sizeof(*files[i].answers));
        if (files[i].answers == NULL)
            return -ENOMEM;
    }
    if (!make_sheet(&task, &size_bytes)) {
        PEP_COUNT(lines_refused, 1);
        return -ENOMEM;
    }
    int error = run_all(&task, deadline_ns);
    take_answers(arena, &task);
    pep_os_unmap(task.sheet, size_bytes);
    return error;
}
