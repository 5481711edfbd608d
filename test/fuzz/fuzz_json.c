/*
 * Any bytes as a request's JSON body: what is taken is valid text, and never longer than written.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "encoder/utf8.h"
#include "http/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count);

static void look_at(const char *text, size_t most) {
    size_t bytes;
    if (strlen(text) > most)
        __builtin_trap();
    for (; *text; text += bytes)
        if (pep_utf8_next(text, &bytes) == PEP_UTF8_BAD)
            __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count) {
    struct pep_arena arena;
    struct pep_json json;
    pep_arena_init(&arena, 1u << 20);
    char *text = pep_arena_strndup(&arena, (const char *)data, count);
    if (text && !pep_json_read(&arena, text, count, &json)) {
        for (size_t i = 0; i < json.count; i++) {
            look_at(json.members[i].name, count);
            if (json.members[i].value)
                look_at(json.members[i].value, count);
        }
    }
    pep_arena_drop(&arena);
    return 0;
}
