/* LDFLAGS: -Wl,--wrap=pep_os_open -Wl,--wrap=pep_os_read */
/* The module table: what it lists, what it forgets, and readers that look while it changes. */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sampler/modules.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

#define PAGE 4096

/* -- the seam: what the table reads instead of /proc ---------------------------------------- */

static int open_error;        /* returned by every open of maps */
static const char *fake_maps; /* read instead */
static size_t fake_at;
static int read_error_after = -1; /* reads that succeed before one fails */
static void (*during_read)(void);

int __real_pep_os_open(const char *path, int flags, int mode);
int __wrap_pep_os_open(const char *path, int flags, int mode);
long __real_pep_os_read(int fd, void *to, size_t size_bytes);
long __wrap_pep_os_read(int fd, void *to, size_t size_bytes);

int __wrap_pep_os_open(const char *path, int flags, int mode) {
    fake_at = 0;
    return open_error != 0 ? open_error : __real_pep_os_open(path, flags, mode);
}

long __wrap_pep_os_read(int fd, void *to, size_t size_bytes) {
    void (*hook)(void) = during_read;
    during_read = NULL;
    if (hook != NULL)
        hook();
    if (read_error_after >= 0 && read_error_after-- == 0)
        return -EIO;
    if (fake_maps == NULL)
        return __real_pep_os_read(fd, to, size_bytes);
    size_t left = strlen(fake_maps + fake_at);
    /* Short and odd, so that lines are cut at every place. */
    size_t count = size_bytes < 4099 ? size_bytes : 4099;
    count = left < count ? left : count;
    memcpy(to, fake_maps + fake_at, count);
    fake_at += count;
    return (long)count;
}

static int reset(void **state) {
    (void)state;
    open_error = 0;
    fake_maps = NULL;
    read_error_after = -1;
    during_read = NULL;
    return pep_modules_refresh();
}

/* -- what is listed ---------------------------------------------------------------------- */

static int compare_with_loader(struct dl_phdr_info *info, size_t size, void *count) {
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
            continue;
        uintptr_t first = info->dlpi_addr + p->p_vaddr;
        const struct pep_module *m = pep_modules_find(first);
        assert_non_null(m);
        assert_ptr_equal(m, pep_modules_find(first + p->p_memsz - 1));
        assert_int_equal(m->bias, info->dlpi_addr);
        assert_int_equal(m->is_unloaded, 0);
        assert_int_equal(m->exec_file_offset, p->p_offset & ~(uint64_t)(PAGE - 1));
        assert_true(m->exec_start <= first && m->limit >= first + p->p_memsz);
        assert_ptr_equal(pep_modules_get(m->id), m);
        for (int k = 0; k < info->dlpi_phnum; k++)
            if (info->dlpi_phdr[k].p_type == PT_GNU_EH_FRAME)
                assert_int_equal(m->eh_frame_hdr, info->dlpi_addr + info->dlpi_phdr[k].p_vaddr);
        ++*(int *)count;
    }
    return 0;
}

static void agrees_with_the_loader_about_every_object(void **state) {
    (void)state;
    int count = 0;
    dl_iterate_phdr(compare_with_loader, &count);
    assert_true(count >= 4); /* the program, libc, the loader, vDSO */
}

static void knows_who_is_who(void **state) {
    (void)state;
    const struct pep_module *program = pep_modules_find((uintptr_t)&knows_who_is_who);
    assert_true(program->is_main);
    assert_false(program->is_own); /* as a test we are the program, and want to be seen */
    assert_false(program->is_libc);
    char self[1024] = "";
    assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
    assert_string_equal(program->path, self);
    assert_true(program->build_id_bytes == 20);
    assert_true(pep_modules_find((uintptr_t)dlsym(RTLD_DEFAULT, "getpid"))->is_libc);
    const struct pep_module *vdso = pep_modules_find(getauxval(AT_SYSINFO_EHDR));
    assert_true(vdso->is_vdso);
    assert_string_equal(vdso->path, "[vdso]");
    assert_true(vdso->eh_frame_hdr != 0);
    uintptr_t start = 1, limit = 2;
    pep_modules_own_range(&start, &limit);
    assert_true(start == 0 && limit == 0);
}

static void finds_nothing_where_nothing_is(void **state) {
    (void)state;
    assert_null(pep_modules_find(0));
    assert_null(pep_modules_find(UINTPTR_MAX));
    assert_null(pep_modules_find((uintptr_t)&state));
    assert_false(pep_modules_is_executable((uintptr_t)&state));
    assert_null(pep_modules_get(0));
    assert_null(pep_modules_get(pep_modules_count() + 1));
}

