/* Settings: defaults, every kind of wrong value and what the log says about it, and the JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* preload/ is not among the objects that tests link: its hooks would be the tests' own. */
#include "preload/config.c"
#include "preload/environment.c"

static char log_path[64];

/* What the log holds; empties it. */
static const char *logged(void) {
    static char text[16384];
    FILE *file = fopen(log_path, "r");
    size_t count = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
    text[count] = '\0';
    if (file)
        fclose(file);
    unlink(log_path);
    return text;
}

/* Loads settings, ended by NULL, with a log of their own. */
static void load(const char *first, ...) {
    char log_entry[96];
    char *environment[16] = {log_entry};
    size_t count = 1;
    va_list list;
    snprintf(log_path, sizeof(log_path), "/tmp/profep-test-config.%d", getpid());
    snprintf(log_entry, sizeof(log_entry), "PROFEP_LOG=%s", log_path);
    va_start(list, first);
    for (const char *entry = first; entry; entry = va_arg(list, const char *))
        environment[count++] = (char *)(uintptr_t)entry;
    va_end(list);
    pep_config_load(environment);
}

static void test_defaults(void **state) {
    (void)state;
    pep_config_load(NULL);
    assert_string_equal(pep_config.listen, "127.0.0.1:16825+");
    assert_int_equal(pep_config.hz, 100);
    assert_int_equal(pep_config.signal, 0);
    assert_int_equal(pep_config.cpu_engine, 0);
    assert_int_equal(pep_config.children, 1);
    assert_null(pep_config.output);
    assert_null(pep_config.token);
    assert_null(pep_config.log);
    assert_int_equal(pep_config.peek_signal, SIGUSR1);
    assert_true(pep_config.peek_ns == 1000000000);
    assert_int_equal(pep_config.peek_snapshot, 0);
}

static void test_peek(void **state) {
    static const struct {
        const char *entry;
        uint32_t number;
        const char *shown;
    } signals_said[] = {
        {"PROFEP_PEEK_SIGNAL=none", 0, "none"},       {"PROFEP_PEEK_SIGNAL=USR2", SIGUSR2, "USR2"},
        {"PROFEP_PEEK_SIGNAL=SIGHUP", SIGHUP, "HUP"}, {"PROFEP_PEEK_SIGNAL=12", SIGUSR2, "USR2"},
        {"PROFEP_PEEK_SIGNAL=POLL", SIGIO, "IO"},     {"PROFEP_PEEK_SIGNAL=34", 34, "34"},
        {"PROFEP_PEEK_SIGNAL=64", 64, "64"}};
    char shown[64];
    (void)state;
    for (size_t i = 0; i < PEP_COUNT_OF(signals_said); i++) {
        load(signals_said[i].entry, NULL);
        assert_int_equal(pep_config.peek_signal, signals_said[i].number);
        assert_string_equal(logged(), "");
        snprintf(shown, sizeof(shown), "\"PROFEP_PEEK_SIGNAL\":\"%s\",", signals_said[i].shown);
        assert_non_null(strstr(pep_config_describe(), shown));
    }
    load("PROFEP_PEEK_DURATION=0.25", "PROFEP_PEEK_HEAP_SNAPSHOT=1", NULL);
    assert_true(pep_config.peek_ns == 250000000);
    assert_int_equal(pep_config.peek_snapshot, 1);
    assert_non_null(strstr(pep_config_describe(), "\"PROFEP_PEEK_DURATION\":0.25,"));
    assert_non_null(strstr(pep_config_describe(), "\"PROFEP_PEEK_SIGNAL\":\"USR1\","));
    load("PROFEP_PEEK_DURATION=3600", "JULIA_PROFILE_PEEK_HEAP_SNAPSHOT=True", NULL);
    assert_true(pep_config.peek_ns == 3600000000000);
    assert_int_equal(pep_config.peek_snapshot, 1);
    assert_non_null(strstr(pep_config_describe(), "\"PROFEP_PEEK_DURATION\":3600.0,"));
    load("PROFEP_PEEK_DURATION=1.0000000001", "JULIA_PROFILE_PEEK_HEAP_SNAPSHOT=false", NULL);
    assert_true(pep_config.peek_ns == 1000000000);
    assert_int_equal(pep_config.peek_snapshot, 0);
    assert_string_equal(logged(), "");
}

