#include "test/unit/example_profile.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PROGRAM 0x400000u
#define LIBC 0x7f0000000000u
#define NAMELESS 0x7f1000000000u
#define OWN 0x7f2000000000u
#define JIT 0x7f3000000000u

static struct pep_mapping mappings[] = {
    {.start = PROGRAM,
     .limit = PROGRAM + 0x10000,
     .file_offset = 0x1000,
     .path = "/usr/bin/example",
     .build_id = "0123456789abcdef0123456789abcdef01234567"},
    {.start = LIBC,
     .limit = LIBC + 0x100000,
     .file_offset = 0x26000,
     .path = "/lib/x86_64-linux-gnu/libc.so.6",
     .build_id = "ffeeddcc"},
    {.start = NAMELESS, .limit = NAMELESS + 0x1000, .path = "/opt/lib/libnameless.so"},
    {.start = OWN, .limit = OWN + 0x1000, .path = "/opt/lib/libprofep.so", .is_own = true},
    {.start = JIT, .limit = JIT + 0x1000, .path = "//anon", .is_jit = true},
};

/* Names by address; frames of one address in a row are inlined into the last of them. */
static const struct {
    uintptr_t pc;
    struct pep_frame frame;
} names[] = {
    {PROGRAM + 0x10, {.name = "main", .file = "/src/main.c", .line = 12, .start_line = 10}},
    {PROGRAM + 0x20,
     {.name = "std::vector<int>::push_back(int const&)",
      .system_name = "_ZNSt6vectorIiE9push_back",
      .file = "/src/vector.h",
      .line = 7,
      .start_line = 5}},
    {PROGRAM + 0x20, {.name = "work", .file = "/src/work.c", .line = 33, .start_line = 30}},
    {PROGRAM + 0x30, {.name = "recurse", .file = "/src/work.c", .line = 50, .start_line = 48}},
    {PROGRAM + 0x34, {.name = "recurse", .file = "/src/work.c", .line = 52, .start_line = 48}},
    {PROGRAM + 0x40, {.name = "a;b\n</script>]]>\"\xff"}},
    {LIBC + 0x100, {.name = "memcpy"}},
    {LIBC + 0x200, {.name = "libc.so.6+0x200"}},
    {OWN + 0x10, {.name = "pep_hook"}},
    {JIT + 0x10, {.name = "[jit]+0x10"}},
};

static int lookup(struct pep_symbolizer *symbolizer, const struct pep_profile *profile,
                  uintptr_t pc, struct pep_frame *frames, int max) {
    static char fallback[64][32];
    static int fallback_count;
    int count = 0;
    (void)symbolizer;
    (void)profile;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && count < max; i++)
        if (names[i].pc == pc) {
            frames[count] = names[i].frame;
            frames[count].is_known = strchr(names[i].frame.name, '+') == NULL;
            count++;
        }
    if (count > 0)
        return count;
    char *text = fallback[fallback_count++ % 64];
    snprintf(text, sizeof(fallback[0]), "nameless+0x%lx", (unsigned long)(pc & 0xfff));
    frames[0] = (struct pep_frame){.name = text, .system_name = text};
    return 1;
}

struct pep_symbolizer example_symbolizer = {.lookup = lookup};

static struct pep_sample samples[] = {
    {EXAMPLE_STACK(LIBC + 0x100, PROGRAM + 0x20, PROGRAM + 0x10), .tid = 4711, .thread = "example",
     .values = {5, 50000000}},
    {EXAMPLE_STACK(PROGRAM + 0x30, PROGRAM + 0x34, PROGRAM + 0x34, PROGRAM + 0x10), .tid = 4711,
     .thread = "example", .values = {4, 40000000}},
    {EXAMPLE_STACK(PROGRAM + 0x40, PROGRAM + 0x10), .tid = 4712, .thread = "wo;rk\ner",
     .values = {2, 20000000}},
    {EXAMPLE_STACK(NAMELESS + 0x123, LIBC + 0x200, PEP_PC_TRUNCATED), .tid = 4712,
     .thread = "wo;rk\ner", .values = {1, 10000000}},
    {EXAMPLE_STACK(OWN + 0x10, PROGRAM + 0x10), .tid = 4711, .thread = "example",
     .values = {1, 10000000}},
    {EXAMPLE_STACK(JIT + 0x10, PROGRAM + 0x10), .tid = 4711, .thread = "example",
     .values = {1, 10000000}},
    {EXAMPLE_STACK(PEP_PC_UNKNOWN), .values = {1, 10000000}},
    {EXAMPLE_STACK(PROGRAM + 0x10), .tid = 4711, .thread = "example", .values = {0, 0}},
    {EXAMPLE_STACK(PROGRAM + 0x10), .tid = 4711, .thread = "example", .values = {-1, -10000000}},
};

