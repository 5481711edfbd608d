/*
 * Whether another thread would answer a signal of ours, as /proc tells.
 *
 * Model:   one that blocks our number, as in a call with a mask of its own, is stopped, or waits
 *          where no signal gets, does not.
 * Writers: -
 * Readers: a thread that waits for others to give way, after a while.  [signal]
 * Memory:  a page, for a moment.
 * When full: without memory or /proc nobody is waited for.
 *
 * Source: proc(5), /proc/pid/task/tid/status.
 */
#include "sampler/cpu_internal.h"
#include "sampler/rt/files.h"

#define PAGE 4096

PEP_SIGNAL_SAFE static const char *after(const char *text, const char *name) {
    for (; *text != '\0'; text++) {
        int i = 0;
        while (name[i] != '\0' && text[i] == name[i])
            i++;
        if (name[i] == '\0')
            return text + i;
    }
    return text;
}

PEP_SIGNAL_SAFE static uint64_t hex(const char *at) {
    uint64_t value = 0;
    for (; (*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'f'); at++)
        value = value << 4 | (uint64_t)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
    return value;
}

PEP_SIGNAL_SAFE bool pep_cpu_is_in_reach(int tid) {
    char *text = pep_os_map(PAGE);
    bool is_in_reach = false;
    if (text != NULL && pep_files_read_of_task(tid, "status", text, PAGE) > 0) {
        char state = *after(text, "\nState:\t");
        uint64_t blocked = hex(after(text, "\nSigBlk:\t"));
        is_in_reach = (state == 'R' || state == 'S') && !(blocked >> (pep_cpu.signal - 1) & 1);
    }
    if (text != NULL)
        pep_os_unmap(text, PAGE);
    return is_in_reach;
}
