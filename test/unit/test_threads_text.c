/*
 * The dump of threads as text and as a page: byte for byte, and read by a strict reader.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "encoder/threads.h"
#include "test/unit/example_dump.h"
#include "test/unit/example_profile.h"

typedef void (*encoder)(const struct pep_threads_job *job);

static struct pep_arena arena;

static int drop(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static struct pep_buffer_writer encode(encoder how, const struct pep_dump *dump) {
    struct pep_buffer_writer buffer;
    pep_buffer_writer_init(&buffer, &arena);
    struct pep_threads_job job = {.dump = dump,
                                  .symbolizer = &example_symbolizer,
                                  .writer = &buffer.writer,
                                  .arena = &arena,
                                  .title = "sample <4711>"};
    how(&job);
    assert_int_equal(buffer.writer.error, 0);
    return buffer;
}

static const char *text_of(encoder of, const struct pep_dump *dump) {
    return encode(of, dump).data;
}

static void test_golden(void **state) {
    (void)state;
    struct pep_buffer_writer text = encode(pep_encode_threads_text, &example_dump);
    example_golden("example.threads", &text);
    struct pep_buffer_writer julia = encode(pep_encode_threads_julia, &example_dump);
    example_golden("example.tasks", &julia);
    struct pep_buffer_writer peek = encode(pep_encode_threads_peek, &example_dump);
    example_golden("example.peek", &peek);
}

static void test_a_strict_reader_takes_it(void **state) {
    (void)state;
    static char output[65536];
    struct pep_buffer_writer text = encode(pep_encode_threads_text, &example_dump);
    const char *path = example_file(&text, false, &arena);
    int status = example_run(
        pep_arena_printf(&arena, "/usr/bin/python3 test/judge/go_panic.py %s 2>&1", path), output,
        sizeof(output));
    unlink(path);
    if (status == 127)
        skip();
    if (status != 0)
        print_error("%s\n", output);
    assert_int_equal(status, 0);
    assert_non_null(strstr(output, "\"thread\": \"worker\""));
    assert_non_null(strstr(output, "\"minutes\": 2"));
    assert_non_null(strstr(output, "\"by\": 4711"));
}

static void test_deadlocks_and_losses_come_first(void **state) {
    (void)state;
    const char *text = text_of(pep_encode_threads_text, &example_dump);
    assert_int_equal(strncmp(text,
                             "# deadlock: 2 threads wait for each other in a circle\n"
                             "#   thread 12 (worker) waits for mutex 0x5581 of thread 13 (io)\n"
                             "#   thread 13 (io) waits for mutex 0x5582 of thread 12 (worker)\n"
                             "# 1 threads that did not answer in time <ask_late>.\n\n"
                             "goroutine 4711 [running, locked to thread]:\n",
                             strlen(text) < 250 ? strlen(text) : 250),
                     0);
}

static void test_what_has_no_place_in_the_grammar(void **state) {
    (void)state;
    const char *text = text_of(pep_encode_threads_text, &example_dump);
    assert_non_null(strstr(text, "goroutine 12 [mutex of thread 13 (io), 2 minutes, locked to "
                                 "thread]:\nlibc.memcpy(0x5581, ...)\n\t??:0\n"));
    assert_non_null(strstr(text, "[thread worker](...)\n\t??:0\ncreated by example."));
    assert_non_null(strstr(text, "goroutine 13 [mutex of thread 12 (worker), locked to thread]:"));
    assert_non_null(strstr(text, "goroutine 4712 [running, locked to thread]:\n"
                                 "[no stack: it did not answer in 500 ms](...)\n\t??:0\n"
                                 "[thread mute](...)\n\t??:0\n\n"));
    assert_non_null(strstr(text, "goroutine 4715 [epoll; {wait}, locked to thread]:\n"));
    assert_null(strstr(text, "pep_hook"));
}

static uint32_t asked_stacks;
static const uintptr_t *last_asked;

static const char *note_what_is_asked(struct pep_symbolizer *symbolizer,
                                      const struct pep_profile *profile) {
    (void)symbolizer;
    asked_stacks = profile->sample_count;
    last_asked = profile->samples[profile->sample_count - 1].pcs;
    return "Lines are missing.";
}

/* The dump's own stacks and those of births, and afterwards the profile is as it was. */
static void prepare(size_t limit_bytes, uint32_t stacks) {
    struct pep_symbolizer symbolizer = {.prepare = note_what_is_asked};
    struct pep_profile profile = *example_dump.profile;
    struct pep_dump dump = example_dump;
    dump.profile = &profile;
    pep_arena_drop(&arena);
    pep_arena_init(&arena, limit_bytes);
    pep_threads_prepare(
        &(struct pep_threads_job){.dump = &dump, .symbolizer = &symbolizer, .arena = &arena});
    assert_int_equal(asked_stacks, stacks);
    assert_ptr_equal(profile.samples, example_dump.profile->samples);
    assert_int_equal(profile.sample_count, example_dump.profile->sample_count);
}

