#include "sampler/modules_scan.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>

#include "sampler/rt/os.h"

#define PAGE ((uintptr_t)4096)
#define PAGE_DOWN(a) ((a) & ~(PAGE - 1))
#define PHDRS_MAX 64
#define NOTE_MAX 1024
#define PATH_BYTES 4200
#define READ_BYTES (PEP_SCAN_BUFFER_BYTES - 3 * PATH_BYTES) /* the paths stand behind */
#define START_BYTES 1536 /* of an object: its headers, and its notes in most */
#define GO_BUILD_ID 4    /* type of the note that Go's linker writes */

struct line {
    uintptr_t start, limit;
    uint64_t offset, inode;
    bool is_readable, is_executable;
    const char *path;
};

/* FNV-1a over words would be weak against shifts; this mixes each word fully. */
static uint64_t mix(uint64_t hash, const void *bytes, size_t count) {
    const unsigned char *p = bytes;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ p[i]) * 0x100000001b3ULL;
    return hash ^ (hash >> 29);
}

static bool peek_all(void *to, uintptr_t from, size_t count) {
    return pep_os_peek(to, from, count) == (long)count;
}

/* The first bytes of an object: each further read is a system call or two. */
struct start {
    uintptr_t address;
    size_t count;
    unsigned char bytes[START_BYTES];
};

/* What is not among the first bytes is read where it is. */
static bool peek_from(const struct start *start, void *to, uintptr_t from, size_t count) {
    if (start == NULL || from < start->address || count > start->count ||
        from - start->address > start->count - count)
        return peek_all(to, from, count);
    memcpy(to, start->bytes + (from - start->address), count);
    return true;
}

/* Notes are (namesz, descsz, type, name, desc), each padded to 4 bytes. */
static void read_notes(const struct start *start, uintptr_t at, size_t size,
                       struct pep_module *module) {
    unsigned char notes[NOTE_MAX];
    if (size > sizeof(notes))
        size = sizeof(notes);
    if (!peek_from(start, notes, at, size))
        return;
    size_t i = 0;
    while (i + sizeof(Elf64_Nhdr) <= size) {
        Elf64_Nhdr head;
        memcpy(&head, notes + i, sizeof(head));
        if (head.n_namesz > size || head.n_descsz > size)
            return;
        size_t name = i + sizeof(head);
        size_t desc = name + ((head.n_namesz + 3) & ~3U);
        size_t next = desc + ((head.n_descsz + 3) & ~3U);
        if (desc + head.n_descsz > size)
            return;
        bool has_short_name = head.n_namesz == 4;
        if (has_short_name && head.n_type == GO_BUILD_ID && memcmp(notes + name, "Go\0", 4) == 0)
            module->is_go = true;
        if (has_short_name && head.n_type == NT_GNU_BUILD_ID && module->build_id_bytes == 0 &&
            memcmp(notes + name, "GNU", 4) == 0) {
            size_t count = head.n_descsz < PEP_BUILD_ID_MAX ? head.n_descsz : PEP_BUILD_ID_MAX;
            memcpy(module->build_id, notes + desc, count);
            module->build_id_bytes = (uint8_t)count;
        }
        i = next;
    }
}

/* The first and the last PT_LOAD give the span, those with PF_X the code. */
static bool read_loads(const Elf64_Phdr *phdrs, size_t count, struct pep_scan_object *object) {
    struct pep_module *m = &object->module;
    bool has_load = false, has_exec = false;
    for (size_t i = 0; i < count; i++) {
        const Elf64_Phdr *p = &phdrs[i];
        if (p->p_type != PT_LOAD)
            continue;
        if (!has_load)
            m->bias = m->start - PAGE_DOWN(p->p_vaddr);
        has_load = true;
        uintptr_t start = m->bias + PAGE_DOWN(p->p_vaddr);
        uintptr_t limit = m->bias + p->p_vaddr + p->p_memsz;
        if (limit < start)
            return false;
        if (limit > object->span_limit)
            object->span_limit = limit;
        if (!(p->p_flags & PF_X))
            continue;
        if (!has_exec || start < m->exec_start) {
            m->exec_start = start;
            m->exec_file_offset = PAGE_DOWN(p->p_offset);
        }
        if (limit > m->limit)
            m->limit = limit;
        has_exec = true;
    }
    return has_exec;
}

