/* The palette of flame graphs; see flame_color.h. */
#include "encoder/flame_color.h"

#include <stddef.h>
#include <string.h>

#define SHADE_HUES 4
#define SHADE_LIGHTS 3

struct hues {
    uint16_t from, to; /* degrees; from > to runs through 0 */
};

/* For PROGRAM, LIBRARY, SYSTEM, JIT. lift (1/100) lightens hues
 * that the eye finds dark. */
struct family {
    const char *profile_kinds; /* space before and after each */
    struct hues hues[4];
    uint8_t lift;
    uint16_t saturation, saturation_dark; /* 1/1000 */
};

static const struct family families[] = {
    {" cpu ", {{15, 28}, {31, 40}, {45, 53}, {352, 362}}, 0, 880, 620},
    {" wall ", {{328, 340}, {316, 325}, {343, 350}, {305, 313}}, 6, 640, 500},
    {" heap allocs temporary mmap ", {{128, 150}, {92, 118}, {64, 82}, {158, 172}}, 0, 440, 360},
    {" block ", {{206, 220}, {192, 203}, {176, 188}, {222, 230}}, 7, 720, 520},
    {" mutex contention ", {{266, 280}, {284, 296}, {304, 318}, {248, 258}}, 8, 620, 480},
};

/* The name of a module that belongs to the platform rather than to the program. */
static const char *const system_modules[] = {
    "libc.so", "libc-",     "ld-linux", "ld-2",   "libpthread",   "libm.so", "libm-",      "libdl",
    "librt",   "libstdc++", "libgcc_s", "libc++", "libunwind.so", "[vdso]",  "[vsyscall]",
};

static bool is_system_module(const char *module) {
    for (size_t i = 0; i < sizeof(system_modules) / sizeof(system_modules[0]); i++) {
        if (strncmp(module, system_modules[i], strlen(system_modules[i])) == 0)
            return true;
    }
    return false;
}

static bool is_program_module(const struct pep_profile *profile, const char *module) {
    if (profile == NULL || profile->main_mapping >= profile->mapping_count)
        return false;
    const char *path = profile->mappings[profile->main_mapping].path;
    const char *slash = strrchr(path, '/');
    return strcmp(slash != NULL ? slash + 1 : path, module) == 0;
}

enum pep_flame_kind pep_flame_kind_of(const struct pep_profile *profile,
                                      const struct pep_calltree_node *node, bool is_root) {
    if (is_root)
        return PEP_FLAME_ROOT;
    if (node->is_thread)
        return PEP_FLAME_THREAD;
    const char *module = node->module;
    if (module[0] == '\0')
        return node->name[0] == '[' ? PEP_FLAME_NOTE : PEP_FLAME_JIT;
    if (is_program_module(profile, module))
        return PEP_FLAME_PROGRAM;
    if (is_system_module(module))
        return PEP_FLAME_SYSTEM;
    if (strcmp(module, "anon") == 0 || strstr(module, "//anon") != NULL)
        return PEP_FLAME_JIT;
    return PEP_FLAME_LIBRARY;
}

uint32_t pep_flame_color_index(enum pep_flame_kind kind, const char *name) {
    /* FNV-1a, 32 bits; the high half is folded in because its low bits alone are weak. */
    uint32_t hash = 2166136261u;
    for (const unsigned char *c = (const unsigned char *)name; *c != 0; c++)
        hash = (hash ^ *c) * 16777619u;
    hash ^= hash >> 16;
    return (uint32_t)kind * PEP_FLAME_SHADES + hash % PEP_FLAME_SHADES;
}

/* One channel of HSL -> RGB, in integers: hue and offset in degrees, the rest in 1/1000. */
static uint32_t channel(uint32_t hue, uint32_t offset, uint32_t saturation, uint32_t lightness) {
    uint32_t room = lightness < 1000 - lightness ? lightness : 1000 - lightness;
    int32_t amplitude = (int32_t)(saturation * room / 1000);
    int32_t k = (int32_t)((offset + hue) % 360) * 10 / 3; /* 0..1200: twelfths of a turn * 100 */
    int32_t ramp = k - 300 < 900 - k ? k - 300 : 900 - k;
    if (ramp > 100)
        ramp = 100;
    if (ramp < -100)
        ramp = -100;
    int32_t value = (int32_t)lightness - amplitude * ramp / 100;
    return (uint32_t)((value * 255 + 500) / 1000);
}

static uint32_t hsl(uint32_t hue, uint32_t saturation, uint32_t lightness) {
    return channel(hue, 0, saturation, lightness) << 16 |
           channel(hue, 240, saturation, lightness) << 8 | channel(hue, 120, saturation, lightness);
}

static const struct family *family_of(const char *profile_kind) {
    for (size_t i = 0; profile_kind != NULL && i < sizeof(families) / sizeof(families[0]); i++) {
        const char *found = strstr(families[i].profile_kinds, profile_kind);
        size_t length = strlen(profile_kind);
        if (found != NULL && length > 0 && found[-1] == ' ' && found[length] == ' ')
            return &families[i];
    }
    return &families[0];
}

uint32_t pep_flame_color_rgb(const char *profile_kind, uint32_t index, bool is_dark) {
    const struct family *family = family_of(profile_kind);
    uint32_t kind = index / PEP_FLAME_SHADES % PEP_FLAME_KIND_COUNT;
    uint32_t step = index % SHADE_HUES;
    uint32_t light = index % PEP_FLAME_SHADES / SHADE_HUES % SHADE_LIGHTS;
    uint32_t base_hue = family->hues[0].from;
    if (kind == PEP_FLAME_ROOT)
        return is_dark ? hsl(base_hue, 60, 620) : hsl(base_hue, 120, 850);
    if (kind == PEP_FLAME_THREAD)
        return is_dark ? hsl(base_hue, 130, 560 + light * 20)
                       : hsl(base_hue, 250, 800 + light * 20);
    if (kind == PEP_FLAME_NOTE)
        return is_dark ? hsl(base_hue, 30, 540 + light * 20) : hsl(base_hue, 40, 780 + light * 20);
    const struct hues *hues = &family->hues[kind - PEP_FLAME_PROGRAM];
    uint32_t hue = hues->from + (hues->to - hues->from) * step / (SHADE_HUES - 1u);
    uint32_t lift = family->lift * 10u + (kind == PEP_FLAME_JIT ? 30u : 0u);
    if (is_dark)
        return hsl(hue % 360, family->saturation_dark, 540 + light * 30 + lift);
    return hsl(hue % 360, family->saturation, 620 + light * 35 + lift);
}
