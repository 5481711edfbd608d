/*
 * One character of text that may be anything: symbol names come from files nobody checked.
 *
 * Model:   strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing past U+10FFFF.
 * Writers: -
 * Readers: the writers of XML and JSON, the string table.  [normal]
 * Memory:  none.
 * When full: -
 */
#ifndef PEP_ENCODER_UTF8_H
#define PEP_ENCODER_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define PEP_UTF8_BAD UINT32_MAX
#define PEP_UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* The character at text, which ends in NUL, and how many bytes it takes. PEP_UTF8_BAD, one byte,
 * where none begins; a NUL stops any sequence, so nothing behind it is read. */
static inline uint32_t pep_utf8_next(const char *text, size_t *bytes) {
    const unsigned char *p = (const unsigned char *)text;
    *bytes = 1;
    if (p[0] < 0x80)
        return p[0];
    size_t more = p[0] >= 0xF0 ? 3 : p[0] >= 0xE0 ? 2 : 1;
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    uint32_t code = p[0] & (0x3Fu >> more);
    if (p[0] < 0xC2 || p[0] > 0xF4)
        return PEP_UTF8_BAD;
    for (size_t i = 1; i <= more; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return PEP_UTF8_BAD;
        code = code << 6 | (p[i] & 0x3Fu);
    }
    if (code < least[more] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        return PEP_UTF8_BAD;
    *bytes = more + 1;
    return code;
}

#endif