static void test_births_are_prepared_too(void **state) {
    (void)state;
    prepare(0, 7 + 4);
    assert_ptr_equal(last_asked, example_dump.tasks[5].birth_pcs);
    prepare(1, 7); /* no memory: without them */
    assert_ptr_equal(last_asked, example_dump.profile->samples[6].pcs);
    pep_arena_drop(&arena);
    pep_arena_init(&arena, 0);
}

static void test_julia(void **state) {
    (void)state;
    const char *text = text_of(pep_encode_threads_julia, &example_dump);
    assert_int_equal(strncmp(text, "==== Thread 4711 created 1 live tasks\n", 38), 0);
    assert_non_null(strstr(text, "     ---- Root task (0xc)\n"
                                 "          (sticky: 1, started: 1, state: 0, tid: 12)\n"
                                 "          (name: worker, mutex of thread 13 (io), for 2 min, "
                                 "mutex 0x5581)\n"
                                 "memcpy at /lib/x86_64-linux-gnu/libc.so.6 (unknown line)\n"
                                 "recurse at /src/work.c:50\n"));
    assert_non_null(strstr(text, "no backtrace recorded: it did not answer"));
    assert_non_null(strstr(text, "(created by thread 4711 (example) at:)\n"));
    assert_non_null(strstr(text, "(created by a thread that is not known at:)\n"));
    assert_string_equal(text + strlen(text) - 10, "==== Done\n");
}

static void test_page(void **state) {
    (void)state;
    const char *page = text_of(pep_encode_threads_html, &example_dump);
    assert_non_null(strstr(page, "<h1>sample &lt;4711&gt;: 7 threads</h1>"));
    assert_non_null(strstr(page, "; 1 without a stack"));
    assert_non_null(strstr(page, "<h2>Deadlock: 2 threads wait for each other</h2>"));
    assert_non_null(strstr(page, "waits for mutex <code>0x5581</code> of <a href=\"#t13\">"));
    assert_non_null(
        strstr(page, "class=\"group dead\" open data-count=\"2\" data-state=\"mutex\""));
    assert_non_null(strstr(page, "<b>&lt;/b&gt;, 9 min]</b> 4715"));
    assert_non_null(strstr(page, "No stack: it did not answer in 500 ms"));
    assert_non_null(strstr(page, "2 threads</span><span class=\"names\">pool-1, pool-2</span>"
                                 "<span class=\"state\">sleep"));
    assert_non_null(strstr(page, ", &lt; 1 ms"));
    assert_non_null(strstr(page, "<span class=\"time\">1 d</span>"));
    assert_null(strstr(page, "4711: 3 threads")); /* the asset's sample */
    assert_non_null(strstr(page, "</html>"));
    const char *dead = strstr(page, "group dead"), *odd = strstr(page, "group odd");
    const char *runs = strstr(page, "group runs"), *rest = strstr(page, "class=\"group\"");
    assert_true(dead && odd && runs && rest && dead < odd && odd < runs && runs < rest);
}

static void test_what_is_not_utf8(void **state) {
    (void)state;
    struct pep_task task = {.tid = 7, .name = "a\xff\xc3(b", .doing = "x\xfe, [y\xe2\x82\xac]\x1f"};
    struct pep_sample sample = {.tid = 7};
    struct pep_profile profile = {.samples = &sample, .sample_count = 1};
    const struct pep_dump dump = {.tasks = &task, .task_count = 1, .profile = &profile};
    assert_string_equal(text_of(pep_encode_threads_text, &dump),
                        "goroutine 7 [x\xef\xbf\xbd; {y\xe2\x82\xac} , locked to thread]:\n"
                        "[thread a\xef\xbf\xbd\xef\xbf\xbd[b](...)\n\t??:0\n\n");
    assert_non_null(strstr(text_of(pep_encode_threads_julia, &dump),
                           "(name: a\xef\xbf\xbd\xef\xbf\xbd(b, x\xef\xbf\xbd, "
                           "[y\xe2\x82\xac] )\n"));
}

