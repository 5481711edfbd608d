/* Any bytes as packed data: the container, and bare LZMA2 behind no checksum. */
#include <stddef.h>
#include <stdint.h>

#include "encoder/xz.h"
#include "encoder/xz_lzma.h"

#define OUT_BYTES (256u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct pep_lzma lzma;
    static uint8_t out[OUT_BYTES];
    struct pep_arena arena;
    size_t count = 0;
    pep_arena_init(&arena, 0);
    if (pep_xz_unpack(&arena, data, size, OUT_BYTES, &count) != NULL && count > OUT_BYTES)
        __builtin_trap();
    pep_arena_drop(&arena);
    lzma.in = data;
    lzma.in_at = 0;
    lzma.in_end = size;
    lzma.out = out;
    lzma.out_at = lzma.dictionary = 0;
    lzma.out_limit = OUT_BYTES;
    (void)pep_lzma2_decode(&lzma);
    if (lzma.out_at > OUT_BYTES || lzma.in_at > size)
        __builtin_trap();
    return 0;
}
