/*
 * Rendering: the format decides encoder, content type and compression; errors come out.
 * LDFLAGS: -Wl,--wrap=pep_encode_pprof,--wrap=pep_encode_collapsed,--wrap=pep_encode_text
 * LDFLAGS: -Wl,--wrap=pep_encode_flame_html,--wrap=pep_encode_flame_svg
 * LDFLAGS: -Wl,--wrap=pep_symbolizer_begin,--wrap=pep_symbolizer_end
 * LDFLAGS: -Wl,--wrap=pep_gzip_writer_init
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "encoder/encoders.h"
#include "http/render.h"

void __wrap_pep_encode_pprof(const struct pep_encode_job *job);
void __wrap_pep_encode_collapsed(const struct pep_encode_job *job);
void __wrap_pep_encode_text(const struct pep_encode_job *job);
void __wrap_pep_encode_flame_html(const struct pep_encode_job *job);
void __wrap_pep_encode_flame_svg(const struct pep_encode_job *job);
struct pep_symbolizer *__wrap_pep_symbolizer_begin(struct pep_arena *arena);
void __wrap_pep_symbolizer_end(struct pep_symbolizer *symbolizer);
int __real_pep_gzip_writer_init(struct pep_gzip_writer *gzip, struct pep_writer *to, int level);
int __wrap_pep_gzip_writer_init(struct pep_gzip_writer *gzip, struct pep_writer *to, int level);

static struct pep_symbolizer symbolizer;
static struct pep_profile profile = {.duration_ns = 5040000000, .period = 10000000, .pid = 4711};
static struct pep_arena arena;
static int open_symbolizers, gzip_error;
static bool has_symbolizer = true;
static char title[128];

static void note_job(const struct pep_encode_job *job, const char *text) {
    assert_int_equal(job->profile->pid, profile.pid);
    assert_ptr_equal(job->symbolizer, &symbolizer);
    assert_ptr_equal(job->arena, &arena);
    strncpy(title, job->title, sizeof(title) - 1);
    pep_write_text(job->writer, text);
}

void __wrap_pep_encode_pprof(const struct pep_encode_job *job) {
    note_job(job, "pprof");
}

void __wrap_pep_encode_collapsed(const struct pep_encode_job *job) {
    note_job(job, "collapsed");
}

void __wrap_pep_encode_text(const struct pep_encode_job *job) {
    note_job(job, "text");
}

void __wrap_pep_encode_flame_html(const struct pep_encode_job *job) {
    note_job(job, "html");
}

void __wrap_pep_encode_flame_svg(const struct pep_encode_job *job) {
    note_job(job, "svg");
}

struct pep_symbolizer *__wrap_pep_symbolizer_begin(struct pep_arena *in) {
    (void)in;
    open_symbolizers += has_symbolizer;
    return has_symbolizer ? &symbolizer : NULL;
}

void __wrap_pep_symbolizer_end(struct pep_symbolizer *of) {
    assert_ptr_equal(of, &symbolizer);
    open_symbolizers--;
}

int __wrap_pep_gzip_writer_init(struct pep_gzip_writer *gzip, struct pep_writer *to, int level) {
    return gzip_error ? gzip_error : __real_pep_gzip_writer_init(gzip, to, level);
}

static struct pep_buffer_writer render(enum pep_format format, int error) {
    struct pep_buffer_writer buffer;
    pep_buffer_writer_init(&buffer, &arena);
    assert_int_equal(pep_render_to(&buffer.writer, format, &profile, &arena), error);
    assert_int_equal(open_symbolizers, 0);
    return buffer;
}

static void test_formats(void **state) {
    (void)state;
    assert_string_equal(render(PEP_FORMAT_SVG, 0).data, "svg");
    assert_string_equal(render(PEP_FORMAT_HTML, 0).data, "html");
    assert_string_equal(render(PEP_FORMAT_COLLAPSED, 0).data, "collapsed");
    assert_string_equal(render(PEP_FORMAT_TEXT, 0).data, "text");
    assert_non_null(strstr(title, " 4711: CPU, 5.0 s at 100 Hz"));
}

static void test_pprof_is_gzip(void **state) {
    (void)state;
    struct pep_buffer_writer found = render(PEP_FORMAT_PPROF, 0);
    assert_true(found.count > 18);
    assert_memory_equal(found.data, "\x1f\x8b", 2);
    z_stream stream = {.next_in = (Bytef *)found.data, .avail_in = (uInt)found.count};
    char text[32] = "";
    stream.next_out = (Bytef *)text;
    stream.avail_out = sizeof(text);
    assert_int_equal(inflateInit2(&stream, 31), Z_OK);
    assert_int_equal(inflate(&stream, Z_FINISH), Z_STREAM_END);
    inflateEnd(&stream);
    assert_string_equal(text, "pprof");
}

static void test_errors(void **state) {
    (void)state;
    gzip_error = -ENOMEM;
    render(PEP_FORMAT_PPROF, -ENOMEM);
    gzip_error = 0;
    has_symbolizer = false;
    render(PEP_FORMAT_SVG, -ENOMEM);
    has_symbolizer = true;
}

static int refuse(struct pep_sink *sink, const void *bytes, size_t count) {
    (void)sink;
    (void)bytes;
    (void)count;
    return -EPIPE;
}

static void test_response(void **state) {
    (void)state;
    static struct pep_response response;
    struct pep_sink sink = {refuse};
    pep_response_init(&response, &sink);
    pep_render_head(&response, PEP_FORMAT_PPROF, "heap");
    assert_non_null(
        strstr(response.head, "Content-Disposition: attachment; filename=\"heap\"\r\n"));
    gzip_error = -ENOMEM;
    pep_render_body(&response, PEP_FORMAT_PPROF, &profile, &arena);
    gzip_error = 0;
    assert_int_equal(response.writer.error, -ENOMEM);
    pep_render_head(&response, PEP_FORMAT_HTML, "heap");
    assert_null(strstr(response.head, "Content-Disposition"));
    pep_render_body(&response, PEP_FORMAT_HTML, &profile, &arena);
    assert_int_equal(response.writer.error, 0);
    assert_int_equal(response.body_count, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_pprof_is_gzip),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_response),
    };
    pep_arena_init(&arena, 0);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pep_arena_drop(&arena);
    return failed;
}
