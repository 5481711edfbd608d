/*
 * One line a stack, root first, as flame graph tools read it.
 *
 * Model:   "thread (tid);outer;inner weight"; the weight is the profile's default value in its
 *          own unit. The format knows no comments, so losses show only as frames.
 * Writers: the job's writer.  [normal]
 * Readers: -
 * Memory:  the job's arena.
 * When full: the writer's error is -ENOMEM.
 */
#include <errno.h>
#include <string.h>

#include "encoder/calltree.h"
#include "encoder/encoders.h"

/* ';' parts frames; line ends, which part stacks, the call tree has none. */
static void write_frame(struct pep_writer *writer, const char *name) {
    const char *part;
    while ((part = strchr(name, ';')) != NULL) {
        pep_write(writer, name, (size_t)(part - name));
        pep_write(writer, ":", 1);
        name = part + 1;
    }
    pep_write_text(writer, name);
}

static void write_stack(void *context, struct pep_calltree_node *const *path, size_t depth) {
    struct pep_writer *writer = context;
    if (path[depth]->self <= 0)
        return;
    /* path[0] is "all", which is nobody's frame. */
    for (size_t i = 1; i <= depth; i++) {
        if (i > 1)
            pep_write(writer, ";", 1);
        write_frame(writer, path[i]->name);
    }
    pep_write_printf(writer, " %lld\n", (long long)path[depth]->self);
}

void pep_encode_collapsed(const struct pep_encode_job *job) {
    struct pep_calltree_options options = {.value = job->profile->default_type, .by_thread = true};
    struct pep_calltree_node *root =
        pep_calltree_build(job->arena, job->profile, job->symbolizer, &options);
    struct pep_calltree_visitor visitor = {.enter = write_stack, .context = job->writer};
    if (root == NULL || !pep_calltree_walk(job->arena, root, &visitor))
        pep_writer_fail(job->writer, -ENOMEM);
}
