#include "sampler/mmap.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include "sampler/heap_internal.h"
#include "sampler/mmap_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/rt/reserve.h"

#define SPINS 512u     /* looks at a lock that is taken, before the first sleep */
#define PATIENCE 768u  /* looks in all: some 25 ms, enough for a holder that lost its processor */
#define SLEEP_NS 50000 /* between two of the later ones */

/* The set of pieces that one call made, as long as one of them is there. */
struct mapping {
    uint32_t cell;
    uint32_t pieces;    /* in the set or taken out */
    uint32_t objects;   /* calls: more than one for brk, whose pieces grow together */
    uint32_t next_free; /* number of the next free one */
};

struct table {
    uint32_t cell_index[PEP_MMAP_CELL_INDEX]; /* number + 1 */
    struct pep_mmap_cell cells[PEP_MMAP_CELLS];
    struct mapping mappings[PEP_MMAP_MAPPINGS + 1]; /* 0 stays unused */
    uint32_t mapping_limit, free_mapping;
    uint32_t label_at[PEP_MMAP_LABELS]; /* in texts; 0 is "" */
    uint32_t label_hash[PEP_MMAP_LABELS];
    uint32_t label_count, text_bytes;
    char texts[PEP_MMAP_TEXT_BYTES];
    struct pep_mmap_pieces pieces;
};

static struct table *table;
static uint32_t cells_used;
static uintptr_t holder;   /* of the lock: the thread's block; 0: free */
static uint32_t turn;      /* rises with each release */
static uint32_t lost_turn; /* + 1: the lock was given up on at this turn and is not waited for */

/* -- the lock ------------------------------------------------------------------------------- */

PEP_HOOK_SAFE static bool take_lock(void) {
    const uintptr_t self = (uintptr_t)&pep_heap_thread;
    for (uint32_t tries = 0;; tries++) {
        uintptr_t nobody = 0;
        if (pep_cas_acq_rel(&holder, &nobody, self))
            return true;
        uint32_t now = pep_load_relaxed(&turn) + 1;
        if (nobody == self || tries == PATIENCE || pep_load_relaxed(&lost_turn) == now) {
            if (tries == PATIENCE)
                pep_store_relaxed(&lost_turn, now);
            PEP_COUNT(mmap_missed, 1);
            return false;
        }
        if (tries < SPINS)
            __builtin_ia32_pause();
        else
            pep_os_sleep_ns(SLEEP_NS);
    }
}

PEP_HOOK_SAFE static void drop_lock(void) {
    pep_store_relaxed(&turn, pep_load_relaxed(&turn) + 1);
    /* release: pairs with the exchange in take_lock */
    pep_store_release(&holder, (uintptr_t)0);
}

/* With the lock held; what a failed start leaves is tried again. */
PEP_HOOK_SAFE static bool has_table(void) {
    if (pep_likely(table != NULL))
        return true;
    struct table *made = pep_reserve_alone(sizeof *made);
    if (made == NULL) {
        PEP_COUNT(mmap_full, 1);
        return false;
    }
    made->mapping_limit = made->text_bytes = made->label_count = 1;
    /* release: pairs with the acquire in pep_mmap_is_used */
    pep_store_release(&table, made);
    return true;
}

PEP_HOOK_SAFE bool pep_mmap_is_used(void) {
    return pep_load_acquire(&table) != NULL;
}

/* -- labels --------------------------------------------------------------------------------- */

PEP_HOOK_SAFE static void set_text(struct pep_mmap_label *label, const char *text) {
    size_t i = 0;
    for (; text[i] != '\0' && i + 1 < sizeof label->text; i++)
        label->text[i] = text[i];
    label->text[i] = '\0';
}

PEP_HOOK_SAFE static bool read_link(struct pep_mmap_label *label, int fd) {
    char path[32] = "/proc/self/fd/", digits[12];
    size_t used = 14, count = 0;
    for (unsigned rest = (unsigned)fd; count == 0 || rest > 0; rest /= 10)
        digits[count++] = (char)('0' + rest % 10);
    while (count > 0)
        path[used++] = digits[--count];
    path[used] = '\0';
    long read = pep_os_call6(SYS_readlink, (long)path, (long)label->text,
                             (long)sizeof label->text - 1, 0, 0, 0);
    if (read <= 0)
        return false;
    label->text[read] = '\0';
    return true;
}

