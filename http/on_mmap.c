/*
 * /debug/pprof/mmap: what is mapped outside of malloc, and by whom; asked as the heap is.
 *
 * Model:   delta.h, with mapping= as a filter.
 * Writers: the connection's thread.  [normal]
 * Readers: the client.
 * Memory:  the request's arena.
 * When full: 503.
 */
#include <string.h>

#include "http/delta.h"

static const char *read_query(const struct pep_request *request, struct pep_mmap_query *query) {
    const char *sentence = pep_delta_read_inuse(request, &query->has_absolute_inuse);
    query->mapping = pep_request_param(request, "mapping");
    if (sentence)
        return sentence;
    if (query->mapping && (!*query->mapping || strlen(query->mapping) >= PEP_MMAP_LABEL_BYTES))
        return "mapping must be a part of a label such as [anon] or a path, up to 255 bytes.";
    return NULL;
}

void pep_on_mmap(struct pep_exchange *exchange) {
    struct pep_delta asked = {.name = "mmap",
                              .text = PEP_FORMAT_LEGACY,
                              .unrecorded = "This program's mappings are not recorded."};
    struct pep_profile *profile = NULL;
    const char *sentence = pep_delta_read(exchange->request, &asked);
    struct pep_mmap_window window = {
        .duration_ns = asked.duration_ns, .query.filter = asked.filter, .client = exchange->client};
    if (!sentence)
        sentence = read_query(exchange->request, &window.query);
    if (pep_delta_is_answered(exchange, &asked, sentence))
        return;
    int error = pep_window_mmap(exchange->arena, &window, &profile);
    pep_delta_answer(exchange, &asked, error, profile);
}

uint64_t pep_on_mmap_count(struct pep_arena *arena) {
    (void)arena;
    return pep_mmap_record_count();
}
