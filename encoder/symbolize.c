#include "encoder/symbolize.h"

#include <string.h>

#include "encoder/line_batch.h"
#include "encoder/symbol_file.h"
#include "sampler/rt/os.h"

#define MEMO_SLOTS_MIN 1024
#define FRAMES_MAX PEP_LINES_FRAMES_MAX
#define SECOND_NS INT64_C(1000000000)

/* What an address was found to be; every address is looked up once a request. */
struct memo {
    uintptr_t pc;
    int count;
    struct pep_frame frames[];
};

struct request {
    struct pep_symbolizer symbolizer; /* first: what callers hold */
    struct pep_arena *arena;
    const struct pep_profile *profile; /* that files belong to */
    struct pep_symbol_file **files;    /* [file_count] by mapping; NULL: not asked for yet */
    uint32_t file_count;
    bool is_perf_map_read;
    struct pep_perf_map perf_map;
    struct memo **memos; /* [memo_mask + 1], open addressing */
    size_t memo_mask, memo_count;
};

static struct memo **memo_slot(const struct request *request, uintptr_t pc) {
    size_t at = (size_t)(pc * UINT64_C(0x9e3779b97f4a7c15) >> 24) & request->memo_mask;
    while (request->memos[at] != NULL && request->memos[at]->pc != pc)
        at = (at + 1) & request->memo_mask;
    return &request->memos[at];
}

/* Keeps the table at most half full. Without memory it stays as it is. */
static void grow_memos(struct request *request) {
    size_t slots = request->memos == NULL ? 0 : request->memo_mask + 1;
    if (2 * request->memo_count < slots)
        return;
    size_t wanted = slots == 0 ? MEMO_SLOTS_MIN : 2 * slots;
    struct memo **fresh = pep_arena_array(request->arena, wanted, sizeof(struct memo *));
    if (fresh == NULL)
        return;
    struct memo **old = request->memos;
    request->memos = fresh;
    request->memo_mask = wanted - 1;
    for (size_t i = 0; i < slots; i++) {
        if (old[i] != NULL)
            *memo_slot(request, old[i]->pc) = old[i];
    }
}

static void remember(struct request *request, uintptr_t pc, const struct pep_frame *frames,
                     int count) {
    grow_memos(request);
    if (request->memos == NULL || request->memo_count > request->memo_mask / 2)
        return;
    size_t size = (size_t)count * sizeof(*frames);
    struct memo *memo = pep_arena_alloc(request->arena, sizeof(*memo) + size);
    if (memo == NULL)
        return;
    memo->pc = pc;
    memo->count = count;
    memcpy(memo->frames, frames, size);
    *memo_slot(request, pc) = memo;
    request->memo_count++;
}

static void name_frame(struct pep_frame *frame, const char *text, bool is_known) {
    if (text == NULL)
        return; /* no memory for a better one */
    frame->name = text;
    frame->system_name = text;
    frame->is_known = is_known;
}

static bool is_main_file(const struct pep_profile *profile, const struct pep_mapping *mapping) {
    uint32_t main = profile->main_mapping;
    return main < profile->mapping_count &&
           strcmp(profile->mappings[main].path, mapping->path) == 0;
}

static struct pep_symbol_file *file_of(struct request *request, uint32_t index) {
    if (index >= request->file_count)
        return NULL;
    struct pep_symbol_file **slot = &request->files[index];
    const struct pep_mapping *mapping = &request->profile->mappings[index];
    if (*slot == NULL)
        *slot = pep_symbol_file_take(mapping, is_main_file(request->profile, mapping));
    return *slot;
}

static void look_up_jit(struct request *request, uintptr_t pc, struct pep_frame *frame) {
    if (!request->is_perf_map_read) {
        request->is_perf_map_read = true;
        const char *path =
            pep_arena_printf(request->arena, "/tmp/perf-%d.map", request->profile->pid);
        if (path != NULL)
            (void)pep_perf_map_read(&request->perf_map, request->arena, path);
    }
    const struct pep_perf_entry *entry = pep_perf_map_find(&request->perf_map, pc);
    if (entry != NULL) {
        name_frame(frame, entry->name, true);
        frame->start = entry->start;
    }
}

/* The line where a function begins, from the address where it begins. */
static uint32_t start_line_of(struct pep_symbol_file *file, uint64_t start,
                              const struct pep_line_frame *function) {
    const struct pep_line_entry *entry = NULL;
    pep_symbol_file_find_lines(file, &start, 1, &entry);
    const struct pep_line_frame *first =
        entry != NULL && entry->count == 1 ? &entry->frames[0] : NULL;
    bool is_right = first != NULL && first->file == function->file && first->line <= function->line;
    return is_right ? first->line : 0;
}

