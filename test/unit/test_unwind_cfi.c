/* The short way to a rule says what libunwind says, for every function of large objects, or leaves
 * it to libunwind. And it survives whatever bytes it meets. */
#include <elf.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/modules_scan.h"
#include "sampler/unwind_cfi.h"
#include "sampler/unwind_learn.h"

#define PAGE 4096ul
#define SPAN_MAX (1ul << 30)
#define FUNCTIONS_MAX 12000 /* of one object; of larger ones every n-th */
#define DAMAGES 50000

struct object {
    struct pep_scan_object scan;
    char *base;
    size_t bytes;
};

struct tally {
    uint64_t asked, plain, different;
    uint64_t known; /* the teacher has a plain rule */
    bool is_damaged;
};

static struct pep_unwind_memory memory;
static struct pep_learner learner;

/* As the loader would, but for relocations: call frame information needs none. */
static bool map_object(const char *path, struct object *object) {
    Elf64_Ehdr head;
    Elf64_Phdr phdrs[64];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    assert_int_equal(pread(fd, &head, sizeof(head), 0), sizeof(head));
    size_t size = head.e_phnum * sizeof(phdrs[0]);
    assert_true(head.e_phnum <= 64);
    assert_int_equal(pread(fd, phdrs, size, (off_t)head.e_phoff), size);
    uintptr_t low = UINTPTR_MAX, high = 0;
    for (int i = 0; i < head.e_phnum; i++) {
        if (phdrs[i].p_type != PT_LOAD)
            continue;
        low = phdrs[i].p_vaddr < low ? phdrs[i].p_vaddr & ~(PAGE - 1) : low;
        high = phdrs[i].p_vaddr + phdrs[i].p_memsz;
    }
    object->bytes = high - low;
    assert_true(object->bytes < SPAN_MAX);
    object->base = mmap(NULL, object->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(object->base, MAP_FAILED);
    for (int i = 0; i < head.e_phnum; i++) {
        uintptr_t before = phdrs[i].p_vaddr & (PAGE - 1);
        if (phdrs[i].p_type == PT_LOAD)
            assert_ptr_not_equal(mmap(object->base + (phdrs[i].p_vaddr - before - low),
                                      phdrs[i].p_filesz + before, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_FIXED, fd,
                                      (off_t)(phdrs[i].p_offset - before)),
                                 MAP_FAILED);
    }
    close(fd);
    return pep_scan_headers((uintptr_t)object->base, &object->scan) &&
           object->scan.module.eh_frame_hdr != 0;
}

static void unmap_object(struct object *object) {
    munmap(object->base, object->bytes);
}

static struct pep_rule ask_teacher(const struct pep_module *module, uintptr_t lookup) {
    pep_unwind_memory_begin(&memory, 0, 0);
    pep_learner_begin(&learner, &memory);
    return pep_learner_learn(&learner, module, lookup);
}

static bool ask_short(const struct pep_module *module, uintptr_t lookup,
                      struct pep_cfi_found *found) {
    pep_unwind_memory_begin(&memory, 0, 0);
    return pep_cfi_find(&memory, module, lookup, found);
}

/* What libunwind does not understand in damaged bytes may be what is not looked at here. */
static void compare(const struct pep_module *module, uintptr_t lookup, struct tally *tally) {
    struct pep_cfi_found found;
    struct pep_rule truth = ask_teacher(module, lookup);
    tally->asked++;
    tally->known += truth.kind == PEP_RULE_SP || truth.kind == PEP_RULE_BP;
    if (!ask_short(module, lookup, &found))
        return;
    tally->plain++;
    if ((tally->is_damaged && truth.kind == PEP_RULE_BLIND) ||
        memcmp(&truth, &found.rule, sizeof(truth)) == 0)
        return;
    if (tally->different++ < 10)
        print_message("%s+%#lx: kind %d %d, cfa %ld %ld, bp kind %d %d, bp %ld %ld\n", module->path,
                      lookup - module->start, truth.kind, found.rule.kind, (long)truth.cfa,
                      (long)found.rule.cfa, truth.bp_kind, found.rule.bp_kind, (long)truth.bp,
                      (long)found.rule.bp);
}

/* The first bytes of a function, where rows are dense, the last ones, and some in between. */
static void compare_function(const struct pep_module *module, uintptr_t start, uintptr_t limit,
                             struct tally *tally) {
    static const uintptr_t ends[] = {0, 1, 2, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 25, 30};
    uintptr_t bytes = limit - start;
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        if (ends[i] >= bytes)
            break;
        compare(module, start + ends[i], tally);
        compare(module, limit - 1 - ends[i], tally);
    }
    for (uintptr_t i = 1; i < 8; i++)
        compare(module, start + bytes * i / 8, tally);
}