PEP_HOOK_SAFE void pep_mmap_label(struct pep_mmap_label *label, int protection, int flags, int fd) {
    if (!(flags & MAP_ANONYMOUS)) {
        if (fd < 0 || !read_link(label, fd))
            set_text(label, "[file]");
    } else if (protection == PROT_NONE) {
        set_text(label, "[reserved]");
    } else if ((flags & MAP_TYPE) != MAP_PRIVATE) {
        set_text(label, "[shared]");
    } else {
        set_text(label, flags & MAP_STACK ? "[stack]" : "[anon]");
    }
}

PEP_HOOK_SAFE static bool is_same_text(const char *a, const char *b) {
    while (*a != '\0' && *a == *b)
        a++, b++;
    return *a == *b;
}

/* The number of a label, entered when new; 0, no label, when there is no room. */
PEP_HOOK_SAFE static uint32_t number_of(const char *text) {
    uint32_t hash = 2166136261u, bytes = 0; /* FNV-1a */
    for (; text[bytes] != '\0'; bytes++)
        hash = (hash ^ (unsigned char)text[bytes]) * 16777619u;
    for (uint32_t i = 1; i < table->label_count; i++)
        if (table->label_hash[i] == hash && is_same_text(table->texts + table->label_at[i], text))
            return i;
    uint32_t number = table->label_count;
    if (number == PEP_MMAP_LABELS || table->text_bytes + bytes + 1 > PEP_MMAP_TEXT_BYTES) {
        PEP_COUNT(mmap_full, 1);
        return 0;
    }
    pep_copy(table->texts + table->text_bytes, text, bytes + 1);
    table->label_at[number] = table->text_bytes;
    table->label_hash[number] = hash;
    table->text_bytes += bytes + 1;
    table->label_count++;
    return number;
}

/* -- cells ---------------------------------------------------------------------------------- */

uint32_t pep_mmap_cell_count(void) {
    /* acquire: pairs with the release in cell_of */
    return table == NULL ? 0 : pep_load_acquire(&cells_used);
}

const struct pep_mmap_cell *pep_mmap_cell_at(uint32_t number) {
    return &table->cells[number];
}

const char *pep_mmap_text_of(const struct pep_mmap_cell *cell) {
    return table->texts + table->label_at[cell->key & 0xfff];
}

PEP_HOOK_SAFE static uint32_t hash_of(uint64_t key) {
    key *= 0x9e3779b97f4a7c15u;
    return (uint32_t)(key >> 40) % PEP_MMAP_CELL_INDEX;
}

/* The number of a cell, made when new. The last one is for all that find no room. */
PEP_HOOK_SAFE static uint32_t cell_of(uint64_t key) {
    uint32_t at = hash_of(key);
    while (table->cell_index[at] != 0) {
        uint32_t number = table->cell_index[at] - 1;
        if (table->cells[number].key == key)
            return number;
        at = (at + 1) % PEP_MMAP_CELL_INDEX;
    }
    uint32_t number = cells_used;
    if (number >= PEP_MMAP_CELLS - 1) {
        static const uintptr_t full = PEP_PC_TABLE_FULL;
        number = PEP_MMAP_CELLS - 1;
        key = (uint64_t)pep_stack_table_add(&full, 1) << 32;
        PEP_COUNT(mmap_full, 1);
    }
    table->cells[number].key = key;
    if (cells_used < number + 1) {
        if (number < PEP_MMAP_CELLS - 1)
            table->cell_index[at] = number + 1;
        /* release: the key, and the label's text, before the number is seen */
        pep_store_release(&cells_used, number + 1);
    }
    return number;
}

/* The lock makes us the only writer; the store is for readers without it. */
PEP_HOOK_SAFE static void count(uint64_t *sum, uint64_t by) {
    pep_store_relaxed(sum, *sum + by);
}

/* -- mappings ------------------------------------------------------------------------------- */

PEP_HOOK_SAFE static uint32_t add_mapping(uint32_t cell) {
    uint32_t number = table->free_mapping;
    if (number != 0)
        table->free_mapping = table->mappings[number].next_free;
    else if (table->mapping_limit <= PEP_MMAP_MAPPINGS)
        number = table->mapping_limit++;
    else
        return 0;
    table->mappings[number] = (struct mapping){.cell = cell, .pieces = 1, .objects = 1};
    return number;
}