static void test_values(void **state) {
    (void)state;
    load("HOME=/", "PROFEP_HZ=10000", "PROFEP_LISTEN=:0", "PROFEP_CPU_ENGINE=timer",
         "PROFEP_CHILDREN=none", "PROFEP_SIGNAL=64", "PROFEP_OUTPUT=/tmp/%p x",
         "PROFEP_LOCK_RATE=1000000000000", NULL);
    assert_string_equal(pep_config.listen, ":0");
    assert_true(pep_config.lock_rate == 1000000000000);
    assert_int_equal(pep_config.hz, 10000);
    assert_int_equal(pep_config.cpu_engine, 2);
    assert_int_equal(pep_config.children, 0);
    assert_int_equal(pep_config.signal, 64);
    assert_string_equal(pep_config.output, "/tmp/%p x");
    assert_string_equal(logged(), "");
}

static void test_empty_is_not_set(void **state) {
    (void)state;
    load("PROFEP_HZ=", "PROFEP_LISTEN=", "PROFEP_OUTPUT=", "PROFEP_CPU_ENGINE=", NULL);
    assert_string_equal(pep_config.listen, "127.0.0.1:16825+");
    assert_int_equal(pep_config.hz, 100);
    assert_null(pep_config.output);
    assert_string_equal(logged(), "");
}

/* Of a standard one only one waits at a time: ours and the program's own would be one. */
static void test_signals(void **state) {
    (void)state;
    static const char *const wrong[] = {"PROFEP_SIGNAL=12", "PROFEP_SIGNAL=34", "PROFEP_SIGNAL=0x"};
    load("PROFEP_SIGNAL=35", NULL);
    assert_int_equal(pep_config.signal, 35);
    load("PROFEP_SIGNAL=0", NULL);
    assert_int_equal(pep_config.signal, 0);
    assert_string_equal(logged(), "");
    for (size_t i = 0; i < PEP_COUNT_OF(wrong); i++) {
        load(wrong[i], NULL);
        assert_int_equal(pep_config.signal, 0);
        assert_non_null(strstr(logged(), " is not accepted (0 or 35..64); using 0\n"));
    }
}

