/*
 * The flame graph as a page and as an SVG: structure, escaping, colours, refusals.
 *
 * `test_flame --write DIR` writes both for the profile of these tests to DIR/flame.html and
 * DIR/flame.svg, where a real browser judges them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "encoder/encoders.h"
#include "encoder/flame_color.h"

#define MS 1000000
#define LONG_BYTES 2048
#define HEBREW "\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d"

static char long_name[LONG_BYTES + 1];

/* pc = index into names + 1 in the low byte; the mapping is told by the thousands. */
static const char *const names[] = {
    "main",
    "parse",
    "read",
    "work",
    "<script>broken = 1</script>",
    "</script><!--<script>broken = 1;//",
    "\"quo'te\" & <b>\\u2028</b>",
    long_name,
    "\xe2\x80\xae" HEBREW "\xe2\x80\xa8x",
    "",
    "cut \xe2\x82 and \xff\x01",
    "[unknown]",
};

enum { MAIN, PARSE, READ, WORK, TAG, CLOSING, QUOTES, LONG, RTL, EMPTY, BROKEN, NOTE };
#define PC(module, name) ((uintptr_t)(module)*10000 + (uintptr_t)(name) + 1)

#define STACK(...) \
    .pcs = (const uintptr_t[]){__VA_ARGS__}, \
    .pc_count = sizeof((uintptr_t[]){__VA_ARGS__}) / sizeof(uintptr_t)
#define MAIN_THREAD .thread = "main", .tid = 1
#define WORKER_THREAD .thread = "worker", .tid = 2
#define VALUES(count, each_ms) .values = {(count), (int64_t)(count) * (each_ms)*MS}

/* 200 samples; 150 of 10 ms and 50 of 20 ms: 2.5 s. */
static struct pep_sample samples[] = {
    {STACK(PC(1, MAIN)), MAIN_THREAD, VALUES(2, 10)},
    {STACK(PC(1, PARSE), PC(1, MAIN)), MAIN_THREAD, VALUES(30, 10)},
    {STACK(PC(2, READ), PC(1, PARSE), PC(1, MAIN)), MAIN_THREAD, VALUES(90, 10)},
    {STACK(PC(2, READ), PC(1, MAIN)), MAIN_THREAD, VALUES(10, 10)},
    {STACK(PC(2, READ)), WORKER_THREAD, VALUES(50, 20)},
    {STACK(PC(1, TAG), PC(1, WORK)), WORKER_THREAD, VALUES(5, 10)},
    {STACK(PC(1, CLOSING), PC(1, WORK)), WORKER_THREAD, VALUES(3, 10)},
    {STACK(PC(1, QUOTES), PC(1, WORK)), WORKER_THREAD, VALUES(4, 10)},
    {STACK(PC(3, LONG), PC(1, WORK)), WORKER_THREAD, VALUES(2, 10)},
    {STACK(PC(3, RTL), PC(1, WORK)), WORKER_THREAD, VALUES(2, 10)},
    {STACK(PC(3, EMPTY), PC(1, WORK)), WORKER_THREAD, VALUES(1, 10)},
    {STACK(PC(9, BROKEN), PC(1, WORK)), WORKER_THREAD, VALUES(1, 10)},
};

static struct pep_mapping mappings[] = {
    {.start = 10000, .limit = 20000, .path = "/usr/bin/sample"},
    {.start = 20000, .limit = 30000, .path = "/lib/x86_64-linux-gnu/libc.so.6"},
    {.start = 30000, .limit = 40000, .path = "/opt/</script>/lib<evil>.so"},
};

static const char *comments[] = {"7 samples refused </script> & found (sample_nested).",
                                 "Sampled at 100 Hz."};

static const struct pep_profile profile = {
    .kind = "cpu",
    .types = {{"samples", "count"}, {"cpu", "nanoseconds"}},
    .type_count = 2,
    .default_type = 1,
    .period_type = {"cpu", "nanoseconds"},
    .period = 10 * MS,
    .time_ns = 1700000000000000000,
    .duration_ns = 5003 * (int64_t)MS,
    .samples = samples,
    .sample_count = sizeof(samples) / sizeof(samples[0]),
    .mappings = mappings,
    .mapping_count = sizeof(mappings) / sizeof(mappings[0]),
    .main_mapping = 0,
    .comments = comments,
    .comment_count = 2,
    .pid = 4711,
};