static void find_cfi_segment(const Elf64_Phdr *phdrs, size_t count, struct pep_module *m) {
    for (size_t i = 0; i < count && m->eh_frame_hdr != 0; i++) {
        uintptr_t start = m->bias + phdrs[i].p_vaddr;
        if (phdrs[i].p_type == PT_LOAD && m->eh_frame_hdr - start < phdrs[i].p_filesz) {
            m->cfi_start = start;
            m->cfi_limit = start + phdrs[i].p_filesz;
        }
    }
}

static void read_phdrs(const struct start *start, const Elf64_Phdr *phdrs, size_t count,
                       struct pep_scan_object *object) {
    struct pep_module *m = &object->module;
    object->fingerprint = mix(0xcbf29ce484222325ULL, phdrs, count * sizeof(*phdrs));
    for (size_t i = 0; i < count; i++) {
        const Elf64_Phdr *p = &phdrs[i];
        if (p->p_type == PT_NOTE)
            read_notes(start, m->bias + p->p_vaddr, p->p_memsz, m);
        if (p->p_type == PT_GNU_EH_FRAME) {
            m->eh_frame_hdr = m->bias + p->p_vaddr;
            m->eh_frame_hdr_bytes = p->p_memsz;
        }
    }
    find_cfi_segment(phdrs, count, m);
    object->fingerprint = mix(object->fingerprint, m->build_id, m->build_id_bytes);
    unsigned char head[NOTE_MAX];
    size_t size = m->eh_frame_hdr_bytes < sizeof(head) ? m->eh_frame_hdr_bytes : sizeof(head);
    if (m->eh_frame_hdr != 0 && peek_all(head, m->eh_frame_hdr, size))
        object->fingerprint = mix(object->fingerprint, head, size);
}

uint64_t pep_scan_head(uintptr_t start) {
    Elf64_Ehdr head;
    return peek_all(&head, start, sizeof(head)) ? mix(1, &head, sizeof(head)) : 0;
}

bool pep_scan_headers(uintptr_t address, struct pep_scan_object *object) {
    Elf64_Ehdr head;
    Elf64_Phdr phdrs[PHDRS_MAX];
    struct start start = {.address = address};
    memset(object, 0, sizeof(*object));
    object->module.start = address;
    long count = pep_os_peek(start.bytes, address, sizeof(start.bytes));
    start.count = count > 0 ? (size_t)count : 0;
    if (!peek_from(&start, &head, address, sizeof(head)) ||
        memcmp(head.e_ident, ELFMAG, SELFMAG) != 0)
        return false;
    if (head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_machine != EM_X86_64 ||
        (head.e_type != ET_DYN && head.e_type != ET_EXEC) || head.e_phentsize != sizeof(phdrs[0]) ||
        head.e_phnum > PHDRS_MAX || head.e_phoff > PAGE)
        return false;
    if (!peek_from(&start, phdrs, address + head.e_phoff, head.e_phnum * sizeof(phdrs[0])))
        return false;
    if (!read_loads(phdrs, head.e_phnum, object))
        return false;
    object->head = mix(1, &head, sizeof(head));
    read_phdrs(&start, phdrs, head.e_phnum, object);
    return true;
}

static void classify(struct pep_module *m, uintptr_t span_limit) {
    uintptr_t phdrs = getauxval(AT_PHDR);
    uintptr_t here = (uintptr_t)&pep_scan_headers;
    m->is_main = phdrs >= m->start && phdrs < span_limit;
    /* In a test we are part of the program, whose frames are to be seen. */
    m->is_own = !m->is_main && here >= m->exec_start && here < m->limit;
    m->is_vdso = strcmp(m->path, "[vdso]") == 0;
    const char *base = strrchr(m->path, '/');
    base = base != NULL ? base + 1 : m->path;
    m->is_libc = strncmp(base, "libc.so", 7) == 0 || strncmp(base, "libc-2.", 7) == 0 ||
                 strncmp(base, "ld-", 3) == 0;
    if (!m->is_main && !m->is_libc && !m->is_own)
        m->cfi_start = m->cfi_limit = 0;
}

