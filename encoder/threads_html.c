/*
 * The dump of threads as a page for a person in a hurry.
 *
 * Model:   the page is encoder/assets/threads.html with its sample replaced. Deadlocks come first,
 *          then threads with the same stack and state together: those in a deadlock, those that
 *          wait for a thread, those that run or could not be read, the rest by number. All of it
 *          is text in the document and readable without script.
 * Writers: the job's writer.  [normal]
 * Readers: a browser.
 * Memory:  the job's arena.
 * When full: the writer's error is -ENOMEM; beyond 64 MiB the page says what is not shown.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "assets.h"
#include "encoder/sort.h"
#include "encoder/stack_groups.h"
#include "encoder/threads.h"
#include "encoder/units.h"

/* So many groups are unfolded at first. */
#define OPEN_MAX 24
/* Different names on the line of a folded group. */
#define NAMES_MAX 3

static const char begin_mark[] = "<!-- begin -->";
static const char end_mark[] = "<!-- end -->";

enum rank { RANK_DEAD, RANK_LOCK, RANK_ODD, RANK_RUNS, RANK_REST };

struct card {
    const struct pep_stack_group *group;
    enum rank rank;
    uint64_t waited_ns; /* the longest */
};

struct page {
    const struct pep_threads_job *job;
    struct pep_writer *writer;
    struct pep_places places;
    struct pep_stack_groups groups;
    const void **cards; /* struct card */
};

/* -- what is told of a thread --------------------------------------------------------------- */

static void write_link(struct page *page, int tid, const char *name) {
    pep_write_printf(page->writer, "<a href=\"#t%d\">", tid);
    pep_write_xml(page->writer, pep_threads_who(page->job->arena, tid, name));
    pep_write_text(page->writer, "</a>");
}

/* "waits for mutex 0x5581 of thread 12 (worker)", or what it does. */
static void write_doing(struct page *page, const struct pep_task *task) {
    if (task->lock == 0) {
        pep_write_xml(page->writer, task->doing);
        return;
    }
    pep_write_text(page->writer, "waits for ");
    pep_write_xml(page->writer, task->lock_kind != NULL ? task->lock_kind : "lock");
    pep_write_printf(page->writer, " <code>0x%" PRIx64 "</code>", task->lock);
    if (task->owner_tid != 0) {
        pep_write_text(page->writer, " of ");
        write_link(page, task->owner_tid, task->owner);
    }
}

/* ", made by thread 12 (worker) in start_pool", as much of it as is known. */
static bool write_maker(struct page *page, const struct pep_task *task) {
    struct pep_writer *writer = page->writer;
    bool has_stack = task->birth_pcs != NULL && task->birth_count > 0;
    if (task->created_by_tid == 0 && !has_stack)
        return true;
    pep_write_text(writer, ", made");
    if (task->created_by_tid != 0) {
        pep_write_text(writer, " by ");
        write_link(page, task->created_by_tid, task->created_by);
    }
    if (!has_stack)
        return true;
    const struct pep_place *maker = pep_threads_maker(&page->places, task);
    if (maker == NULL)
        return false;
    pep_write_text(writer, " in <code>");
    pep_write_xml(writer, maker->frames[maker->frame_count - 1].name);
    pep_write_text(writer, "</code>");
    return true;
}

static void write_name(struct page *page, const struct pep_task *task) {
    pep_write_xml(page->writer, task->name[0] != '\0' ? task->name : "(no name)");
}

static bool write_thread(struct page *page, const struct pep_task *task) {
    struct pep_writer *writer = page->writer;
    char waited[24];
    pep_threads_waited(waited, task->waited_ns);
    pep_write_printf(writer, "<li id=\"t%d\"><b>", task->tid);
    write_name(page, task);
    pep_write_printf(writer, "</b> %d <small>", task->tid);
    write_doing(page, task);
    if (task->call != NULL) {
        pep_write_text(writer, " in ");
        pep_write_xml(writer, task->call);
    }
    if (waited[0] != '\0') {
        pep_write_text(writer, ", ");
        pep_write_xml(writer, waited);
    }
    if (!write_maker(page, task))
        return false;
    pep_write_text(writer, "</small></li>\n");
    return true;
}

