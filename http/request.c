#include "http/request.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <strings.h>

#include "sampler/rt/attrs.h"

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

char *pep_request_unescape(struct pep_arena *arena, const char *text, size_t count, bool is_query) {
    char *out = pep_arena_alloc(arena, count + 1);
    size_t used = 0;
    if (!out)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 2 < count ? hex_digit(text[i + 1]) : -1;
            int low = i + 2 < count ? hex_digit(text[i + 2]) : -1;
            if (high < 0 || low < 0)
                return NULL;
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && is_query) {
            c = ' ';
        }
        if (c == '\0')
            return NULL;
        out[used++] = c;
    }
    return out;
}

static unsigned method_of(const char *name) {
    static const struct {
        const char *name;
        unsigned method;
    } known[] = {{"GET", PEP_GET},         {"HEAD", PEP_HEAD}, {"POST", PEP_POST},
                 {"OPTIONS", PEP_OPTIONS}, {"PUT", PEP_PUT},   {"PATCH", PEP_PATCH},
                 {"DELETE", PEP_DELETE}};
    for (size_t i = 0; i < PEP_COUNT_OF(known); i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].method;
    return 0;
}

/* "http://host:port/path" is what a client that thinks we are a proxy sends; RFC 9112 3.2.2 has
 * servers accept it. Leaves *target at the path, or at "" when there is none. */
static int split_target(struct pep_request *request, const char **target) {
    const char *text = *target;
    if (text[0] == '/')
        return 0;
    if (strncasecmp(text, "http://", 7) != 0)
        return 400;
    text += 7;
    size_t count = strcspn(text, "/?#");
    if (count == 0)
        return 400;
    request->authority = pep_arena_strndup(request->arena, text, count);
    *target = text + count;
    return request->authority ? 0 : 503;
}

static int parse_target(struct pep_request *request, const char **sentence) {
    const char *target = request->message->target;
    *sentence = "The request target must be a path.";
    int status = split_target(request, &target);
    if (status)
        return status;
    size_t whole = strcspn(target, "#");
    size_t count = strcspn(target, "?#");
    request->query = "";
    if (target[count] == '?')
        request->query = pep_arena_strndup(request->arena, target + count + 1, whole - count - 1);
    request->path = count == 0 ? "/" : pep_request_unescape(request->arena, target, count, false);
    if (request->arena->is_failed) {
        *sentence = "Not enough memory to answer.";
        return 503;
    }
    if (!request->path) {
        *sentence = "The path of the request is not properly escaped.";
        return 400;
    }
    return 0;
}

int pep_request_init(struct pep_request *request, const struct pep_message *message,
                     struct pep_arena *arena, const char **sentence) {
    memset(request, 0, sizeof(*request));
    request->message = message;
    request->arena = arena;
    request->path = request->query = "";
    request->method = method_of(message->method);
    request->is_old = strcmp(message->version, "1.0") == 0;
    if (!request->is_old && strcmp(message->version, "1.1") != 0) {
        *sentence = "Only HTTP/1.0 and HTTP/1.1 are spoken here.";
        return 505;
    }
    int lengths, codings;
    pep_request_header(request, "Content-Length", &lengths);
    pep_request_header(request, "Transfer-Encoding", &codings);
    if (lengths + codings > 1 || (codings && request->is_old)) {
        *sentence = "The length of the request's body is given in contradicting ways.";
        return 400;
    }
    return parse_target(request, sentence);
}

const char *pep_request_header(const struct pep_request *request, const char *name, int *count) {
    const struct pep_message *message = request->message;
    const char *value = NULL;
    int found = 0;
    for (int i = 0; i < message->header_count; i++) {
        if (strcasecmp(message->headers[i].name, name) != 0)
            continue;
        if (found++ == 0)
            value = message->headers[i].value;
    }
    if (count)
        *count = found;
    return value;
}

/* As Go's url.ParseQuery: pairs that hold a semicolon or a bad escape do not exist. */
const char *pep_request_param(const struct pep_request *request, const char *name) {
    const char *pair = request->query;
    while (*pair) {
        size_t count = strcspn(pair, "&");
        const char *equal = memchr(pair, '=', count);
        size_t name_count = equal ? (size_t)(equal - pair) : count;
        if (!memchr(pair, ';', count)) {
            char *key = pep_request_unescape(request->arena, pair, name_count, true);
            if (key && strcmp(key, name) == 0) {
                size_t skip = equal ? name_count + 1 : count;
                char *value = pep_request_unescape(request->arena, pair + skip, count - skip, true);
                if (value)
                    return value;
            }
        }
        pair += count + (pair[count] == '&');
    }
    return NULL;
}

static bool parse_integer(const char *text, int64_t *number) {
    bool is_negative = *text == '-';
    int64_t value = 0;
    if (*text == '-' || *text == '+')
        text++;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        if (__builtin_mul_overflow(value, (int64_t)10, &value) ||
            __builtin_add_overflow(value, (int64_t)(*text - '0'), &value))
            return false;
    }
    *number = is_negative ? -value : value;
    return true;
}

