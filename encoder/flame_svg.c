/*
 * The static flame graph: SVG without script.
 *
 * Model:   root at the bottom, then threads, then calls up to the leaves. A group a frame: its
 *          <title> is the tooltip, its rectangle's class the colour, its text cut to the width.
 *          Frames below PARTS_MIN of the total are left out together with what they called.
 * Writers: the job's writer.  [normal]
 * Readers: a browser, any viewer of SVG; light and dark by media query.
 * Memory:  the job's arena.
 * When full: the writer's error is -ENOMEM.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "encoder/calltree.h"
#include "encoder/encoders.h"
#include "encoder/flame_color.h"
#include "encoder/units.h"
#include "encoder/utf8.h"

#define WIDTH 1200
#define SIDE 10
#define INNER_WIDTH (WIDTH - 2 * SIDE)
#define ROW 18
#define TITLE_ROW 22
#define NOTE_ROW 16
#define CHAR_WIDTH 6.63 /* of the 11 px monospace fonts named below */
#define TEXT_PAD 4
#define PARTS_MIN 1000 /* the narrowest frame is 1/1000 of the width */

struct box {
    const struct pep_calltree_node *node;
    int64_t x; /* in the unit of the value, from the left edge */
    uint32_t depth;
};

struct image {
    const struct pep_encode_job *job;
    const struct pep_calltree_node *root;
    uint32_t value, count_type;
    uint32_t depth_max;
    uint32_t head_height;
    struct box *stack; /* at most two a level */
    size_t count, capacity;
    bool is_failed;
};

static bool is_shown(const struct image *image, const struct pep_calltree_node *node) {
    return node->total > 0 && node->total >= image->root->total / PARTS_MIN;
}

static void push(struct image *image, struct box box) {
    if (box.node == NULL || image->is_failed)
        return;
    if (!PEP_ARENA_GROW(image->job->arena, image->stack, image->count, image->capacity)) {
        image->is_failed = true;
        return;
    }
    image->stack[image->count++] = box;
}

/* Takes the next box that is wide enough, in preorder; false at the end. */
static bool next_box(struct image *image, struct box *box) {
    while (image->count > 0 && !image->is_failed) {
        *box = image->stack[--image->count];
        const struct pep_calltree_node *node = box->node;
        if (node != image->root)
            push(image, (struct box){node->next, box->x + node->total, box->depth});
        if (!is_shown(image, node))
            continue;
        push(image, (struct box){node->children, box->x, box->depth + 1});
        return true;
    }
    return false;
}

static uint32_t measure_depth(struct image *image) {
    uint32_t deepest = 0;
    struct box box = {.node = image->root};
    push(image, box);
    while (next_box(image, &box)) {
        if (box.depth > deepest)
            deepest = box.depth;
    }
    return deepest;
}

/* Two decimals with a point, whatever the host's locale. */
static void put_number(struct pep_writer *to, double value) {
    unsigned hundredths = (unsigned)(value * 100 + 0.5);
    pep_write_printf(to, "%u.%02u", hundredths / 100, hundredths % 100);
}

/* A value with its unit, short enough for a line of text. A count is told by its type's name:
 * "12 samples", "3 objects" of "inuse_objects". */
static void put_amount(struct pep_writer *to, int64_t value, const struct pep_value_type *type) {
    const char *unit = type->unit != NULL ? type->unit : "count";
    if (strcmp(unit, "nanoseconds") == 0 || strcmp(unit, "bytes") == 0) {
        char text[PEP_UNITS_TEXT_MAX];
        pep_units_format(text, value, unit);
        size_t digits = strspn(text, "0123456789.");
        pep_write(to, text, digits);
        pep_write_printf(to, " %s", text[digits] != '\0' ? text + digits : "B");
        return;
    }
    const char *name = strcmp(unit, "count") == 0 && type->type != NULL ? type->type : unit;
    const char *last = strrchr(name, '_');
    name = last != NULL ? last + 1 : name;
    size_t size = strlen(name);
    bool is_one = value == 1 && size > 1 && name[size - 1] == 's';
    pep_write_printf(to, "%" PRId64 " %.*s", value, (int)(size - is_one), name);
}