/* A piece, or a part of one that was counted as a piece, is gone. */
PEP_HOOK_SAFE static void drop_piece(const struct pep_mmap_piece *piece) {
    struct mapping *mapping = &table->mappings[piece->mapping];
    struct pep_mmap_cell *cell = &table->cells[mapping->cell];
    count(&cell->unmapped_bytes, piece->limit - piece->start);
    if (--mapping->pieces > 0)
        return;
    count(&cell->unmapped_objects, mapping->objects);
    mapping->next_free = table->free_mapping;
    table->free_mapping = piece->mapping;
}

PEP_HOOK_SAFE static void insert(const struct pep_mmap_piece *piece) {
    if (pep_mmap_pieces_insert(&table->pieces, piece))
        return;
    PEP_COUNT(mmap_full, 1);
    drop_piece(piece);
}

PEP_HOOK_SAFE static void keep_or_drop(struct pep_mmap_taken *taken,
                                       const struct pep_mmap_piece *piece) {
    if (taken != NULL && taken->count < PEP_MMAP_TAKEN_MAX) {
        taken->pieces[taken->count++] = *piece;
        return;
    }
    if (taken != NULL)
        taken->has_more = true;
    drop_piece(piece);
}

/* Takes [start, limit) out of the set; taken NULL: it is gone already. A piece that is cut has
 * one more piece. */
PEP_HOOK_SAFE static void clear(uintptr_t start, uintptr_t limit, struct pep_mmap_taken *taken) {
    struct pep_mmap_at at;
    struct pep_mmap_piece *found;
    while ((found = pep_mmap_pieces_find(&table->pieces, start, &at)) != NULL &&
           found->start < limit) {
        struct pep_mmap_piece cut = *found, rest = *found;
        if (cut.start < start)
            cut.start = start;
        if (cut.limit > limit)
            cut.limit = limit;
        bool has_head = rest.start<cut.start, has_tail = rest.limit> cut.limit;
        table->mappings[cut.mapping].pieces += (uint32_t)has_head + (uint32_t)has_tail;
        if (has_head) {
            found->limit = cut.start;
        } else if (has_tail) {
            found->start = cut.limit;
        } else {
            pep_mmap_pieces_remove(&table->pieces, &at);
        }
        if (has_head && has_tail) {
            rest.start = cut.limit;
            insert(&rest);
        }
        keep_or_drop(taken, &cut);
    }
}

/* A heap that grows by brk from one place is one piece, however often it grows. */
PEP_HOOK_SAFE static bool extend(uint32_t cell, uintptr_t start, size_t bytes) {
    struct pep_mmap_at at;
    struct pep_mmap_piece *before = pep_mmap_pieces_find(&table->pieces, start - 1, &at);
    if (before == NULL || before->limit != start || table->mappings[before->mapping].cell != cell)
        return false;
    before->limit += bytes;
    table->mappings[before->mapping].objects++;
    return true;
}

/* Adds a mapping whose place is clear. */
PEP_HOOK_SAFE static void add(uint64_t key, uintptr_t start, size_t bytes, bool is_heap) {
    uint32_t number = cell_of(key);
    struct pep_mmap_cell *cell = &table->cells[number];
    count(&cell->mapped_objects, 1);
    count(&cell->mapped_bytes, bytes);
    if (is_heap && extend(number, start, bytes))
        return;
    struct pep_mmap_piece piece = {start, start + bytes, add_mapping(number)};
    if (piece.mapping != 0) {
        insert(&piece);
        return;
    }
    PEP_COUNT(mmap_full, 1); /* not followed: as if it went at once */
    count(&cell->unmapped_objects, 1);
    count(&cell->unmapped_bytes, bytes);
}

/* -- what the hooks say --------------------------------------------------------------------- */

PEP_HOOK_SAFE static uint64_t key_here(void) {
    uint32_t identity = 0;
    pep_stack_id stack = pep_heap_stack_here(&identity);
    return (uint64_t)stack << 32 | (uint64_t)identity << 12;
}

PEP_HOOK_SAFE void pep_mmap_added(uintptr_t start, size_t bytes,
                                  const struct pep_mmap_label *label) {
    uint64_t key = key_here(); /* before the lock: a walk takes its time */
    if (key >> 32 == 0) {
        PEP_COUNT(mmap_missed, 1);
        return;
    }
    if (!take_lock())
        return;
    if (has_table()) {
        clear(start, start + bytes, NULL);
        add(key | number_of(label != NULL ? label->text : "[heap]"), start, bytes, label == NULL);
    }
    drop_lock();
}

