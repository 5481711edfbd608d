#include "sampler/unwind_memory.h"

#include "sampler/rt/os.h"

/* One walk of 256 frames that are all new takes about 12 reads a frame. */
#define PEEKS_MAX 4096
#define LOADS_MAX (1 << 20)

PEP_SIGNAL_SAFE void pep_unwind_memory_begin(struct pep_unwind_memory *memory, uintptr_t direct_lo,
                                             uintptr_t direct_hi) {
    memory->direct_lo = direct_lo;
    memory->direct_bytes = direct_hi > direct_lo + sizeof(uintptr_t)
                               ? direct_hi - direct_lo - sizeof(uintptr_t) + 1
                               : 0;
    memory->cfi_lo = memory->cfi_bytes = 0;
    memory->peeks = PEEKS_MAX;
    memory->loads = LOADS_MAX;
    for (int i = 0; i < PEP_UNWIND_PAGES; i++)
        memory->pages[i] = 0;
    for (int i = 0; i < PEP_UNWIND_LINES; i++)
        memory->lines[i] = 0;
}

PEP_SIGNAL_SAFE static bool peek(struct pep_unwind_memory *memory, uintptr_t address, void *to,
                                 size_t size_bytes) {
    if (memory->peeks <= 0)
        return false;
    memory->peeks--;
    return pep_os_peek(to, address, size_bytes) == (long)size_bytes;
}

PEP_SIGNAL_SAFE bool pep_unwind_load_slow(struct pep_unwind_memory *memory, uintptr_t address,
                                          uintptr_t *value) {
    uintptr_t page = address & ~(uintptr_t)(PEP_UNWIND_PAGE_BYTES - 1);
    size_t offset = address - page;
    if (offset > PEP_UNWIND_PAGE_BYTES - sizeof(*value))
        return peek(memory, address, value, sizeof(*value));
    size_t slot = (page / PEP_UNWIND_PAGE_BYTES) % PEP_UNWIND_PAGES;
    if (memory->pages[slot] != (page | 1)) {
        memory->pages[slot] = 0;
        if (!peek(memory, page, memory->page_bytes[slot], PEP_UNWIND_PAGE_BYTES))
            return false;
        memory->pages[slot] = page | 1;
    }
    pep_copy(value, memory->page_bytes[slot] + offset, sizeof(*value));
    return true;
}

PEP_SIGNAL_SAFE static const unsigned char *line_of(struct pep_unwind_memory *memory,
                                                    uintptr_t line) {
    size_t slot = (line / PEP_UNWIND_LINE_BYTES) % PEP_UNWIND_LINES;
    if (memory->lines[slot] != (line | 1)) {
        memory->lines[slot] = 0;
        if (!peek(memory, line, memory->line_bytes[slot], PEP_UNWIND_LINE_BYTES))
            return NULL;
        memory->lines[slot] = line | 1;
    }
    return memory->line_bytes[slot];
}

PEP_SIGNAL_SAFE bool pep_unwind_read(struct pep_unwind_memory *memory, uintptr_t address, void *to,
                                     size_t size_bytes) {
    unsigned char *out = to;
    if (memory->cfi_bytes >= size_bytes &&
        address - memory->cfi_lo <= memory->cfi_bytes - size_bytes) {
        if (size_bytes == 8)
            __builtin_memcpy(to, (const void *)address, 8); /* one load */
        else if (size_bytes == 4)
            __builtin_memcpy(to, (const void *)address, 4);
        else
            pep_copy(to, (const void *)address, size_bytes);
        return memory->loads-- > 0;
    }
    while (size_bytes > 0) {
        uintptr_t line = address & ~(uintptr_t)(PEP_UNWIND_LINE_BYTES - 1);
        size_t offset = address - line;
        size_t count = PEP_UNWIND_LINE_BYTES - offset;
        if (count > size_bytes)
            count = size_bytes;
        if (memory->loads-- <= 0)
            return false;
        const unsigned char *bytes = line_of(memory, line);
        if (bytes == NULL)
            return false;
        pep_copy(out, bytes + offset, count);
        out += count;
        address += count;
        size_bytes -= count;
    }
    return true;
}
