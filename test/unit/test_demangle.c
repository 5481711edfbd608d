/* Demangling: what people read, what stays as it is, and names made to hurt. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "encoder/symbolize.h"
#include "sampler/rt/attrs.h"

static struct pep_arena arena;

static int begin(void **state) {
    (void)state;
    pep_arena_init(&arena, 0);
    return 0;
}

static int end(void **state) {
    (void)state;
    pep_arena_drop(&arena);
    return 0;
}

static void mangled_names_become_readable(void **state) {
    (void)state;
    static const struct {
        const char *mangled, *readable;
    } pairs[] = {
        {"_Z3foov", "foo"},
        {"_ZN3foo3barEiPKc", "foo::bar"},
        {"_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back"},
        {"_Z3mapIiEvT_", "map<int>"},
        {"_ZN3FooC1Ev", "Foo::Foo"},
        {"_ZN3FooD0Ev", "Foo::~Foo"},
        {"_ZN3FoolsERKS_", "Foo::operator<<"},
        {"_ZTVN3FooE", "vtable for Foo"},
        {"_ZThn8_N3Foo3barEv", "non-virtual thunk to Foo::bar()"},
        {"_ZZ4mainENKUlvE_clEv", "main::{lambda()#1}::operator()"},
        {"_ZN3foo3barEv.cold", "foo::bar"},
        {"_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"},
        {"_ZN58_$LT$alloc..string..String$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE",
         "<alloc::string::String as core::fmt::Debug>::fmt"},
        {"_RNvC6_123foo3bar", "123foo::bar"},
        {"_RNvCs1234_7mycrate3foo", "mycrate::foo"},
        {"_RINvNtC3std3mem8align_ofdE", "std::mem::align_of::<f64>"},
    };
    for (size_t i = 0; i < PEP_COUNT_OF(pairs); i++) {
        char *text = pep_demangle(&arena, pairs[i].mangled);
        assert_non_null(text);
        assert_string_equal(text, pairs[i].readable);
    }
}

/* outer<list<A0<int>, ..., A19<int> > > and friends; names of 11 letters make them long. */
static void long_names_lose_their_innermost_arguments(void **state) {
    (void)state;
    static const struct {
        const char *mangled_start, *mangled_end, *readable;
    } cases[] = {
        {"_Z5outerI4listIJ", "EEEvT_", "outer<list<...> >"},
        {"_ZlsI4listIJ", "EEEvT_", "operator<< <list<...> >"},
        {"_ZN3BoxI4listIJ", "EEEptEv", "Box<list<...> >::operator->"},
        {"_Z4flatIJ", "EEvDpT_", "flat<...>"},
    };
    for (size_t c = 0; c < PEP_COUNT_OF(cases); c++) {
        char name[900];
        strcpy(name, cases[c].mangled_start);
        for (int i = 0; i < 25; i++) {
            size_t at = strlen(name);
            snprintf(name + at, sizeof(name) - at, "11argument_%c%c", 'a' + i, 'a' + i);
        }
        strcat(name, cases[c].mangled_end);
        char *text = pep_demangle(&arena, name);
        assert_non_null(text);
        assert_string_equal(text, cases[c].readable);
    }
}

/* A comparison among the arguments breaks the count of brackets: the name stays whole. */
static void names_with_odd_brackets_stay_whole(void **state) {
    (void)state;
    char name[900];
    char *text = pep_demangle(&arena, "_ZN1AIXgtLi1ELi2EEE3fooEv");
    assert_non_null(text);
    assert_non_null(strstr(text, "foo"));
    strcpy(name, "_ZN1AIXltT_Li2EEJ");
    for (int i = 0; i < 25; i++) {
        size_t at = strlen(name);
        snprintf(name + at, sizeof(name) - at, "11argument_%c%c", 'a' + i, 'a' + i);
    }
    strcat(name, "EE3fooEv");
    text = pep_demangle(&arena, name);
    assert_true(text == NULL || strstr(text, "foo") != NULL);
}

