#include "sampler/mmap_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

/* The fences keep the compiler from calling memmove, which may be anybody's. */
PEP_HOOK_SAFE static void make_room(struct pep_mmap_piece *pieces, uint32_t slot, uint32_t count) {
    for (uint32_t i = count; i > slot; i--) {
        pieces[i] = pieces[i - 1];
        pep_signal_fence();
    }
}

PEP_HOOK_SAFE static void make_room_in_order(uint16_t *order, uint32_t place, uint32_t count) {
    for (uint32_t i = count; i > place; i--) {
        order[i] = order[i - 1];
        pep_signal_fence();
    }
}

PEP_HOOK_SAFE static struct pep_mmap_leaf *leaf_at(struct pep_mmap_pieces *pieces, uint32_t place) {
    return &pieces->leaves[pieces->order[place]];
}

/* The first leaf whose last piece ends after address. */
PEP_HOOK_SAFE static uint32_t find_leaf(struct pep_mmap_pieces *pieces, uintptr_t address) {
    uint32_t low = 0, high = pieces->leaf_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct pep_mmap_leaf *leaf = leaf_at(pieces, middle);
        if (leaf->pieces[leaf->count - 1].limit <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

PEP_HOOK_SAFE static uint32_t find_slot(const struct pep_mmap_leaf *leaf, uintptr_t address) {
    uint32_t low = 0, high = leaf->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (leaf->pieces[middle].limit <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

PEP_HOOK_SAFE struct pep_mmap_piece *
pep_mmap_pieces_find(struct pep_mmap_pieces *pieces, uintptr_t address, struct pep_mmap_at *at) {
    at->leaf = find_leaf(pieces, address);
    at->slot = 0;
    if (at->leaf == pieces->leaf_count)
        return NULL;
    struct pep_mmap_leaf *leaf = leaf_at(pieces, at->leaf);
    at->slot = find_slot(leaf, address);
    return &leaf->pieces[at->slot];
}

/* An empty leaf at a place in the order, or NULL. */
PEP_HOOK_SAFE static struct pep_mmap_leaf *add_leaf(struct pep_mmap_pieces *pieces,
                                                    uint32_t place) {
    uint32_t number = pieces->leaf_limit;
    if (pieces->free_leaf != 0) {
        number = pieces->free_leaf - 1;
        pieces->free_leaf = pieces->leaves[number].next_free;
    } else if (number == PEP_MMAP_LEAVES) {
        return NULL;
    } else {
        pieces->leaf_limit++;
    }
    make_room_in_order(pieces->order, place, pieces->leaf_count++);
    pieces->order[place] = (uint16_t)number;
    pieces->leaves[number].count = 0;
    return &pieces->leaves[number];
}

/* Moves the upper half of a full leaf to a new one behind it. */
PEP_HOOK_SAFE static bool split(struct pep_mmap_pieces *pieces, uint32_t place) {
    struct pep_mmap_leaf *leaf = leaf_at(pieces, place);
    struct pep_mmap_leaf *upper = add_leaf(pieces, place + 1);
    if (upper == NULL)
        return false;
    uint32_t half = leaf->count / 2;
    upper->count = leaf->count - half;
    pep_copy(upper->pieces, leaf->pieces + half, upper->count * sizeof leaf->pieces[0]);
    leaf->count = half;
    return true;
}

PEP_HOOK_SAFE bool pep_mmap_pieces_insert(struct pep_mmap_pieces *pieces,
                                          const struct pep_mmap_piece *piece) {
    uint32_t place = find_leaf(pieces, piece->start);
    if (place == pieces->leaf_count && place > 0)
        place--; /* behind all others: at the end of the last leaf */
    if (pieces->leaf_count == 0) {
        if (add_leaf(pieces, 0) == NULL)
            return false;
    } else if (leaf_at(pieces, place)->count == PEP_MMAP_LEAF_PIECES) {
        if (!split(pieces, place))
            return false;
        const struct pep_mmap_leaf *lower = leaf_at(pieces, place);
        place += lower->pieces[lower->count - 1].limit <= piece->start;
    }
    struct pep_mmap_leaf *leaf = leaf_at(pieces, place);
    uint32_t slot = find_slot(leaf, piece->start);
    make_room(leaf->pieces, slot, leaf->count++);
    leaf->pieces[slot] = *piece;
    return true;
}

PEP_HOOK_SAFE void pep_mmap_pieces_remove(struct pep_mmap_pieces *pieces,
                                          const struct pep_mmap_at *at) {
    struct pep_mmap_leaf *leaf = leaf_at(pieces, at->leaf);
    leaf->count--;
    pep_copy(&leaf->pieces[at->slot], &leaf->pieces[at->slot + 1],
             (leaf->count - at->slot) * sizeof leaf->pieces[0]);
    if (leaf->count > 0)
        return;
    uint32_t number = pieces->order[at->leaf];
    pieces->leaf_count--;
    pep_copy(&pieces->order[at->leaf], &pieces->order[at->leaf + 1],
             (pieces->leaf_count - at->leaf) * sizeof pieces->order[0]);
    leaf->next_free = pieces->free_leaf;
    pieces->free_leaf = number + 1;
}
