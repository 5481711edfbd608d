/*
 * The interactive flame graph: one HTML document that needs nothing else.
 *
 * Model:   the page is encoder/assets/flame.html with its style, scripts, title and sample data
 *          replaced. The data is JSON: a table of strings, a table of frames, and the tree as one
 *          flat array in preorder: frame, children, and what it used itself of each value type.
 * Writers: the job's writer.  [normal]
 * Readers: a browser; flame_tree.js decodes.
 * Memory:  the job's arena.
 * When full: the writer's error is -ENOMEM.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "assets.h"
#include "encoder/calltree.h"
#include "encoder/encoders.h"
#include "encoder/flame_color.h"
#include "encoder/index.h"

/* Of a frame; flame_tree.js knows them. */
#define FLAG_INLINED 1u
#define FLAG_THREAD 2u

/* Nothing is ever fetched, whatever a name in the data may look like. */
static const char policy[] =
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'\">\n";

/* Distinct byte strings, numbered from 0 in the order of their first appearance. */
struct blob {
    const void *bytes;
    size_t size;
};

struct blob_set {
    struct pep_arena *arena;
    struct pep_index index;
    struct blob *blobs;
    size_t count, capacity;
};

struct frame_key {
    uint32_t name, module, file, color, flags;
};

struct page {
    const struct pep_encode_job *job;
    const struct pep_calltree_node *root;
    struct blob_set strings, frames;
    const struct pep_calltree_node **stack; /* nodes still to write; at most two a level */
    size_t stack_count, stack_capacity;
    bool is_failed;
};

static void blob_set_init(struct blob_set *set, struct pep_arena *arena) {
    *set = (struct blob_set){.arena = arena};
    pep_index_init(&set->index, arena);
}

/* The number of the blob, entering it when new; is_copied: bytes will not outlive the call. */
static bool blob_intern(struct blob_set *set, struct blob blob, bool is_copied, uint32_t *number) {
    uint64_t hash = pep_index_hash(blob.bytes, blob.size);
    size_t cursor = 0;
    while ((*number = pep_index_next(&set->index, hash, &cursor)) != PEP_INDEX_NONE)
        if (set->blobs[*number].size == blob.size &&
            memcmp(set->blobs[*number].bytes, blob.bytes, blob.size) == 0)
            return true;
    if (is_copied) {
        void *copy = pep_arena_alloc(set->arena, blob.size);
        if (copy == NULL)
            return false;
        memcpy(copy, blob.bytes, blob.size);
        blob.bytes = copy;
    }
    *number = (uint32_t)set->count;
    if (!PEP_ARENA_GROW(set->arena, set->blobs, set->count, set->capacity) ||
        !pep_index_add(&set->index, hash, *number))
        return false;
    set->blobs[set->count++] = blob;
    return true;
}

static uint32_t intern_text(struct page *page, const char *text) {
    uint32_t number = 0;
    struct blob blob = {text, strlen(text)};
    if (!blob_intern(&page->strings, blob, false, &number))
        page->is_failed = true;
    return number;
}

static uint32_t intern_frame(struct page *page, const struct pep_calltree_node *node) {
    enum pep_flame_kind kind = pep_flame_kind_of(page->job->profile, node, node == page->root);
    struct frame_key key = {
        .name = intern_text(page, node->name),
        .module = intern_text(page, node->module),
        .file = intern_text(page, node->file != NULL ? node->file : ""),
        .color = pep_flame_color_index(kind, node->name),
        .flags = (node->is_inlined ? FLAG_INLINED : 0u) | (node->is_thread ? FLAG_THREAD : 0u),
    };
    uint32_t number = 0;
    if (!blob_intern(&page->frames, (struct blob){&key, sizeof(key)}, true, &number))
        page->is_failed = true;
    return number;
}