/* -- stacks --------------------------------------------------------------------------------- */

static void write_frames(struct page *page, const struct pep_place *place) {
    bool is_far = pep_threads_is_between(place);
    for (uint32_t i = 0; i < place->frame_count; i++) {
        const struct pep_frame *frame = &place->frames[i];
        pep_write_text(page->writer, is_far ? "<li class=\"far\">" : "<li>");
        pep_write_xml(page->writer, frame->name);
        pep_write_text(page->writer, "<small>");
        pep_write_xml(page->writer, frame->file != NULL ? frame->file : pep_place_module(place));
        if (frame->file != NULL)
            pep_write_printf(page->writer, ":%u", frame->line);
        pep_write_text(page->writer, "</small></li>");
    }
}

static bool write_stack(struct page *page, const uintptr_t *pcs, uint32_t count) {
    pep_write_text(page->writer, "<ol class=\"stack\">");
    for (uint32_t i = 0; i < count; i++) {
        const struct pep_place *place = pep_places_find(&page->places, pcs[i]);
        if (place == NULL)
            return false;
        if (!place->is_own)
            write_frames(page, place);
    }
    pep_write_text(page->writer, "</ol>\n");
    return true;
}

static const struct pep_task *task_of(const struct page *page, const struct pep_stack_group *group,
                                      size_t i) {
    return &page->job->dump->tasks[group->members[i]];
}

/* The creator's stack, where it is the same for all of them. */
static bool write_birth(struct page *page, const struct pep_stack_group *group) {
    const struct pep_task *first = task_of(page, group, 0);
    if (first->birth_pcs == NULL || first->birth_count == 0)
        return true;
    for (size_t i = 1; i < group->count; i++) {
        const struct pep_task *task = task_of(page, group, i);
        if (task->birth_count != first->birth_count ||
            memcmp(task->birth_pcs, first->birth_pcs,
                   first->birth_count * sizeof(*first->birth_pcs)) != 0)
            return true;
    }
    pep_write_text(page->writer, "<details class=\"birth\"><summary>Where it was made</summary>");
    if (!write_stack(page, first->birth_pcs, first->birth_count))
        return false;
    pep_write_text(page->writer, "</details>\n");
    return true;
}

/* -- a group -------------------------------------------------------------------------------- */

static bool is_in_cycle(const struct pep_dump *dump, int tid) {
    for (uint32_t i = 0; i < dump->cycle_count; i++)
        for (uint32_t j = 0; j < dump->cycles[i].count; j++)
            if (dump->cycles[i].tids[j] == tid)
                return true;
    return false;
}

static enum rank rank_of(const struct pep_dump *dump, const struct pep_task *task) {
    if (is_in_cycle(dump, task->tid))
        return RANK_DEAD;
    if (task->owner_tid != 0)
        return RANK_LOCK;
    if (task->note != NULL)
        return RANK_ODD;
    return task->is_blocked ? RANK_REST : RANK_RUNS;
}

static int by_rank(const void *a, const void *b) {
    const struct card *left = a, *right = b;
    return (int)left->rank - (int)right->rank;
}

static bool collect(struct page *page) {
    const struct pep_dump *dump = page->job->dump;
    if (!pep_stack_groups_make(&page->groups, page->job->arena, dump->profile))
        return false;
    size_t count = page->groups.count;
    struct card *cards = pep_arena_array(page->job->arena, count + 1, sizeof(*cards));
    page->cards = pep_arena_array(page->job->arena, count + 1, sizeof(*page->cards));
    if (cards == NULL || page->cards == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct card *card = &cards[i];
        *card = (struct card){.group = page->groups.items[i], .rank = RANK_REST};
        page->cards[i] = card;
        for (size_t j = 0; j < card->group->count; j++) {
            const struct pep_task *task = task_of(page, card->group, j);
            enum rank rank = rank_of(dump, task);
            card->rank = rank < card->rank ? rank : card->rank;
            if (task->waited_ns > card->waited_ns)
                card->waited_ns = task->waited_ns;
        }
    }
    return pep_sort(page->job->arena, page->cards, count, by_rank);
}

