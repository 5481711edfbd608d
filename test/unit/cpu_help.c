#include "test/unit/cpu_help.h"

#include <dirent.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sampler/rt/os.h"
#include "sampler/stack_table.h"

uint64_t help_cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A piece takes some microseconds. One that took much longer by the clock was interrupted for long,
 * by a hypervisor that the kernel does not see perhaps: many expirations of a timer are one then.
 */
#define GAP_NS 300000u

void help_burn_ms(unsigned ms) {
    uint64_t left = ms * 1000000ull, before = help_cpu_ns();
    volatile uint64_t sum = 0;
    while (left > 0) {
        for (int i = 0; i < 5000; i++)
            sum += (uint64_t)i;
        uint64_t now = help_cpu_ns(), used = now - before;
        before = now;
        if (used < GAP_NS)
            left -= used < left ? used : left;
    }
}

bool help_has_perf(void) {
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.size = PERF_ATTR_SIZE_VER1;
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_TASK_CLOCK;
    attr.sample_period = 1000000;
    attr.disabled = 1;
    int fd = pep_os_perf_event_open(&attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

uint64_t help_weight(void) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < pep_stack_table_cell_count(); i++)
        sum += __atomic_load_n(&pep_stack_table_cell(i)->weight, __ATOMIC_RELAXED);
    return sum;
}

uint64_t help_count(void) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < pep_stack_table_cell_count(); i++)
        sum += __atomic_load_n(&pep_stack_table_cell(i)->count, __ATOMIC_RELAXED);
    return sum;
}

int help_timers(void) {
    FILE *file = fopen("/proc/self/timers", "r");
    char line[256];
    int count = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        count += strncmp(line, "ID:", 3) == 0;
    if (file != NULL)
        fclose(file);
    return count;
}

static int perf_fds_in(const char *folder) {
    DIR *dir = opendir(folder);
    int count = 0;
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char path[600], target[64] = "";
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (readlink(path, target, sizeof target - 1) > 0)
            count += strstr(target, "perf_event") != NULL;
    }
    if (dir != NULL)
        closedir(dir);
    return count;
}

int help_perf_fds(void) {
    int count = help_perf_fds_here();
    DIR *dir = opendir("/proc/self/task");
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char path[300], name[24] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        (void)pep_os_read_file(path, name, sizeof name);
        snprintf(path, sizeof path, "/proc/self/task/%s/fd", entry->d_name);
        if (strcmp(name, "profep-cpu\n") == 0 && help_perf_fds_here() == 0)
            count += perf_fds_in(path);
    }
    if (dir != NULL)
        closedir(dir);
    return count;
}

int help_perf_fds_here(void) {
    return perf_fds_in("/proc/self/fd");
}