int64_t pep_request_seconds(const char *text) {
    int64_t seconds;
    if (!text || !parse_integer(text, &seconds) || seconds <= 0)
        return PEP_REQUEST_SECONDS;
    return seconds;
}

int64_t pep_request_atoi(const char *text) {
    int64_t number;
    return text && parse_integer(text, &number) ? number : 0;
}

bool pep_request_positive(const char *text, int64_t *number) {
    return parse_integer(text, number) && *number > 0;
}

/* Digits and at most one point; the digits' value, and in *scale how many stood behind the point.
 * What is left of the text, NULL when there was no digit. */
static const char *parse_digits(const char *text, double *value, int *scale) {
    bool has_digit = false, has_point = false;
    *value = 0;
    *scale = 0;
    for (; (*text >= '0' && *text <= '9') || (*text == '.' && !has_point); text++) {
        if (*text == '.') {
            has_point = true;
            continue;
        }
        has_digit = true;
        *value = *value * 10 + (*text - '0');
        *scale += has_point;
    }
    return has_digit ? text : NULL;
}

bool pep_request_decimal(const char *text, double low, double high, double *number) {
    int scale;
    int64_t exponent = 0;
    text = parse_digits(text, number, &scale);
    if (!text || (*text && *text != 'e' && *text != 'E'))
        return false;
    if (*text && (!parse_integer(text + 1, &exponent) || exponent < -400 || exponent > 400))
        return false;
    for (exponent -= scale; exponent > 0; exponent--)
        *number *= 10;
    double divisor = 1; /* one division: 0.1 is 1 / 10 and so the nearest there is */
    for (; exponent < 0; exponent++)
        divisor *= 10;
    *number /= divisor;
    return *number >= low && *number <= high;
}

bool pep_request_number(const char *text, int64_t low, int64_t high, int64_t *number) {
    return text[0] >= '0' && text[0] <= '9' && parse_integer(text, number) && *number >= low &&
           *number <= high;
}

bool pep_request_format(const char *text, enum pep_format *format) {
    static const struct {
        const char *name;
        enum pep_format format;
    } known[] = {{"pprof", PEP_FORMAT_PPROF},
                 {"svg", PEP_FORMAT_SVG},
                 {"html", PEP_FORMAT_HTML},
                 {"flame", PEP_FORMAT_HTML},
                 {"collapsed", PEP_FORMAT_COLLAPSED},
                 {"text", PEP_FORMAT_TEXT},
                 {"top", PEP_FORMAT_TEXT},
                 {"tree", PEP_FORMAT_TREE},
                 {"flat", PEP_FORMAT_FLAT},
                 {"json", PEP_FORMAT_JSON}};
    for (size_t i = 0; i < PEP_COUNT_OF(known); i++) {
        if (strcmp(known[i].name, text) == 0) {
            *format = known[i].format;
            return true;
        }
    }
    return false;
}

static const char *skip_blanks(const char *text) {
    return text + strspn(text, " \t");
}

/* The weight of one element of an Accept list in thousandths: "a/b;level=1;q=0.5" is 500. */
static int weight_of(const char *parameters, size_t count) {
    const char *end = parameters + count;
    int weight = 1000;
    while (parameters < end) {
        size_t length = strcspn(parameters, ";,");
        const char *name = skip_blanks(parameters);
        if ((name[0] == 'q' || name[0] == 'Q') && name[1] == '=') {
            weight = name[2] == '1' ? 1000 : 0;
            int place = 100;
            if (name[2] == '0' && name[3] == '.')
                for (name += 4; place && *name >= '0' && *name <= '9'; name++, place /= 10)
                    weight += (*name - '0') * place;
        }
        parameters += length + 1;
    }
    return weight;
}

/* The weight that an Accept list gives a type, unchanged when it does not name it; the last counts.
 */
static int weight_for(const char *accept, const char *wanted, int found) {
    const size_t wanted_length = strlen(wanted);
    while (*accept) {
        size_t count = strcspn(accept, ",");
        const char *type = skip_blanks(accept);
        size_t length = strcspn(type, " \t;,");
        size_t lead = (size_t)(type - accept) + length;
        if (length == wanted_length && strncasecmp(type, wanted, length) == 0)
            found = lead < count ? weight_of(type + length, count - lead) : 1000;
        accept += count + (accept[count] == ',');
    }
    return found;
}

/* Several headers are one list (RFC 9110, 5.3). 0 when none names it. */
static int weight_asked(const struct pep_request *request, const char *wanted) {
    const struct pep_message *message = request->message;
    int found = 0;
    for (int i = 0; i < message->header_count; i++)
        if (strcasecmp(message->headers[i].name, "Accept") == 0)
            found = weight_for(message->headers[i].value, wanted, found);
    return found;
}

enum pep_format pep_request_accept(const struct pep_request *request) {
    int html = weight_asked(request, "text/html"), svg = weight_asked(request, "image/svg+xml");
    if (html == 0 && svg == 0)
        return PEP_FORMAT_PPROF;
    return svg > html ? PEP_FORMAT_SVG : PEP_FORMAT_HTML;
}

bool pep_request_wants_json(const struct pep_request *request) {
    return weight_asked(request, "application/json") > 0;
}
