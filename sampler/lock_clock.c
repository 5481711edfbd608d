/*
 * CLOCK_MONOTONIC as the kernel gives it, at the price of a few loads.
 *
 * Model:   the function in the vDSO is looked up once (vdso(7)); where there is none, a system
 *          call. Not libc's clock_gettime: a library that shifts time (libfaketime) stands before
 *          it, and waits for locks of its own.
 * Writers: pep_lock_clock_init.  [normal]
 * Readers: the hooks.
 * Memory:  a pointer.
 * When full: -
 */
#include <elf.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>

#include "sampler/lock_internal.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

static int (*read_clock)(clockid_t clock, struct timespec *to);

struct image {
    const char *base; /* what addresses in it are relative to */
    const Elf64_Sym *symbols;
    const char *names;
    const uint32_t *hash; /* buckets, chains */
};

static bool read_dynamic(struct image *image, const Elf64_Dyn *dynamic) {
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        const void *at = image->base + dynamic->d_un.d_ptr;
        if (dynamic->d_tag == DT_SYMTAB)
            image->symbols = at;
        else if (dynamic->d_tag == DT_STRTAB)
            image->names = at;
        else if (dynamic->d_tag == DT_HASH)
            image->hash = at;
    }
    return image->symbols != NULL && image->names != NULL && image->hash != NULL;
}

static bool read_image(struct image *image, const char *start) {
    const Elf64_Ehdr *header = (const void *)start;
    const Elf64_Phdr *segment = (const void *)(start + header->e_phoff);
    const Elf64_Dyn *dynamic = NULL;
    image->base = NULL;
    for (int i = 0; i < header->e_phnum; i++, segment++) {
        if (segment->p_type == PT_LOAD && image->base == NULL)
            image->base = start + segment->p_offset - segment->p_vaddr;
        else if (segment->p_type == PT_DYNAMIC)
            dynamic = (const void *)(start + segment->p_offset);
    }
    return image->base != NULL && dynamic != NULL && read_dynamic(image, dynamic);
}

void pep_lock_clock_init(void) {
    const char *start = (const char *)getauxval(AT_SYSINFO_EHDR);
    struct image image = {.hash = NULL};
    if (start == NULL || !read_image(&image, start))
        return;
    for (uint32_t i = 0; i < image.hash[1]; i++) {
        const Elf64_Sym *symbol = &image.symbols[i];
        if (symbol->st_shndx != SHN_UNDEF &&
            strcmp(image.names + symbol->st_name, "__vdso_clock_gettime") == 0)
            pep_store_release((const void **)(void *)&read_clock,
                              (const void *)(image.base + symbol->st_value));
    }
}

PEP_HOOK_SAFE uint64_t pep_lock_now(void) {
    struct timespec now;
    if (pep_unlikely(read_clock == NULL || read_clock(CLOCK_MONOTONIC, &now) != 0))
        return pep_os_clock_ns(CLOCK_MONOTONIC);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
