/*
 * The colours of a flame graph: the same function has the same colour in every graph.
 *
 * Model:   hue by what kind of code a frame is, shade by a hash of its name; the family of hues by
 *          the kind of profile (CPU hot, wall clock rose, heap green, block blue, mutex purple). A
 *          colour is an index into one palette, which has a light and a dark form.
 * Writers: -
 * Readers: the page and the SVG.
 * Memory:  none.
 * When full: -
 */
#ifndef PEP_ENCODER_FLAME_COLOR_H
#define PEP_ENCODER_FLAME_COLOR_H

#include <stdbool.h>
#include <stdint.h>

#include "encoder/calltree.h"

enum pep_flame_kind {
    PEP_FLAME_ROOT,    /* "all" */
    PEP_FLAME_THREAD,  /* the level of the threads */
    PEP_FLAME_NOTE,    /* "[unknown]" and the like */
    PEP_FLAME_PROGRAM, /* the program's own code */
    PEP_FLAME_LIBRARY, /* a shared library's */
    PEP_FLAME_SYSTEM,  /* libc, the loader, the language runtimes, the vDSO */
    PEP_FLAME_JIT,     /* code without a file */
    PEP_FLAME_KIND_COUNT
};

#define PEP_FLAME_SHADES 12
#define PEP_FLAME_COLOR_COUNT ((uint32_t)PEP_FLAME_KIND_COUNT * PEP_FLAME_SHADES)

/* The text drawn on frames; at least 4.5 : 1 against every colour of its theme. */
#define PEP_FLAME_TEXT_LIGHT 0x1f1712u
#define PEP_FLAME_TEXT_DARK 0x100c0au

enum pep_flame_kind pep_flame_kind_of(const struct pep_profile *profile,
                                      const struct pep_calltree_node *node, bool is_root);
/* Index into the palette, below PEP_FLAME_COLOR_COUNT; depends on the two arguments alone. */
uint32_t pep_flame_color_index(enum pep_flame_kind kind, const char *name);
/* 0xRRGGBB. profile_kind is struct pep_profile's kind; an unknown one is shown hot. */
uint32_t pep_flame_color_rgb(const char *profile_kind, uint32_t index, bool is_dark);

#endif
