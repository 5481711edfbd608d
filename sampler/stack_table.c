#include "sampler/stack_table.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"
#include "sampler/rt/reserve.h"
#include "sampler/unwind.h"

/* An index is looked through from a place in its first part, a few pages that a short program does
 * not leave, and when the places there are taken from one in its second. Nothing is ever taken out,
 * so an empty place ends the search. The second part is at most half full: probes end. */
#define FIRST_SIZE 2048u
#define FIRST_PROBES 8u
#define STACK_INDEX_SIZE (2 * PEP_STACKS_MAX)
#define CELL_INDEX_SIZE (2 * PEP_CELLS_MAX)
#define ARENA_WORDS (PEP_STACK_ARENA_BYTES / 8)
#define STACK_HEAD_WORDS (offsetof(struct pep_stack, pcs) / 8)
#define TABLE_FULL_ID 1u

/* Cells with a thread stop short of the end, so that every stack can still get the one without. */
#define THREAD_CELLS_MAX (PEP_CELLS_MAX - PEP_STACKS_MAX)

/* A slot of an index says where the entry is and some bits of its hash; the entry is complete
 * before the slot points to it, so nobody ever waits for a writer. Stack slot: hash bits 63..32,
 * id below. Cell slot: hash bits 31..20, number + 1 below. */
struct table {
    uint64_t stack_index[FIRST_SIZE + STACK_INDEX_SIZE];
    uint32_t stack_at[PEP_STACKS_MAX + 1]; /* id -> word in the arena + 1; 0: not (yet) there */
    uint32_t cell_index[FIRST_SIZE + CELL_INDEX_SIZE];
    struct pep_cell cells[PEP_CELLS_MAX];
    uint64_t arena[]; /* arena_words */
};

_Static_assert(PEP_CELLS_MAX < 1u << 20, "a cell's number fits its slot");
_Static_assert(offsetof(struct pep_stack, pcs) % 8 == 0, "stacks are made of words");

static struct table *table;
static uint64_t arena_words;
static uint64_t words_used;  /* of the arena */
static uint32_t stacks_used; /* ids given out */
static uint32_t cells_used;

/* Room for stacks: what is untouched costs nothing, unless the host may have only so much address
 * space (RLIMIT_AS); then an eighth has to do. */
static uint64_t words_wanted(void) {
    uint64_t limits[2] = {UINT64_MAX, UINT64_MAX}; /* the kernel's struct rlimit64 */
    pep_os_call6(SYS_prlimit64, 0, RLIMIT_AS, 0, (long)limits, 0, 0);
    return limits[0] / 32 < PEP_STACK_ARENA_BYTES ? ARENA_WORDS / 8 : ARENA_WORDS;
}

int pep_stack_table_init(void) {
    if (table != NULL)
        return 0;
    arena_words = words_wanted();
    size_t size = sizeof *table + arena_words * sizeof table->arena[0];
    table = pep_reserve_alone(size);
    if (table == NULL)
        return -ENOMEM;
    static const uintptr_t full = PEP_PC_TABLE_FULL;
    pep_stack_id id = pep_stack_table_add(&full, 1);
    PEP_CHECK(id == TABLE_FULL_ID);
    (void)id;
    return 0;
}

PEP_SIGNAL_SAFE static uint64_t mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* The place in an index to look at after so many others; size is that of its second part. */
PEP_SIGNAL_SAFE static uint32_t place(uint32_t hash, uint32_t probes, uint32_t size) {
    if (probes < FIRST_PROBES)
        return (hash + probes) % FIRST_SIZE;
    return FIRST_SIZE + (hash + probes) % size;
}

/* Two lanes, so that the multiplications overlap: 30 frames in about 40 ns. */
PEP_SIGNAL_SAFE static uint64_t hash_pcs(const uintptr_t *pcs, int count) {
    uint64_t a = 0x243f6a8885a308d3u, b = 0x13198a2e03707344u ^ (uint64_t)count;
    int i = 0;
    for (; i + 1 < count; i += 2) {
        a = (a ^ pcs[i]) * 0xff51afd7ed558ccdu;
        b = (b ^ pcs[i + 1]) * 0xc4ceb9fe1a85ec53u;
        a ^= a >> 31;
        b ^= b >> 29;
    }
    if (i < count)
        a = (a ^ pcs[i]) * 0xff51afd7ed558ccdu;
    return mix(a ^ mix(b));
}

