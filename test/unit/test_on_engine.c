/*
 * /debug_engine: which route each profile_type is, with which parameters, where its file comes to
 * be and every refusal. The routes are fakes: each answers its own name and what it was asked for.
 * LDFLAGS: -Wl,--wrap=pep_on_endpoint_profile,--wrap=pep_on_endpoint_profile_start
 * LDFLAGS: -Wl,--wrap=pep_on_endpoint_profile_stop,--wrap=pep_on_endpoint_wall
 * LDFLAGS: -Wl,--wrap=pep_on_endpoint_wall_start,--wrap=pep_on_endpoint_wall_stop
 * LDFLAGS: -Wl,--wrap=pep_on_heap_snapshot,--wrap=pep_on_allocs_profile
 * LDFLAGS: -Wl,--wrap=pep_on_allocs_start,--wrap=pep_on_allocs_stop
 * LDFLAGS: -Wl,--wrap=pep_on_task_backtraces
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test/unit/ask_routes.h"

static const char *refused;          /* by the route inside; NULL: it answers */
static int error_inside;             /* of its writer */
static char stage[64], content[512]; /* of the file that the answer names */

/* -- fakes ---------------------------------------------------------------------------------- */

static void answer(struct pep_exchange *exchange, const char *name) {
    const char *duration = pep_request_param(exchange->request, "duration");
    const char *text = pep_request_param(exchange->request, "text");
    if (refused) {
        pep_response_error(exchange->response, 400, refused);
        return;
    }
    pep_response_start(exchange->response, 200, "application/octet-stream");
    pep_write_printf(&exchange->response->writer, "%s duration=%s text=%s", name,
                     duration ? duration : "-", text ? text : "-");
    if (error_inside)
        pep_writer_fail(&exchange->response->writer, error_inside);
}

#define FAKE(route) \
    void __wrap_pep_on_##route(struct pep_exchange *exchange); \
    void __wrap_pep_on_##route(struct pep_exchange *exchange) { \
        answer(exchange, #route); \
    }
FAKE(endpoint_profile)
FAKE(endpoint_profile_start)
FAKE(endpoint_profile_stop)
FAKE(endpoint_wall)
FAKE(endpoint_wall_start)
FAKE(endpoint_wall_stop)
FAKE(heap_snapshot)
FAKE(allocs_profile)
FAKE(allocs_start)
FAKE(allocs_stop)
FAKE(task_backtraces)

/* The status, or the error that cut the answer. */
static int ask(const char *query, const char *json) {
    char line[512];
    snprintf(line, sizeof(line), "POST /debug_engine%s HTTP/1.1", query);
    int status = ask_routes_with(line, "", json, json ? strlen(json) : 0);
    if (asked.writer_error)
        return asked.writer_error;
    assert_int_equal(asked.end_error, 0);
    return status;
}

static void refuses(const char *query, const char *json, const char *sentence) {
    assert_int_equal(ask(query, json), 400);
    assert_string_equal(asked.body, sentence);
}

