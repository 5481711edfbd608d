#include "http/json.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "encoder/utf8.h"

#define BAD_CODE UINT32_MAX

static const char not_an_object[] = "The body is not a JSON object.";
static const char bad_string[] = "The body is not JSON: a string is not properly written.";
static const char bad_value[] =
    "The body is not a flat JSON object: values are strings, numbers, true, false or null.";
static const char no_memory[] = "Not enough memory for this request.";

struct reader {
    struct pep_arena *arena;
    const char *at; /* ends in NUL */
    const char *sentence;
};

static void skip_blanks(struct reader *reader) {
    reader->at += strspn(reader->at, " \t\r\n");
}

static bool take(struct reader *reader, char wanted) {
    skip_blanks(reader);
    if (*reader->at != wanted)
        return false;
    reader->at++;
    return true;
}

/* -- strings -------------------------------------------------------------------------------- */

static uint32_t hex4(const char *text) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char c = text[i];
        if (c >= '0' && c <= '9')
            value = value * 16 + (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            value = value * 16 + (uint32_t)((c | 0x20) - 'a' + 10);
        else
            return BAD_CODE;
    }
    return value;
}

/* Behind a \u: one character, of two halves where it needs them. */
static uint32_t read_unicode(struct reader *reader) {
    uint32_t code = hex4(reader->at);
    if (code == BAD_CODE)
        return BAD_CODE;
    reader->at += 4;
    if (code < 0xD800 || code > 0xDFFF)
        return code;
    if (code > 0xDBFF || reader->at[0] != '\\' || reader->at[1] != 'u')
        return BAD_CODE;
    uint32_t low = hex4(reader->at + 2);
    if (low < 0xDC00 || low > 0xDFFF)
        return BAD_CODE;
    reader->at += 6;
    return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
}

static uint32_t read_escape(struct reader *reader) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char c = *reader->at;
    if (c == '\0')
        return BAD_CODE;
    reader->at++;
    if (c == 'u')
        return read_unicode(reader);
    const char *found = strchr(names, c);
    return found ? (uint32_t)values[found - names] : BAD_CODE;
}

/* At most 4 bytes; how many. */
static size_t put_utf8(char *to, uint32_t code) {
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    size_t more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char leads[] = {0, 0xC0, 0xE0, 0xF0};
    to[0] = (char)(leads[more] | (code >> (6 * more)));
    for (size_t i = 1; i <= more; i++)
        to[i] = (char)(0x80 | ((code >> (6 * (more - i))) & 0x3F));
    return more + 1;
}

/* One character of a string, BAD_CODE where none may stand. */
static uint32_t read_character(struct reader *reader) {
    if (*reader->at == '\\') {
        reader->at++;
        return read_escape(reader);
    }
    size_t bytes;
    uint32_t code = pep_utf8_next(reader->at, &bytes);
    if (code < 0x20 || code == PEP_UTF8_BAD)
        return BAD_CODE;
    reader->at += bytes;
    return code;
}

/* Behind the first quote. A character never takes more bytes than it was written with. */
static const char *read_string(struct reader *reader) {
    const char *end = reader->at;
    while (*end && *end != '"')
        end += *end == '\\' && end[1] ? 2 : 1;
    char *text = pep_arena_alloc(reader->arena, (size_t)(end - reader->at) + 1);
    size_t used = 0;
    reader->sentence = text ? bad_string : no_memory;
    while (text && *reader->at != '"') {
        uint32_t code = read_character(reader);
        if (code == BAD_CODE || code == 0)
            return NULL;
        used += put_utf8(text + used, code);
    }
    if (!text)
        return NULL;
    reader->at++;
    reader->sentence = NULL;
    return text;
}

/* -- values --------------------------------------------------------------------------------- */

static size_t digits(const char *text) {
    return strspn(text, "0123456789");
}

/* The length of a number in JSON's grammar, 0 when there is none. */
static size_t number_length(const char *text) {
    const char *at = text + (*text == '-');
    size_t count = digits(at);
    if (count == 0 || (*at == '0' && count > 1))
        return 0;
    at += count;
    if (*at == '.') {
        count = digits(at + 1);
        if (count == 0)
            return 0;
        at += 1 + count;
    }
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '+' || at[1] == '-');
        count = digits(at);
        if (count == 0)
            return 0;
        at += count;
    }
    return (size_t)(at - text);
}

static const char *read_plain(struct reader *reader) {
    static const char *const words[] = {"true", "false"};
    size_t count = number_length(reader->at);
    for (size_t i = 0; i < 2 && count == 0; i++)
        if (strncmp(reader->at, words[i], strlen(words[i])) == 0)
            count = strlen(words[i]);
    if (count == 0) {
        reader->sentence = bad_value;
        return NULL;
    }
    const char *text = pep_arena_strndup(reader->arena, reader->at, count);
    reader->sentence = text ? NULL : no_memory;
    reader->at += count;
    return text;
}

static const char *read_value(struct reader *reader) {
    skip_blanks(reader);
    if (*reader->at == '"') {
        reader->at++;
        return read_string(reader);
    }
    if (strncmp(reader->at, "null", 4) == 0) {
        reader->at += 4;
        return NULL;
    }
    return read_plain(reader);
}

/* -- the object ----------------------------------------------------------------------------- */

static const char *read_member(struct reader *reader, struct pep_json *json) {
    skip_blanks(reader);
    if (!take(reader, '"'))
        return not_an_object;
    const char *name = read_string(reader);
    if (!name)
        return reader->sentence;
    if (!take(reader, ':'))
        return not_an_object;
    for (size_t i = 0; i < json->count; i++)
        if (strcmp(json->members[i].name, name) == 0)
            return "The body has a name twice.";
    if (json->count == PEP_JSON_MEMBERS_MAX)
        return "The body has more than 64 members.";
    const char *value = read_value(reader);
    if (reader->sentence)
        return reader->sentence;
    json->members[json->count++] = (struct pep_json_member){.name = name, .value = value};
    return NULL;
}

const char *pep_json_read(struct pep_arena *arena, const char *text, size_t count,
                          struct pep_json *json) {
    struct reader reader = {.arena = arena, .at = text};
    json->count = 0;
    json->members = pep_arena_array(arena, PEP_JSON_MEMBERS_MAX, sizeof(*json->members));
    if (!json->members)
        return no_memory;
    if (strlen(text) != count || !take(&reader, '{'))
        return not_an_object;
    if (!take(&reader, '}')) {
        do {
            const char *sentence = read_member(&reader, json);
            if (sentence)
                return sentence;
        } while (take(&reader, ','));
        if (!take(&reader, '}'))
            return not_an_object;
    }
    skip_blanks(&reader);
    return *reader.at ? not_an_object : NULL;
}

const char *pep_json_value(const struct pep_json *json, const char *name) {
    for (size_t i = 0; i < json->count; i++)
        if (strcmp(json->members[i].name, name) == 0)
            return json->members[i].value;
    return NULL;
}