static bool push(struct page *page, const struct pep_calltree_node *node) {
    if (node == NULL)
        return true;
    if (!PEP_ARENA_GROW(page->job->arena, page->stack, page->stack_count, page->stack_capacity))
        return false;
    page->stack[page->stack_count++] = node;
    return true;
}

/* No recursion: inlined frames make stacks deeper than a connection's thread has room for. */
static void put_nodes(struct page *page) {
    struct pep_writer *to = page->job->writer;
    const char *separator = "";
    page->is_failed = page->is_failed || !push(page, page->root);
    while (page->stack_count > 0 && !page->is_failed) {
        const struct pep_calltree_node *node = page->stack[--page->stack_count];
        pep_write_printf(to, "%s%u,%u", separator, intern_frame(page, node), node->child_count);
        for (uint32_t i = 0; i < page->job->profile->type_count; i++)
            pep_write_printf(to, ",%" PRId64, node->own[i]);
        separator = ",";
        const struct pep_calltree_node *next = node == page->root ? NULL : node->next;
        page->is_failed = page->is_failed || !push(page, next) || !push(page, node->children);
    }
}

static void put_frames(struct page *page) {
    struct pep_writer *to = page->job->writer;
    for (size_t i = 0; i < page->frames.count; i++) {
        const struct frame_key *key = page->frames.blobs[i].bytes;
        pep_write_printf(to, "%s[%u,%u,%u,%u,%u]", i == 0 ? "" : ",", key->name, key->module,
                         key->file, key->color, key->flags);
    }
}

static void put_strings(struct page *page) {
    for (size_t i = 0; i < page->strings.count; i++) {
        if (i > 0)
            pep_write_text(page->job->writer, ",\n");
        pep_write_json_string(page->job->writer, page->strings.blobs[i].bytes);
    }
}

static void put_colors(const struct page *page, bool is_dark) {
    struct pep_writer *to = page->job->writer;
    for (uint32_t i = 0; i < PEP_FLAME_COLOR_COUNT; i++) {
        uint32_t rgb = pep_flame_color_rgb(page->job->profile->kind, i, is_dark);
        pep_write_printf(to, "%s\"#%06x\"", i == 0 ? "" : ",", rgb);
    }
}

static void put_type(const struct page *page, uint32_t index) {
    const struct pep_value_type *type = &page->job->profile->types[index];
    struct pep_writer *to = page->job->writer;
    pep_write_text(to, "[");
    pep_write_json_string(to, type->type != NULL ? type->type : "");
    pep_write_text(to, ",");
    pep_write_json_string(to, type->unit != NULL ? type->unit : "");
    pep_write_text(to, "]");
}

static void put_head(const struct page *page) {
    const struct pep_profile *profile = page->job->profile;
    struct pep_writer *to = page->job->writer;
    pep_write_text(to, "{\"title\":");
    pep_write_json_string(to, page->job->title);
    pep_write_text(to, ",\n\"kind\":");
    pep_write_json_string(to, profile->kind != NULL ? profile->kind : "cpu");
    pep_write_printf(to,
                     ",\n\"pid\":%d,\"time_ns\":%" PRId64 ",\"duration_ns\":%" PRId64
                     ",\"period\":%" PRId64 ",\n\"types\":[",
                     profile->pid, profile->time_ns, profile->duration_ns, profile->period);
    for (uint32_t i = 0; i < profile->type_count; i++) {
        if (i > 0)
            pep_write_text(to, ",");
        put_type(page, i);
    }
    pep_write_printf(to, "],\"value\":%u,\n\"comments\":[", profile->default_type);
    for (uint32_t i = 0; i < profile->comment_count; i++) {
        if (i > 0)
            pep_write_text(to, ",\n");
        pep_write_json_string(to, profile->comments[i]);
    }
    pep_write_printf(to, "],\n\"text\":[\"#%06x\",\"#%06x\"],\"light\":[", PEP_FLAME_TEXT_LIGHT,
                     PEP_FLAME_TEXT_DARK);
    put_colors(page, false);
    pep_write_text(to, "],\n\"dark\":[");
    put_colors(page, true);
    pep_write_text(to, "],\n");
}