static void code_without_an_object_is_executable_only(void **state) {
    (void)state;
    char *code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t at = (uintptr_t)code;
    pep_modules_note_unknown();
    assert_true(pep_modules_is_stale());
    assert_int_equal(pep_modules_refresh(), 0);
    assert_false(pep_modules_is_stale());
    assert_null(pep_modules_find(at));
    assert_true(pep_modules_is_executable(at + 2 * PAGE - 1));
    munmap(code, 2 * PAGE);
    assert_int_equal(pep_modules_refresh(), 0);
    assert_false(pep_modules_is_executable(at));
}

static void an_object_mapped_as_data_is_no_object(void **state) {
    (void)state;
    const struct pep_module *libc = pep_modules_find((uintptr_t)dlsym(RTLD_DEFAULT, "getpid"));
    int fd = open(libc->path, O_RDONLY);
    assert_true(fd >= 0);
    void *data = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    uint32_t before = pep_modules_count();
    assert_int_equal(pep_modules_refresh(), 0);
    assert_int_equal(pep_modules_count(), before);
    assert_null(pep_modules_find((uintptr_t)data + 0x30000));
    munmap(data, 1 << 20);
}

/* -- coming and going -------------------------------------------------------------------- */

/* Two libraries of the same shape and different code, so that one can take the other's place. */
static char library[64], other[64], place[64];

static void build_library(const char *path, int value) {
    char command[512];
    snprintf(command, sizeof(command),
             "echo 'int helper(int (*f)(void)) { volatile char room[%d]; room[0] = 1; "
             "return f() + room[0]; }' | cc -O1 -shared -fPIC -x c -o %s -",
             value, path);
    assert_int_equal(system(command), 0);
}

static void copy_to_place(const char *from) {
    char command[512];
    snprintf(command, sizeof(command), "rm -f %s && cp %s %s", place, from, place);
    assert_int_equal(system(command), 0);
}

static int build_libraries(void **state) {
    (void)state;
    static char folder[] = "/tmp/pep_modulesXXXXXX";
    assert_non_null(mkdtemp(folder));
    snprintf(library, sizeof(library), "%s/a.so", folder);
    snprintf(other, sizeof(other), "%s/b.so", folder);
    snprintf(place, sizeof(place), "%s/place.so", folder);
    build_library(library, 40);
    build_library(other, 4000);
    return 0;
}

static int remove_libraries(void **state) {
    (void)state;
    unlink(library);
    unlink(other);
    unlink(place);
    *strrchr(place, '/') = '\0';
    return rmdir(place);
}

static const struct pep_module *open_and_find(void **handle) {
    *handle = dlopen(place, RTLD_NOW);
    assert_non_null(*handle);
    assert_int_equal(pep_modules_refresh(), 0);
    const struct pep_module *m = pep_modules_find((uintptr_t)dlsym(*handle, "helper"));
    assert_non_null(m);
    assert_int_equal(m->is_unloaded, 0);
    assert_false(pep_modules_is_gone(m->id));
    return m;
}

static void an_unloaded_object_stays_listed_and_comes_back(void **state) {
    (void)state;
    void *handle;
    copy_to_place(library);
    const struct pep_module *first = open_and_find(&handle);
    uintptr_t start = first->start;
    uint32_t generation = pep_modules_generation();
    dlclose(handle);
    pep_modules_closed();
    assert_null(pep_modules_find(start + PAGE));
    assert_int_equal(first->is_unloaded, 1);
    assert_true(pep_modules_is_gone(first->id));
    assert_true(pep_modules_generation() > generation);
    assert_string_equal(first->path, place);
    const struct pep_module *again = open_and_find(&handle);
    if (again->start == start)
        assert_ptr_equal(again, first); /* the same file at the same place */
    dlclose(handle);
    pep_modules_closed();
}

static void another_file_at_the_same_place_is_another_object(void **state) {
    (void)state;
    void *handle;
    copy_to_place(library);
    const struct pep_module *first = open_and_find(&handle);
    dlclose(handle);
    copy_to_place(other); /* nobody told the table of the closing */
    const struct pep_module *second = open_and_find(&handle);
    assert_ptr_not_equal(first, second);
    assert_int_equal(first->is_unloaded, 1);
    assert_string_equal(second->path, place);
    assert_true(first->build_id_bytes == 20 && second->build_id_bytes == 20);
    assert_memory_not_equal(first->build_id, second->build_id, 20);
    dlclose(handle);
    pep_modules_closed();
}

