/*
 * The host's standard error, for threads of ours that do not share its descriptors.
 *
 * Model:   looked up when there is something to say, and let go afterwards: the host may put
 *          another file there at any time. Terminals and pipes are opened once more, so that our
 *          writes need not wait where the host's would; files, which have a place to write at,
 *          and sockets, which cannot be opened, are shared for the moment.
 * Writers: one thread of profep's.  [normal]
 * Readers: -
 * Memory:  -
 * When full: who takes nothing for two seconds is given up; counts peek_cut.
 *
 * Source: proc(5), /proc/PID/fd; pidfd_getfd(2); signal(7): SIGPIPE, SIGXFSZ and SIGTTOU go to the
 * thread that writes, which blocks them all.
 */
#ifndef PEP_HTTP_STDERR_H
#define PEP_HTTP_STDERR_H

#include <stdbool.h>
#include <stddef.h>

#include "http/window.h"

struct pep_stderr {
    int number; /* -1: none */
    bool is_socket;
    bool is_blocking; /* a write may wait: little at a time, where there is room */
    bool is_borrowed; /* the host's own number: not to be closed */
    int error;        /* the first one; nothing is written afterwards */
};

/* tid is a thread of the host's. 0 or -errno. */
int pep_stderr_open(struct pep_stderr *to, int tid);
/* Whole lines as far as there are any; ends early when the client goes. 0 or the first error. */
int pep_stderr_say(struct pep_stderr *to, struct pep_client *client, const char *text,
                   size_t count);
void pep_stderr_close(struct pep_stderr *to);

#endif