static void put_data(struct page *page) {
    struct pep_writer *to = page->job->writer;
    intern_text(page, ""); /* number 0: no module, no file */
    put_head(page);
    pep_write_text(to, "\"nodes\":[");
    put_nodes(page);
    pep_write_text(to, "],\n\"frames\":[");
    put_frames(page);
    pep_write_text(to, "],\n\"strings\":[");
    put_strings(page);
    pep_write_text(to, "]}");
    if (page->is_failed)
        pep_writer_fail(to, -ENOMEM);
}

static void put_title(struct page *page) {
    pep_write_xml(page->job->writer, page->job->title);
}

static void put_asset(struct page *page, const char *element, const char *text, size_t size) {
    struct pep_writer *to = page->job->writer;
    pep_write_printf(to, "<%s>\n", element);
    pep_write(to, text, size);
    pep_write_printf(to, "</%s>", element);
}

static void put_style(struct page *page) {
    pep_write_text(page->job->writer, policy);
    put_asset(page, "style", pep_asset_flame_css, pep_asset_flame_css_size);
}

static void put_tree_js(struct page *page) {
    put_asset(page, "script", pep_asset_flame_tree_js, pep_asset_flame_tree_js_size);
}

static void put_canvas_js(struct page *page) {
    put_asset(page, "script", pep_asset_flame_canvas_js, pep_asset_flame_canvas_js_size);
}

static void put_js(struct page *page) {
    put_asset(page, "script", pep_asset_flame_js, pep_asset_flame_js_size);
}

/* The places of flame.html, in their order: what stands from begin to end makes way for put's
 * text; begin and end themselves stay where is_kept. */
static const struct place {
    const char *begin, *end;
    bool is_kept;
    void (*put)(struct page *page);
} places[] = {
    {"<title>", "</title>", true, put_title},
    {"<link rel=\"stylesheet\" href=\"flame.css\"", ">", false, put_style},
    {"<script id=\"data\" type=\"application/json\">", "</script>", true, put_data},
    {"<script src=\"flame_tree.js\">", "</script>", false, put_tree_js},
    {"<script src=\"flame_canvas.js\">", "</script>", false, put_canvas_js},
    {"<script src=\"flame.js\">", "</script>", false, put_js},
};

static const char *find(const char *from, const char *limit, const char *text) {
    return memmem(from, (size_t)(limit - from), text, strlen(text));
}

static void put_page(struct page *page) {
    struct pep_writer *to = page->job->writer;
    const char *at = pep_asset_flame_html;
    const char *limit = at + pep_asset_flame_html_size;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const struct place *place = &places[i];
        const char *begin = find(at, limit, place->begin);
        const char *end = begin != NULL ? find(begin, limit, place->end) : NULL;
        if (end == NULL) { /* the asset and this table disagree */
            pep_writer_fail(to, -EINVAL);
            return;
        }
        size_t begin_size = place->is_kept ? strlen(place->begin) : 0;
        pep_write(to, at, (size_t)(begin - at) + begin_size);
        place->put(page);
        at = place->is_kept ? end : end + strlen(place->end);
    }
    pep_write(to, at, (size_t)(limit - at));
}

void pep_encode_flame_html(const struct pep_encode_job *job) {
    struct page page = {.job = job};
    struct pep_calltree_options options = {.value = job->profile->default_type, .by_thread = true};
    blob_set_init(&page.strings, job->arena);
    blob_set_init(&page.frames, job->arena);
    page.root = pep_calltree_build(job->arena, job->profile, job->symbolizer, &options);
    if (page.root == NULL) {
        pep_writer_fail(job->writer, -ENOMEM);
        return;
    }
    put_page(&page);
}