static void test_wrong_values(void **state) {
    static const struct {
        const char *entry, *complaint;
    } cases[] = {
        {"PROFEP_HZ=0", "PROFEP_HZ=0 is not accepted (1..10000); using 100\n"},
        {"PROFEP_HZ=10001", "PROFEP_HZ=10001 is not accepted (1..10000); using 100\n"},
        {"PROFEP_HZ=-1", "PROFEP_HZ=-1 is not accepted (1..10000); using 100\n"},
        {"PROFEP_HZ=1e3", "PROFEP_HZ=1e3 is not accepted (1..10000); using 100\n"},
        {"PROFEP_HZ=99999999999999999999",
         "PROFEP_HZ=99999999999999999999 is not accepted (1..10000); using 100\n"},
        {"PROFEP_LOCK_RATE=1000000000001",
         "PROFEP_LOCK_RATE=1000000000001 is not accepted (0..1000000000000); using 10000\n"},
        {"PROFEP_LOCK_RATE=99999999999999999999",
         "PROFEP_LOCK_RATE=99999999999999999999 is not accepted (0..1000000000000); using 10000\n"},
        {"PROFEP_SIGNAL=65", "PROFEP_SIGNAL=65 is not accepted (0 or 35..64); using 0\n"},
        {"PROFEP_CPU_ENGINE=Auto",
         "PROFEP_CPU_ENGINE=Auto is not accepted (auto|perf|timer); using auto\n"},
        {"PROFEP_CPU_ENGINE=aut",
         "PROFEP_CPU_ENGINE=aut is not accepted (auto|perf|timer); using auto\n"},
        {"PROFEP_CHILDREN=auto", "PROFEP_CHILDREN=auto is not accepted (none|all); using all\n"},
        {"PROFEP_PEEK_SIGNAL=KILL", "PROFEP_PEEK_SIGNAL=KILL is not accepted (a signal's name"},
        {"PROFEP_PEEK_SIGNAL=SIG", "PROFEP_PEEK_SIGNAL=SIG is not accepted ("},
        {"PROFEP_PEEK_SIGNAL=9", "PROFEP_PEEK_SIGNAL=9 is not accepted ("},
        {"PROFEP_PEEK_SIGNAL=33", "PROFEP_PEEK_SIGNAL=33 is not accepted ("},
        {"PROFEP_PEEK_SIGNAL=65", "PROFEP_PEEK_SIGNAL=65 is not accepted ("},
        {"PROFEP_PEEK_SIGNAL=10x", "PROFEP_PEEK_SIGNAL=10x is not accepted ("},
        {"PROFEP_PEEK_DURATION=0.09",
         "PROFEP_PEEK_DURATION=0.09 is not accepted (0.1..3600); using 1.0\n"},
        {"PROFEP_PEEK_DURATION=3600.1", "PROFEP_PEEK_DURATION=3600.1 is not accepted ("},
        {"PROFEP_PEEK_DURATION=99999999999999999999",
         "PROFEP_PEEK_DURATION=99999999999999999999 is not accepted ("},
        {"PROFEP_PEEK_DURATION=1.", "PROFEP_PEEK_DURATION=1. is not accepted ("},
        {"PROFEP_PEEK_DURATION=.5", "PROFEP_PEEK_DURATION=.5 is not accepted ("},
        {"PROFEP_PEEK_DURATION=1s", "PROFEP_PEEK_DURATION=1s is not accepted ("},
        {"PROFEP_LISTEN=nowhere", "PROFEP_LISTEN=nowhere is not accepted ("},
        {"PROFEP_HEAT=1", "PROFEP_HEAT is not a setting of profep; ignored\n"},
        {"PROFEP_HZX=1", "PROFEP_HZX is not a setting of profep; ignored\n"},
        {"PROFEP_=1", "PROFEP_ is not a setting of profep; ignored\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        load(cases[i].entry, NULL);
        const char *text = logged();
        const char *after = strstr(text, "]: ");
        assert_non_null(after);
        assert_int_equal(strncmp(after + 3, cases[i].complaint, strlen(cases[i].complaint)), 0);
        assert_int_equal(pep_config.hz, 100);
        assert_int_equal(pep_config.signal, 0);
        assert_int_equal(pep_config.lock_rate, 10000);
        assert_int_equal(pep_config.cpu_engine, 0);
        assert_int_equal(pep_config.children, 1);
        assert_int_equal(pep_config.peek_signal, SIGUSR1);
        assert_true(pep_config.peek_ns == 1000000000);
        assert_string_equal(pep_config.listen, "127.0.0.1:16825+");
    }
    load("PROFEP_MARK=17", NULL);
    assert_string_equal(logged(), "");
}

static void test_text_too_long(void **state) {
    (void)state;
    char *entry = malloc(20000);
    memset(entry, 'x', 19999);
    memcpy(entry, "PROFEP_TOKEN=", 13);
    entry[19999] = '\0';
    load(entry, "PROFEP_SERVICE=short", NULL);
    free(entry);
    assert_null(pep_config.token);
    assert_string_equal(pep_config.service, "short");
    assert_non_null(strstr(logged(), "is not accepted (a text); using none\n"));
}

static void test_texts_are_copies(void **state) {
    (void)state;
    char entry[] = "PROFEP_SERVICE=mine";
    load(entry, NULL);
    memset(entry, '?', sizeof(entry) - 1);
    assert_string_equal(pep_config.service, "mine");
}

static void test_describe(void **state) {
    (void)state;
    load("PROFEP_TOKEN=secret", "PROFEP_SERVICE=a\"b\\c\n<\xc3\xa4", "PROFEP_CPU_ENGINE=perf",
         NULL);
    const char *json = pep_config_describe();
    assert_null(strstr(json, "secret"));
    assert_non_null(strstr(json, "\"PROFEP_TOKEN\":\"(hidden)\""));
    assert_non_null(
        strstr(json, "\"PROFEP_SERVICE\":\"a\\u0022b\\u005cc\\u000a\\u003c\\u00c3\\u00a4\""));
    assert_non_null(strstr(json, "\"PROFEP_CPU_ENGINE\":\"perf\""));
    assert_non_null(strstr(json, "\"PROFEP_HZ\":100,"));
    assert_non_null(strstr(json, "\"PROFEP_LOCK_RATE\":10000,"));
    assert_non_null(strstr(json, "\"PROFEP_OUTPUT\":null"));
    assert_int_equal(json[0], '{');
    assert_int_equal(json[strlen(json) - 1], '}');
}

/* -- while the program runs ----------------------------------------------------------------- */

static struct pep_setting_view view_of(const char *name) {
    struct pep_setting_view view;
    for (size_t i = 0; pep_config_get(i, &view); i++)
        if (strcmp(view.name, name) == 0)
            return view;
    fail();
    return view;
}

static void test_views(void **state) {
    (void)state;
    load("PROFEP_TOKEN=secret", "PROFEP_HZ=250", "PROFEP_SERVICE=", "PROFEP_LOCK_RATE=x", NULL);
    struct pep_setting_view view = view_of("PROFEP_HZ");
    assert_string_equal(view.text, "250");
    assert_string_equal(view.fallback, "100");
    assert_string_equal(view.accepted, "1..10000");
    assert_string_equal(view.origin, "environment");
    assert_true(view.is_number && !view.fixed);
    assert_string_equal(view_of("PROFEP_TOKEN").value, "(hidden)");
    assert_null(view_of("PROFEP_SERVICE").value);
    assert_string_equal(view_of("PROFEP_SERVICE").origin, "default");
    assert_string_equal(view_of("PROFEP_LOCK_RATE").origin, "default"); /* it was refused */
    view = view_of("PROFEP_CPU_ENGINE");
    assert_string_equal(view.text, "auto");
    assert_string_equal(view.fixed, "is set when the program starts");
    assert_string_equal(view_of("PROFEP_PEEK_DURATION").text, "1.0");
    view = view_of("PROFEP_PEEK_SIGNAL");
    assert_string_equal(view.value, view.fallback);
    assert_false(view.is_number);
    for (size_t i = 0; pep_config_get(i, &view); i++)
        assert_true(view.help[0] && view.accepted[0]);
}

static void test_changes(void **state) {
    (void)state;
    char sentence[PEP_SETTING_SENTENCE_BYTES];
    static const struct pep_setting_change good[] = {{"PROFEP_HZ", "300"},    {"heap_rate", "1"},
                                                     {"Lock_Rate", "7"},      {"service", "other"},
                                                     {"PROFEP_TOKEN", "new"}, {"log", "stderr"}};
    load("PROFEP_TOKEN=old", "PROFEP_HZ=250", NULL);
    assert_null(pep_config_change(good, 6, sentence));
    assert_int_equal(pep_config.hz, 300);
    assert_int_equal(pep_config.heap_rate, 1);
    assert_int_equal(pep_config.lock_rate, 7);
    assert_string_equal(pep_config.service, "other");
    assert_string_equal(pep_config.token, "new");
    assert_string_equal(pep_config.log, "stderr");
    assert_string_equal(view_of("PROFEP_HZ").origin, "changed");
    static const struct pep_setting_change back[] = {{"hz", ""}, {"log", ""}, {"service", ""}};
    assert_null(pep_config_change(back, 3, sentence));
    assert_int_equal(pep_config.hz, 100);
    assert_null(pep_config.log);
    assert_null(pep_config.service);
}

static void test_changes_refused(void **state) {
    (void)state;
    static const struct {
        struct pep_setting_change change;
        const char *sentence;
    } bad[] = {
        {{"hz", "0"}, "hz must be 1..10000."},
        {{"PROFEP_HZ", "1e3"}, "PROFEP_HZ must be 1..10000."},
        {{"heap_rate", "-1"}, "heap_rate must be 0..1073741824."},
        {{"hertz", "1"}, "hertz is not a setting."},
        {{"", "1"}, " is not a setting."},
        {{"listen", ":0"}, "listen is set when the program starts."},
        {{"allow_origin", "*"}, "allow_origin is set when the program starts."},
        {{"stage_path", "/"}, "stage_path is set when the program starts."},
        {{"log", "/tmp/x"}, "log can be stderr or nothing: a path is set when the program starts."},
        {{"token", ""}, "token can be replaced, not taken away."},
    };
    char sentence[PEP_SETTING_SENTENCE_BYTES];
    load("PROFEP_TOKEN=old", NULL);
    const size_t used = texts_used;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        /* What comes before it is not done either. */
        const struct pep_setting_change changes[] = {
            {"lock_rate", "3"}, {"service", "other"}, bad[i].change};
        assert_string_equal(pep_config_change(changes, 3, sentence), bad[i].sentence);
        assert_int_equal(pep_config.lock_rate, 10000);
        assert_null(pep_config.service);
        assert_int_equal(texts_used, used);
    }
    assert_string_equal(view_of("PROFEP_LOCK_RATE").origin, "default");
    const struct pep_setting_change token = {"token", "mine"}, rate = {"heap_rate", "1"};
    load("PROFEP_HEAP=off", NULL);
    assert_string_equal(pep_config_change(&token, 1, sentence),
                        "token is set when the program starts.");
    assert_string_equal(pep_config_change(&rate, 1, sentence),
                        "heap_rate is for PROFEP_HEAP=sampled.");
}

