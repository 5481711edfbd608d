#include <errno.h>
#include <fcntl.h>

#include "sampler/modules.h"
#include "sampler/profile_parts.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

#define MAPS_BUFFER_BYTES 16384 /* a line has at most a path of 4096 bytes */

struct list {
    struct pep_arena *arena;
    struct pep_mapping *items;
    size_t count, capacity;
};

/* The first mapping that ends after address. */
static size_t place_of(const struct list *list, uint64_t address) {
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list->items[middle].limit <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* False when there is something already, or no memory. */
static bool insert(struct list *list, const struct pep_mapping *mapping) {
    size_t place = place_of(list, mapping->start);
    if (mapping->start >= mapping->limit ||
        (place < list->count && list->items[place].start < mapping->limit) ||
        !PEP_ARENA_GROW(list->arena, list->items, list->count, list->capacity))
        return false;
    for (size_t i = list->count; i > place; i--)
        list->items[i] = list->items[i - 1];
    list->items[place] = *mapping;
    list->count++;
    return true;
}

static void add_module(struct list *list, const struct pep_module *module) {
    struct pep_mapping mapping = {
        .start = module->exec_start,
        .limit = module->limit,
        .file_offset = module->exec_file_offset,
        .bias = module->bias,
        .path = module->path,
        .is_own = module->is_own,
        .is_vdso = module->is_vdso,
    };
    for (size_t i = 0; i < module->build_id_bytes && i < PEP_BUILD_ID_MAX; i++) {
        static const char digits[] = "0123456789abcdef";
        mapping.build_id[2 * i] = digits[module->build_id[i] >> 4];
        mapping.build_id[2 * i + 1] = digits[module->build_id[i] & 15];
    }
    insert(list, &mapping);
}

/* Loaded ones first; of the others the latest, where nothing is in their way. */
static void add_modules(struct list *list) {
    uint32_t count = pep_modules_count();
    for (uint32_t i = count; i > 0; i--) {
        const struct pep_module *module = pep_modules_get(i);
        if (module != NULL && !pep_load_acquire(&module->is_unloaded))
            add_module(list, module);
    }
    for (uint32_t i = count; i > 0; i--) {
        const struct pep_module *module = pep_modules_get(i);
        if (module != NULL && pep_load_acquire(&module->is_unloaded))
            add_module(list, module);
    }
}

static const char *parse_hex(const char *at, const char *end, uint64_t *value) {
    *value = 0;
    const char *start = at;
    for (; at < end && at - start < 16; at++) {
        unsigned c = (unsigned char)*at | 32;
        if (c >= '0' && c <= '9')
            *value = *value << 4 | (c - '0');
        else if (c >= 'a' && c <= 'f')
            *value = *value << 4 | (c - 'a' + 10);
        else
            break;
    }
    return at > start ? at : NULL;
}

bool pep_maps_parse_executable(const char *line, size_t bytes, struct pep_maps_range *range) {
    const char *end = line + bytes, *at = parse_hex(line, end, &range->start);
    if (at == NULL || at == end || *at != '-')
        return false;
    at = parse_hex(at + 1, end, &range->limit);
    if (at == NULL || end - at < 6 || at[0] != ' ' || at[3] != 'x')
        return false;
    at = parse_hex(at + 6, end, &range->offset);
    if (at == NULL)
        return false;
    for (int field = 0; field < 2; field++) { /* device, inode */
        while (at < end && *at == ' ')
            at++;
        while (at < end && *at != ' ')
            at++;
    }
    while (at < end && *at == ' ')
        at++;
    range->name = at;
    range->name_bytes = (uint32_t)(end - at);
    return true;
}

static bool is_name(const struct pep_maps_range *range, const char *text) {
    size_t i = 0;
    while (text[i] != '\0' && i < range->name_bytes && range->name[i] == text[i])
        i++;
    return text[i] == '\0';
}

/* Code that nobody's file holds: anonymous memory, and the memory files that JITs map twice. */
static void add_range(struct list *list, const struct pep_maps_range *range) {
    if (is_name(range, "[vsyscall]"))
        return;
    size_t place = place_of(list, range->start);
    struct pep_mapping *before = place > 0 ? &list->items[place - 1] : NULL;
    bool is_free = place == list->count || list->items[place].start >= range->limit;
    if (is_free && before != NULL && before->is_jit && before->limit == range->start) {
        before->limit = range->limit;
        return;
    }
    bool is_file = range->name_bytes > 0 && range->name[0] == '/' && !is_name(range, "//anon");
    struct pep_mapping mapping = {
        .start = range->start,
        .limit = range->limit,
        .file_offset = is_file ? range->offset : 0,
        .path = is_file ? pep_arena_strndup(list->arena, range->name, range->name_bytes) : "//anon",
        .is_jit = true,
    };
    insert(list, &mapping);
}

static void add_lines(struct list *list, const char *text, size_t bytes) {
    size_t start = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] != '\n')
            continue;
        struct pep_maps_range range;
        if (pep_maps_parse_executable(text + start, i - start, &range))
            add_range(list, &range);
        start = i + 1;
    }
}

