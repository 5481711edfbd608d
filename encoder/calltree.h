/*
 * Stacks merged to a tree, root first: shared by the flame graphs, the table and the collapsed
 * stacks.
 *
 * Model:   thread -> root frame -> ... -> leaf. A node's total is its own plus its children's.
 * Writers: pep_calltree_build.  [normal]
 * Readers: flame, text, collapsed.
 * Memory:  the caller's arena.
 * When full: NULL.
 */
#ifndef PEP_ENCODER_CALLTREE_H
#define PEP_ENCODER_CALLTREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "encoder/symbolize.h"
#include "sampler/profile.h"

struct pep_calltree_node {
    const char *name;    /* function, thread or "all"; never NULL; UTF-8, no controls */
    const char *module;  /* base name of the mapping, "" when none */
    const char *file;    /* NULL when not known */
    int64_t total, self; /* of the chosen value type */
    int64_t count_total; /* of the type that counts what the chosen one measures */
    int64_t own[PEP_PROFILE_VALUES_MAX]; /* self, of every value type */
    struct pep_calltree_node *children;  /* first child, sorted by name */
    struct pep_calltree_node *next;      /* next sibling */
    uint32_t child_count;
    bool is_thread; /* a level made for the thread, not a frame */
    bool is_inlined;
};

struct pep_calltree_options {
    uint32_t value; /* which value type */
    bool by_thread; /* a level "name (tid)" below the root */
};

/* The root, named "all". NULL when memory was refused. */
struct pep_calltree_node *pep_calltree_build(struct pep_arena *arena,
                                             const struct pep_profile *profile,
                                             struct pep_symbolizer *symbolizer,
                                             const struct pep_calltree_options *options);

/* The type that counts what value measures: samples for time, objects for space. value itself
 * where it is a count. */
uint32_t pep_calltree_count_type(const struct pep_profile *profile, uint32_t value);

/* What a walk tells: path[0] is the root, path[depth] the node. leave comes after the node's
 * children and may be NULL. */
struct pep_calltree_visitor {
    void (*enter)(void *context, struct pep_calltree_node *const *path, size_t depth);
    void (*leave)(void *context, struct pep_calltree_node *const *path, size_t depth);
    void *context;
};

/* Every node, a parent before its children, without recursion: trees may be deeper than a small
 * stack allows. False when memory for the path was refused. */
bool pep_calltree_walk(struct pep_arena *arena, struct pep_calltree_node *root,
                       const struct pep_calltree_visitor *visitor);

#endif