/* How many bytes of name fit into so many columns; all of it or up to columns - 1. */
static size_t fit(const char *name, uint32_t columns) {
    size_t at = 0, fitting = 0, bytes;
    uint32_t used = 0;
    while (name[at] != '\0') {
        (void)pep_utf8_next(name + at, &bytes);
        at += bytes;
        used += bytes >= 3 ? 2 : 1; /* CJK and symbols may be two columns wide */
        if (used > columns)
            return fitting;
        if (used < columns)
            fitting = at;
    }
    return at;
}

static void put_label(struct image *image, const struct box *box, double x, double width) {
    if (width < 2 * TEXT_PAD + 2 * CHAR_WIDTH)
        return;
    const char *name = box->node->name;
    size_t size = fit(name, (uint32_t)((width - 2 * TEXT_PAD) / CHAR_WIDTH));
    if (size == 0)
        return;
    char *text = pep_arena_strndup(image->job->arena, name, size);
    if (text == NULL) {
        image->is_failed = true;
        return;
    }
    struct pep_writer *to = image->job->writer;
    uint32_t y = image->head_height + (image->depth_max - box->depth) * ROW + 12;
    pep_write_text(to, "<text x=\"");
    put_number(to, x + TEXT_PAD);
    pep_write_printf(to, "\" y=\"%u\">", y);
    pep_write_xml(to, text);
    pep_write_text(to, name[size] == '\0' ? "</text>" : "\xe2\x80\xa6</text>");
}

static void put_tooltip(struct image *image, const struct pep_calltree_node *node) {
    const struct pep_profile *profile = image->job->profile;
    struct pep_writer *to = image->job->writer;
    pep_write_text(to, "<title>");
    pep_write_xml(to, node->name);
    if (node->module[0] != '\0') {
        pep_write_text(to, " (");
        pep_write_xml(to, node->module);
        pep_write_text(to, ")");
    }
    pep_write_text(to, "\n");
    if (image->count_type != image->value) {
        put_amount(to, node->count_total, &profile->types[image->count_type]);
        pep_write_text(to, ", ");
    }
    put_amount(to, node->total, &profile->types[image->value]);
    pep_write_text(to, ", ");
    put_number(to, 100.0 * (double)node->total / (double)image->root->total);
    pep_write_text(to, "%</title>");
}

static void put_box(struct image *image, const struct box *box) {
    const struct pep_calltree_node *node = box->node;
    struct pep_writer *to = image->job->writer;
    double scale = INNER_WIDTH / (double)image->root->total;
    double x = SIDE + (double)box->x * scale;
    double width = (double)node->total * scale;
    enum pep_flame_kind kind = pep_flame_kind_of(image->job->profile, node, node == image->root);
    uint32_t y = image->head_height + (image->depth_max - box->depth) * ROW;
    pep_write_text(to, "<g>");
    put_tooltip(image, node);
    pep_write_printf(to, "<rect class=\"c%u\" x=\"", pep_flame_color_index(kind, node->name));
    put_number(to, x);
    pep_write_printf(to, "\" y=\"%u\" width=\"", y);
    put_number(to, width > 1.2 ? width - 0.6 : width);
    pep_write_printf(to, "\" height=\"%d\" rx=\"%s\"/>", ROW - 1, width > 6 ? "2" : "0");
    put_label(image, box, x, width);
    pep_write_text(to, "</g>\n");
}

static void put_colors(struct image *image, bool is_dark) {
    for (uint32_t i = 0; i < PEP_FLAME_COLOR_COUNT; i++)
        pep_write_printf(image->job->writer, ".c%u{fill:#%06x}", i,
                         pep_flame_color_rgb(image->job->profile->kind, i, is_dark));
    pep_write_text(image->job->writer, "\n");
}

