#include "sampler/modules.h"
#include "sampler/rt/attrs.h"

#include <errno.h>
#include <string.h>

#include "sampler/modules_scan.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

#define COPIES 4 /* of the sorted array */
#define ENTRIES_MAX (2 * PEP_MODULES_MAX)
#define PATHS_BYTES ((size_t)2 << 20)
#define READ_TRIES 16

struct entry {
    uintptr_t start, limit;
    uintptr_t id; /* 0: code without an object */
};

/* What says whether an object is the one that was here before. */
struct identity {
    uint64_t inode, fingerprint;
    uint64_t head; /* of its ELF header alone: cheap to look at again */
};

struct table {
    struct pep_module modules[PEP_MODULES_MAX];
    struct identity identities[PEP_MODULES_MAX];
    uint8_t is_seen[PEP_MODULES_MAX]; /* in the scan that runs */
    struct entry entries[COPIES][ENTRIES_MAX];
    uint32_t entry_counts[COPIES];
    char paths[PATHS_BYTES];
    char buffer[PEP_SCAN_BUFFER_BYTES];
};

uint8_t pep_modules_gone[PEP_MODULES_MAX + 1] PEP_LARGE;

static struct table *table;   /* release once; never unmapped */
static uint32_t module_count; /* release: pairs with acquire in pep_modules_count() */
static uint32_t generation;   /* relaxed; only rises */
static uint64_t newest;       /* copy newest % COPIES is valid; 0: none yet. release */
static uint64_t writing;      /* the number of the copy being made, or newest */
static size_t paths_used;
static uintptr_t own_start, own_limit;
static int lock;     /* 0 free, 1 held, 2 held and waited for */
static int is_stale; /* relaxed; a walk met unknown code since the last scan */
static int is_again; /* a scan was asked for while one ran */

struct scan {
    struct pep_scan_sink sink;
    uint32_t copy;
    uint32_t entries;
};

/* -- reading ---------------------------------------------------------------------------- */

/* Index of the last entry that starts at or below pc; count when there is none. */
PEP_SIGNAL_SAFE static uint32_t search(const struct entry *entries, uint32_t count, uintptr_t pc) {
    uint32_t lo = 0, hi = count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (pep_load_relaxed(&entries[mid].start) <= pc)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo > 0 ? lo - 1 : count;
}

/* -1: not in executable memory; 0: in code without an object; else the object's id. */
PEP_SIGNAL_SAFE static long find_id(uintptr_t pc) {
    const struct table *t = pep_load_acquire(&table);
    for (int i = 0; t != NULL && i < READ_TRIES; i++) {
        uint64_t number = pep_load_acquire(&newest); /* pairs with the release in publish() */
        if (number == 0)
            return -1;
        const struct entry *entries = t->entries[number % COPIES];
        uint32_t count = pep_load_relaxed(&t->entry_counts[number % COPIES]);
        uint32_t at = search(entries, count < ENTRIES_MAX ? count : ENTRIES_MAX, pc);
        long id = -1;
        if (at < count && pc < pep_load_relaxed(&entries[at].limit))
            id = (long)pep_load_relaxed(&entries[at].id);
        if (id > 0 && id <= PEP_MODULES_MAX && pep_modules_is_gone((pep_module_id)id))
            id = -1;         /* closed since this copy was made */
        pep_fence_acquire(); /* pairs with the fence in begin_copy() */
        if (pep_load_relaxed(&writing) < number + COPIES)
            return id;
    }
    return -1;
}

PEP_SIGNAL_SAFE const struct pep_module *pep_modules_find(uintptr_t pc) {
    long id = find_id(pc);
    return id > 0 && id <= PEP_MODULES_MAX ? &pep_load_acquire(&table)->modules[id - 1] : NULL;
}

PEP_SIGNAL_SAFE bool pep_modules_is_executable(uintptr_t pc) {
    return find_id(pc) >= 0;
}

PEP_SIGNAL_SAFE uint32_t pep_modules_generation(void) {
    return pep_load_relaxed(&generation);
}

PEP_SIGNAL_SAFE uint32_t pep_modules_version(void) {
    return (uint32_t)pep_load_relaxed(&newest);
}