static int fake_lookup(struct pep_symbolizer *symbolizer, const struct pep_profile *of,
                       uintptr_t pc, struct pep_frame *frames, int max) {
    (void)symbolizer, (void)of, (void)max;
    const char *name = names[(pc - 1) % 10000 % (sizeof(names) / sizeof(names[0]))];
    frames[0] = (struct pep_frame){.name = name, .system_name = name, .is_known = true};
    return 1;
}

static struct pep_symbolizer symbolizer = {.lookup = fake_lookup};

struct outcome {
    struct pep_arena arena;
    struct pep_buffer_writer buffer;
};

typedef void encoder(const struct pep_encode_job *job);

static const struct outcome *encode(encoder *encode_with, const struct pep_profile *of,
                                    size_t limit) {
    static struct outcome out;
    static struct pep_arena output; /* so that a limit hits the encoder, not its output */
    pep_arena_drop(&out.arena);
    pep_arena_drop(&output);
    pep_arena_init(&out.arena, limit);
    pep_arena_init(&output, 0);
    pep_buffer_writer_init(&out.buffer, &output);
    struct pep_encode_job job = {
        .profile = of,
        .symbolizer = &symbolizer,
        .writer = &out.buffer.writer,
        .arena = &out.arena,
        .title = "sample 4711: CPU </title><script>broken = 1</script>, 5 s at 100 Hz",
    };
    encode_with(&job);
    return &out;
}

static size_t occurrences(const char *text, const char *of) {
    size_t count = 0;
    for (const char *at = strstr(text, of); at != NULL; at = strstr(at + 1, of))
        count++;
    return count;
}

static void assert_is_utf8(const char *text) {
    const unsigned char *c = (const unsigned char *)text;
    while (*c != 0) {
        size_t size = *c < 0x80 ? 1 : *c < 0xc2 ? 0 : *c < 0xe0 ? 2 : *c < 0xf0 ? 3 : 4;
        assert_true(size >= 1 && *c < 0xf5);
        for (size_t i = 1; i < size; i++)
            assert_int_equal(c[i] & 0xc0, 0x80);
        c += size;
    }
}

/* What stands between the data element's tags. */
static char *data_of(const char *html) {
    const char *begin = strstr(html, "<script id=\"data\" type=\"application/json\">");
    assert_non_null(begin);
    begin = strchr(begin, '>') + 1;
    const char *end = strstr(begin, "</script");
    assert_non_null(end);
    char *data = test_calloc(1, (size_t)(end - begin) + 1);
    memcpy(data, begin, (size_t)(end - begin));
    return data;
}

static void page_is_one_document(void **state) {
    (void)state;
    const struct outcome *out = encode(pep_encode_flame_html, &profile, 0);
    const char *html = out->buffer.data;
    assert_int_equal(out->buffer.writer.error, 0);
    assert_int_equal(strlen(html), out->buffer.count);
    assert_is_utf8(html);
    assert_int_equal(strncmp(html, "<!doctype html>", 15), 0);
    /* Nothing to fetch, and a policy that forbids it. */
    assert_int_equal(occurrences(html, "<link rel=\"stylesheet\""), 0);
    assert_int_equal(occurrences(html, "<script src"), 0);
    assert_int_equal(occurrences(html, "default-src 'none'"), 1);
    /* The data and three scripts, whatever the names say; the page's sample data is gone. */
    assert_int_equal(occurrences(html, "<script"), 4);
    assert_int_equal(occurrences(html, "</script"), 4);
    assert_int_equal(occurrences(html, "<style"), 1);
    assert_int_equal(occurrences(html, "</style"), 1);
    assert_int_equal(occurrences(html, "<title>"), 1);
    assert_int_equal(occurrences(html, "own sample data"), 0);
    assert_non_null(strstr(html, "<title>sample 4711: CPU &lt;/title&gt;&lt;script&gt;"));
}

