#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "encoder/intern.h"
#include "encoder/sort.h"
#include "encoder/units.h"
#include "encoder/utf8.h"
#include "encoder/writer.h"

/* LDFLAGS: -Wl,--wrap=pep_malloc -Wl,--wrap=pep_calloc -Wl,--wrap=pep_free */

static struct pep_arena arena;
static int refuse_after = -1; /* allocations that still succeed; -1: all */
static long live_blocks;

void *__real_pep_malloc(size_t size_bytes);
void *__real_pep_calloc(size_t count, size_t size_bytes);
void __real_pep_free(void *block);
void *__wrap_pep_malloc(size_t size_bytes);
void *__wrap_pep_calloc(size_t count, size_t size_bytes);
void __wrap_pep_free(void *block);

static bool is_refused(void) {
    return refuse_after >= 0 && refuse_after-- == 0;
}

void *__wrap_pep_malloc(size_t size_bytes) {
    void *block = is_refused() ? NULL : __real_pep_malloc(size_bytes);
    live_blocks += block != NULL;
    return block;
}

void *__wrap_pep_calloc(size_t count, size_t size_bytes) {
    void *block = is_refused() ? NULL : __real_pep_calloc(count, size_bytes);
    live_blocks += block != NULL;
    return block;
}

void __wrap_pep_free(void *block) {
    live_blocks -= block != NULL;
    __real_pep_free(block);
}

static int start(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    refuse_after = -1;
    live_blocks = 0;
    return 0;
}

static int end(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    assert_int_equal(live_blocks, 0);
    return 0;
}

/* A sink that takes so many bytes and then fails. */
struct narrow {
    struct pep_writer writer;
    size_t room;
    int calls;
};

static int write_narrow(struct pep_writer *writer, const void *bytes, size_t count) {
    struct narrow *narrow = (struct narrow *)writer;
    (void)bytes;
    narrow->calls++;
    if (count > narrow->room)
        return -EPIPE;
    narrow->room -= count;
    return 0;
}

static const char *xml(const char *text) {
    struct pep_buffer_writer buffer;
    pep_buffer_writer_init(&buffer, &arena);
    pep_write_xml(&buffer.writer, text);
    assert_int_equal(buffer.writer.error, 0);
    return buffer.data;
}

static const char *json(const char *text) {
    struct pep_buffer_writer buffer;
    pep_buffer_writer_init(&buffer, &arena);
    pep_write_json_string(&buffer.writer, text);
    assert_int_equal(buffer.writer.error, 0);
    return buffer.data;
}

static void test_first_error_sticks(void **state) {
    (void)state;
    struct narrow narrow = {.writer.write = write_narrow, .room = 5};
    pep_write_text(&narrow.writer, "1234");
    pep_write_text(&narrow.writer, "56");
    assert_int_equal(narrow.writer.error, -EPIPE);
    pep_write_text(&narrow.writer, "7");
    pep_write_printf(&narrow.writer, "%d", 8);
    pep_writer_fail(&narrow.writer, -ENOMEM);
    assert_int_equal(narrow.writer.error, -EPIPE);
    assert_int_equal(narrow.calls, 2);
    assert_int_equal(narrow.writer.total_bytes, 4);
}

static void test_buffer_is_contiguous_and_ended(void **state) {
    (void)state;
    struct pep_buffer_writer buffer;
    pep_buffer_writer_init(&buffer, &arena);
    assert_string_equal(buffer.data, "");
    for (int i = 0; i < 10000; i++)
        pep_write_printf(&buffer.writer, "%04d", i);
    assert_int_equal(buffer.count, 40000);
    assert_int_equal(buffer.writer.total_bytes, 40000);
    assert_int_equal(buffer.data[40000], '\0');
    assert_memory_equal(buffer.data + 4 * 1234, "12341235", 8);
}

