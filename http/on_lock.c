/*
 * /debug/pprof/block and /debug/pprof/mutex, as Go's net/http/pprof answers them.
 *
 * Model:   delta.h, with rate= for a window.
 * Writers: the connection's thread.  [normal]
 * Readers: the client.
 * Memory:  the request's arena.
 * When full: 503.
 */
#include "http/delta.h"

static const char *read_rate(const struct pep_request *request, struct pep_lock_window *window) {
    const char *text = pep_request_param(request, "rate");
    int64_t rate;
    if (!text)
        return NULL;
    if (!pep_request_number(text, 1, PEP_LOCK_RATE_MAX, &rate))
        return "rate must be a whole number of nanoseconds from 1 to 1000000000000.";
    if (window->duration_ns == 0)
        return "rate is for a window: give seconds too.";
    window->rate_ns = (uint64_t)rate;
    return NULL;
}

static void answer(struct pep_exchange *exchange, const char *name, enum pep_lock_side side) {
    struct pep_delta asked = {.name = name,
                              .text = PEP_FORMAT_CONTENTION,
                              .unrecorded = "This program's waiting is not recorded."};
    struct pep_profile *profile = NULL;
    const char *sentence = pep_delta_read(exchange->request, &asked);
    struct pep_lock_window window = {.duration_ns = asked.duration_ns,
                                     .side = side,
                                     .filter = asked.filter,
                                     .client = exchange->client};
    if (!sentence)
        sentence = read_rate(exchange->request, &window);
    if (pep_delta_is_answered(exchange, &asked, sentence))
        return;
    int error = pep_window_lock(exchange->arena, &window, &profile);
    pep_delta_answer(exchange, &asked, error, profile);
}

void pep_on_block(struct pep_exchange *exchange) {
    answer(exchange, "block", PEP_LOCK_BLOCK);
}

void pep_on_mutex(struct pep_exchange *exchange) {
    answer(exchange, "mutex", PEP_LOCK_HOLD);
}

static uint64_t count(struct pep_arena *arena, enum pep_lock_side side) {
    const struct pep_cells_snapshot *now = pep_lock_snapshot_take(arena, side);
    uint64_t found = 0;
    for (uint32_t i = 0; now && i < now->cell_count; i++)
        found += now->cells[i].count != 0;
    return found;
}

uint64_t pep_on_block_count(struct pep_arena *arena) {
    return count(arena, PEP_LOCK_BLOCK);
}

uint64_t pep_on_mutex_count(struct pep_arena *arena) {
    return count(arena, PEP_LOCK_HOLD);
}