PEP_HOOK_SAFE void pep_mmap_take(uintptr_t start, size_t bytes, struct pep_mmap_taken *taken) {
    taken->count = 0;
    taken->has_more = false;
    if (!pep_mmap_is_used() || bytes == 0 || start + bytes < start || !take_lock())
        return;
    clear(start, start + bytes, taken);
    drop_lock();
}

PEP_HOOK_SAFE void pep_mmap_drop(const struct pep_mmap_taken *taken) {
    if (taken->count == 0 || !take_lock())
        return;
    for (uint32_t i = 0; i < taken->count; i++)
        drop_piece(&taken->pieces[i]);
    drop_lock();
}

PEP_HOOK_SAFE void pep_mmap_put_back(const struct pep_mmap_taken *taken) {
    if (taken->count == 0 || !take_lock())
        return;
    for (uint32_t i = 0; i < taken->count; i++)
        insert(&taken->pieces[i]);
    drop_lock();
}

/* Puts what fits to its new place. Where nothing of the old is known, the caller's begins. */
PEP_HOOK_SAFE static uintptr_t shift(const struct pep_mmap_taken *taken,
                                     const struct pep_mmap_move *move) {
    uintptr_t limit = move->to + move->new_bytes, end = move->to + move->old_bytes;
    for (uint32_t i = 0; i < taken->count; i++) {
        struct pep_mmap_piece piece = taken->pieces[i];
        piece.start += move->to - move->from;
        piece.limit += move->to - move->from;
        if (taken->has_more)
            end = piece.limit;
        if (piece.limit > limit) {
            struct pep_mmap_piece gone = piece;
            if (piece.start < limit) {
                gone.start = piece.limit = limit;
                table->mappings[piece.mapping].pieces++;
            }
            drop_piece(&gone);
        }
        if (piece.start < limit)
            insert(&piece);
    }
    return end;
}

PEP_HOOK_SAFE void pep_mmap_moved(const struct pep_mmap_taken *taken,
                                  const struct pep_mmap_move *move) {
    uint64_t key = 0;
    bool is_larger = move->new_bytes > move->old_bytes || taken->has_more;
    if (is_larger)
        key = key_here();
    if (!take_lock())
        return;
    if (has_table()) {
        uint64_t label = 0;
        if (taken->count > 0)
            label = table->cells[table->mappings[taken->pieces[0].mapping].cell].key & 0xfff;
        else if (is_larger)
            label = number_of("[anon]");
        clear(move->to, move->to + move->new_bytes, NULL);
        uintptr_t end = shift(taken, move), limit = move->to + move->new_bytes;
        if (key >> 32 != 0 && end < limit)
            add(key | label, end, limit - end, false);
    }
    drop_lock();
}

/* -- fork ----------------------------------------------------------------------------------- */

/* A thread that does not exist here was changing the table: which address belongs to whom is not
 * known any more, so all that was mapped counts as gone. */
static void forget(void) {
    table->pieces.leaf_count = table->pieces.leaf_limit = table->pieces.free_leaf = 0;
    table->mapping_limit = 1;
    table->free_mapping = 0;
    for (uint32_t i = 0; i < cells_used; i++) {
        struct pep_mmap_cell *cell = &table->cells[i];
        cell->unmapped_objects = cell->mapped_objects;
        cell->unmapped_bytes = cell->mapped_bytes;
    }
}

void pep_mmap_after_fork_child(void) {
    /* Held by the forking thread itself, below a signal handler: it goes on there. */
    if (holder != 0 && holder != (uintptr_t)&pep_heap_thread) {
        PEP_COUNT(mmap_missed, 1);
        if (table != NULL)
            forget();
        holder = 0;
    }
    lost_turn = 0;
}

void pep_mmap_check(void) {
    uint64_t bytes = 0, pieces = 0, live = 0, held = 0;
    struct pep_mmap_at at;
    uintptr_t address = 0;
    if (table == NULL)
        return;
    const struct pep_mmap_piece *piece;
    while ((piece = pep_mmap_pieces_find(&table->pieces, address, &at)) != NULL) {
        if (piece->start < address || piece->limit <= piece->start || piece->mapping == 0)
            __builtin_trap();
        bytes += piece->limit - piece->start;
        address = piece->limit;
        pieces++;
    }
    for (uint32_t i = 0; i < cells_used; i++)
        live += table->cells[i].mapped_bytes - table->cells[i].unmapped_bytes;
    for (uint32_t i = 1; i < table->mapping_limit; i++)
        held += table->mappings[i].pieces;
    if (bytes != live || pieces != held)
        __builtin_trap();
}
