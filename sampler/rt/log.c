#include "sampler/rt/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

#define LINE_BYTES_MAX 512
#define LINES_PER_SECOND_MAX 100

static const char *log_target;

void pep_log_init(const char *target) {
    log_target = target != NULL && target[0] != '\0' ? target : NULL;
}

int pep_log_is_stderr(void) {
    return log_target != NULL && strcmp(log_target, "stderr") == 0;
}

/* True while this second still has room; two threads at the border may write a line more. */
static int has_room(void) {
    static uint64_t second;
    static uint32_t lines;
    uint64_t now = pep_os_clock_ns(CLOCK_MONOTONIC_COARSE) / 1000000000u;
    if (pep_load_relaxed(&second) != now) {
        pep_store_relaxed(&second, now);
        pep_store_relaxed(&lines, 0u);
    }
    return pep_add_relaxed(&lines, 1u) < LINES_PER_SECOND_MAX;
}

void pep_log(const char *format, ...) {
    if (log_target == NULL || !has_room())
        return;
    char line[LINE_BYTES_MAX];
    int used = snprintf(line, sizeof(line), "profep[%d]: ", pep_os_getpid());
    va_list arguments;
    va_start(arguments, format);
    int more = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, arguments);
    va_end(arguments);
    if (more < 0)
        return;
    size_t count = strlen(line);
    line[count++] = '\n';
    if (pep_log_is_stderr()) {
        pep_os_write(2, line, count);
        return;
    }
    int fd = pep_os_open(log_target, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    pep_os_write(fd, line, count);
    pep_os_close(fd);
}