static void test_empty(void **state) {
    (void)state;
    struct pep_profile nothing = *example_dump.profile;
    nothing.sample_count = nothing.comment_count = 0;
    struct pep_dump dump = {.profile = &nothing};
    assert_string_equal(text_of(pep_encode_threads_text, &dump), "");
    assert_string_equal(text_of(pep_encode_threads_julia, &dump), "==== Done\n");
    assert_string_equal(text_of(pep_encode_threads_peek, &dump), "");
    assert_non_null(strstr(text_of(pep_encode_threads_html, &dump), ": 0 threads</h1>"));
}

/* More than 64 MiB: one thread again and again, by tasks that share a sample. */
static void test_cap(void **state) {
    (void)state;
    enum { COUNT = 700000 };
    static struct pep_task tasks[COUNT];
    static struct pep_sample samples[COUNT];
    struct pep_profile profile = *example_dump.profile;
    for (int i = 0; i < COUNT; i++) {
        tasks[i] = example_dump.tasks[4];
        tasks[i].tid = i + 1;
        samples[i] = profile.samples[4];
    }
    profile.samples = samples;
    profile.sample_count = COUNT;
    struct pep_dump dump = {.tasks = tasks, .task_count = COUNT, .profile = &profile};
    struct pep_buffer_writer text = encode(pep_encode_threads_text, &dump);
    assert_in_range(text.count, PEP_THREADS_TEXT_MAX, PEP_THREADS_TEXT_MAX + 4096);
    const char *last = text.data + text.count - 1;
    while (last > text.data && last[-1] != '\n')
        last--;
    assert_non_null(strstr(last, " more threads do not fit here\n"));
}

static void test_no_memory(void **state) {
    (void)state;
    static const encoder encoders[] = {pep_encode_threads_text, pep_encode_threads_julia,
                                       pep_encode_threads_html, pep_encode_threads_peek};
    for (size_t which = 0; which < sizeof(encoders) / sizeof(encoders[0]); which++) {
        int refused = 0;
        for (size_t limit = 1; limit < (1u << 20); limit += 16384) {
            struct pep_arena output;
            struct pep_buffer_writer buffer;
            pep_arena_init(&arena, limit);
            pep_arena_init(&output, 0);
            pep_buffer_writer_init(&buffer, &output);
            struct pep_threads_job job = {.dump = &example_dump,
                                          .symbolizer = &example_symbolizer,
                                          .writer = &buffer.writer,
                                          .arena = &arena,
                                          .title = ""};
            encoders[which](&job);
            assert_true(buffer.writer.error == 0 || buffer.writer.error == -ENOMEM);
            refused += buffer.writer.error != 0;
            pep_arena_drop(&output);
            pep_arena_drop(&arena);
        }
        assert_true(refused > 0);
    }
    pep_arena_init(&arena, 0);
}

static void test_find(void **state) {
    (void)state;
    assert_ptr_equal(pep_threads_find(&example_dump, 4711), &example_dump.tasks[0]);
    assert_ptr_equal(pep_threads_find(&example_dump, 12), &example_dump.tasks[1]);
    assert_ptr_equal(pep_threads_find(&example_dump, 4715), &example_dump.tasks[6]);
    assert_null(pep_threads_find(&example_dump, 14));
    assert_null(pep_threads_find(&example_dump, 99999));
}

/* For a look at the page in a browser. */
static int write_page(const char *path) {
    struct pep_buffer_writer page = encode(pep_encode_threads_html, &example_dump);
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return 1;
    fwrite(page.data, 1, page.count, file);
    return fclose(file);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_golden, drop),
        cmocka_unit_test_teardown(test_a_strict_reader_takes_it, drop),
        cmocka_unit_test_teardown(test_deadlocks_and_losses_come_first, drop),
        cmocka_unit_test_teardown(test_what_has_no_place_in_the_grammar, drop),
        cmocka_unit_test_teardown(test_births_are_prepared_too, drop),
        cmocka_unit_test_teardown(test_julia, drop),
        cmocka_unit_test_teardown(test_page, drop),
        cmocka_unit_test_teardown(test_what_is_not_utf8, drop),
        cmocka_unit_test_teardown(test_empty, drop),
        cmocka_unit_test_teardown(test_cap, drop),
        cmocka_unit_test_teardown(test_no_memory, drop),
        cmocka_unit_test_teardown(test_find, drop),
    };
    pep_arena_init(&arena, 0);
    if (argc == 3 && strcmp(argv[1], "--write") == 0)
        return write_page(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