static void page_carries_the_tree(void **state) {
    (void)state;
    const struct outcome *out = encode(pep_encode_flame_html, &profile, 0);
    char *data = data_of(out->buffer.data);
    assert_null(strchr(data, '<'));
    assert_int_equal(data[0], '{');
    assert_int_equal(data[strlen(data) - 1], '}');
    assert_non_null(
        strstr(data, "\"types\":[[\"samples\",\"count\"],[\"cpu\",\"nanoseconds\"]],\"value\":1"));
    assert_non_null(strstr(data, "\"duration_ns\":5003000000"));
    /* all: two children; main (1); main: two children and 2 samples of its own, 20 ms. */
    assert_non_null(strstr(data, "\"nodes\":[0,2,0,0,1,1,0,0,2,2,2,20000000,"));
    /* A name stands once, however many frames have it. */
    assert_int_equal(occurrences(data, "\"read\""), 1);
    assert_int_equal(occurrences(data, "\"main\""), 1);
    assert_non_null(strstr(data, "Sampled at 100 Hz."));
    assert_null(strstr(data, "\xe2\x80\xa8")); /* U+2028 ends a line of JavaScript */
    test_free(data);
}

static void one_value_type_is_written_once(void **state) {
    (void)state;
    struct pep_profile counts = profile;
    counts.type_count = 1;
    counts.default_type = 0;
    const struct outcome *out = encode(pep_encode_flame_html, &counts, 0);
    assert_non_null(strstr(out->buffer.data, "\"types\":[[\"samples\",\"count\"]],"));
    assert_non_null(strstr(out->buffer.data, "\"nodes\":[0,2,0,1,1,0,2,2,2,"));
    out = encode(pep_encode_flame_svg, &counts, 0);
    assert_non_null(strstr(out->buffer.data, "main (sample)\n132 samples, 66.00%</title>"));
}

static void memory_has_four_values(void **state) {
    (void)state;
    struct pep_profile heap = profile;
    struct pep_sample two[] = {{STACK(PC(1, MAIN)), .values = {3, 3072, 1, 1536}},
                               {STACK(PC(1, PARSE), PC(1, MAIN)), .values = {4, 64, 0, -32}}};
    heap.kind = "heap";
    memcpy(heap.types,
           ((struct pep_value_type[]){{"alloc_objects", "count"},
                                      {"alloc_space", "bytes"},
                                      {"inuse_objects", "count"},
                                      {"inuse_space", "bytes"}}),
           sizeof(heap.types));
    heap.type_count = 4;
    heap.default_type = 3;
    heap.samples = two;
    heap.sample_count = 2;
    const struct outcome *out = encode(pep_encode_flame_html, &heap, 0);
    assert_non_null(strstr(out->buffer.data, "[\"inuse_space\",\"bytes\"]],\"value\":3"));
    assert_non_null(strstr(out->buffer.data, "[0,1,0,0,0,0,1,1,3,3072,1,1536,2,0,4,64,0,0]"));
    out = encode(pep_encode_flame_svg, &heap, 0);
    assert_non_null(strstr(out->buffer.data, "inuse_space 1.50 KiB \xc2\xb7 1 object</text>"));
}

static void svg_is_root_thread_leaf(void **state) {
    (void)state;
    const struct outcome *out = encode(pep_encode_flame_svg, &profile, 0);
    const char *svg = out->buffer.data;
    assert_int_equal(out->buffer.writer.error, 0);
    assert_is_utf8(svg);
    assert_int_equal(strncmp(svg, "<?xml", 5), 0);
    assert_int_equal(occurrences(svg, "<script"), 0);
    /* all, two threads, main, parse, read, read, read, work and its seven. */
    assert_int_equal(occurrences(svg, "<g>"), 16);
    assert_int_equal(occurrences(svg, "</g>"), 16);
    assert_int_equal(occurrences(svg, "<title"), 17);
    assert_non_null(strstr(svg, "<title>all\n200 samples, 2.50 s, 100.00%</title>"));
    assert_non_null(strstr(svg, "<title>worker (2)\n68 samples, 1.18 s, 47.20%</title>"));
    assert_non_null(strstr(svg, "<title>read (libc.so.6)\n50 samples, 1 s, 40.00%</title>"));
    assert_non_null(strstr(svg, "<title>&lt;script&gt;broken = 1&lt;/script&gt; (sample)"));
    assert_non_null(strstr(svg, "7 samples refused &lt;/script&gt; &amp; found (sample_nested)."));
    assert_non_null(strstr(svg, "viewBox=\"0 0 1200 "));
    assert_non_null(strstr(svg, "@media(prefers-color-scheme:dark)"));
    /* all, main (1), main, parse, read: four rows above the root's, which is the lowest. */
    const char *root = strstr(svg, "<title>all\n"), *leaf = strstr(svg, "<title>read (libc");
    unsigned root_y = 0, leaf_y = 0;
    assert_int_equal(sscanf(strstr(root, " y=\""), " y=\"%u", &root_y), 1);
    assert_int_equal(sscanf(strstr(leaf, " y=\""), " y=\"%u", &leaf_y), 1);
    assert_int_equal(root_y - leaf_y, 4 * 18);
}

