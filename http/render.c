#include "http/render.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "encoder/encoders.h"
#include "http/report_params.h"
#include "http/window.h"
#include "sampler/rt/os.h"

/* 1: encoding must stay within half the window's length; the gain of 6 is some 15 % of size. */
#define GZIP_LEVEL 1

static const struct format {
    const char *content_type;
    void (*encode)(const struct pep_encode_job *job);
    bool is_page; /* for a browser: kept from loading or sending anything */
} formats[] = {
    [PEP_FORMAT_PPROF] = {"application/octet-stream", pep_encode_pprof, false},
    [PEP_FORMAT_SVG] = {"image/svg+xml", pep_encode_flame_svg, true},
    [PEP_FORMAT_HTML] = {"text/html; charset=utf-8", pep_encode_flame_html, true},
    [PEP_FORMAT_COLLAPSED] = {"text/plain; charset=utf-8", pep_encode_collapsed, false},
    [PEP_FORMAT_TEXT] = {"text/plain; charset=utf-8", pep_encode_text, false},
    [PEP_FORMAT_TREE] = {"text/plain; charset=utf-8", pep_encode_tree, false},
    [PEP_FORMAT_FLAT] = {"text/plain; charset=utf-8", pep_encode_flat, false},
    [PEP_FORMAT_JSON] = {"application/x-ndjson", pep_encode_samples, false},
    [PEP_FORMAT_COUNT] = {"text/plain; charset=utf-8", pep_encode_count, false},
    [PEP_FORMAT_LEGACY] = {"text/plain; charset=utf-8", pep_encode_legacy, false},
    [PEP_FORMAT_CONTENTION] = {"text/plain; charset=utf-8", pep_encode_contention, false},
};

const char *pep_render_params(const struct pep_request *request, enum pep_format *format,
                              const char **thread) {
    const char *wanted = pep_request_param(request, "format");
    *thread = pep_request_param(request, "thread");
    *format = pep_request_accept(request);
    if (wanted && !pep_request_format(wanted, format))
        return "format must be one of pprof, svg, html, collapsed, text, top, tree, flat, json.";
    if (*format == PEP_FORMAT_TREE || *format == PEP_FORMAT_FLAT) {
        struct pep_report_options report;
        const char *sentence = pep_report_params(request, &report);
        if (sentence)
            return sentence;
    }
    if (*thread && (!**thread || strlen(*thread) > PEP_REQUEST_THREAD_MAX))
        return "thread must be a thread id or a part of a thread's name, up to 64 bytes.";
    return NULL;
}

void pep_render_head(struct pep_response *response, enum pep_format format, const char *name) {
    pep_response_start(response, 200, formats[format].content_type);
    if (format == PEP_FORMAT_PPROF) {
        char text[64];
        snprintf(text, sizeof(text), "attachment; filename=\"%s\"", name);
        pep_response_header(response, "Content-Disposition", text);
    }
    if (formats[format].is_page)
        pep_response_header(response, "Content-Security-Policy",
                            "default-src 'none'; script-src 'unsafe-inline'; "
                            "style-src 'unsafe-inline'; img-src data:");
    pep_response_header(response, "Vary", "Accept");
    pep_response_header(response, "Cache-Control", "no-store");
}

bool pep_render_is_head(struct pep_response *response, enum pep_format format, const char *name) {
    if (!response->request || response->request->method != PEP_HEAD)
        return false;
    pep_render_head(response, format, name);
    response->is_length_unknown = true;
    return true;
}

void pep_render_error(struct pep_response *response, int error, const char *unrecorded) {
    if (error == -ENOMEM)
        pep_response_error(response, 503, "Not enough memory for this profile.");
    else if (error == -ECONNRESET)
        response->writer.error = error;
    else if (error == -EBUSY)
        pep_response_error(response, 429, "Too many windows ask for a rate of their own.");
    else if (error == -ENOTSUP && unrecorded)
        pep_response_error(response, 501, unrecorded);
    else
        pep_response_error(response, 500, "failed to collect profile");
}

bool pep_render_nothing(struct pep_response *response, enum pep_format format,
                        const struct pep_profile *profile) {
    const struct pep_request *request = response->request;
    bool is_graph = format == PEP_FORMAT_HTML || format == PEP_FORMAT_SVG;
    if (!is_graph || profile->sample_count > 0 || !request || pep_request_param(request, "format"))
        return false;
    const char *thread = pep_request_param(request, "thread");
    if (thread) {
        const char *sentence = pep_response_plain(pep_arena_printf(
            request->arena, "No thread was sampled whose id is \"%s\" or whose name has it.",
            thread));
        pep_response_error(response, 404, sentence ? sentence : "No such thread was sampled.");
        return true;
    }
    pep_response_start(response, 204, NULL);
    pep_response_header(response, "Vary", "Accept");
    pep_response_header(response, "Cache-Control", "no-store");
    return true;
}