/* The calls that were inlined at the address go before the function, which has its name already
 * unless only the debug information knows it. Returns how many frames there are. */
static int add_lines(struct pep_symbol_file *file, uint64_t address, uint64_t start,
                     struct pep_frame *frames) {
    const struct pep_line_entry *entry = NULL;
    if (file != NULL && file->has_lines)
        pep_symbol_file_find_lines(file, &address, 1, &entry);
    if (entry == NULL || entry->count == 0)
        return 1;
    struct pep_frame function = frames[0];
    const struct pep_line_frame *last = &entry->frames[entry->count - 1];
    for (uint32_t i = 0; i < entry->count; i++) {
        const struct pep_line_frame *from = &entry->frames[i];
        frames[i] = (struct pep_frame){.name = from->name != NULL ? from->name : "[inlined]",
                                       .system_name = from->system_name,
                                       .file = from->file,
                                       .line = from->line,
                                       .is_known = from->name != NULL};
        if (frames[i].system_name == NULL)
            frames[i].system_name = frames[i].name;
    }
    if (last->name != NULL && !function.is_known) {
        function.name = last->name;
        function.system_name = last->system_name;
        function.is_known = true;
    }
    function.file = last->file;
    function.line = last->line;
    if (function.start != 0)
        function.start_line = start_line_of(file, start, last);
    frames[entry->count - 1] = function;
    return (int)entry->count;
}

static void name_in_file(struct request *request, const struct pep_mapping *mapping,
                         struct pep_symbol_file *file, uint64_t address, struct pep_frame *frame) {
    const struct pep_symbol *symbol =
        file != NULL ? pep_symbol_table_find(&file->symbols, address) : NULL;
    const struct pep_symbol_text *text = symbol != NULL ? pep_symbol_file_text(file, symbol) : NULL;
    if (text != NULL) {
        name_frame(frame, text->name, true);
        frame->system_name = text->system_name;
        frame->start = mapping->bias + symbol->start;
        return;
    }
    const struct pep_fde *fde = file != NULL ? pep_fde_table_find(&file->fdes, address) : NULL;
    const char *name = fde != NULL ? pep_symbol_file_fde_name(file, fde) : NULL;
    if (name != NULL) {
        name_frame(frame, name, true);
        frame->start = mapping->bias + fde->start;
        return;
    }
    const char *module = pep_symbol_module_name(request->arena, mapping->path);
    name_frame(frame,
               pep_arena_printf(request->arena, "%s+0x%llx", module != NULL ? module : "",
                                (unsigned long long)address),
               false);
}

static int look_up_file(struct request *request, uint32_t index, uintptr_t pc,
                        struct pep_frame *frames) {
    const struct pep_mapping *mapping = &request->profile->mappings[index];
    uint64_t address = pc - mapping->bias; /* as in the file's headers */
    struct pep_symbol_file *file = file_of(request, index);
    name_in_file(request, mapping, file, address, frames);
    return add_lines(file, address, frames[0].start - mapping->bias, frames);
}

/* Code in a memory file goes by the file's name. */
static const char *anonymous_name(struct request *request, uint32_t index) {
    const char *path = request->profile->mappings[index].path;
    return path[0] == '/' && path[1] != '/' ? pep_symbol_module_name(request->arena, path)
                                            : "[anonymous code]";
}

/* Returns how many frames there are. */
static int look_up(struct request *request, uintptr_t pc, struct pep_frame *frame) {
    *frame = (struct pep_frame){0};
    name_frame(frame, "[unknown]", false);
    const char *note = pep_profile_pc_note(pc);
    if (note != NULL || pc < PEP_PC_FIRST_REAL) {
        name_frame(frame, note, false);
        return 1;
    }
    uint32_t index = pep_profile_mapping_of(request->profile, pc);
    if (index != PEP_MAPPING_NONE && !request->profile->mappings[index].is_jit)
        return look_up_file(request, index, pc, frame);
    look_up_jit(request, pc, frame);
    if (frame->is_known)
        return 1;
    if (index == PEP_MAPPING_NONE)
        name_frame(frame, pep_arena_printf(request->arena, "0x%llx", (unsigned long long)pc),
                   false);
    else /* one node: the addresses of nameless code say nothing */
        name_frame(frame, anonymous_name(request, index), false);
    return 1;
}

static void drop_files(struct request *request) {
    for (uint32_t i = 0; i < request->file_count; i++)
        pep_symbol_file_drop(request->files[i]);
    request->file_count = 0;
}

