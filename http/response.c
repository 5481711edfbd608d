#include "http/response.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "http/request.h"
#include "sampler/rt/counters.h"
#include "sampler/rt/os.h"

static const char *reason_of(int status) {
    static const struct {
        int status;
        const char *reason;
    } known[] = {{200, "OK"},
                 {204, "No Content"},
                 {301, "Moved Permanently"},
                 {400, "Bad Request"},
                 {401, "Unauthorized"},
                 {403, "Forbidden"},
                 {404, "Not Found"},
                 {405, "Method Not Allowed"},
                 {408, "Request Timeout"},
                 {413, "Content Too Large"},
                 {414, "URI Too Long"},
                 {431, "Request Header Fields Too Large"},
                 {501, "Not Implemented"},
                 {503, "Service Unavailable"},
                 {505, "HTTP Version Not Supported"}};
    for (size_t i = 0; i < PEP_COUNT_OF(known); i++)
        if (known[i].status == status)
            return known[i].reason;
    return "Internal Server Error";
}

/* Own arithmetic: gmtime_r and strftime take libc's time zone lock and read files. Days are
 * counted from 1 March of the year 0, so the leap day is a year's last. */
void pep_response_date(int64_t seconds, char *to, size_t size_bytes) {
    static const char days[] = "ThuFriSatSunMonTueWed";
    static const char months[] = "MarAprMayJunJulAugSepOctNovDecJanFeb";
    int64_t day = seconds / 86400, second = seconds % 86400;
    int64_t z = day + 719468;
    int64_t era = z / 146097, of_era = z % 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * of_year + 2) / 153;
    year += era * 400 + (month >= 10);
    snprintf(to, size_bytes, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + day % 7 * 3,
             (int)(of_year - (153 * month + 2) / 5 + 1), months + month * 3, (int)(year % 10000),
             (int)(second / 3600), (int)(second / 60 % 60), (int)(second % 60));
}

static void PEP_PRINTF(2, 3) add_head(struct pep_response *response, const char *format, ...) {
    size_t left = sizeof(response->head) - response->head_count;
    va_list arguments;
    va_start(arguments, format);
    int count = vsnprintf(response->head + response->head_count, left, format, arguments);
    va_end(arguments);
    if (count < 0 || (size_t)count >= left)
        response->writer.error = response->writer.error ? response->writer.error : -EMSGSIZE;
    else
        response->head_count += (size_t)count;
}

static int send_all(struct pep_response *response, const void *bytes, size_t count) {
    return response->sink->send(response->sink, bytes, count);
}

static int send_head(struct pep_response *response, bool is_whole) {
    if (!is_whole && !response->is_old)
        add_head(response, "Transfer-Encoding: chunked\r\n");
    else if (is_whole && response->status != 204 && !response->is_length_unknown)
        add_head(response, "Content-Length: %llu\r\n",
                 (unsigned long long)response->writer.total_bytes);
    add_head(response, "\r\n");
    if (response->writer.error)
        return response->writer.error;
    response->is_begun = true;
    return send_all(response, response->head, response->head_count);
}

static int flush_body(struct pep_response *response) {
    size_t count = response->body_count;
    int error = response->is_begun ? 0 : send_head(response, false);
    response->body_count = 0;
    if (error || count == 0)
        return error;
    if (response->is_old)
        return send_all(response, response->body, count);
    char size[24];
    int size_count = snprintf(size, sizeof(size), "%zx\r\n", count);
    error = send_all(response, size, (size_t)size_count);
    if (!error)
        error = send_all(response, response->body, count);
    return error ? error : send_all(response, "\r\n", 2);
}

static int write_body(struct pep_writer *writer, const void *bytes, size_t count) {
    struct pep_response *response = (struct pep_response *)writer;
    const char *from = bytes;
    if (response->is_head)
        return 0;
    if (response->capture) {
        pep_write(&response->capture->writer, bytes, count);
        return response->capture->writer.error;
    }
    while (count > 0) {
        size_t room = sizeof(response->body) - response->body_count;
        size_t part = count < room ? count : room;
        if (room == 0) {
            int error = flush_body(response);
            if (error)
                return error;
            continue;
        }
        memcpy(response->body + response->body_count, from, part);
        response->body_count += part;
        from += part;
        count -= part;
    }
    return 0;
}

void pep_response_init(struct pep_response *response, struct pep_sink *sink) {
    memset(response, 0, offsetof(struct pep_response, head));
    response->writer.write = write_body;
    response->sink = sink;
}

void pep_response_start(struct pep_response *response, int status, const char *content_type) {
    char date[32];
    pep_response_date((time_t)(pep_os_clock_ns(CLOCK_REALTIME) / 1000000000u), date, sizeof(date));
    response->status = status;
    response->head_count = response->body_count = 0;
    response->writer.error = 0;
    response->writer.total_bytes = 0;
    response->is_length_unknown = false;
    if (response->capture)
        response->capture->count = 0;
    add_head(response, "HTTP/1.%d %d %s\r\nDate: %s\r\n", response->is_old ? 0 : 1, status,
             reason_of(status), date);
    add_head(response, "Connection: close\r\nX-Content-Type-Options: nosniff\r\n");
    if (content_type)
        pep_response_header(response, "Content-Type", content_type);
    if (response->origin) {
        pep_response_header(response, "Access-Control-Allow-Origin", response->origin);
        pep_response_header(response, "Vary", "Origin");
    }
}

void pep_response_header(struct pep_response *response, const char *name, const char *value) {
    char clean[512];
    size_t used = 0;
    for (; *value && used < sizeof(clean) - 1; value++)
        if ((unsigned char)*value >= ' ' && *value != 127)
            clean[used++] = *value;
    clean[used] = '\0';
    add_head(response, "%s: %s\r\n", name, clean);
}

/* IOx's words. */
static void write_json_error(struct pep_response *response, int status, const char *sentence) {
    const char *code = status == 404   ? "not found"
                       : status == 503 ? "unavailable"
                       : status < 500  ? "invalid"
                                       : "internal error";
    pep_response_start(response, status, "application/json");
    pep_write_printf(&response->writer, "{\"code\":\"%s\",\"message\":", code);
    pep_write_json_string(&response->writer, sentence);
    pep_write_text(&response->writer, "}\n");
}

char *pep_response_plain(char *sentence) {
    for (char *at = sentence; at && *at; at++)
        if ((unsigned char)*at < ' ' || *at == 127)
            *at = '?';
    return sentence;
}

void pep_response_error(struct pep_response *response, int status, const char *sentence) {
    PEP_COUNT(http_refused, 1);
    if (response->is_begun) {
        if (!response->writer.error)
            response->writer.error = -EIO;
        return;
    }
    if (response->request && pep_request_wants_json(response->request)) {
        write_json_error(response, status, sentence);
    } else {
        pep_response_start(response, status, "text/plain; charset=utf-8");
        pep_response_header(response, "X-Go-Pprof", "1");
        pep_write_text(&response->writer, sentence);
        pep_write_text(&response->writer, "\n");
    }
    if (response->request)
        pep_response_header(response, "Vary", "Accept");
}

int pep_response_end(struct pep_response *response) {
    int error = response->writer.error;
    if (error && !response->is_begun) {
        pep_response_error(response, 500, "The answer could not be made.");
        error = response->writer.error;
    }
    if (!error && !response->is_begun) {
        error = send_head(response, true);
        if (!error && response->body_count)
            error = send_all(response, response->body, response->body_count);
        return error;
    }
    if (!error)
        error = flush_body(response);
    if (!error && !response->is_old)
        error = send_all(response, "0\r\n\r\n", 5);
    return error;
}