/* The answer is the path of a file with this ending and these bytes, which is removed. */
static void gives(const char *query, const char *json, const char *suffix, const char *wanted) {
    struct stat status;
    assert_int_equal(ask(query, json), 200);
    assert_memory_equal(asked.body, stage, strlen(stage));
    assert_string_equal(asked.body + strlen(asked.body) - strlen(suffix), suffix);
    assert_int_equal(stat(asked.body, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    FILE *file = fopen(asked.body, "r");
    assert_non_null(file);
    content[fread(content, 1, sizeof(content) - 1, file)] = '\0';
    fclose(file);
    assert_int_equal(unlink(asked.body), 0);
    assert_string_equal(content, wanted);
}

static int setup(void **state) {
    (void)state;
    char sub[80];
    snprintf(stage, sizeof(stage), "/tmp/profep-test-engine.XXXXXX");
    assert_non_null(mkdtemp(stage));
    snprintf(sub, sizeof(sub), "%s/sub", stage);
    ask_routes_reset();
    asked.service.stage_path = stage;
    refused = NULL;
    error_inside = 0;
    return mkdir(sub, 0700);
}

/* Both directories are empty: nothing was left behind. */
static int teardown(void **state) {
    (void)state;
    char sub[80];
    snprintf(sub, sizeof(sub), "%s/sub", stage);
    pep_arena_drop(&asked.arena);
    return rmdir(sub) || rmdir(stage);
}

/* -- tests ---------------------------------------------------------------------------------- */

static void test_every_type(void **state) {
    (void)state;
    static const struct {
        const char *type, *route, *suffix; /* no suffix: answered, not in a file */
    } types[] = {
        {"cpu_profile", "endpoint_profile", ".pb.gz"},
        {"wall_profile", "endpoint_wall", ".pb.gz"},
        {"cpu_profile_start", "endpoint_profile_start", NULL},
        {"wall_profile_start", "endpoint_wall_start", NULL},
        {"cpu_profile_stop", "endpoint_profile_stop", ".pb.gz"},
        {"wall_profile_stop", "endpoint_wall_stop", ".pb.gz"},
        {"heap_snapshot", "heap_snapshot", ".heapsnapshot"},
        {"allocs_profile", "allocs_profile", ".pb.gz"},
        {"allocs_profile_start", "allocs_start", NULL},
        {"allocs_profile_stop", "allocs_stop", ".pb.gz"},
        {"task_backtraces", "task_backtraces", ""},
    };
    for (size_t i = 0; i < PEP_COUNT_OF(types); i++) {
        char json[128], wanted[128];
        snprintf(json, sizeof(json), "{\"profile_type\":\"%s\",\"duration\":0.5}", types[i].type);
        snprintf(wanted, sizeof(wanted), "%s duration=0.5 text=-", types[i].route);
        if (types[i].suffix) {
            gives("", json, types[i].suffix, wanted);
            continue;
        }
        assert_int_equal(ask("?subdir=../..", json), 200); /* no file, so no matter where */
        assert_string_equal(asked.body, wanted);
    }
}

static void test_parameters(void **state) {
    (void)state;
    gives("?subdir=sub", "{\"profile_type\":\"cpu_profile\",\"duration\":\"7\",\"text\":null}",
          ".pb.gz", "endpoint_profile duration=7 text=-");
    gives("?subdir=", "{\"profile_type\":\"cpu_profile\",\"text\":\"&duration=9#+%41 \\u00e9\"}",
          ".pb.gz", "endpoint_profile duration=- text=&duration=9#+%41 \xC3\xA9");
    gives("", "{\"profile_type\":\"cpu_profile\",\"pprof\":false}", ".profile",
          "endpoint_profile duration=- text=-");
    gives("", "{\"profile_type\":\"cpu_profile\",\"pprof\":\"false\",\"format\":\"tree\"}", ".txt",
          "endpoint_profile duration=- text=-");
    gives("", "{\"profile_type\":\"wall_profile\",\"format\":\"html\"}", ".html",
          "endpoint_wall duration=- text=-");
}

static void test_refusals(void **state) {
    (void)state;
    static const char needed[] =
        "Need to provide at least a `profile_type` argument in the JSON body\n";
    static const char cpu[] = "{\"profile_type\":\"cpu_profile\"}";
    char sentence[160];
    refuses("", "", needed);
    refuses("", "{}", needed);
    refuses("", "{\"profile_type\":null}", needed);
    refuses("", "{\"profile_type\":\"heap\"}", "Unknown profile_type: heap\n");
    refuses("", "{\"profile_type\":\"a\\nb\\u001b\\u007f\"}", "Unknown profile_type: a?b??\n");
    refuses("", "[]", "The body is not a JSON object.\n");
    refuses("?subdir=..", cpu, "subdir must be a directory below the stage path.\n");
    refuses("?subdir=/etc", cpu, "subdir must be a directory below the stage path.\n");
    snprintf(sentence, sizeof(sentence), "Subdirectory does not exist: %s/no?\n", stage);
    refuses("?subdir=no%0A", cpu, sentence);
    refused = "duration must be a number.";
    refuses("", cpu, "duration must be a number.\n");
    refuses("", NULL, "The request's body did not arrive whole.\n");
}

static void test_what_fails_inside(void **state) {
    (void)state;
    static const char cpu[] = "{\"profile_type\":\"cpu_profile\"}";
    char kept[sizeof(stage)];
    error_inside = -ENOMEM;
    assert_int_equal(ask("", cpu), 500);
    assert_string_equal(asked.body, "The answer could not be made.\n");
    error_inside = -ECONNRESET;
    assert_int_equal(ask("", cpu), -ECONNRESET);
    error_inside = 0;
    memcpy(kept, stage, sizeof(stage));
    snprintf(stage, sizeof(stage), "/no/such/place");
    assert_int_equal(ask("", cpu), 500);
    assert_string_equal(asked.body,
                        "No file can be made in /no/such/place: No such file or directory.\n");
    memcpy(stage, kept, sizeof(stage));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_type, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parameters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_fails_inside, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