/* Functions as the search table has them: pairs of (function, FDE). */
static void compare_object(const char *path, bool is_direct) {
    struct object object;
    struct tally tally = {0};
    if (!map_object(path, &object)) {
        print_message("%s: not here\n", path);
        return;
    }
    struct pep_module *module = &object.scan.module;
    module->id = 7;
    module->path = path;
    if (!is_direct)
        module->cfi_start = module->cfi_limit = 0;
    const int32_t *pairs = (const int32_t *)(module->eh_frame_hdr + 12);
    uint32_t count = ((const uint32_t *)module->eh_frame_hdr)[2], step = count / FUNCTIONS_MAX + 1;
    for (uint32_t i = 0; i + 1 < count; i += step) {
        uintptr_t start = module->eh_frame_hdr + (uintptr_t)(intptr_t)pairs[i * 2ul];
        uintptr_t limit = module->eh_frame_hdr + (uintptr_t)(intptr_t)pairs[i * 2ul + 2];
        if (limit > start)
            compare_function(module, start, limit, &tally);
    }
    print_message(
        "%s: %u functions, %lu addresses, %lu with a plain rule, %lu told, %lu otherwise\n", path,
        count, tally.asked, tally.known, tally.plain, tally.different);
    assert_int_equal(tally.different, 0);
    assert_true(tally.plain > tally.known / 100 * 99);
    unmap_object(&object);
}

static void c_libraries(void **state) {
    (void)state;
    compare_object("/lib/x86_64-linux-gnu/libc.so.6", true);
    compare_object("/lib/x86_64-linux-gnu/libc.so.6", false);
    compare_object("/lib64/ld-linux-x86-64.so.2", true);
}

static void cxx_libraries(void **state) {
    (void)state;
    compare_object("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", true);
}

static void programs(void **state) {
    (void)state;
    compare_object("/usr/bin/python3", true);
    compare_object("/usr/lib/gcc/x86_64-linux-gnu/12/cc1", true);
    compare_object("/usr/lib/chromium/chromium", true);
}

static void nothing_is_said_of_what_is_not_there(void **state) {
    (void)state;
    struct object object;
    struct pep_cfi_found found;
    assert_true(map_object("/lib/x86_64-linux-gnu/libc.so.6", &object));
    struct pep_module *module = &object.scan.module;
    assert_false(ask_short(module, module->start, &found)); /* before the first function */
    assert_false(ask_short(module, module->start - 1, &found));
    struct pep_module none = *module;
    none.eh_frame_hdr = 0;
    assert_false(ask_short(&none, module->exec_start + 0x1000, &found));
    none = *module;
    none.eh_frame_hdr_bytes = 8;
    assert_false(ask_short(&none, module->exec_start + 0x1000, &found));
    pep_unwind_memory_begin(&memory, 0, 0);
    memory.peeks = 0;
    none = *module;
    none.cfi_start = none.cfi_limit = 0;
    assert_false(pep_cfi_find(&memory, &none, module->exec_start + 0x1000, &found));
    unmap_object(&object);
}

/* Bytes anywhere in the information are changed; every answer is an answer, and where libunwind
 * understands them too it is the same. */
static void damaged_information_is_survived(void **state) {
    (void)state;
    struct object object;
    struct tally tally = {.is_damaged = true};
    uint64_t random = 88172645463325252u;
    assert_true(map_object("/usr/lib/x86_64-linux-gnu/libc.so.6", &object));
    struct pep_module *module = &object.scan.module;
    module->path = "libc.so.6, damaged";
    const int32_t *pairs = (const int32_t *)(module->eh_frame_hdr + 12);
    uint32_t count = ((const uint32_t *)module->eh_frame_hdr)[2];
    for (int i = 0; i < DAMAGES; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uint32_t which = (uint32_t)(random >> 32) % count;
        uintptr_t lookup =
            module->eh_frame_hdr + (uintptr_t)(intptr_t)pairs[which * 2ul] + (random >> 20 & 15);
        uint8_t *fde = (uint8_t *)module->eh_frame_hdr + pairs[which * 2ul + 1];
        uint8_t *hit = fde + (random >> 8 & 31);
        if (random % 4 == 0) /* its CIE */
            hit = fde + 4 - *(const uint32_t *)(const void *)(fde + 4) + (random >> 8 & 15);
        uint8_t before = *hit;
        *hit = (uint8_t)(random >> 16);
        compare(module, lookup, &tally);
        *hit = before;
    }
    print_message("%d damages, %lu told, %lu otherwise\n", DAMAGES, tally.plain, tally.different);
    assert_int_equal(tally.different, 0);
    unmap_object(&object);
}

static int setup(void **state) {
    (void)state;
    pep_learner_init();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(c_libraries),
        cmocka_unit_test(cxx_libraries),
        cmocka_unit_test(programs),
        cmocka_unit_test(nothing_is_said_of_what_is_not_there),
        cmocka_unit_test(damaged_information_is_survived),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
