#include "encoder/intern.h"

#include <string.h>

#include "encoder/utf8.h"

/* Not UTF-8, or a control character: names end up in terminals. */
static bool is_wrong(uint32_t code) {
    return code == PEP_UTF8_BAD || code < 0x20 || (code >= 0x7F && code < 0xA0);
}

/* True when all eight bytes are plain ASCII: 0x20 to 0x7E. Adding 1 to a byte below 0x80 reaches
 * its top bit for 0x7F alone; subtracting 0x20 from one borrows below 0x20, and a borrow only
 * makes more bytes look wrong. */
static bool is_plain_word(const char *text) {
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t word;
    memcpy(&word, text, sizeof(word));
    return ((word | (word + ones) | (word - 0x20 * ones)) & tops) == 0;
}

/* The length up to the limit at the end of a character; *is_fit: no byte of it is wrong. */
static size_t measure(const char *text, bool *is_fit) {
    size_t count = 0, bytes, length = strnlen(text, PEP_INTERN_TEXT_MAX);
    *is_fit = true;
    while (count + sizeof(uint64_t) <= length && is_plain_word(text + count))
        count += sizeof(uint64_t);
    while (text[count] != '\0') {
        if (is_wrong(pep_utf8_next(text + count, &bytes)))
            *is_fit = false;
        if (count + bytes > PEP_INTERN_TEXT_MAX)
            break;
        count += bytes;
    }
    return count;
}

/* A copy with U+FFFD for every wrong character, or NULL. */
static char *repair(struct pep_arena *arena, const char *text, size_t *count) {
    size_t size = *count * 3 < PEP_INTERN_TEXT_MAX ? *count * 3 : PEP_INTERN_TEXT_MAX;
    char *fit = pep_arena_alloc(arena, size + 1);
    size_t filled = 0, bytes;
    for (size_t i = 0; fit != NULL && i < *count; i += bytes) {
        const char *from = text + i;
        size_t length = 3;
        if (is_wrong(pep_utf8_next(text + i, &bytes)))
            from = PEP_UTF8_REPLACEMENT;
        else
            length = bytes;
        if (filled + length > size)
            break;
        memcpy(fit + filled, from, length);
        filled += length;
    }
    *count = filled;
    return fit;
}

bool pep_intern_init(struct pep_intern *intern, struct pep_arena *arena) {
    *intern = (struct pep_intern){.arena = arena};
    pep_index_init(&intern->index, arena);
    return pep_intern_add(intern, "") == 0;
}

uint32_t pep_intern_add(struct pep_intern *intern, const char *text) {
    bool is_fit;
    if (text == NULL)
        text = "";
    size_t count = measure(text, &is_fit);
    if (!is_fit)
        text = repair(intern->arena, text, &count);
    if (text == NULL)
        return PEP_INDEX_NONE;
    uint64_t hash = pep_index_hash(text, count);
    size_t cursor = 0;
    uint32_t found;
    while ((found = pep_index_next(&intern->index, hash, &cursor)) != PEP_INDEX_NONE) {
        const struct pep_interned *item = &intern->items[found];
        if (item->count == count && memcmp(item->text, text, count) == 0)
            return found;
    }
    if (!PEP_ARENA_GROW(intern->arena, intern->items, intern->count, intern->capacity) ||
        !pep_index_add(&intern->index, hash, (uint32_t)intern->count))
        return PEP_INDEX_NONE;
    intern->items[intern->count] = (struct pep_interned){.text = text, .count = (uint32_t)count};
    intern->text_bytes += count;
    return (uint32_t)intern->count++;
}

size_t pep_intern_bound(const char *text) {
    bool is_fit;
    size_t count = measure(text, &is_fit);
    if (is_fit)
        return count;
    return count * 3 < PEP_INTERN_TEXT_MAX ? count * 3 : PEP_INTERN_TEXT_MAX;
}
