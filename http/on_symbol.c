/*
 * /debug/pprof/symbol: names for addresses, in the form that every generation of pprof reads.
 *
 * Model:   an address a line, with its name where there is one; of a GET from the query, of a POST
 *          from the body.
 * Writers: the connection's thread.  [normal]
 * Readers: the client.
 * Memory:  the request's arena.
 * When full: 503.
 */
#include <string.h>

#include "encoder/symbolize.h"
#include "http/body.h"
#include "sampler/rt/attrs.h"

struct names {
    struct pep_exchange *exchange;
    const struct pep_profile *profile;
    struct pep_symbolizer *symbolizer;
};

static int digit_of(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* As strconv.ParseUint with base 0; 0 when it is no number, which means the same to us. */
static uint64_t parse_address(const char *text, size_t count) {
    uint64_t value = 0;
    unsigned base = 10;
    if (count > 1 && text[0] == '0') {
        char mark = (char)(text[1] | 0x20);
        base = mark == 'x' ? 16 : mark == 'b' ? 2 : 8;
        size_t skip = mark == 'x' || mark == 'b' || mark == 'o' ? 2 : 1;
        text += skip;
        count -= skip;
    }
    for (size_t i = 0; i < count; i++) {
        unsigned digit = (unsigned)digit_of(text[i]);
        if (digit >= base || __builtin_mul_overflow(value, (uint64_t)base, &value) ||
            __builtin_add_overflow(value, (uint64_t)digit, &value))
            return 0;
    }
    return value;
}

static void write_name(const struct names *names, const char *word, size_t count) {
    struct pep_frame frames[8];
    while (count > 0 && (word[count - 1] == '\n' || word[count - 1] == '\r'))
        count--;
    uint64_t address = parse_address(word, count);
    if (address < PEP_PC_FIRST_REAL ||
        names->symbolizer->lookup(names->symbolizer, names->profile, (uintptr_t)address, frames,
                                  (int)PEP_COUNT_OF(frames)) < 1)
        return;
    if (frames[0].is_known)
        pep_write_printf(&names->exchange->response->writer, "%#llx %s\n",
                         (unsigned long long)address, frames[0].name);
}

/* The addresses as text; *count is how many bytes. NULL: an error answer was made. */
static const char *read_addresses(struct pep_exchange *exchange, size_t *count) {
    const struct pep_request *request = exchange->request;
    *count = strlen(request->query);
    if (request->method != PEP_POST)
        return request->query;
    return pep_body_read(exchange, count);
}

void pep_on_symbol(struct pep_exchange *exchange) {
    struct pep_response *response = exchange->response;
    struct names names = {.exchange = exchange};
    size_t count;
    const char *text = read_addresses(exchange, &count);
    if (!text)
        return;
    pep_response_start(response, 200, "text/plain; charset=utf-8");
    pep_write_text(&response->writer, "num_symbols: 1\n");
    if (count == 0)
        return;
    names.profile = pep_window_modules(exchange->arena);
    names.symbolizer = pep_symbolizer_begin(exchange->arena);
    if (!names.profile || !names.symbolizer)
        pep_response_error(response, 503, "Not enough memory to look the addresses up.");
    else
        for (size_t at = 0; at < count;) {
            const char *plus = memchr(text + at, '+', count - at);
            size_t length = plus ? (size_t)(plus - (text + at)) : count - at;
            write_name(&names, text + at, length);
            at += length + 1;
        }
    if (names.symbolizer)
        pep_symbolizer_end(names.symbolizer);
}