PEP_SIGNAL_SAFE void pep_modules_own_range(uintptr_t *start, uintptr_t *limit) {
    *start = pep_load_relaxed(&own_start);
    *limit = pep_load_relaxed(&own_limit);
}

PEP_HOOK_SAFE bool pep_modules_is_armed(void) {
    return pep_load_relaxed(&newest) != 0;
}

PEP_HOOK_SAFE bool pep_modules_is_stale(void) {
    return pep_load_relaxed(&is_stale) != 0;
}

PEP_SIGNAL_SAFE void pep_modules_note_unknown(void) {
    if (!pep_load_relaxed(&is_stale))
        pep_store_relaxed(&is_stale, 1);
}

uint32_t pep_modules_count(void) {
    return pep_load_acquire(&module_count);
}

const struct pep_module *pep_modules_get(pep_module_id id) {
    return id >= 1 && id <= pep_modules_count() ? &table->modules[id - 1] : NULL;
}

/* -- one scan --------------------------------------------------------------------------- */

static void begin_copy(struct scan *scan) {
    uint64_t number = pep_load_relaxed(&newest) + 1;
    scan->copy = (uint32_t)(number % COPIES);
    pep_store_relaxed(&writing, number);
    /* Whoever sees one of our entries below sees `writing` too: pairs with find_id(). */
    pep_fence_seq_cst();
    memset(table->is_seen, 0, pep_load_relaxed(&module_count)); /* the rest never was */
}

static void publish(struct scan *scan) {
    pep_store_relaxed(&table->entry_counts[scan->copy], scan->entries);
    pep_store_release(&newest, pep_load_relaxed(&newest) + 1);
}

static void add_entry(struct scan *scan, uintptr_t start, uintptr_t limit, pep_module_id id) {
    struct entry *entries = table->entries[scan->copy];
    if (id == 0 && scan->entries > 0) {
        struct entry *last = &entries[scan->entries - 1];
        if (last->id == 0 && last->limit == start) {
            pep_store_relaxed(&last->limit, limit);
            return;
        }
    }
    if (scan->entries >= ENTRIES_MAX)
        return;
    struct entry *entry = &entries[scan->entries++];
    pep_store_relaxed(&entry->start, start);
    pep_store_relaxed(&entry->limit, limit);
    pep_store_relaxed(&entry->id, (uintptr_t)id);
}

static const char *keep_path(const char *path) {
    size_t size = strlen(path) + 1;
    if (size > PATHS_BYTES - paths_used)
        return NULL;
    char *copy = table->paths + paths_used;
    memcpy(copy, path, size);
    paths_used += size;
    return copy;
}

/* The number of the object when it is, or was, at this place: 0 when it is new. The loader does
 * not tell inodes. */
static pep_module_id find_known(const struct pep_scan_object *object) {
    for (uint32_t i = 0; i < module_count; i++) {
        const struct identity *identity = &table->identities[i];
        bool is_same_file =
            identity->inode == object->inode || identity->inode == 0 || object->inode == 0;
        if (table->modules[i].start == object->module.start && is_same_file &&
            identity->fingerprint == object->fingerprint &&
            table->modules[i].limit == object->module.limit)
            return i + 1;
    }
    return 0;
}

static pep_module_id add_module(const struct pep_scan_object *object) {
    const char *path = module_count < PEP_MODULES_MAX ? keep_path(object->module.path) : NULL;
    if (path == NULL) {
        PEP_COUNT(modules_full, 1);
        return 0;
    }
    struct pep_module *module = &table->modules[module_count];
    *module = object->module;
    module->id = module_count + 1;
    module->path = path;
    table->identities[module_count] = (struct identity){
        .inode = object->inode,
        .fingerprint = object->fingerprint,
        .head = object->head != 0 ? object->head : pep_scan_head(module->start),
    };
    pep_store_release(&module_count, module_count + 1);
    return module->id;
}