static void a_deleted_file_stays_the_same_object(void **state) {
    (void)state;
    void *handle;
    copy_to_place(library);
    const struct pep_module *before = open_and_find(&handle);
    unlink(place);
    assert_int_equal(pep_modules_refresh(), 0);
    const struct pep_module *after = pep_modules_find((uintptr_t)dlsym(handle, "helper"));
    assert_ptr_equal(before, after);
    assert_string_equal(after->path, place);
    dlclose(handle);
    pep_modules_closed();
}

static int is_over;
static uint64_t look_ups;

static void *look_up_for_ever(void *argument) {
    uintptr_t own = (uintptr_t)&look_up_for_ever, libc = (uintptr_t)dlsym(RTLD_DEFAULT, "getpid");
    (void)argument;
    while (!pep_load_relaxed(&is_over)) {
        const struct pep_module *a = pep_modules_find(own), *b = pep_modules_find(libc);
        if (a == NULL || !a->is_main || b == NULL || !b->is_libc)
            return (void *)1;
        pep_add_relaxed(&look_ups, 1);
    }
    return NULL;
}

static void *refresh_for_ever(void *argument) {
    (void)argument;
    while (!pep_load_relaxed(&is_over))
        if (pep_modules_refresh() < 0)
            return (void *)1;
    return NULL;
}

static void readers_never_miss_while_libraries_come_and_go(void **state) {
    (void)state;
    pthread_t threads[3];
    void *result;
    uint32_t before = pep_modules_count();
    copy_to_place(library);
    pep_store_relaxed(&is_over, 0);
    pthread_create(&threads[0], NULL, look_up_for_ever, NULL);
    pthread_create(&threads[1], NULL, look_up_for_ever, NULL);
    pthread_create(&threads[2], NULL, refresh_for_ever, NULL);
    for (int i = 0; i < 500; i++) {
        void *handle = dlopen(place, RTLD_NOW);
        assert_non_null(handle);
        assert_int_equal(pep_modules_refresh(), 0);
        dlclose(handle);
        pep_modules_closed();
    }
    while (pep_load_relaxed(&look_ups) == 0) /* none of them had a processor */
        sched_yield();
    pep_store_relaxed(&is_over, 1);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    /* One number a place; the loader may choose a few places while threads make stacks. */
    assert_true(pep_modules_count() - before < 100);
}

/* -- trouble ----------------------------------------------------------------------------- */

static void without_proc_the_loader_is_asked(void **state) {
    (void)state;
    open_error = -ENOENT;
    const struct pep_module *before = pep_modules_find((uintptr_t)&reset);
    assert_int_equal(pep_modules_refresh(), 0);
    assert_ptr_equal(pep_modules_find((uintptr_t)&reset), before);
    int count = 0;
    dl_iterate_phdr(compare_with_loader, &count);
    assert_true(count >= 4);
    assert_true(pep_modules_find(getauxval(AT_SYSINFO_EHDR))->is_vdso);
    assert_true(pep_modules_find((uintptr_t)&reset)->is_main);
}

/* What the first thread's maps say once it has ended and only others go on. */
static void empty_maps_are_no_maps(void **state) {
    (void)state;
    const struct pep_module *before = pep_modules_find((uintptr_t)&reset);
    fake_maps = "";
    assert_int_equal(pep_modules_refresh(), 0);
    assert_ptr_equal(pep_modules_find((uintptr_t)&reset), before);
}

static void a_read_that_fails_leaves_what_was_known(void **state) {
    (void)state;
    const struct pep_module *before = pep_modules_find((uintptr_t)&reset);
    uint32_t generation = pep_modules_generation();
    read_error_after = 1;
    assert_int_equal(pep_modules_refresh(), -EIO);
    assert_ptr_equal(pep_modules_find((uintptr_t)&reset), before);
    assert_int_equal(before->is_unloaded, 0);
    assert_int_equal(pep_modules_generation(), generation);
}

static void lines_that_are_no_lines_are_passed_over(void **state) {
    (void)state;
    fake_maps = "garbage\n\n-\n1000\n5000-4000 r-xp 0 0:0 0 /backwards\n"
                "70000000-70001000 r--p 00000000 00:00 7 /not/mapped\n"
                "70001000-70002000 r-xp 00001000 00:00 7 /not/mapped\n";
    assert_int_equal(pep_modules_refresh(), 0);
    assert_null(pep_modules_find(0x70001800));
    assert_true(pep_modules_is_executable(0x70001800));
    assert_false(pep_modules_is_executable(0x4800));
}