static void put_style(struct image *image) {
    struct pep_writer *to = image->job->writer;
    pep_write_text(to, "<style>\n"
                       "svg{color-scheme:light dark;background:#fdfcfa}\n"
                       "text{font:11px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;"
                       "direction:ltr;unicode-bidi:isolate;white-space:pre}\n");
    pep_write_printf(to, "g text{fill:#%06x;pointer-events:none}\n", PEP_FLAME_TEXT_LIGHT);
    pep_write_text(to, ".back{fill:#fdfcfa}.title{font:600 15px ui-sans-serif,system-ui,"
                       "'DejaVu Sans',sans-serif;fill:#241d18}"
                       ".note{font:11px ui-sans-serif,system-ui,'DejaVu Sans',sans-serif;"
                       "fill:#665c54}g:hover rect{stroke:#241d18}\n");
    put_colors(image, false);
    pep_write_text(
        to, "@media(prefers-color-scheme:dark){\n"
            "svg{background:#171412}.back{fill:#171412}.title{fill:#f3ede7}.note{fill:#aca198}"
            "g:hover rect{stroke:#f3ede7}\n");
    pep_write_printf(to, "g text{fill:#%06x}\n", PEP_FLAME_TEXT_DARK);
    put_colors(image, true);
    pep_write_text(to, "}\n</style>\n");
}

static void put_head(struct image *image) {
    const struct pep_profile *profile = image->job->profile;
    struct pep_writer *to = image->job->writer;
    uint32_t height = image->head_height + (image->depth_max + 1) * ROW + SIDE;
    pep_write_printf(
        to,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %u\" "
        "width=\"100%%\" role=\"img\" aria-labelledby=\"title\">\n<title id=\"title\">",
        WIDTH, height);
    pep_write_xml(to, image->job->title);
    pep_write_text(to, "</title>\n");
    put_style(image);
    pep_write_printf(to, "<rect class=\"back\" width=\"%d\" height=\"%u\"/>\n", WIDTH, height);
    pep_write_printf(to, "<text class=\"title\" x=\"%d\" y=\"22\">", SIDE);
    pep_write_xml(to, image->job->title);
    pep_write_printf(to, "</text>\n<text class=\"note\" x=\"%d\" y=\"40\">", SIDE);
    if (profile->duration_ns > 0) {
        pep_write_text(to, "Duration ");
        put_amount(to, profile->duration_ns, &(struct pep_value_type){"time", "nanoseconds"});
        pep_write_text(to, " \xc2\xb7 ");
    }
    if (image->value != 0) {
        pep_write_xml(to, profile->types[image->value].type);
        pep_write_text(to, " ");
    }
    put_amount(to, image->root->total, &profile->types[image->value]);
    if (image->count_type != image->value) {
        pep_write_text(to, " \xc2\xb7 ");
        put_amount(to, image->root->count_total, &profile->types[image->count_type]);
    }
    pep_write_text(to, image->root->total > 0 ? "</text>\n" : ": nothing to show</text>\n");
    for (uint32_t i = 0; i < profile->comment_count; i++) {
        pep_write_printf(to, "<text class=\"note\" x=\"%d\" y=\"%u\">", SIDE,
                         40 + (i + 1) * NOTE_ROW);
        pep_write_xml(to, profile->comments[i]);
        pep_write_text(to, "</text>\n");
    }
}

void pep_encode_flame_svg(const struct pep_encode_job *job) {
    struct image image = {
        .job = job,
        .value = job->profile->default_type,
        .count_type = pep_calltree_count_type(job->profile, job->profile->default_type),
        .head_height = 2 * TITLE_ROW + 8 + job->profile->comment_count * NOTE_ROW,
    };
    struct pep_calltree_options options = {.value = image.value, .by_thread = true};
    image.root = pep_calltree_build(job->arena, job->profile, job->symbolizer, &options);
    if (image.root != NULL) {
        image.depth_max = measure_depth(&image);
        put_head(&image);
        struct box box = {.node = image.root};
        push(&image, box);
        while (next_box(&image, &box))
            put_box(&image, &box);
        pep_write_text(job->writer, "</svg>\n");
    }
    if (image.root == NULL || image.is_failed)
        pep_writer_fail(job->writer, -ENOMEM);
}