static const char *hex(const char *p, uint64_t *value) {
    *value = 0;
    for (;; p++) {
        int digit = *p >= '0' && *p <= '9' ? *p - '0' : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10 : -1;
        if (digit < 0)
            return p;
        *value = *value << 4 | (uint64_t)digit;
    }
}

/* "start-limit rwxp offset major:minor inode      path" */
static bool parse_line(const char *p, struct line *line) {
    uint64_t a, b, ignored;
    p = hex(p, &a);
    if (*p++ != '-')
        return false;
    p = hex(p, &b);
    if (*p++ != ' ' || strlen(p) < 5)
        return false;
    line->start = a;
    line->limit = b;
    line->is_readable = p[0] == 'r';
    line->is_executable = p[2] == 'x';
    p = hex(p + 5, &line->offset);
    p = hex(p + (*p == ' '), &ignored);
    p = hex(p + (*p == ':'), &ignored);
    p += *p == ' ';
    for (line->inode = 0; *p >= '0' && *p <= '9'; p++)
        line->inode = line->inode * 10 + (uint64_t)(*p - '0');
    while (*p == ' ')
        p++;
    line->path = p;
    return line->limit > line->start;
}

/* The start of a file, which may be an object's: its headers are read when code of it comes by.
 * Most files that are mapped are data, such as locales. */
struct candidate {
    uintptr_t start; /* 0: none */
    uint64_t inode;
    char *path;
};

/* The object whose mappings are passing by, until a line lies beyond it. */
struct state {
    struct pep_scan_sink *sink;
    struct pep_scan_object object;
    bool is_open;
    int newest; /* of the candidates: data may be mapped between an object's start and its code */
    struct candidate candidates[2];
    char *path;
};

static void close_object(struct state *state) {
    if (state->is_open && state->object.has_code)
        state->sink->object(state->sink, &state->object);
    state->is_open = false;
}

static void note_candidate(struct state *state, const struct line *line) {
    bool is_file = line->inode != 0 && line->path[0] == '/';
    if (line->offset != 0 || !line->is_readable || !(is_file || strcmp(line->path, "[vdso]") == 0))
        return;
    if (state->is_open && state->object.has_code)
        return; /* a file mapped as data into the hole of an object */
    state->newest = !state->newest;
    struct candidate *candidate = &state->candidates[state->newest];
    candidate->start = line->start;
    candidate->inode = line->inode;
    size_t len = strlen(line->path);
    if (len >= PATH_BYTES)
        len = PATH_BYTES - 1;
    memcpy(candidate->path, line->path, len);
    candidate->path[len] = '\0';
}

/* The object that code at a line belongs to; a program whose code was moved to huge pages has
 * another inode there. */
static void open_object(struct state *state, const struct line *line) {
    struct candidate *last = &state->candidates[state->newest];
    struct candidate *before = &state->candidates[!state->newest];
    bool is_before = before->start != 0 && before->inode == line->inode;
    struct candidate *chosen = last->inode != line->inode && is_before ? before : last;
    struct pep_scan_object found;
    bool is_found = chosen->start != 0 && pep_scan_headers(chosen->start, &found) &&
                    line->start < found.span_limit;
    if (is_found) {
        state->object = found;
        state->object.inode = chosen->inode;
        char *swap = state->path;
        state->path = chosen->path;
        chosen->path = swap;
        state->object.module.path = state->path;
        classify(&state->object.module, found.span_limit);
        state->is_open = true;
    }
    last->start = before->start = 0;
}