static void svg_cuts_text_to_the_width(void **state) {
    (void)state;
    const struct outcome *out = encode(pep_encode_flame_svg, &profile, 0);
    const char *at = out->buffer.data;
    size_t texts = 0;
    for (at = strstr(at, "<g>"); at != NULL; at = strstr(at + 1, "<g>"), texts++) {
        double width = 0;
        assert_int_equal(sscanf(strstr(at, " width=\""), " width=\"%lf", &width), 1);
        const char *text = strstr(at, "<text"), *end = strstr(at, "</g>");
        if (text == NULL || text > end)
            continue;
        text = strchr(text, '>') + 1;
        size_t letters = 0;
        for (; *text != '<'; text++)
            letters += (*text & 0xc0) != 0x80 && *text != '&';
        assert_true((double)letters * 6.6 <= width + 40); /* an entity is at most 6 letters */
    }
    assert_int_equal(texts, 16);
    /* The long name is in the tooltip whole, and nowhere else. */
    assert_int_equal(occurrences(out->buffer.data, "std::map&lt;int, "), LONG_BYTES / 14);
}

static void svg_leaves_out_what_nobody_can_see(void **state) {
    (void)state;
    struct pep_sample rare[] = {
        {STACK(PC(2, READ), PC(1, MAIN)), MAIN_THREAD, VALUES(10000, 10)},
        {STACK(PC(1, WORK), PC(1, PARSE), PC(1, MAIN)), MAIN_THREAD, VALUES(9, 10)},
    };
    struct pep_profile of = profile;
    of.samples = rare;
    of.sample_count = 2;
    const struct outcome *out = encode(pep_encode_flame_svg, &of, 0);
    assert_int_equal(occurrences(out->buffer.data, "<g>"), 4);
    assert_null(strstr(out->buffer.data, "parse"));
    rare[1].values[0] = 11;
    rare[1].values[1] = (int64_t)11 * 10 * MS;
    out = encode(pep_encode_flame_svg, &of, 0);
    assert_int_equal(occurrences(out->buffer.data, "<g>"), 6);
}

static void no_samples_make_a_graph_that_says_so(void **state) {
    (void)state;
    struct pep_profile of = profile;
    of.sample_count = 0;
    const struct outcome *out = encode(pep_encode_flame_svg, &of, 0);
    assert_int_equal(out->buffer.writer.error, 0);
    assert_non_null(strstr(out->buffer.data, "nothing to show"));
    assert_int_equal(occurrences(out->buffer.data, "<g>"), 0);
    out = encode(pep_encode_flame_html, &of, 0);
    assert_int_equal(out->buffer.writer.error, 0);
    assert_non_null(strstr(out->buffer.data, "\"nodes\":[0,0,0,0]"));
}

static void deep_stacks_need_no_stack(void **state) {
    (void)state;
    static uintptr_t pcs[20000];
    for (size_t i = 0; i < sizeof(pcs) / sizeof(pcs[0]); i++)
        pcs[i] = PC(1, i % 4);
    struct pep_sample deep = {
        .pcs = pcs, .pc_count = sizeof(pcs) / sizeof(pcs[0]), MAIN_THREAD, VALUES(1, 10)};
    struct pep_profile of = profile;
    of.samples = &deep;
    of.sample_count = 1;
    const struct outcome *out = encode(pep_encode_flame_svg, &of, 0);
    assert_int_equal(occurrences(out->buffer.data, "<g>"), 20002);
    out = encode(pep_encode_flame_html, &of, 0);
    assert_int_equal(out->buffer.writer.error, 0);
}

