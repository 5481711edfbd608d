#include "encoder/xz.h"

#include <stdint.h>
#include <string.h>

#include "encoder/xz_lzma.h"

#define HEADER_BYTES 12
#define FILTER_LZMA2 0x21
#define CRC64_POLYNOMIAL UINT64_C(0xc96c5795d7870f42) /* reflected ECMA-182 */
#define CRC32_POLYNOMIAL UINT64_C(0xedb88320)         /* reflected IEEE 802.3 */

enum { CHECK_CRC32 = 1, CHECK_CRC64 = 4 };

/* Bytes of each kind of block check. */
static const uint8_t check_bytes[16] = {0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64};

static uint64_t crc(const uint8_t *bytes, size_t count, uint64_t polynomial, uint64_t ones) {
    uint64_t table[256];
    for (uint64_t i = 0; i < 256; i++) {
        uint64_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = (value >> 1) ^ (value & 1 ? polynomial : 0);
        table[i] = value;
    }
    uint64_t value = ones;
    for (size_t i = 0; i < count; i++)
        value = (value >> 8) ^ table[(value ^ bytes[i]) & 255];
    return value ^ ones;
}

static bool has_crc32(const uint8_t *bytes, size_t count, const uint8_t *stored) {
    uint32_t value = (uint32_t)crc(bytes, count, CRC32_POLYNOMIAL, UINT32_MAX);
    return memcmp(&value, stored, sizeof(value)) == 0;
}

/* A number of 7 bits a byte, lowest first; false at the end of the header. */
static bool read_number(const uint8_t *header, size_t *at, size_t end, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; *at < end && shift < 63; shift += 7) {
        uint8_t byte = header[(*at)++];
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

/* Steps over a block header; false unless its only filter is LZMA2. */
static bool read_block_header(struct pep_lzma *lzma) {
    const uint8_t *header = lzma->in + lzma->in_at;
    size_t size = ((size_t)header[0] + 1) * 4;
    if (size > lzma->in_end - lzma->in_at || !has_crc32(header, size - 4, header + size - 4))
        return false;
    size_t at = 2, end = size - 4;
    uint64_t number, filter, properties;
    if ((header[1] & 0x3f) != 0 || ((header[1] & 0x40) && !read_number(header, &at, end, &number)))
        return false;
    if ((header[1] & 0x80) && !read_number(header, &at, end, &number))
        return false;
    if (!read_number(header, &at, end, &filter) || filter != FILTER_LZMA2 ||
        !read_number(header, &at, end, &properties) || properties != 1)
        return false;
    lzma->in_at += size;
    return true;
}

/* Steps over the padding and the check of a block that began at these offsets. */
static bool read_block_end(struct pep_lzma *lzma, size_t in_start, size_t out_start, int check) {
    size_t padding = (4 - (lzma->in_at - in_start) % 4) % 4;
    if (padding + check_bytes[check] > lzma->in_end - lzma->in_at)
        return false;
    const uint8_t *stored = lzma->in + lzma->in_at + padding, *out = lzma->out + out_start;
    lzma->in_at += padding + check_bytes[check];
    size_t count = lzma->out_at - out_start;
    if (check == CHECK_CRC32)
        return has_crc32(out, count, stored);
    if (check == CHECK_CRC64) {
        uint64_t value = crc(out, count, CRC64_POLYNOMIAL, UINT64_MAX);
        return memcmp(&value, stored, sizeof(value)) == 0;
    }
    return true; /* none, or one we cannot compute */
}

static bool unpack_blocks(struct pep_lzma *lzma, int check) {
    while (lzma->in_at < lzma->in_end && lzma->in[lzma->in_at] != 0) { /* 0: the index */
        if (!read_block_header(lzma))
            return false;
        size_t in_start = lzma->in_at, out_start = lzma->out_at;
        if (!pep_lzma2_decode(lzma) || !read_block_end(lzma, in_start, out_start, check))
            return false;
    }
    return lzma->in_at < lzma->in_end && lzma->out_at > 0;
}

void *pep_xz_unpack(struct pep_arena *arena, const void *packed, size_t packed_bytes,
                    size_t limit_bytes, size_t *unpacked_bytes) {
    static const uint8_t magic[] = {0xfd, '7', 'z', 'X', 'Z', 0, 0};
    const uint8_t *bytes = packed;
    if (packed_bytes < HEADER_BYTES || memcmp(bytes, magic, sizeof(magic)) != 0 || bytes[7] > 15 ||
        !has_crc32(bytes + 6, 2, bytes + 8))
        return NULL;
    struct pep_lzma *lzma = pep_arena_alloc(arena, sizeof(*lzma));
    uint8_t *out = pep_arena_alloc(arena, limit_bytes);
    if (lzma == NULL || out == NULL)
        return NULL;
    lzma->in = bytes;
    lzma->in_at = HEADER_BYTES;
    lzma->in_end = packed_bytes;
    lzma->out = out;
    lzma->out_limit = limit_bytes;
    if (!unpack_blocks(lzma, bytes[7]))
        return NULL;
    *unpacked_bytes = lzma->out_at;
    return out;
}