static void child_refreshes_after_a_fork_in_the_middle(void) {
    if (fork() == 0) {
        pep_modules_after_fork();
        _exit(pep_modules_refresh() == 0 ? 7 : 8);
    }
}

static void a_forked_child_does_not_wait_for_a_lost_lock(void **state) {
    (void)state;
    int status;
    during_read = child_refreshes_after_a_fork_in_the_middle;
    assert_int_equal(pep_modules_refresh(), 0);
    assert_true(wait(&status) > 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
}

static void make_object(char *at) {
    Elf64_Ehdr *head = (Elf64_Ehdr *)at;
    Elf64_Phdr *load = (Elf64_Phdr *)(head + 1);
    memcpy(head->e_ident, ELFMAG "\x02\x01\x01", 7);
    head->e_type = ET_DYN;
    head->e_machine = EM_X86_64;
    head->e_phoff = sizeof(*head);
    head->e_phentsize = sizeof(*load);
    head->e_phnum = 1;
    *load = (Elf64_Phdr){.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_memsz = PAGE};
}

static void a_full_table_is_counted(void **state) {
    (void)state;
    size_t count = PEP_MODULES_MAX + 10;
    char *objects =
        mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *maps = malloc(count * 80), *end = maps;
    for (size_t i = 0; i < count; i++) {
        uintptr_t at = (uintptr_t)objects + i * PAGE;
        make_object(objects + i * PAGE);
        end +=
            sprintf(end, "%lx-%lx r-xp 00000000 08:01 %zu   /fake/%zu\n", at, at + PAGE, i + 1, i);
    }
    fake_maps = maps;
    uint64_t before = PEP_COUNTED(modules_full);
    assert_int_equal(pep_modules_refresh(), 0);
    assert_true(PEP_COUNTED(modules_full) - before >= 10);
    assert_int_equal(pep_modules_count(), PEP_MODULES_MAX);
    assert_non_null(pep_modules_find((uintptr_t)objects));
    assert_null(pep_modules_find((uintptr_t)objects + (count - 1) * PAGE));
    assert_true(pep_modules_is_executable((uintptr_t)objects + (count - 1) * PAGE));
    fake_maps = NULL;
    free(maps);
    munmap(objects, count * PAGE);
}

static void before_the_first_refresh_there_is_nothing(void **state) {
    (void)state;
    assert_false(pep_modules_is_armed());
    assert_null(pep_modules_find((uintptr_t)&reset));
    assert_false(pep_modules_is_executable((uintptr_t)&reset));
    assert_int_equal(pep_modules_count(), 0);
    pep_modules_closed();
    assert_false(pep_modules_is_armed());
    assert_int_equal(pep_modules_refresh(), 0);
    assert_true(pep_modules_is_armed());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_the_first_refresh_there_is_nothing),
        cmocka_unit_test_setup(agrees_with_the_loader_about_every_object, reset),
        cmocka_unit_test_setup(knows_who_is_who, reset),
        cmocka_unit_test_setup(finds_nothing_where_nothing_is, reset),
        cmocka_unit_test_setup(code_without_an_object_is_executable_only, reset),
        cmocka_unit_test_setup(an_object_mapped_as_data_is_no_object, reset),
        cmocka_unit_test_setup(an_unloaded_object_stays_listed_and_comes_back, reset),
        cmocka_unit_test_setup(another_file_at_the_same_place_is_another_object, reset),
        cmocka_unit_test_setup(a_deleted_file_stays_the_same_object, reset),
        cmocka_unit_test_setup(readers_never_miss_while_libraries_come_and_go, reset),
        cmocka_unit_test_setup(without_proc_the_loader_is_asked, reset),
        cmocka_unit_test_setup(empty_maps_are_no_maps, reset),
        cmocka_unit_test_setup(a_read_that_fails_leaves_what_was_known, reset),
        cmocka_unit_test_setup(lines_that_are_no_lines_are_passed_over, reset),
        cmocka_unit_test_setup(a_forked_child_does_not_wait_for_a_lost_lock, reset),
        cmocka_unit_test_setup(a_full_table_is_counted, reset),
    };
    return cmocka_run_group_tests(tests, build_libraries, remove_libraries);
}