/* A kind in words. */
static const char *name_of(const char *kind) {
    static const char *const names[][2] = {
        {"allocs", "allocations"},        {"temporary", "short-lived allocations"},
        {"mmap", "mapped memory"},        {"block", "waiting"},
        {"mutex", "making others wait"},  {"goroutine", "threads that came and went"},
        {"threadcreate", "threads made"},
    };
    for (size_t i = 0; i < PEP_COUNT_OF(names); i++)
        if (strcmp(names[i][0], kind) == 0)
            return names[i][1];
    return kind;
}

/* What was measured, for how long, how finely. */
static const char *what_of(const struct pep_profile *profile, struct pep_arena *arena) {
    const char *kind = profile->kind ? profile->kind : "cpu";
    int64_t tenths = (profile->duration_ns + 50000000) / 100000000;
    long long seconds = tenths / 10, tenth = tenths % 10;
    if (strcmp(kind, "cpu") == 0 || strcmp(kind, "wall") == 0)
        return pep_arena_printf(
            arena, "%s, %lld.%lld s at %lld Hz", *kind == 'c' ? "CPU" : "wall clock", seconds,
            tenth, profile->period > 0 ? (long long)(1000000000 / profile->period) : 0ll);
    if (strcmp(kind, "goroutine") == 0 && tenths == 0)
        return "threads now";
    const char *name = name_of(kind);
    if (tenths > 0)
        return pep_arena_printf(arena, "%s, %lld.%lld s", name, seconds, tenth);
    return pep_arena_printf(arena, "%s since the start", name);
}

static const char *program_of(struct pep_arena *arena, int pid) {
    char comm[17] = "";
    if (pep_os_read_file("/proc/self/comm", comm, sizeof(comm)) <= 0)
        comm[0] = '\0';
    comm[strcspn(comm, "\n")] = '\0';
    const char *text = pep_arena_printf(arena, "%s %d", comm[0] ? comm : "process", pid);
    return text ? text : "";
}

const char *pep_render_program(struct pep_arena *arena) {
    return program_of(arena, pep_os_getpid());
}

static const char *title_of(const struct pep_profile *profile, struct pep_arena *arena) {
    const char *what = what_of(profile, arena);
    const char *title =
        pep_arena_printf(arena, "%s: %s", program_of(arena, profile->pid), what ? what : "");
    return title ? title : "";
}

static int encode(struct pep_writer *writer, enum pep_format format, struct pep_encode_job *job) {
    struct pep_gzip_writer gzip;
    int error = 0;
    job->symbolizer = pep_symbolizer_begin(job->arena);
    job->writer = writer;
    job->title = title_of(job->profile, job->arena);
    if (!job->symbolizer)
        return -ENOMEM;
    struct pep_profile profile = *job->profile; /* with one comment more */
    pep_symbolizer_prepare(job->symbolizer, job->arena, &profile);
    job->profile = &profile;
    if (format == PEP_FORMAT_PPROF) {
        error = pep_gzip_writer_init(&gzip, writer, GZIP_LEVEL);
        job->writer = &gzip.writer;
    }
    if (!error)
        formats[format].encode(job);
    if (!error && format == PEP_FORMAT_PPROF)
        error = pep_gzip_writer_finish(&gzip);
    pep_symbolizer_end(job->symbolizer);
    return error ? error : writer->error;
}

int pep_render_to(struct pep_writer *writer, enum pep_format format,
                  const struct pep_profile *profile, struct pep_arena *arena) {
    struct pep_encode_job job = {.profile = profile, .arena = arena};
    return encode(writer, format, &job);
}

void pep_render_body(struct pep_response *response, enum pep_format format,
                     const struct pep_profile *profile, struct pep_arena *arena) {
    struct pep_report_options report;
    struct pep_encode_job job = {.profile = profile, .arena = arena};
    /* They were read before, by pep_render_params: what is wrong was answered there. */
    if (response->request && !pep_report_params(response->request, &report))
        job.report = &report;
    int error = encode(&response->writer, format, &job);
    if (error && !response->writer.error)
        response->writer.error = error;
}