PEP_SIGNAL_SAFE static bool equals(const struct pep_stack *stack, const uintptr_t *pcs, int count) {
    if (stack->count != (uint32_t)count)
        return false;
    for (int i = 0; i < count; i++) {
        if (stack->pcs[i] != pcs[i])
            return false;
    }
    return true;
}

PEP_SIGNAL_SAFE static const struct pep_stack *stack_of(pep_stack_id id) {
    if (table == NULL || id == 0 || id > PEP_STACKS_MAX)
        return NULL;
    /* acquire: pairs with the release in write_stack */
    uint32_t at = pep_load_acquire(&table->stack_at[id]);
    return at != 0 ? (const struct pep_stack *)&table->arena[at - 1] : NULL;
}

/* A stack written down that no slot points to yet; id 0 when the table is full. */
struct draft {
    pep_stack_id id;
    uint64_t word, words;
};

PEP_SIGNAL_SAFE static bool reserve(struct draft *draft, int count) {
    draft->words = STACK_HEAD_WORDS + (uint64_t)count;
    uint32_t used = pep_load_relaxed(&stacks_used);
    if (used >= PEP_STACKS_MAX || pep_load_relaxed(&words_used) + draft->words > arena_words)
        return false;
    /* Past these checks the adds may overshoot by one stack a thread: looked at again below. */
    draft->id = pep_add_relaxed(&stacks_used, 1) + 1;
    draft->word = pep_add_relaxed(&words_used, draft->words);
    return draft->id <= PEP_STACKS_MAX && draft->word + draft->words <= arena_words;
}

PEP_SIGNAL_SAFE static void write_stack(const struct draft *draft, uint64_t hash,
                                        const uintptr_t *pcs, int count) {
    struct pep_stack *stack = (struct pep_stack *)&table->arena[draft->word];
    stack->hash = hash;
    stack->count = (uint32_t)count;
    for (int i = 0; i < count; i++)
        stack->pcs[i] = pcs[i];
    /* release: pairs with the acquire in stack_of */
    pep_store_release(&table->stack_at[draft->id], (uint32_t)draft->word + 1);
}

/* Somebody else entered the same stack first. Gives back what nobody took after us; else the id
 * stays unused and the words are lost, at most one stack a thread and race. */
PEP_SIGNAL_SAFE static void withdraw(const struct draft *draft) {
    pep_store_release(&table->stack_at[draft->id], 0);
    uint64_t word = draft->word + draft->words;
    pep_cas_acq_rel(&words_used, &word, draft->word);
    uint32_t id = draft->id;
    pep_cas_acq_rel(&stacks_used, &id, draft->id - 1);
}

PEP_SIGNAL_SAFE pep_stack_id pep_stack_table_add(const uintptr_t *pcs, int count) {
    if (table == NULL || count < 1)
        return 0;
    uint64_t hash = hash_pcs(pcs, count);
    uint64_t tag = hash & ~(uint64_t)UINT32_MAX;
    struct draft draft = {0};
    for (uint32_t probes = 0; probes < STACK_INDEX_SIZE; probes++) {
        uint32_t at = place((uint32_t)hash, probes, STACK_INDEX_SIZE);
        uint64_t slot = pep_load_acquire(&table->stack_index[at]);
        if (slot == 0) {
            if (draft.id == 0) {
                if (!reserve(&draft, count))
                    break;
                write_stack(&draft, hash, pcs, count);
            }
            /* acq_rel: what write_stack wrote is seen by whoever sees the slot */
            if (pep_cas_acq_rel(&table->stack_index[at], &slot, tag | draft.id))
                return draft.id;
        }
        if ((slot ^ tag) >> 32 == 0) {
            const struct pep_stack *stack = stack_of((pep_stack_id)slot);
            if (stack != NULL && stack->hash == hash && equals(stack, pcs, count)) {
                if (draft.id != 0)
                    withdraw(&draft);
                return (pep_stack_id)slot;
            }
        }
    }
    PEP_COUNT(stack_table_full, 1);
    return TABLE_FULL_ID;
}

PEP_SIGNAL_SAFE pep_stack_id pep_stack_table_add_again(pep_stack_id likely, const uintptr_t *pcs,
                                                       int count) {
    const struct pep_stack *stack = stack_of(likely);
    return stack != NULL && equals(stack, pcs, count) ? likely : pep_stack_table_add(pcs, count);
}

