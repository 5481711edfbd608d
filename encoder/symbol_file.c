#include "encoder/symbol_file.h"

#include <errno.h>
#include <string.h>

#include "encoder/symbol_load.h"
#include "encoder/symbolize.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

#define SYSTEM_NAME_BYTES_MAX 16384
#define LOCK_WAIT_NS UINT64_C(1000000000)

/* 0 free, 1 held, 2 held and somebody waits. A load happens under it, so that two requests do not
 * read the same file at the same time. */
static int lock_word;
static struct {
    struct pep_symbol_file *files;
    uint64_t bytes; /* held by files as last measured */
    uint64_t loads; /* since the start */
    uint64_t clock; /* rises with every take; the age of a file */
} cache;

static void lock(void) {
    int expected = 0;
    if (pep_cas_acq_rel(&lock_word, &expected, 1))
        return;
    while (pep_swap_acq_rel(&lock_word, 2) != 0)
        pep_os_futex_wait(&lock_word, 2, LOCK_WAIT_NS);
}

static void unlock(void) {
    if (pep_swap_acq_rel(&lock_word, 0) == 2)
        pep_os_futex_wake(&lock_word, 1);
}

static void free_file(struct pep_symbol_file *file) {
    pep_arena_drop(&file->lines.arena);
    pep_arena_drop(&file->arena);
    pep_free(file);
}

/* Holding the lock. Measures, then drops unused files, oldest first, until the rest fits. Files
 * in which nothing was found are not kept: they may be there next time. */
static void trim(void) {
    for (;;) {
        struct pep_symbol_file **oldest = NULL;
        cache.bytes = 0;
        for (struct pep_symbol_file **at = &cache.files; *at != NULL; at = &(*at)->next) {
            struct pep_symbol_file *file = *at;
            cache.bytes += file->arena.total_bytes + file->lines.arena.total_bytes;
            if (file->references > 0)
                continue;
            bool is_older = oldest == NULL || file->last_used < (*oldest)->last_used;
            if (!file->is_matched || (is_older && (oldest == NULL || (*oldest)->is_matched)))
                oldest = at;
        }
        if (oldest == NULL || ((*oldest)->is_matched && cache.bytes <= PEP_SYMBOL_CACHE_BYTES))
            return;
        struct pep_symbol_file *gone = *oldest;
        *oldest = gone->next;
        free_file(gone);
    }
}

/* Nobody holds it, and it may be out of date: without a build-id nothing says that it is still the
 * same file, and a debug package may have been installed since. */
static bool is_stale(const struct pep_symbol_file *file, const struct pep_mapping *mapping) {
    if (file->references > 0 || mapping->is_vdso)
        return false;
    return file->build_id[0] == '\0' ||
           ((!file->has_symtab || !file->has_lines) && !file->has_debug_file &&
            pep_debug_file_exists(file->build_id, PEP_DEBUG_ROOT));
}

/* Holding the lock. */
static struct pep_symbol_file *find(const struct pep_mapping *mapping) {
    for (struct pep_symbol_file *file = cache.files; file != NULL; file = file->next) {
        if (!file->is_matched || strcmp(file->build_id, mapping->build_id) != 0 ||
            strcmp(file->path, mapping->path) != 0)
            continue;
        if (!is_stale(file, mapping))
            return file;
        file->is_matched = false; /* trim drops it */
    }
    return NULL;
}

/* Holding the lock. */
static struct pep_symbol_file *load(const struct pep_mapping *mapping, bool is_main) {
    struct pep_symbol_file *file = pep_calloc(1, sizeof(*file));
    if (file == NULL)
        return NULL;
    pep_arena_init(&file->arena, 0);
    pep_line_cache_init(&file->lines);
    memcpy(file->build_id, mapping->build_id, sizeof(file->build_id));
    file->path = pep_arena_strdup(&file->arena, mapping->path);
    if (file->path == NULL || pep_symbol_file_load(file, mapping, is_main) == -ENOMEM) {
        free_file(file);
        return NULL;
    }
    cache.loads++;
    file->next = cache.files;
    cache.files = file;
    return file;
}