static void refused_memory_is_an_error(void **state) {
    (void)state;
    /* 1: the tree itself is refused. More: the encoder's own tables, somewhere on the way. */
    static uintptr_t pcs[256];
    static struct pep_sample wide[512];
    for (size_t i = 0; i < 256; i++)
        pcs[i] = PC(1, i % 5);
    for (size_t i = 0; i < 512; i++)
        wide[i] = (struct pep_sample){
            .pcs = pcs, .pc_count = 256, .thread = "t", .tid = (int)i + 1, VALUES(1, 10)};
    struct pep_profile of = profile;
    of.samples = wide;
    of.sample_count = 512;
    encoder *const encoders[] = {pep_encode_flame_html, pep_encode_flame_svg};
    for (size_t i = 0; i < 2; i++) {
        size_t needed = encode(encoders[i], &of, 0)->arena.total_bytes;
        for (size_t limit = 1; limit < needed; limit += needed / 16)
            assert_int_equal(encode(encoders[i], &of, limit)->buffer.writer.error, -ENOMEM);
    }
}

static int refuse(struct pep_writer *writer, const void *bytes, size_t count) {
    (void)writer, (void)bytes, (void)count;
    return -EPIPE;
}

static void the_first_error_of_the_writer_stays(void **state) {
    (void)state;
    encoder *const encoders[] = {pep_encode_flame_html, pep_encode_flame_svg};
    for (size_t i = 0; i < 2; i++) {
        struct pep_arena arena;
        pep_arena_init(&arena, 0);
        struct pep_writer writer = {.write = refuse};
        struct pep_encode_job job = {.profile = &profile,
                                     .symbolizer = &symbolizer,
                                     .writer = &writer,
                                     .arena = &arena,
                                     .title = "t"};
        encoders[i](&job);
        assert_int_equal(writer.error, -EPIPE);
        pep_arena_drop(&arena);
    }
}

static void colors_are_stable(void **state) {
    (void)state;
    assert_int_equal(pep_flame_color_index(PEP_FLAME_PROGRAM, "main"),
                     pep_flame_color_index(PEP_FLAME_PROGRAM, "main"));
    assert_int_not_equal(pep_flame_color_index(PEP_FLAME_PROGRAM, "main"),
                         pep_flame_color_index(PEP_FLAME_SYSTEM, "main"));
    /* Fixed for good: a saved graph and one of next year look alike. */
    assert_int_equal(pep_flame_color_index(PEP_FLAME_PROGRAM, "main"), 40);
    bool is_met[PEP_FLAME_SHADES] = {false};
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof(name), "function_%d", i);
        uint32_t index = pep_flame_color_index(PEP_FLAME_LIBRARY, name);
        assert_int_equal(index / PEP_FLAME_SHADES, PEP_FLAME_LIBRARY);
        is_met[index % PEP_FLAME_SHADES] = true;
    }
    for (int i = 0; i < PEP_FLAME_SHADES; i++)
        assert_true(is_met[i]);
}

static void kinds_follow_the_module(void **state) {
    (void)state;
    static const struct {
        const char *name, *module;
        bool is_thread;
        enum pep_flame_kind kind;
    } rows[] = {
        {"main (1)", "", true, PEP_FLAME_THREAD},
        {"main", "sample", false, PEP_FLAME_PROGRAM},
        {"malloc", "libc.so.6", false, PEP_FLAME_SYSTEM},
        {"malloc", "libc-2.31.so", false, PEP_FLAME_SYSTEM},
        {"__vdso_clock_gettime", "[vdso]", false, PEP_FLAME_SYSTEM},
        {"deflate", "libz.so.1", false, PEP_FLAME_LIBRARY},
        {"curl_easy_perform", "libcurl.so.4", false, PEP_FLAME_LIBRARY},
        {"LazyCompile:~f", "//anon", false, PEP_FLAME_JIT},
        {"0x7f0000001234", "", false, PEP_FLAME_JIT},
        {"[truncated]", "", false, PEP_FLAME_NOTE},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pep_calltree_node node = {
            .name = rows[i].name, .module = rows[i].module, .is_thread = rows[i].is_thread};
        assert_int_equal(pep_flame_kind_of(&profile, &node, false), rows[i].kind);
        assert_int_equal(pep_flame_kind_of(&profile, &node, true), PEP_FLAME_ROOT);
    }
}