static void other_names_are_left_alone(void **state) {
    (void)state;
    static const char *const plain[] = {
        "",          "main",         "_",     "_Z",         "__libc_start_main",
        "_start",    "_ZNotMangled", "_Z3fo", "_R",         "_RNv",
        "foo_Z3bar", "_init",        "__",    "_ZN17h0123",
    };
    for (size_t i = 0; i < PEP_COUNT_OF(plain); i++)
        assert_null(pep_demangle(&arena, plain[i]));
}

/* Each level names the one before twice: 2^n times the text. */
static void a_doubling_name_ends_at_the_text_limit(void **state) {
    (void)state;
    char name[900] = "_Z1fI1AIiiE";
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (size_t i = 0; i < 34; i++) {
        size_t at = strlen(name);
        snprintf(name + at, sizeof(name) - at, "S_IS%c_S%c_E", digits[i], digits[i]);
    }
    strcat(name, "Evv");
    assert_null(pep_demangle(&arena, name));
    char *after = pep_demangle(&arena, "_Z3foov"); /* and the way out left all in order */
    assert_non_null(after);
    assert_string_equal(after, "foo");
}

static void deep_names_do_not_end_the_stack(void **state) {
    (void)state;
    static const char *const units[] = {"P", "F", "1aI", "N1a", "K", "DpT_", "XplL", "cv", "IJ"};
    static char name[40000];
    static const size_t lengths[] = {200, 900, 1100, 16000, 30000};
    for (size_t u = 0; u < PEP_COUNT_OF(units); u++) {
        for (size_t l = 0; l < PEP_COUNT_OF(lengths); l++) {
            strcpy(name, "_Z1f");
            while (strlen(name) < lengths[l])
                strcat(name, units[u]);
            (void)pep_demangle(&arena, name);
            memcpy(name, "_RNv", 4);
            (void)pep_demangle(&arena, name);
        }
    }
    assert_string_equal(pep_demangle(&arena, "_Z3foov"), "foo");
}

static void a_name_beyond_the_limit_stays_mangled(void **state) {
    (void)state;
    static char name[20010];
    strcpy(name, "_Z20000");
    memset(name + 7, 'a', 20000);
    strcpy(name + 20007, "v");
    assert_null(pep_demangle(&arena, name));
}

static void *demangle_often(void *opaque) {
    const char *mangled = opaque;
    struct pep_arena own;
    pep_arena_init(&own, 0);
    intptr_t wrong = 0;
    for (int i = 0; i < 2000; i++) {
        char *text = pep_demangle(&own, mangled);
        wrong += text == NULL || strncmp(text, "foo::", 5) != 0;
    }
    pep_arena_drop(&own);
    return (void *)wrong;
}

/* The stack is one; a second thread at the same time takes another. Both threads have the small
 * stacks that the listener's have. */
static void two_threads_may_demangle(void **state) {
    (void)state;
    pthread_t threads[4];
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], &attributes, demangle_often,
                                        i % 2 ? "_ZN3foo3barEv" : "_ZN3foo9somethingIiEEvT_"),
                         0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    pthread_attr_destroy(&attributes);
}

static void refused_memory_gives_no_name(void **state) {
    (void)state;
    struct pep_arena small;
    pep_arena_init(&small, 1);
    assert_null(pep_demangle(&small, "_Z3foov"));
    assert_true(small.is_failed);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(mangled_names_become_readable),
        TEST(long_names_lose_their_innermost_arguments),
        TEST(names_with_odd_brackets_stay_whole),
        TEST(other_names_are_left_alone),
        TEST(a_doubling_name_ends_at_the_text_limit),
        TEST(deep_names_do_not_end_the_stack),
        TEST(a_name_beyond_the_limit_stays_mangled),
        TEST(two_threads_may_demangle),
        TEST(refused_memory_gives_no_name),
    };
    return cmocka_run_group_tests_name("demangle", tests, NULL, NULL);
}