/* The cell of a key, made when there is room below limit; NULL otherwise. */
PEP_SIGNAL_SAFE static struct pep_cell *cell_of(uint64_t key, uint32_t limit) {
    uint64_t hash = mix(mix(key) + key);
    uint32_t tag = (uint32_t)(hash >> 52) << 20;
    uint32_t draft = UINT32_MAX;
    for (uint32_t probes = 0; probes < CELL_INDEX_SIZE; probes++) {
        uint32_t at = place((uint32_t)hash, probes, CELL_INDEX_SIZE);
        uint32_t slot = pep_load_acquire(&table->cell_index[at]);
        if (slot == 0) {
            if (draft == UINT32_MAX) {
                if (pep_load_relaxed(&cells_used) >= limit)
                    return NULL;
                draft = pep_add_relaxed(&cells_used, 1);
                if (draft >= PEP_CELLS_MAX)
                    return NULL;
                pep_store_release(&table->cells[draft].key, key);
            }
            if (pep_cas_acq_rel(&table->cell_index[at], &slot, tag | (draft + 1)))
                return &table->cells[draft];
        }
        struct pep_cell *cell = &table->cells[(slot & 0xfffff) - 1];
        if ((slot & ~0xfffffu) == tag && pep_load_acquire(&cell->key) == key) {
            if (draft != UINT32_MAX) /* lost the race: this cell stays empty for ever */
                pep_store_release(&table->cells[draft].key, 0);
            return cell;
        }
    }
    return NULL;
}

PEP_SIGNAL_SAFE void pep_stack_table_charge(pep_stack_id stack, uint32_t identity, uint64_t count,
                                            uint64_t weight) {
    if (table == NULL || stack == 0)
        return;
    uint64_t key = (uint64_t)stack << 32;
    struct pep_cell *cell = NULL;
    if (identity != 0) {
        cell = cell_of(key | identity, THREAD_CELLS_MAX);
        if (cell == NULL)
            PEP_COUNT(cell_table_full, 1);
    }
    if (cell == NULL)
        cell = cell_of(key, PEP_CELLS_MAX);
    if (cell == NULL)
        return;
    pep_add_relaxed(&cell->count, count);
    pep_add_relaxed(&cell->weight, weight);
}

const struct pep_stack *pep_stack_table_get(pep_stack_id id) {
    return stack_of(id);
}

uint32_t pep_stack_table_cell_count(void) {
    uint32_t count = pep_load_acquire(&cells_used);
    return table == NULL ? 0 : count < PEP_CELLS_MAX ? count : PEP_CELLS_MAX;
}

const struct pep_cell *pep_stack_table_cell(uint32_t index) {
    return table != NULL && index < PEP_CELLS_MAX ? &table->cells[index] : NULL;
}

uint32_t pep_stack_table_stack_count(void) {
    uint32_t count = 0;
    for (pep_stack_id id = 1; table != NULL && id <= PEP_STACKS_MAX; id++)
        count += stack_of(id) != NULL;
    return count;
}

void pep_stack_table_check(void) {
    if (table == NULL)
        return;
    for (uint32_t i = 0; i < FIRST_SIZE + STACK_INDEX_SIZE; i++) {
        uint64_t slot = pep_load_acquire(&table->stack_index[i]);
        if (slot == 0)
            continue;
        const struct pep_stack *stack = stack_of((pep_stack_id)slot);
        bool is_right = stack != NULL && stack->count >= 1 &&
                        stack->hash == hash_pcs(stack->pcs, (int)stack->count) &&
                        stack->hash >> 32 == slot >> 32;
        /* A stack that is in twice would be found at its first place. */
        if (!is_right || pep_stack_table_add(stack->pcs, (int)stack->count) != (pep_stack_id)slot)
            __builtin_trap();
    }
    for (uint32_t i = 0; i < pep_stack_table_cell_count(); i++) {
        uint64_t key = pep_load_acquire(&table->cells[i].key);
        if (key != 0 && stack_of((pep_stack_id)(key >> 32)) == NULL)
            __builtin_trap();
        if (key != 0 && cell_of(key, 0) != &table->cells[i])
            __builtin_trap();
    }
}