static void take_object(struct pep_scan_sink *sink, const struct pep_scan_object *object) {
    struct scan *scan = (struct scan *)sink;
    pep_module_id id = find_known(object);
    if (id == 0)
        id = add_module(object);
    if (id != 0) {
        table->is_seen[id - 1] = 1;
        if (object->module.is_own) {
            pep_store_relaxed(&own_start, object->module.exec_start);
            pep_store_relaxed(&own_limit, object->module.limit);
        }
    }
    add_entry(scan, object->module.exec_start, object->module.limit, id);
}

static void take_code(struct pep_scan_sink *sink, uintptr_t start, uintptr_t limit) {
    add_entry((struct scan *)sink, start, limit, 0);
}

static bool set_gone(uint32_t i, bool is_gone) {
    if (is_gone == table->modules[i].is_unloaded)
        return false;
    pep_store_relaxed(&pep_modules_gone[i + 1], (uint8_t)is_gone);
    pep_store_release(&table->modules[i].is_unloaded, is_gone);
    return is_gone;
}

/* Rules of a dead object must die before its addresses can be found under another number, so
 * this comes before publish(). */
static void mark_unseen(void) {
    bool has_gone = false;
    for (uint32_t i = 0; i < module_count; i++)
        has_gone |= set_gone(i, !table->is_seen[i]);
    if (has_gone)
        pep_add_relaxed(&generation, 1);
}

/* After dlclose: one small read an object instead of all of the maps. */
static void mark_vanished(void) {
    bool has_gone = false;
    for (uint32_t i = 0; i < module_count; i++) {
        const struct pep_module *m = &table->modules[i];
        bool can_go = !m->is_unloaded && !m->is_main && !m->is_vdso && !m->is_libc && !m->is_own;
        if (can_go && pep_scan_head(m->start) != table->identities[i].head)
            has_gone |= set_gone(i, true);
    }
    if (has_gone)
        pep_add_relaxed(&generation, 1);
}

static int scan_once(void) {
    if (table == NULL) {
        struct table *fresh = pep_os_map(sizeof(*fresh));
        if (fresh == NULL)
            return -ENOMEM;
        pep_store_release(&table, fresh);
    }
    struct scan scan = {
        .sink = {.object = take_object, .code = take_code, .buffer = table->buffer}};
    begin_copy(&scan);
    pep_store_relaxed(&is_stale, 0);
    int r = pep_scan_maps(&scan.sink);
    if (r < 0 && r != -EIO)
        r = pep_scan_loader(&scan.sink);
    if (r < 0)
        return r; /* the copy is dropped; the next scan writes it anew */
    mark_unseen();
    publish(&scan);
    return 0;
}

/* -- one at a time ---------------------------------------------------------------------- */

static bool try_lock(void) {
    int expected = 0;
    return pep_cas_acq_rel(&lock, &expected, 1);
}

static void take_lock(void) {
    if (try_lock())
        return;
    while (pep_swap_acq_rel(&lock, 2) != 0)
        pep_os_futex_wait(&lock, 2, UINT64_C(1000000000));
}

static void drop_lock(void) {
    if (pep_swap_acq_rel(&lock, 0) == 2)
        pep_os_futex_wake(&lock, 1);
}

/* Scans, and again while somebody who could not get the lock left a note in is_again. */
static int scan_and_unlock(void) {
    int r, rounds = 0;
    do {
        pep_swap_acq_rel(&is_again, 0);
        r = scan_once();
        drop_lock();
        /* Looked at after the lock is free: a note left before that would find nobody. */
    } while (++rounds < 4 && pep_load_acquire(&is_again) && try_lock());
    return r;
}

int pep_modules_refresh(void) {
    take_lock();
    return scan_and_unlock();
}

PEP_HOOK_SAFE int pep_modules_try_refresh(void) {
    if (!try_lock())
        return -EBUSY;
    return scan_and_unlock();
}

void pep_modules_closed(void) {
    if (!pep_modules_is_armed())
        return;
    if (!try_lock()) {
        pep_store_release(&is_again, 1); /* pairs with the acquire in scan_and_unlock() */
        if (!try_lock())
            return;
    }
    mark_vanished();
    drop_lock();
    if (pep_load_acquire(&is_again) && try_lock())
        (void)scan_and_unlock();
}

void pep_modules_after_fork(void) {
    pep_store_release(&lock, 0);
}