static void take_line(struct state *state, const struct line *line) {
    if (state->is_open && line->start >= state->object.span_limit)
        close_object(state);
    note_candidate(state, line);
    if (!line->is_executable)
        return;
    if (!state->is_open || !state->object.has_code)
        open_object(state, line);
    struct pep_scan_object *o = &state->object;
    if (state->is_open && line->start >= o->module.start) {
        /* Code that was moved to huge pages has no file any more. */
        bool is_same = line->inode == o->inode && (line->inode != 0 || o->module.is_vdso);
        if (is_same || o->has_code || (o->module.is_main && line->inode == 0)) {
            o->has_code = true;
            return;
        }
    }
    state->sink->code(state->sink, line->start, line->limit);
}

static int read_maps(int fd, struct state *state) {
    char *buffer = state->sink->buffer;
    size_t used = 0, lines = 0;
    for (;;) {
        long r = pep_os_read(fd, buffer + used, READ_BYTES - 1 - used);
        if (r == -EINTR)
            continue;
        if (r < 0)
            return -EIO;
        if (r == 0)
            break;
        used += (size_t)r;
        size_t at = 0;
        for (char *end; (end = memchr(buffer + at, '\n', used - at)) != NULL;) {
            struct line line;
            *end = '\0';
            if (parse_line(buffer + at, &line))
                take_line(state, &line);
            at = (size_t)(end + 1 - buffer);
            lines++;
        }
        if (at == 0 && used >= READ_BYTES - 1)
            at = used;
        memmove(buffer, buffer + at, used - at);
        used -= at;
    }
    close_object(state);
    return lines > 0 ? 0 : -ENODATA;
}

int pep_scan_maps(struct pep_scan_sink *sink) {
    /* Not /proc/self: its maps are empty once the first thread has ended by itself. */
    int fd = pep_os_open("/proc/thread-self/maps", O_RDONLY, 0);
    if (fd < 0)
        fd = pep_os_open("/proc/self/maps", O_RDONLY, 0);
    if (fd < 0)
        return fd;
    char *paths = sink->buffer + READ_BYTES;
    struct state state = {
        .sink = sink,
        .path = paths,
        .candidates = {{.path = paths + PATH_BYTES}, {.path = paths + 2 * PATH_BYTES}}};
    int r = read_maps(fd, &state);
    pep_os_close(fd);
    return r;
}

/* Objects come in the order of loading: the one with the lowest address above the last is told,
 * so the pass is repeated for each. */
struct loader_pick {
    uintptr_t above;
    struct pep_scan_object best;
    const char *name;
    bool has_best;
};

static int pick_object(struct dl_phdr_info *info, size_t size, void *argument) {
    struct loader_pick *pick = argument;
    (void)size;
    struct pep_scan_object object = {0};
    uintptr_t low = 0;
    bool has_load = false;
    for (size_t i = 0; i < info->dlpi_phnum && !has_load; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD) {
            low = info->dlpi_addr + PAGE_DOWN(info->dlpi_phdr[i].p_vaddr);
            has_load = true;
        }
    if (!has_load || low <= pick->above || (pick->has_best && low >= pick->best.module.start))
        return 0;
    object.module.start = low;
    if (!read_loads(info->dlpi_phdr, info->dlpi_phnum, &object))
        return 0;
    read_phdrs(NULL, info->dlpi_phdr, info->dlpi_phnum, &object);
    pick->best = object;
    pick->name = info->dlpi_name;
    pick->has_best = true;
    return 0;
}

int pep_scan_loader(struct pep_scan_sink *sink) {
    struct loader_pick pick = {0};
    for (int count = 0; count < PEP_MODULES_MAX; count++) {
        pick.has_best = false;
        dl_iterate_phdr(pick_object, &pick);
        if (!pick.has_best)
            break;
        struct pep_module *m = &pick.best.module;
        const char *program = (const char *)getauxval(AT_EXECFN);
        m->path = pick.name;
        if (m->start == PAGE_DOWN(getauxval(AT_SYSINFO_EHDR)))
            m->path = "[vdso]";
        else if (pick.name == NULL || pick.name[0] == '\0')
            m->path = program != NULL ? program : "[program]";
        classify(m, pick.best.span_limit);
        pick.best.has_code = true;
        sink->object(sink, &pick.best);
        pick.above = m->start;
    }
    return pick.above != 0 ? 0 : -ENOENT;
}