/* The innermost function that is the program's own business. */
static bool write_at(struct page *page, const struct pep_sample *sample) {
    for (uint32_t i = 0; i < sample->pc_count; i++) {
        const struct pep_place *place = pep_places_find(&page->places, sample->pcs[i]);
        if (place == NULL)
            return false;
        if (pep_threads_is_between(place) || place->pc < PEP_PC_FIRST_REAL)
            continue;
        pep_write_text(page->writer, "<span class=\"at\">");
        pep_write_xml(page->writer, place->frames[0].name);
        pep_write_text(page->writer, "</span>");
        break;
    }
    return true;
}

/* Short, so that there are few of them to choose from: a lock's kind without its holder. */
static const char *state_of(const struct page *page, const struct card *card) {
    const struct pep_task *task = task_of(page, card->group, 0);
    const char *state = card->group->first->state;
    return task->lock_kind != NULL ? task->lock_kind : state != NULL ? state : task->doing;
}

/* "12 threads", and the first different names. */
static void write_names(struct page *page, const struct pep_stack_group *group) {
    const char *names[NAMES_MAX];
    size_t count = 0;
    pep_write_printf(page->writer, "%zu threads</span><span class=\"names\">", group->count);
    for (size_t i = 0; i < group->count && count < NAMES_MAX; i++) {
        const char *name = task_of(page, group, i)->name;
        size_t known = 0;
        while (known < count && strcmp(names[known], name) != 0)
            known++;
        if (known < count)
            continue;
        names[count++] = name;
        pep_write_text(page->writer, count > 1 ? ", " : "");
        write_name(page, task_of(page, group, i));
    }
    if (count == NAMES_MAX && group->count > count)
        pep_write_text(page->writer, " \xe2\x80\xa6");
}

static bool write_summary(struct page *page, const struct card *card, bool is_open) {
    static const char *const classes[] = {[RANK_DEAD] = " dead",
                                          [RANK_LOCK] = " lock",
                                          [RANK_ODD] = " odd",
                                          [RANK_RUNS] = " runs",
                                          [RANK_REST] = ""};
    struct pep_writer *writer = page->writer;
    char waited[24];
    pep_write_printf(writer, "<details class=\"group%s\"%s data-count=\"%zu\" data-state=\"",
                     classes[card->rank], is_open ? " open" : "", card->group->count);
    pep_write_xml(writer, state_of(page, card));
    pep_write_text(writer, "\"><summary><span class=\"count\">");
    if (card->group->count > 1)
        write_names(page, card->group);
    else
        write_name(page, task_of(page, card->group, 0));
    pep_write_text(writer, "</span><span class=\"state\">");
    pep_write_xml(writer, state_of(page, card));
    pep_write_text(writer, "</span>");
    if (!write_at(page, card->group->first))
        return false;
    pep_threads_waited(waited, card->waited_ns);
    pep_write_text(writer, "<span class=\"time\">");
    pep_write_xml(writer, waited);
    pep_write_text(writer, "</span></summary><div class=\"body\">\n");
    return true;
}

static bool write_card(struct page *page, const struct card *card, bool is_open) {
    const struct pep_stack_group *group = card->group;
    const char *note = task_of(page, group, 0)->note;
    if (!write_summary(page, card, is_open))
        return false;
    pep_write_text(page->writer, "<ul class=\"threads\">\n");
    for (size_t i = 0; i < group->count; i++)
        if (!write_thread(page, task_of(page, group, i)))
            return false;
    pep_write_text(page->writer, "</ul>\n");
    if (note != NULL) {
        pep_write_text(page->writer, "<p class=\"why\">No stack: ");
        pep_write_xml(page->writer, note);
        pep_write_text(page->writer, "</p>\n");
    } else if (!write_stack(page, group->first->pcs, group->first->pc_count)) {
        return false;
    }
    if (!write_birth(page, group))
        return false;
    pep_write_text(page->writer, "</div></details>\n");
    return true;
}

/* -- the whole ------------------------------------------------------------------------------ */

