/* Bodies in JSON: what is taken, and every way to be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "http/json.h"
#include "sampler/rt/attrs.h"

static struct pep_arena arena;

static int start(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    return 0;
}

static int end(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static void test_values(void **state) {
    (void)state;
    static const char text[] = " {\"a\" : \"x\",\r\n\t\"b\":-0.5e+10 , \"c\":true,\"d\":false,"
                               "\"e\":null,\"\":\"\",\"f\":0,\"g\":10 } \n";
    struct pep_json json;
    assert_null(pep_json_read(&arena, text, strlen(text), &json));
    assert_int_equal(json.count, 8);
    assert_string_equal(pep_json_value(&json, "a"), "x");
    assert_string_equal(pep_json_value(&json, "b"), "-0.5e+10");
    assert_string_equal(pep_json_value(&json, "c"), "true");
    assert_string_equal(pep_json_value(&json, "d"), "false");
    assert_null(pep_json_value(&json, "e"));
    assert_string_equal(pep_json_value(&json, ""), "");
    assert_string_equal(pep_json_value(&json, "f"), "0");
    assert_string_equal(pep_json_value(&json, "g"), "10");
    assert_null(pep_json_value(&json, "h"));
    assert_null(pep_json_read(&arena, "{}", 2, &json));
    assert_int_equal(json.count, 0);
}

static void test_escapes(void **state) {
    (void)state;
    static const char text[] = "{\"\\u0061\\\"\\\\\\/\\b\\f\\n\\r\\t\":"
                               "\"\\u00e9\\u20AC\\uD83D\\uDE00\xC3\xA9\x7f\"}";
    struct pep_json json;
    assert_null(pep_json_read(&arena, text, strlen(text), &json));
    assert_string_equal(json.members[0].name, "a\"\\/\b\f\n\r\t");
    assert_string_equal(json.members[0].value, "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xC3\xA9\x7f");
}

static void test_refusals(void **state) {
    (void)state;
    static const char object[] = "The body is not a JSON object.";
    static const char string[] = "The body is not JSON: a string is not properly written.";
    static const char value[] = "The body is not a flat JSON object: values are strings, numbers, "
                                "true, false or null.";
    static const struct {
        const char *text, *sentence;
    } bad[] = {
        {"", object},
        {"null", object},
        {"[]", object},
        {"{", object},
        {"{a:1}", object},
        {"{\"a\"}", object},
        {"{\"a\":1,}", object},
        {"{\"a\":1 \"b\":2}", object},
        {"{\"a\":1", object},
        {"{\"a\":1}}", object},
        {"{\"a\":1}\v", object},
        {"{\"a\":1,\"a\":2}", "The body has a name twice."},
        {"{\"a\":{}}", value},
        {"{\"a\":[1]}", value},
        {"{\"a\":}", value},
        {"{\"a\":+1}", value},
        {"{\"a\":.5}", value},
        {"{\"a\":01}", value},
        {"{\"a\":1.}", value},
        {"{\"a\":1e}", value},
        {"{\"a\":-}", value},
        {"{\"a\":NaN}", value},
        {"{\"a\":True}", value},
        {"{\"a\":truex}", object},
        {"{\"a\":0x10}", object},
        {"{\"a", string},
        {"{\"a\":\"", string},
        {"{\"a\":\"\\", string},
        {"{\"a\":\"\\x\"}", string},
        {"{\"a\":\"\\u12\"}", string},
        {"{\"a\":\"\\u0000\"}", string},
        {"{\"a\":\"\\uD800\"}", string},
        {"{\"a\":\"\\uD800\\u0041\"}", string},
        {"{\"a\":\"\\uDC00\"}", string},
        {"{\"a\":\"\n\"}", string},
        {"{\"a\":\"\xC0\x80\"}", string},
        {"{\"a\":\"\xff\"}", string},
    };
    struct pep_json json;
    for (size_t i = 0; i < PEP_COUNT_OF(bad); i++) {
        const char *sentence = pep_json_read(&arena, bad[i].text, strlen(bad[i].text), &json);
        if (!sentence || strcmp(sentence, bad[i].sentence) != 0)
            print_error("%s\n", bad[i].text);
        assert_non_null(sentence);
        assert_string_equal(sentence, bad[i].sentence);
    }
    assert_string_equal(pep_json_read(&arena, "{}\0{}", 5, &json), object);
}

static void test_limits(void **state) {
    (void)state;
    char text[1024];
    struct pep_json json;
    for (int extra = 0; extra < 2; extra++) {
        size_t used = 0;
        for (int i = 0; i < PEP_JSON_MEMBERS_MAX + extra; i++)
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%c\"%d\":%d", i ? ',' : '{',
                                     i, i);
        snprintf(text + used, sizeof(text) - used, "}");
        const char *sentence = pep_json_read(&arena, text, strlen(text), &json);
        assert_int_equal(json.count, PEP_JSON_MEMBERS_MAX);
        if (extra)
            assert_string_equal(sentence, "The body has more than 64 members.");
        else
            assert_null(sentence);
    }
    struct pep_arena small;
    pep_arena_init(&small, 1);
    assert_string_equal(pep_json_read(&small, "{\"a\":\"b\"}", 9, &json),
                        "Not enough memory for this request.");
    pep_arena_drop(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values, start, end),
        cmocka_unit_test_setup_teardown(test_escapes, start, end),
        cmocka_unit_test_setup_teardown(test_refusals, start, end),
        cmocka_unit_test_setup_teardown(test_limits, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
