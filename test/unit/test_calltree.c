#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "encoder/calltree.h"
#include "test/unit/example_profile.h"

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

static struct pep_calltree_node *build(struct pep_calltree_options options) {
    struct pep_calltree_node *root =
        pep_calltree_build(&arena, &example_profile, &example_symbolizer, &options);
    assert_non_null(root);
    assert_string_equal(root->name, "all");
    return root;
}

static struct pep_calltree_node *child(struct pep_calltree_node *parent, const char *name) {
    for (struct pep_calltree_node *node = parent->children; node != NULL; node = node->next)
        if (strcmp(node->name, name) == 0)
            return node;
    fail_msg("%s has no child %s", parent->name, name);
    return NULL;
}

static void check_node(void *context, struct pep_calltree_node *const *path, size_t depth) {
    const struct pep_calltree_node *node = path[depth], *before = NULL;
    int64_t total = node->self;
    uint32_t count = 0;
    for (const struct pep_calltree_node *at = node->children; at != NULL; at = at->next) {
        int order = before == NULL ? -1 : strcmp(before->name, at->name);
        assert_true(order < 0 || (order == 0 && strcmp(before->module, at->module) < 0));
        assert_string_not_equal(at->name, "pep_hook");
        total += at->total;
        count++;
        before = at;
    }
    assert_int_equal(node->total, total);
    assert_int_equal(node->child_count, count);
    assert_non_null(node->module);
    (*(int *)context)++;
}

/* Totals are own plus children's; children are sorted; nothing of the profiler shows. */
static int check(struct pep_calltree_node *root) {
    int count = 0;
    struct pep_calltree_visitor visitor = {.enter = check_node, .context = &count};
    assert_true(pep_calltree_walk(&arena, root, &visitor));
    return count;
}

static void test_root_first(void **state) {
    (void)state;
    struct pep_calltree_node *root = build((struct pep_calltree_options){.value = 1});
    check(root);
    assert_int_equal(root->total, EXAMPLE_TOTAL_NS);
    assert_int_equal(root->count_total, 15);
    assert_int_equal(root->child_count, 3); /* main, [truncated], [unknown] */
    struct pep_calltree_node *main_node = child(root, "main");
    assert_string_equal(main_node->module, "example");
    assert_string_equal(main_node->file, "/src/main.c");
    assert_int_equal(main_node->total, 130000000);
    assert_int_equal(main_node->self, 10000000); /* the stack whose leaf is the profiler's own */
    struct pep_calltree_node *work = child(main_node, "work");
    assert_false(work->is_inlined);
    struct pep_calltree_node *inlinee = child(work, "std::vector<int>::push_back(int const&)");
    assert_true(inlinee->is_inlined);
    assert_string_equal(child(inlinee, "memcpy")->module, "libc.so.6");
    assert_int_equal(child(inlinee, "memcpy")->self, 50000000);
    assert_null(child(inlinee, "memcpy")->file);
    struct pep_calltree_node *recurse = child(main_node, "recurse");
    assert_int_equal(child(child(recurse, "recurse"), "recurse")->self, 40000000);
    assert_non_null(child(child(child(root, "[truncated]"), "libc.so.6+0x200"), "nameless+0x123"));
}

static void test_by_thread(void **state) {
    (void)state;
    struct pep_calltree_node *root =
        build((struct pep_calltree_options){.value = 1, .by_thread = true});
    check(root);
    assert_int_equal(root->child_count, 3);
    struct pep_calltree_node *thread = child(root, "example (4711)");
    assert_true(thread->is_thread);
    assert_string_equal(thread->module, "");
    assert_int_equal(thread->total, 110000000);
    assert_false(child(thread, "main")->is_thread);
    assert_true(child(root, "[unknown thread]")->is_thread);
    assert_non_null(child(root, "wo;rk\uFFFDer (4712)"));
}

static void test_samples_by_count(void **state) {
    (void)state;
    struct pep_calltree_node *root = build((struct pep_calltree_options){.value = 0});
    check(root);
    assert_int_equal(root->total, 15);
}

static void test_no_thread_level_without_threads(void **state) {
    (void)state;
    struct pep_sample sample = example_profile.samples[0];
    struct pep_profile profile = example_profile;
    sample.tid = 0;
    profile.samples = &sample;
    profile.sample_count = 1;
    struct pep_calltree_options options = {.by_thread = true};
    struct pep_calltree_node *root =
        pep_calltree_build(&arena, &profile, &example_symbolizer, &options);
    assert_false(child(root, "main")->is_thread);
    profile.sample_count = 0;
    root = pep_calltree_build(&arena, &profile, &example_symbolizer, &options);
    assert_int_equal(root->total, 0);
    assert_null(root->children);
    assert_int_equal(check(root), 1);
}

/* A stack far deeper than any recursion of ours could follow on a small stack. */
static void test_deep_stack(void **state) {
    (void)state;
    enum { DEPTH = 100000 };
    uintptr_t *pcs = pep_arena_array(&arena, DEPTH, sizeof(*pcs));
    for (int i = 0; i < DEPTH; i++)
        pcs[i] = EXAMPLE_RECURSE_PC;
    struct pep_sample sample = {.pcs = pcs, .pc_count = DEPTH, .values = {1, 1}};
    struct pep_profile profile = example_profile;
    profile.samples = &sample;
    profile.sample_count = 1;
    struct pep_calltree_options options = {.value = 0};
    struct pep_calltree_node *root =
        pep_calltree_build(&arena, &profile, &example_symbolizer, &options);
    assert_non_null(root);
    assert_int_equal(check(root), DEPTH + 1);
}

static void test_same_every_time(void **state) {
    (void)state;
    struct pep_calltree_options options = {.value = 1, .by_thread = true};
    struct pep_calltree_node *roots[] = {build(options), build(options)};
    for (struct pep_calltree_node *a = roots[0], *b = roots[1]; a != NULL;
         a = a->children, b = b->children) {
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->total, b->total);
    }
}

static void test_without_memory(void **state) {
    (void)state;
    struct pep_arena small;
    struct pep_calltree_options options = {.value = 1};
    pep_arena_init(&small, 1);
    assert_null(pep_calltree_build(&small, &example_profile, &example_symbolizer, &options));
    struct pep_calltree_node root = {.name = "all"};
    int count = 0;
    struct pep_calltree_visitor visitor = {.enter = check_node, .context = &count};
    assert_false(pep_calltree_walk(&small, &root, &visitor));
    pep_arena_drop(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_root_first, start, end),
        cmocka_unit_test_setup_teardown(test_by_thread, start, end),
        cmocka_unit_test_setup_teardown(test_samples_by_count, start, end),
        cmocka_unit_test_setup_teardown(test_no_thread_level_without_threads, start, end),
        cmocka_unit_test_setup_teardown(test_deep_stack, start, end),
        cmocka_unit_test_setup_teardown(test_same_every_time, start, end),
        cmocka_unit_test_setup_teardown(test_without_memory, start, end),
    };
    return cmocka_run_group_tests_name("calltree", tests, NULL, NULL);
}