static void add_rest(struct list *list) {
    char *buffer = pep_arena_alloc(list->arena, MAPS_BUFFER_BYTES);
    int fd = buffer != NULL ? pep_os_open("/proc/thread-self/maps", O_RDONLY, 0) : -1;
    if (fd < 0)
        return;
    size_t kept = 0;
    for (;;) {
        long count = pep_os_read(fd, buffer + kept, MAPS_BUFFER_BYTES - kept);
        if (count == -EINTR)
            continue;
        if (count <= 0)
            break;
        size_t have = kept + (size_t)count, whole = have;
        while (whole > 0 && buffer[whole - 1] != '\n')
            whole--;
        add_lines(list, buffer, whole);
        kept = have - whole;
        if (kept == MAPS_BUFFER_BYTES)
            break; /* no such line exists */
        for (size_t i = 0; i < kept; i++)
            buffer[i] = buffer[whole + i];
    }
    pep_os_close(fd);
}

/* Keeps the mappings of files, and of the others those that a sample fell into. */
static void drop_unused(struct pep_profile *profile) {
    for (uint32_t i = 0; i < profile->sample_count; i++) {
        const struct pep_sample *sample = &profile->samples[i];
        for (uint32_t j = 0; j < sample->pc_count; j++) {
            uint32_t found = pep_profile_mapping_of(profile, sample->pcs[j]);
            if (found != PEP_MAPPING_NONE && profile->mappings[found].is_jit)
                profile->mappings[found].build_id[0] = '+'; /* used; cleared below */
        }
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < profile->mapping_count; i++) {
        struct pep_mapping *mapping = &profile->mappings[i];
        if (mapping->is_jit && mapping->build_id[0] == '\0')
            continue;
        if (mapping->is_jit)
            mapping->build_id[0] = '\0';
        profile->mappings[kept++] = *mapping;
    }
    profile->mapping_count = kept;
}

void pep_profile_fill_mappings(struct pep_arena *arena, struct pep_profile *profile) {
    struct list list = {.arena = arena};
    pep_modules_refresh(); /* what was known stays when it fails */
    add_modules(&list);
    add_rest(&list);
    profile->mappings = list.items;
    profile->mapping_count = (uint32_t)list.count;
    drop_unused(profile);
    profile->main_mapping = PEP_MAPPING_NONE;
    for (uint32_t i = 0; i < pep_modules_count(); i++) {
        const struct pep_module *module = pep_modules_get(i + 1);
        if (module == NULL || !module->is_main)
            continue;
        uint32_t found = pep_profile_mapping_of(profile, module->exec_start);
        if (found != PEP_MAPPING_NONE)
            profile->main_mapping = found;
    }
}