/* A symbolizer serves one profile; another one starts afresh. */
static void turn_to(struct request *request, const struct pep_profile *profile) {
    drop_files(request);
    request->profile = profile;
    request->is_perf_map_read = false;
    request->perf_map = (struct pep_perf_map){0};
    request->memos = NULL;
    request->memo_count = 0;
    request->files = pep_arena_array(request->arena, (size_t)profile->mapping_count + 1,
                                     sizeof(struct pep_symbol_file *));
    request->file_count = request->files != NULL ? profile->mapping_count : 0;
}

/* When there are too many, the innermost and the function itself. */
static int give(struct pep_frame *to, int max, const struct pep_frame *frames, int count) {
    int given = count < max ? count : max;
    memcpy(to, frames, (size_t)given * sizeof(*to));
    to[given - 1] = frames[count - 1];
    return given;
}

static int lookup(struct pep_symbolizer *symbolizer, const struct pep_profile *profile,
                  uintptr_t pc, struct pep_frame *frames, int max) {
    struct request *request = (struct request *)symbolizer;
    if (max < 1)
        return 0;
    if (request->profile != profile)
        turn_to(request, profile);
    struct memo *memo = request->memos != NULL ? *memo_slot(request, pc) : NULL;
    if (memo != NULL)
        return give(frames, max, memo->frames, memo->count);
    struct pep_frame found[FRAMES_MAX];
    int count = look_up(request, pc, found);
    remember(request, pc, found, count);
    return give(frames, max, found, count);
}

/* Half the time that was waited for the profile, at least one second and at most two. */
static uint64_t deadline_of(const struct pep_profile *profile) {
    int64_t room = profile->duration_ns / 2;
    if (room < SECOND_NS)
        room = SECOND_NS;
    if (room > 2 * SECOND_NS || profile->duration_ns == 0)
        room = 2 * SECOND_NS;
    return pep_os_clock_ns(CLOCK_MONOTONIC) + (uint64_t)room;
}

static void add_pc(struct request *request, struct pep_line_batch *batch, uintptr_t pc) {
    uint32_t index =
        pc < PEP_PC_FIRST_REAL ? PEP_MAPPING_NONE : pep_profile_mapping_of(request->profile, pc);
    if (index == PEP_MAPPING_NONE || !pep_line_batch_is_new(batch, pc))
        return;
    const struct pep_mapping *mapping = &request->profile->mappings[index];
    struct pep_symbol_file *file =
        mapping->is_jit || mapping->is_own || mapping->is_vdso ? NULL : file_of(request, index);
    if (file == NULL || !file->has_lines)
        return;
    uint64_t address = pc - mapping->bias;
    pep_line_batch_add(batch, index, file, address);
    const struct pep_symbol *symbol = pep_symbol_table_find(&file->symbols, address);
    if (symbol != NULL && pep_line_batch_is_new(batch, mapping->bias + symbol->start))
        pep_line_batch_add(batch, index, file, symbol->start);
}

static const char *prepare(struct pep_symbolizer *symbolizer, const struct pep_profile *profile) {
    struct request *request = (struct request *)symbolizer;
    struct pep_line_batch batch;
    turn_to(request, profile);
    pep_line_batch_init(&batch, request->arena, profile);
    for (uint32_t i = 0; i < profile->sample_count; i++)
        for (uint32_t j = 0; j < profile->samples[i].pc_count; j++)
            add_pc(request, &batch, profile->samples[i].pcs[j]);
    return pep_line_batch_run(&batch, deadline_of(profile));
}

void pep_symbolizer_prepare(struct pep_symbolizer *symbolizer, struct pep_arena *arena,
                            struct pep_profile *profile) {
    if (symbolizer == NULL || symbolizer->prepare == NULL)
        return;
    const char *sentence = symbolizer->prepare(symbolizer, profile);
    if (sentence != NULL)
        pep_profile_tell(arena, profile, "%s", sentence);
}

struct pep_symbolizer *pep_symbolizer_begin(struct pep_arena *arena) {
    struct request *request = pep_arena_alloc(arena, sizeof(*request));
    if (request == NULL)
        return NULL;
    request->symbolizer.lookup = lookup;
    request->symbolizer.prepare = prepare;
    request->arena = arena;
    return &request->symbolizer;
}

void pep_symbolizer_end(struct pep_symbolizer *symbolizer) {
    if (symbolizer == NULL)
        return;
    struct request *request = (struct request *)symbolizer;
    drop_files(request);
    request->profile = NULL;
}

void pep_symbolizer_after_fork_child(void) {
    pep_symbol_cache_after_fork_child();
    pep_lines_after_fork_child();
}