static const char *comments[] = {
    "CPU engine: perf, 100 Hz asked, 99 Hz reached",
    "2 samples were lost: table\nfull \xff",
};

const struct pep_profile example_profile = {
    .kind = "cpu",
    .types = {{"samples", "count"}, {"cpu", "nanoseconds"}},
    .type_count = 2,
    .default_type = 1,
    .period_type = {"cpu", "nanoseconds"},
    .period = 10000000,
    .time_ns = 1700000000123456789,
    .duration_ns = 200000000,
    .samples = samples,
    .sample_count = sizeof(samples) / sizeof(samples[0]),
    .mappings = mappings,
    .mapping_count = sizeof(mappings) / sizeof(mappings[0]),
    .main_mapping = 0,
    .comments = comments,
    .comment_count = 2,
    .pid = 4711,
};

struct pep_buffer_writer example_encode(example_encoder encode, const struct pep_profile *profile,
                                        struct pep_arena *arena) {
    struct pep_buffer_writer buffer;
    pep_buffer_writer_init(&buffer, arena);
    struct pep_encode_job job = {.profile = profile,
                                 .symbolizer = &example_symbolizer,
                                 .writer = &buffer.writer,
                                 .arena = arena,
                                 .title = "example 4711"};
    encode(&job);
    return buffer;
}

void example_golden(const char *name, const struct pep_buffer_writer *found) {
    char path[256], expected[65536];
    snprintf(path, sizeof(path), "test/golden/%s", name);
    assert_int_equal(found->writer.error, 0);
    if (getenv("GOLDEN") != NULL) {
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(found->data, 1, found->count, file), found->count);
        assert_int_equal(fclose(file), 0);
        return;
    }
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t count = fread(expected, 1, sizeof(expected), file);
    fclose(file);
    assert_int_equal(found->count, count);
    assert_memory_equal(found->data, expected, count);
}

const char *example_file(const struct pep_buffer_writer *bytes, bool is_gzip,
                         struct pep_arena *arena) {
    static char path[64];
    struct pep_buffer_writer packed = *bytes;
    if (is_gzip) {
        struct pep_gzip_writer gzip;
        pep_buffer_writer_init(&packed, arena);
        assert_int_equal(pep_gzip_writer_init(&gzip, &packed.writer, 6), 0);
        pep_write(&gzip.writer, bytes->data, bytes->count);
        assert_int_equal(pep_gzip_writer_finish(&gzip), 0);
    }
    snprintf(path, sizeof(path), "/tmp/profep-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, packed.data, packed.count), packed.count);
    close(fd);
    return path;
}

int example_run(const char *command, char *output, size_t size) {
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t count = fread(output, 1, size - 1, pipe);
    output[count] = '\0';
    char rest[4096];
    while (fread(rest, 1, sizeof(rest), pipe) > 0)
        continue;
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void example_no_memory(example_encoder encode, const struct pep_profile *profile) {
    int refused = 0;
    for (size_t limit = 1; limit < (1u << 20); limit += 16384) {
        struct pep_arena arena, output;
        struct pep_buffer_writer buffer;
        pep_arena_init(&arena, limit);
        pep_arena_init(&output, 0);
        pep_buffer_writer_init(&buffer, &output);
        struct pep_encode_job job = {.profile = profile,
                                     .symbolizer = &example_symbolizer,
                                     .writer = &buffer.writer,
                                     .arena = &arena,
                                     .title = ""};
        encode(&job);
        assert_true(buffer.writer.error == 0 || buffer.writer.error == -ENOMEM);
        refused += buffer.writer.error != 0;
        pep_arena_drop(&output);
        pep_arena_drop(&arena);
    }
    assert_true(refused > 0);
}

const char *example_read_by(const char *reader, const char *arguments,
                            const struct pep_buffer_writer *bytes, struct pep_arena *arena) {
    static char output[16384];
    if (example_run(pep_arena_printf(arena, "command -v %s", reader), output, sizeof(output)) != 0)
        return NULL;
    const char *path = example_file(bytes, false, arena);
    int status = example_run(pep_arena_printf(arena, "%s %s %s 2>&1", reader, arguments, path),
                             output, sizeof(output));
    unlink(path);
    if (status != 0)
        print_error("%s\n", output);
    assert_int_equal(status, 0);
    return output;
}
