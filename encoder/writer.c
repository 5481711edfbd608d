#include "encoder/writer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "encoder/utf8.h"

void pep_writer_fail(struct pep_writer *writer, int error) {
    if (writer->error == 0)
        writer->error = error;
}

void pep_write(struct pep_writer *writer, const void *bytes, size_t count) {
    if (writer->error != 0 || count == 0)
        return;
    int error = writer->write(writer, bytes, count);
    if (error < 0)
        writer->error = error;
    else
        writer->total_bytes += count;
}

void pep_write_text(struct pep_writer *writer, const char *text) {
    pep_write(writer, text, strlen(text));
}

void pep_write_printf(struct pep_writer *writer, const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (length < 0) {
        pep_writer_fail(writer, -EINVAL);
        return;
    }
    if ((size_t)length < sizeof(line)) {
        pep_write(writer, line, (size_t)length);
        return;
    }
    char *text = pep_malloc((size_t)length + 1);
    if (text == NULL) {
        pep_writer_fail(writer, -ENOMEM);
        return;
    }
    va_start(arguments, format);
    vsnprintf(text, (size_t)length + 1, format, arguments);
    va_end(arguments);
    pep_write(writer, text, (size_t)length);
    pep_free(text);
}

/* Control characters (C0, DEL, C1) and what XML 1.0 section 2.2 leaves out. */
static bool is_not_for_xml(uint32_t code) {
    return code == PEP_UTF8_BAD || code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0xFFFE ||
           code == 0xFFFF;
}

static const char *xml_replacement(uint32_t code) {
    switch (code) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return is_not_for_xml(code) ? PEP_UTF8_REPLACEMENT : NULL;
    }
}

/* What stands for code inside a JSON string; room holds a \u escape. NULL: itself. Besides what
 * JSON asks for: nothing that ends a <script> or a line of JavaScript. */
static const char *json_replacement(uint32_t code, char room[8]) {
    static const char digits[] = "0123456789abcdef";
    switch (code) {
    case PEP_UTF8_BAD:
        return PEP_UTF8_REPLACEMENT;
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '<':
    case '>':
    case '&':
    case 0x2028:
    case 0x2029:
        break;
    default:
        if (code >= 0x20 && (code < 0x7F || code >= 0xA0))
            return NULL;
    }
    room[0] = '\\';
    room[1] = 'u';
    for (int i = 0; i < 4; i++)
        room[2 + i] = digits[code >> (12 - 4 * i) & 0xF];
    room[6] = '\0';
    return room;
}

static void write_escaped(struct pep_writer *writer, const char *text, bool is_json) {
    const char *plain = text; /* what need not change goes out in one piece */
    char room[8];
    size_t bytes;
    for (; *text != '\0'; text += bytes) {
        uint32_t code = pep_utf8_next(text, &bytes);
        const char *other = is_json ? json_replacement(code, room) : xml_replacement(code);
        if (other == NULL)
            continue;
        pep_write(writer, plain, (size_t)(text - plain));
        pep_write_text(writer, other);
        plain = text + bytes;
    }
    pep_write(writer, plain, (size_t)(text - plain));
}

void pep_write_xml(struct pep_writer *writer, const char *text) {
    write_escaped(writer, text, false);
}

void pep_write_json_string(struct pep_writer *writer, const char *text) {
    pep_write(writer, "\"", 1);
    write_escaped(writer, text, true);
    pep_write(writer, "\"", 1);
}

static int write_to_buffer(struct pep_writer *writer, const void *bytes, size_t count) {
    struct pep_buffer_writer *buffer = (struct pep_buffer_writer *)writer;
    if (count >= SIZE_MAX / 4 - buffer->count)
        return -ENOMEM;
    if (buffer->count + count + 1 > buffer->capacity) {
        size_t capacity = buffer->capacity == 0 ? 4096 : buffer->capacity;
        while (capacity < buffer->count + count + 1)
            capacity *= 2;
        char *data = pep_arena_alloc(buffer->arena, capacity);
        if (data == NULL)
            return -ENOMEM;
        memcpy(data, buffer->data, buffer->count);
        buffer->data = data;
        buffer->capacity = capacity;
    }
    memcpy(buffer->data + buffer->count, bytes, count);
    buffer->count += count;
    buffer->data[buffer->count] = '\0';
    return 0;
}

void pep_buffer_writer_init(struct pep_buffer_writer *buffer, struct pep_arena *arena) {
    static char empty[1];
    *buffer = (struct pep_buffer_writer){.writer.write = write_to_buffer, .arena = arena};
    buffer->data = empty;
}