/* -- the environment for descendants -------------------------------------------------------- */

static void test_mark(void **state) {
    char *before[] = {"A=1", "B=2", NULL};
    char **kept = environ;
    (void)state;
    assert_int_equal(pep_environment_marked_pid(NULL), 0);
    assert_int_equal(pep_environment_marked_pid(before), 0);
    environ = before;
    pep_environment_mark(4711);
    assert_ptr_not_equal(environ, before);
    assert_ptr_equal(environ[0], before[0]);
    assert_ptr_equal(environ[1], before[1]);
    assert_string_equal(environ[2], "PROFEP_MARK=4711");
    assert_null(environ[3]);
    assert_int_equal(pep_environment_marked_pid(environ), 4711);
    environ = NULL;
    pep_environment_mark(1);
    assert_string_equal(environ[0], "PROFEP_MARK=1");
    environ = kept;
}

static void test_leave(void **state) {
    static const struct {
        const char *list, *left;
    } cases[] = {
        {"LD_PRELOAD=/x/libprofep.so", NULL},
        {"LD_PRELOAD=libprofep.so", NULL},
        {"LD_PRELOAD= :/x/libprofep.so:: ", NULL},
        {"LD_PRELOAD=/a.so:/x/libprofep.so", "LD_PRELOAD=/a.so"},
        {"LD_PRELOAD=/x/libprofep.so /a.so", "LD_PRELOAD=/a.so"},
        {"LD_PRELOAD=/a.so /other/libprofep.so:b.so", "LD_PRELOAD=/a.so:b.so"},
        {"LD_PRELOAD=/a/mylibprofep.so", "LD_PRELOAD=/a/mylibprofep.so"},
        {"LD_PRELOAD=/libprofep.so/x.so", "LD_PRELOAD=/libprofep.so/x.so"},
    };
    char **kept = environ;
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *before[] = {"A=1", (char *)(uintptr_t)cases[i].list, "Z=9", NULL};
        environ = before;
        pep_environment_leave("/y/libprofep.so");
        size_t at = 1;
        assert_string_equal(environ[0], "A=1");
        if (cases[i].left)
            assert_string_equal(environ[at++], cases[i].left);
        assert_string_equal(environ[at++], "Z=9");
        assert_null(environ[at]);
    }
    char *without[] = {"A=1", NULL};
    environ = without;
    pep_environment_leave("/y/libprofep.so");
    assert_ptr_equal(environ, without);
    environ = kept;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_peek),
        cmocka_unit_test(test_values),        cmocka_unit_test(test_empty_is_not_set),
        cmocka_unit_test(test_signals),       cmocka_unit_test(test_wrong_values),
        cmocka_unit_test(test_text_too_long), cmocka_unit_test(test_texts_are_copies),
        cmocka_unit_test(test_describe),      cmocka_unit_test(test_views),
        cmocka_unit_test(test_changes),       cmocka_unit_test(test_changes_refused),
        cmocka_unit_test(test_mark),          cmocka_unit_test(test_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