struct pep_symbol_file *pep_symbol_file_take(const struct pep_mapping *mapping, bool is_main) {
    lock();
    struct pep_symbol_file *file = find(mapping);
    if (file == NULL)
        file = load(mapping, is_main);
    if (file != NULL) {
        file->references++;
        file->last_used = ++cache.clock;
    }
    unlock();
    return file;
}

void pep_symbol_file_drop(struct pep_symbol_file *file) {
    if (file == NULL)
        return;
    lock();
    file->references--;
    trim();
    unlock();
}

/* "memcpy@@GLIBC_2.14" is memcpy, "_ZN1A1bEv@plt" a stub for A::b. */
static struct pep_symbol_text *make_text(struct pep_arena *arena, const char *raw) {
    struct pep_symbol_text *text = pep_arena_alloc(arena, sizeof(*text));
    size_t length = strnlen(raw, SYSTEM_NAME_BYTES_MAX);
    const char *version = memchr(raw + 1, '@', length - 1);
    size_t base = version != NULL ? (size_t)(version - raw) : length;
    bool is_stub = version != NULL && strcmp(version, "@plt") == 0;
    char *plain = pep_arena_strndup(arena, raw, base);
    if (text == NULL || plain == NULL)
        return NULL;
    text->system_name = is_stub ? raw : plain;
    text->name = pep_demangle(arena, plain);
    if (text->name == NULL)
        text->name = text->system_name;
    else if (is_stub)
        text->name = pep_arena_printf(arena, "%s@plt", text->name);
    return text->name != NULL ? text : NULL;
}

const struct pep_symbol_text *pep_symbol_file_text(struct pep_symbol_file *file,
                                                   const struct pep_symbol *symbol) {
    struct pep_symbol_text **slot = &file->texts[symbol - file->symbols.symbols];
    struct pep_symbol_text *text = pep_load_acquire(slot); /* pairs with the release below */
    if (text != NULL)
        return text;
    lock(); /* the file's arena has one writer at a time */
    text = *slot;
    if (text == NULL) {
        text = make_text(&file->arena, symbol->name);
        pep_store_release(slot, text);
    }
    unlock();
    return text;
}

const char *pep_symbol_module_name(struct pep_arena *arena, const char *path) {
    static const char mark[] = " (deleted)";
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL && slash[1] != '\0' ? slash + 1 : path;
    size_t length = strlen(base), cut = sizeof(mark) - 1;
    if (length > cut && strcmp(base + length - cut, mark) == 0)
        return pep_arena_strndup(arena, base, length - cut);
    return base;
}

const char *pep_symbol_file_fde_name(struct pep_symbol_file *file, const struct pep_fde *fde) {
    const char **slot = &file->fde_names[fde - file->fdes.fdes];
    const char *name = pep_load_acquire(slot); /* pairs with the release below */
    if (name != NULL)
        return name;
    lock();
    name = *slot;
    const char *module = name == NULL ? pep_symbol_module_name(&file->arena, file->path) : NULL;
    if (module != NULL) {
        name =
            pep_arena_printf(&file->arena, "%s!fn_0x%llx", module, (unsigned long long)fde->start);
        pep_store_release(slot, name);
    }
    unlock();
    return name;
}

void pep_symbol_file_find_lines(struct pep_symbol_file *file, const uint64_t *addresses,
                                uint32_t count, const struct pep_line_entry **found) {
    lock();
    for (uint32_t i = 0; i < count; i++)
        found[i] = pep_line_cache_find(&file->lines, addresses[i]);
    unlock();
}

void pep_symbol_file_keep_lines(struct pep_symbol_file *file, const struct pep_lines_file *read) {
    lock();
    pep_line_cache_keep(&file->lines, read, file->references == 1);
    unlock();
}

uint64_t pep_symbol_cache_bytes(void) {
    lock();
    uint64_t bytes = cache.bytes;
    unlock();
    return bytes;
}

uint64_t pep_symbol_cache_loads(void) {
    lock();
    uint64_t loads = cache.loads;
    unlock();
    return loads;
}

void pep_symbol_cache_after_fork_child(void) {
    if (lock_word != 0) { /* a list in the middle of a change: leave it, it is copy-on-write */
        cache.files = NULL;
        cache.bytes = 0;
    }
    for (struct pep_symbol_file *file = cache.files; file != NULL; file = file->next)
        file->references = 0; /* the requests that held them are the parent's */
    lock_word = 0;
}