static void write_cycle(struct page *page, const struct pep_cycle *cycle) {
    pep_write_printf(page->writer,
                     "<section class=\"deadlock\"><h2>Deadlock: %u threads wait for each other</h2>"
                     "\n<ol>",
                     cycle->count);
    for (uint32_t i = 0; i < cycle->count; i++) {
        const struct pep_task *task = pep_threads_find(page->job->dump, cycle->tids[i]);
        pep_write_text(page->writer, "<li>");
        write_link(page, cycle->tids[i], task != NULL ? task->name : NULL);
        pep_write_text(page->writer, " ");
        if (task != NULL)
            write_doing(page, task);
        pep_write_text(page->writer, "</li>\n");
    }
    pep_write_text(page->writer, "</ol></section>\n");
}

static void write_head(struct page *page) {
    const struct pep_dump *dump = page->job->dump;
    struct pep_writer *writer = page->writer;
    char time[PEP_UNITS_TEXT_MAX], took[PEP_UNITS_TEXT_MAX];
    pep_units_time(time, dump->time_ns);
    pep_units_format(took, (int64_t)dump->took_ns, "nanoseconds");
    for (int i = 0; i < 2; i++) {
        pep_write_text(writer, i == 0 ? "<title>" : "</title>\n</head>\n<body>\n<header><h1>");
        pep_write_xml(writer, page->job->title);
        pep_write_printf(writer, ": %u thread%s", dump->task_count,
                         dump->task_count == 1 ? "" : "s");
    }
    pep_write_printf(writer, "</h1>\n<p class=\"lead\">%s, read in %s", time, took);
    if (dump->unread > 0)
        pep_write_printf(writer, "; %u without a stack", dump->unread);
    pep_write_text(writer, "</p></header>\n<nav><a href=\"?\">Look again</a>"
                           "<a href=\"?format=flame\">Flame graph</a>"
                           "<a href=\"?debug=2\">All stacks as text</a>"
                           "<a href=\"?debug=1\">Counted stacks</a>"
                           "<a href=\"?format=pprof\">profile.proto</a></nav>\n");
    if (dump->profile->comment_count > 0)
        pep_write_text(writer, "<ul class=\"notes\">\n");
    for (uint32_t i = 0; i < dump->profile->comment_count; i++) {
        pep_write_text(writer, "<li>");
        pep_write_xml(writer, dump->profile->comments[i]);
        pep_write_text(writer, "</li>\n");
    }
    if (dump->profile->comment_count > 0)
        pep_write_text(writer, "</ul>\n");
}

static bool write_cards(struct page *page) {
    const uint64_t begin = page->writer->total_bytes;
    for (size_t i = 0; i < page->groups.count; i++) {
        const struct card *card = page->cards[i];
        if (page->writer->total_bytes - begin >= PEP_THREADS_TEXT_MAX) {
            pep_write_printf(page->writer, "<p>%zu more groups do not fit here.</p>\n",
                             page->groups.count - i);
            break;
        }
        if (!write_card(page, card, i < OPEN_MAX || card->rank <= RANK_LOCK))
            return false;
    }
    return true;
}

void pep_encode_threads_html(const struct pep_threads_job *job) {
    static const char tools[] =
        "<form id=\"tools\" hidden><input id=\"search\" type=\"search\" "
        "placeholder=\"Filter by name, tid, function, lock\" aria-label=\"Filter\" "
        "autocomplete=\"off\" spellcheck=\"false\">\n<button id=\"fold\" type=\"button\">Fold all"
        "</button><output id=\"shown\"></output><div id=\"states\" role=\"group\" "
        "aria-label=\"States\"></div></form>\n<main>\n";
    struct page page = {.job = job, .writer = job->writer};
    const char *asset = pep_asset_threads_html;
    const char *begin = strstr(asset, begin_mark), *end = strstr(asset, end_mark);
    pep_places_init(&page.places, job->arena, job->dump->profile, job->symbolizer);
    if (begin == NULL || end == NULL || !collect(&page)) {
        pep_writer_fail(job->writer, -ENOMEM);
        return;
    }
    pep_write(job->writer, asset, (size_t)(begin - asset));
    write_head(&page);
    for (uint32_t i = 0; i < job->dump->cycle_count; i++)
        write_cycle(&page, &job->dump->cycles[i]);
    pep_write_text(job->writer, tools);
    if (!write_cards(&page))
        pep_writer_fail(job->writer, -ENOMEM);
    end += sizeof(end_mark) - 1;
    pep_write(job->writer, end, pep_asset_threads_html_size - (size_t)(end - asset));
}