/* Relative luminance of 0xRRGGBB (WCAG 2); the gamma curve by a polynomial, within 0.002. */
static double luminance(uint32_t rgb) {
    double sum = 0;
    static const double weights[] = {0.2126, 0.7152, 0.0722};
    for (int i = 0; i < 3; i++) {
        double c = (double)(rgb >> (16 - 8 * i) & 255) / 255;
        sum += weights[i] * (c * (c * (c * 0.305306011 + 0.682171111) + 0.012522878));
    }
    return sum;
}

static void text_can_be_read_on_every_color(void **state) {
    (void)state;
    static const char *const kinds[] = {"cpu",   "wall",           "heap", "block",
                                        "mutex", "never heard of", ""};
    double lowest = 21;
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        for (uint32_t i = 0; i < 2 * PEP_FLAME_COLOR_COUNT; i++) {
            bool is_dark = i >= PEP_FLAME_COLOR_COUNT;
            uint32_t rgb = pep_flame_color_rgb(kinds[k], i % PEP_FLAME_COLOR_COUNT, is_dark);
            double text = luminance(is_dark ? PEP_FLAME_TEXT_DARK : PEP_FLAME_TEXT_LIGHT);
            double contrast = (luminance(rgb) + 0.05) / (text + 0.05);
            assert_true(rgb <= 0xffffff);
            if (contrast < 4.5)
                print_error("%s %u dark=%d #%06x: %.2f\n", kinds[k], i % PEP_FLAME_COLOR_COUNT,
                            is_dark, rgb, contrast);
            lowest = contrast < lowest ? contrast : lowest;
        }
    }
    print_message("lowest contrast of text on a frame: %.2f\n", lowest);
    assert_true(lowest >= 4.5);
    assert_int_equal(pep_flame_color_rgb(NULL, 40, false), pep_flame_color_rgb("cpu", 40, false));
    assert_int_not_equal(pep_flame_color_rgb("heap", 40, false),
                         pep_flame_color_rgb("cpu", 40, false));
}

static int write_files(const char *directory) {
    encoder *const encoders[] = {pep_encode_flame_html, pep_encode_flame_svg};
    const char *const suffixes[] = {"html", "svg"};
    for (size_t i = 0; i < 2; i++) {
        const struct outcome *out = encode(encoders[i], &profile, 0);
        char path[4096];
        snprintf(path, sizeof(path), "%s/flame.%s", directory, suffixes[i]);
        FILE *file = fopen(path, "w");
        if (file == NULL || out->buffer.writer.error != 0)
            return 1;
        size_t written = fwrite(out->buffer.data, 1, out->buffer.count, file);
        if (fclose(file) != 0 || written != out->buffer.count)
            return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    for (size_t i = 0; i < LONG_BYTES; i++)
        long_name[i] = "std::map<int, "[i % 14];
    if (argc == 3 && strcmp(argv[1], "--write") == 0)
        return write_files(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_is_one_document),
        cmocka_unit_test(page_carries_the_tree),
        cmocka_unit_test(one_value_type_is_written_once),
        cmocka_unit_test(memory_has_four_values),
        cmocka_unit_test(svg_is_root_thread_leaf),
        cmocka_unit_test(svg_cuts_text_to_the_width),
        cmocka_unit_test(svg_leaves_out_what_nobody_can_see),
        cmocka_unit_test(no_samples_make_a_graph_that_says_so),
        cmocka_unit_test(deep_stacks_need_no_stack),
        cmocka_unit_test(refused_memory_is_an_error),
        cmocka_unit_test(the_first_error_of_the_writer_stays),
        cmocka_unit_test(colors_are_stable),
        cmocka_unit_test(kinds_follow_the_module),
        cmocka_unit_test(text_can_be_read_on_every_color),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