static void test_buffer_without_memory(void **state) {
    (void)state;
    struct pep_arena small;
    struct pep_buffer_writer buffer;
    pep_arena_init(&small, 128 * 1024);
    pep_buffer_writer_init(&buffer, &small);
    for (int i = 0; i < 100000; i++)
        pep_write(&buffer.writer, "0123456789", 10);
    assert_int_equal(buffer.writer.error, -ENOMEM);
    assert_true(buffer.count < 128 * 1024);
    pep_arena_drop(&small);
}

static void test_printf_longer_than_its_line(void **state) {
    (void)state;
    struct pep_buffer_writer buffer;
    char *name = malloc(65537);
    memset(name, 'x', 65536);
    name[65536] = '\0';
    pep_buffer_writer_init(&buffer, &arena);
    pep_write_printf(&buffer.writer, "<%s>", name);
    assert_int_equal(buffer.count, 65538);
    assert_int_equal(buffer.data[65537], '>');
    refuse_after = 0;
    pep_write_printf(&buffer.writer, "<%s>", name);
    assert_int_equal(buffer.writer.error, -ENOMEM);
    assert_int_equal(buffer.count, 65538);
    free(name);
}

static void test_xml(void **state) {
    (void)state;
    assert_string_equal(xml("plain"), "plain");
    assert_string_equal(xml(""), "");
    assert_string_equal(xml("a<b>&\"c'"), "a&lt;b&gt;&amp;&quot;c&#39;");
    assert_string_equal(xml("]]>"), "]]&gt;");
    assert_string_equal(xml("\x01\n\t\x7f"), "\uFFFD\uFFFD\uFFFD\uFFFD");
    assert_string_equal(xml("gr\u00fc\u00df \u20ac \U0001F525"),
                        "gr\u00fc\u00df \u20ac \U0001F525");
    assert_string_equal(xml("\xC2\x85"), "\uFFFD");       /* C1: NEL */
    assert_string_equal(xml("\xEF\xBF\xBE|"), "\uFFFD|"); /* U+FFFE is no XML character */
    assert_string_equal(xml("\xff\xfe<"), "\uFFFD\uFFFD&lt;");
    assert_string_equal(xml("\xC0\xAF"), "\uFFFD\uFFFD");           /* overlong '/' */
    assert_string_equal(xml("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD"); /* surrogate */
    assert_string_equal(xml("\xE2\x82"), "\uFFFD\uFFFD");           /* cut off */
    assert_string_equal(xml("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
}

static void test_json(void **state) {
    (void)state;
    assert_string_equal(json("plain"), "\"plain\"");
    assert_string_equal(json("a\"b\\c"), "\"a\\\"b\\\\c\"");
    assert_string_equal(json("</script><!--"), "\"\\u003c/script\\u003e\\u003c!--\"");
    assert_string_equal(json("]]>&"), "\"]]\\u003e\\u0026\"");
    assert_string_equal(json("\n\x1b\x7f"), "\"\\u000a\\u001b\\u007f\"");
    assert_string_equal(json("\u2028\u2029"), "\"\\u2028\\u2029\"");
    assert_string_equal(json("\u20ac\xff"), "\"\u20ac\uFFFD\"");
}

static void test_long_hostile_names(void **state) {
    (void)state;
    enum { LENGTH = 65536 };
    char *name = malloc(LENGTH + 1);
    for (int i = 0; i < LENGTH; i++)
        name[i] = (char)(1 + (i * 7 + i / 255) % 255);
    name[LENGTH] = '\0';
    size_t bytes;
    const char *texts[] = {xml(name), json(name)};
    for (int which = 0; which < 2; which++)
        for (const char *at = texts[which]; *at != '\0'; at += bytes) {
            uint32_t code = pep_utf8_next(at, &bytes);
            assert_true(code != PEP_UTF8_BAD && code >= 0x20 && code != '<' && code != '>');
        }
    free(name);
}

/* What a gzip file holds, by zlib itself. */
static size_t unpack(const struct pep_buffer_writer *packed, char *to, size_t size) {
    z_stream stream = {.next_in = (unsigned char *)packed->data,
                       .avail_in = (unsigned)packed->count,
                       .next_out = (unsigned char *)to,
                       .avail_out = (unsigned)size};
    assert_int_equal(inflateInit2(&stream, 31), Z_OK);
    assert_int_equal(inflate(&stream, Z_FINISH), Z_STREAM_END);
    assert_int_equal(stream.avail_in, 0);
    assert_int_equal(inflateEnd(&stream), Z_OK);
    return stream.total_out;
}

static void test_gzip_round_trip_at_every_level(void **state) {
    (void)state;
    enum { SIZE = 300000 };
    char *plain = malloc(SIZE), *back = malloc(SIZE + 1);
    uint32_t random = 1;
    for (int i = 0; i < SIZE; i++) {
        random = random * 1103515245 + 12345;
        plain[i] = (char)(random >> 16 & (i < SIZE / 2 ? 0x07 : 0xFF));
    }
    for (int level = 1; level <= 9; level++) {
        struct pep_buffer_writer packed;
        struct pep_gzip_writer gzip;
        pep_buffer_writer_init(&packed, &arena);
        assert_int_equal(pep_gzip_writer_init(&gzip, &packed.writer, level), 0);
        size_t done = 0;
        for (size_t part = 1; done < SIZE; part = part * 3 % 20011) {
            size_t count = part < SIZE - done ? part : SIZE - done;
            pep_write(&gzip.writer, plain + done, count);
            done += count;
        }
        assert_int_equal(pep_gzip_writer_finish(&gzip), 0);
        assert_int_equal(gzip.writer.total_bytes, SIZE);
        assert_int_equal(unpack(&packed, back, SIZE + 1), SIZE);
        assert_memory_equal(plain, back, SIZE);
    }
    free(plain);
    free(back);
}

static void test_gzip_of_nothing(void **state) {
    (void)state;
    struct pep_buffer_writer packed;
    struct pep_gzip_writer gzip;
    char none;
    pep_buffer_writer_init(&packed, &arena);
    assert_int_equal(pep_gzip_writer_init(&gzip, &packed.writer, PEP_GZIP_LEVEL_FAST), 0);
    assert_int_equal(pep_gzip_writer_finish(&gzip), 0);
    assert_int_equal(unpack(&packed, &none, 1), 0);
    assert_int_equal(pep_gzip_writer_finish(&gzip), 0);
    pep_write_text(&gzip.writer, "late");
    assert_int_equal(gzip.writer.error, -EBADF);
}

static void test_gzip_refuses_other_levels(void **state) {
    (void)state;
    struct narrow narrow = {.writer.write = write_narrow};
    struct pep_gzip_writer gzip;
    assert_int_equal(pep_gzip_writer_init(&gzip, &narrow.writer, 0), -EINVAL);
    assert_int_equal(pep_gzip_writer_init(&gzip, &narrow.writer, 10), -EINVAL);
    pep_write_text(&gzip.writer, "x");
    assert_int_equal(pep_gzip_writer_finish(&gzip), -EINVAL);
}

static void test_gzip_without_memory(void **state) {
    (void)state;
    struct narrow narrow = {.writer.write = write_narrow, .room = SIZE_MAX};
    struct pep_gzip_writer gzip;
    int error, allowed;
    for (allowed = 0;; allowed++) {
        refuse_after = allowed;
        error = pep_gzip_writer_init(&gzip, &narrow.writer, 6);
        refuse_after = -1;
        if (error == 0)
            break;
        assert_int_equal(error, -ENOMEM);
        assert_int_equal(live_blocks, 0);
        assert_int_equal(pep_gzip_writer_finish(&gzip), -ENOMEM);
    }
    /* The state and what zlib's deflateInit2 asks for. */
    assert_true(allowed >= 5);
    assert_int_equal(pep_gzip_writer_finish(&gzip), 0);
}

static void test_gzip_into_a_failing_writer(void **state) {
    (void)state;
    char noise[4096];
    uint32_t random = 1;
    struct narrow narrow = {.writer.write = write_narrow, .room = 100000};
    struct pep_gzip_writer gzip;
    assert_int_equal(pep_gzip_writer_init(&gzip, &narrow.writer, 1), 0);
    for (int i = 0; i < 100; i++) {
        for (size_t at = 0; at < sizeof(noise); at++)
            noise[at] = (char)((random = random * 1103515245 + 12345) >> 16);
        pep_write(&gzip.writer, noise, sizeof(noise));
    }
    assert_int_equal(gzip.writer.error, -EPIPE);
    assert_int_equal(pep_gzip_writer_finish(&gzip), -EPIPE);
    assert_int_equal(live_blocks, 0);
    /* Only the end does not fit. */
    narrow = (struct narrow){.writer.write = write_narrow, .room = 5};
    assert_int_equal(pep_gzip_writer_init(&gzip, &narrow.writer, 1), 0);
    pep_write_text(&gzip.writer, "text");
    assert_int_equal(gzip.writer.error, 0);
    assert_int_equal(pep_gzip_writer_finish(&gzip), -EPIPE);
}

static void test_intern_makes_texts_fit(void **state) {
    (void)state;
    struct pep_intern intern;
    assert_true(pep_intern_init(&intern, &arena));
    assert_int_equal(pep_intern_add(&intern, ""), 0);
    assert_int_equal(pep_intern_add(&intern, NULL), 0);
    char text[] = "name";
    uint32_t name = pep_intern_add(&intern, text);
    assert_int_equal(name, 1);
    assert_int_equal(pep_intern_add(&intern, "name"), name);
    assert_int_equal(pep_intern_add(&intern, "name2"), 2);
    uint32_t bad = pep_intern_add(&intern, "a\xff\n\xC2\x9B");
    assert_string_equal(intern.items[bad].text, "a\uFFFD\uFFFD\uFFFD");
    assert_int_equal(pep_intern_add(&intern, "a\uFFFD\uFFFD\uFFFD"), bad);
    assert_int_equal(pep_intern_bound("plain"), 5);
    assert_int_equal(pep_intern_bound("\x01\x02"), 6);

    char *huge = malloc(80001);
    for (int i = 0; i < 80000; i += 2)
        memcpy(huge + i, "\u00fc", 2);
    huge[80000] = '\0';
    uint32_t cut = pep_intern_add(&intern, huge);
    assert_int_equal(intern.items[cut].count, 65534);
    memset(huge, 0xff, 80000);
    uint32_t repaired = pep_intern_add(&intern, huge);
    assert_int_equal(intern.items[repaired].count, 65535);
    assert_int_equal(pep_intern_add(&intern, huge), repaired);
    free(huge);

    for (int i = 0; i < 5000; i++)
        pep_intern_add(&intern, pep_arena_printf(&arena, "text %d", i));
    assert_int_equal(pep_intern_add(&intern, "text 0") + 4999,
                     pep_intern_add(&intern, "text 4999"));
}

/* Every byte at every place of the eight that are looked at together. */
static void test_intern_sees_every_byte(void **state) {
    (void)state;
    struct pep_intern intern;
    assert_true(pep_intern_init(&intern, &arena));
    for (int byte = 1; byte < 256; byte++)
        for (int at = 0; at < 8; at++) {
            char *text = pep_arena_strdup(&arena, "  ~~  ~~tail");
            text[at] = (char)byte;
            uint32_t number = pep_intern_add(&intern, text);
            const struct pep_interned *item = &intern.items[number];
            bool is_plain = byte >= 0x20 && byte < 0x7F;
            assert_int_equal(item->count, is_plain ? 12 : 14);
            if (is_plain)
                assert_memory_equal(item->text, text, 12);
            else
                assert_memory_equal(item->text + at, "\uFFFD", 3);
        }
}

static int by_tens(const void *a, const void *b) {
    return *(const int *)a / 10 - *(const int *)b / 10;
}

static void test_sort_is_stable(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    static int values[COUNT];
    const void *items[COUNT];
    for (int count = 0; count <= COUNT; count = count < 10 ? count + 1 : count * 10) {
        for (int i = 0; i < count; i++) {
            values[i] = i * 7919 % 1000;
            items[i] = &values[i];
        }
        assert_true(pep_sort(&arena, items, (size_t)count, by_tens));
        for (int i = 1; i < count; i++) {
            assert_true(by_tens(items[i - 1], items[i]) <= 0);
            if (by_tens(items[i - 1], items[i]) == 0)
                assert_true(items[i - 1] < items[i]);
        }
    }
    struct pep_arena none;
    pep_arena_init(&none, 1);
    assert_false(pep_sort(&none, items, COUNT, by_tens));
    pep_arena_drop(&none);
}

static const char *formatted(int64_t value, const char *unit) {
    static char text[PEP_UNITS_TEXT_MAX];
    pep_units_format(text, value, unit);
    return text;
}

static const char *percent(int64_t part, int64_t whole) {
    static char text[PEP_UNITS_TEXT_MAX];
    pep_units_percent(text, part, whole);
    return text;
}

static const char *dated(int64_t time_ns) {
    static char text[PEP_UNITS_TEXT_MAX];
    pep_units_time(text, time_ns);
    return text;
}

static void test_units(void **state) {
    (void)state;
    assert_string_equal(formatted(0, "nanoseconds"), "0");
    assert_string_equal(formatted(999, "nanoseconds"), "999ns");
    assert_string_equal(formatted(10000000, "nanoseconds"), "10ms");
    assert_string_equal(formatted(1234567890, "nanoseconds"), "1.23s");
    assert_string_equal(formatted(1235000000, "nanoseconds"), "1.24s");
    assert_string_equal(formatted(90000000000, "nanoseconds"), "1.50mins");
    assert_string_equal(formatted(INT64_MAX, "nanoseconds"), "2562047.79hrs");
    assert_string_equal(formatted(1536, "bytes"), "1.50KiB");
    assert_string_equal(formatted(1536, "count"), "1536");
    assert_string_equal(formatted(7, NULL), "7");
    assert_string_equal(percent(1, 3), "33.33%");
    assert_string_equal(percent(5, 5), "100.00%");
    assert_string_equal(percent(1, 0), "0%");
    assert_string_equal(percent(INT64_MAX, INT64_MAX), "100.00%");
    assert_string_equal(dated(0), "1970-01-01 00:00:00 UTC");
    assert_string_equal(dated(1700000000123456789), "2023-11-14 22:13:20 UTC");
    assert_string_equal(dated(1709251199000000000), "2024-02-29 23:59:59 UTC");
    assert_string_equal(dated(1709251200000000000), "2024-03-01 00:00:00 UTC");
    assert_string_equal(dated(4102444800000000000), "2100-01-01 00:00:00 UTC");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_first_error_sticks, start, end),
        cmocka_unit_test_setup_teardown(test_buffer_is_contiguous_and_ended, start, end),
        cmocka_unit_test_setup_teardown(test_buffer_without_memory, start, end),
        cmocka_unit_test_setup_teardown(test_printf_longer_than_its_line, start, end),
        cmocka_unit_test_setup_teardown(test_xml, start, end),
        cmocka_unit_test_setup_teardown(test_json, start, end),
        cmocka_unit_test_setup_teardown(test_long_hostile_names, start, end),
        cmocka_unit_test_setup_teardown(test_gzip_round_trip_at_every_level, start, end),
        cmocka_unit_test_setup_teardown(test_gzip_of_nothing, start, end),
        cmocka_unit_test_setup_teardown(test_gzip_refuses_other_levels, start, end),
        cmocka_unit_test_setup_teardown(test_gzip_without_memory, start, end),
        cmocka_unit_test_setup_teardown(test_gzip_into_a_failing_writer, start, end),
        cmocka_unit_test_setup_teardown(test_intern_makes_texts_fit, start, end),
        cmocka_unit_test_setup_teardown(test_intern_sees_every_byte, start, end),
        cmocka_unit_test_setup_teardown(test_sort_is_stable, start, end),
        cmocka_unit_test_setup_teardown(test_units, start, end),
    };
    return cmocka_run_group_tests_name("writer", tests, NULL, NULL);
}
