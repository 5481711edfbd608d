/*
 * /debug/profep/config: what is shown, what a form and what JSON change, and every refusal. The
 * settings are fakes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "test/unit/ask_routes.h"

static char changed[256];

/* -- fakes ---------------------------------------------------------------------------------- */

static bool get(size_t i, struct pep_setting_view *view) {
    static const struct pep_setting_view all[] = {
        {.name = "PROFEP_HZ",
         .value = "7",
         .fallback = "100",
         .accepted = "1..9",
         .help = "<b>",
         .origin = "changed",
         .is_number = true},
        {.name = "PROFEP_X", .accepted = "a text", .help = "x", .origin = "default"},
        {.name = "PROFEP_Y",
         .value = "a\"<",
         .fallback = "y",
         .accepted = "z",
         .help = "y",
         .origin = "environment",
         .fixed = "is fixed"},
    };
    if (i >= PEP_COUNT_OF(all))
        return false;
    *view = all[i];
    return true;
}

static const char *change(const struct pep_setting_change *changes, size_t count,
                          char sentence[PEP_SETTING_SENTENCE_BYTES]) {
    for (size_t i = 0; i < count; i++) {
        snprintf(changed + strlen(changed), sizeof(changed) - strlen(changed), "%s=%s;",
                 changes[i].name, changes[i].value);
        if (strncmp(changes[i].name, "bad", 3) == 0) {
            snprintf(sentence, PEP_SETTING_SENTENCE_BYTES, "%s is bad.", changes[i].name);
            return sentence;
        }
    }
    return NULL;
}

static const struct pep_server_settings settings = {get, change};

static int ask(const char *method, const char *accept, const char *content) {
    char line[64];
    snprintf(line, sizeof(line), "%s /debug/profep/config HTTP/1.1", method);
    changed[0] = '\0';
    int status = ask_routes_with(line, accept, content, content ? strlen(content) : 0);
    assert_int_equal(asked.end_error, 0);
    return status;
}

static int setup(void **state) {
    (void)state;
    ask_routes_reset();
    asked.service.settings = &settings;
    asked.piece_max = 7; /* bit by bit */
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pep_arena_drop(&asked.arena);
    return 0;
}

/* -- tests ---------------------------------------------------------------------------------- */

static void test_json(void **state) {
    (void)state;
    assert_int_equal(ask("GET", "", ""), 200);
    assert_string_equal(
        asked.body,
        "{\"settings\": [\n"
        "  {\"name\": \"PROFEP_HZ\", \"value\": 7, \"default\": 100, \"origin\": \"changed\", "
        "\"accepted\": \"1..9\", \"is_changeable\": true, \"why_not\": null, "
        "\"help\": \"\\u003cb\\u003e\"},\n"
        "  {\"name\": \"PROFEP_X\", \"value\": null, \"default\": null, \"origin\": \"default\", "
        "\"accepted\": \"a text\", \"is_changeable\": true, \"why_not\": null, \"help\": \"x\"},\n"
        "  {\"name\": \"PROFEP_Y\", \"value\": \"a\\\"\\u003c\", \"default\": \"y\", "
        "\"origin\": \"environment\", \"accepted\": \"z\", \"is_changeable\": false, "
        "\"why_not\": \"is fixed\", \"help\": \"y\"}\n]}\n");
    assert_non_null(strstr(asked.wire, "Content-Type: application/json\r\n"));
    assert_non_null(strstr(asked.wire, "Vary: Accept\r\n"));
    assert_int_equal(ask("HEAD", "", ""), 200);
    assert_string_equal(asked.body, "");
}

static void test_page(void **state) {
    (void)state;
    assert_int_equal(ask("GET", "Accept: text/html\r\n", ""), 200);
    assert_non_null(strstr(asked.wire, "Content-Type: text/html; charset=utf-8\r\n"));
    assert_non_null(strstr(asked.wire, "Content-Security-Policy: default-src 'none'"));
    assert_non_null(strstr(asked.body, "name=\"PROFEP_HZ\" value=\"7\""));
    assert_non_null(strstr(asked.body, "name=\"PROFEP_X\" value=\"\""));
    assert_non_null(strstr(asked.body, "<td>a&quot;&lt;</td>"));
    assert_non_null(strstr(asked.body, "&lt;b&gt;"));
    assert_null(strstr(asked.body, "name=\"PROFEP_Y\""));
}

static void test_changes(void **state) {
    (void)state;
    assert_int_equal(ask("POST", "", "PROFEP_HZ=8&x=a%20b+c&"), 200);
    assert_string_equal(changed, "PROFEP_HZ=8;x=a b c;");
    assert_int_equal(ask("POST", "", " {\"hz\": 5, \"x\": \"y\", \"z\": true, \"n\": null}"), 200);
    assert_string_equal(changed, "hz=5;x=y;z=true;n=;");
    /* As a browser sends it: fields nobody touched are left out. */
    assert_int_equal(ask("POST", "Accept: text/html\r\n", "PROFEP_HZ=7&PROFEP_X=new"), 200);
    assert_string_equal(changed, "PROFEP_X=new;");
    /* The first value of a name wins, whichever of its names; one as it is counts, too. */
    assert_int_equal(ask("POST", "", "hz=1&hz=2&PROFEP_HZ=3&x=y&profep_x=z"), 200);
    assert_string_equal(changed, "hz=1;x=y;");
    assert_int_equal(ask("POST", "", "PROFEP_HZ=7&hz=2"), 200);
    assert_string_equal(changed, "");
    assert_int_equal(ask("POST", "Accept: text/html\r\n", "PROFEP_HZ=7&PROFEP_X="), 200);
    assert_string_equal(changed, "");
    assert_int_equal(ask("POST", "", "PROFEP_Y=a%22%3C"), 200); /* fixed: for the owner to refuse */
    assert_string_equal(changed, "PROFEP_Y=a\"<;");
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *content, *sentence;
    } bad[] = {
        {"", "The body names no setting.\n"},
        {"{}", "The body names no setting.\n"},
        {"&&", "The body names no setting.\n"},
        {"hz=%4", "The form is not properly escaped.\n"},
        {"hz=%00", "The form is not properly escaped.\n"},
        {"{\"hz\":[1]}", "The body is not a flat JSON object: values are strings, numbers, true, "
                         "false or null.\n"},
        {"hz=1&bad=2", "bad is bad.\n"},
        {"bad%0A%1B%7F=2", "bad??? is bad.\n"},
    };
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++) {
        assert_int_equal(ask("POST", "", bad[i].content), 400);
        assert_string_equal(asked.body, bad[i].sentence);
    }
    static char many[1024];
    for (int i = 0; i < 65; i++)
        sprintf(many + strlen(many), "a%d=b&", i);
    assert_int_equal(ask("POST", "", many), 400);
    assert_string_equal(asked.body, "The body has more than 64 members.\n");
    assert_int_equal(ask("POST", "Origin: http://evil.example\r\n", "hz=1"), 403);
    assert_string_equal(changed, "");
    assert_int_equal(ask("POST", "", NULL), 400);
    assert_string_equal(asked.body, "The request's body did not arrive whole.\n");
    asked.service.settings = NULL;
    assert_int_equal(ask("GET", "", ""), 501);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_json, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
