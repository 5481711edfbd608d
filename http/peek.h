/*
 * The peek: a signal asks, and a report is printed to the host's standard error.
 *
 * Model:   closed -> open -> asked -> running -> open. A handler on a thread of the host's asks
 *          and wakes the listening thread, which starts a thread for the one report; whoever asks
 *          meanwhile is not heard. away: it was open in this process, and is not at the moment or
 *          any more.
 * Writers: pep_peek_ask: any thread of the host's.  [signal] The rest: the listening thread and
 *          the report's.  [normal]
 * Readers: the same.
 * Memory:  static; an arena for the report.
 * When full: a report that cannot be made is left out, and logged.
 */
#ifndef PEP_HTTP_PEEK_H
#define PEP_HTTP_PEEK_H

#include <stdbool.h>
#include <stdint.h>

#include "http/stderr.h"
#include "sampler/rt/attrs.h"

struct pep_peek_options {
    uint64_t duration_ns; /* of the profile; 0: a second */
    bool has_snapshot;    /* a heap snapshot is wanted, too */
};

enum pep_peek_answer {
    PEP_PEEK_NOBODY, /* there is nobody, and never was in this process */
    PEP_PEEK_BUSY,   /* not heard */
    PEP_PEEK_TAKEN   /* the listening thread is to be woken */
};

/* The listening thread: from now on it can be asked. */
void pep_peek_open(const struct pep_peek_options *options);
/* Starts the report that was asked for, if one was. */
void pep_peek_serve(void);
/* Nobody is heard any more; waits for the end of a report that runs, at most that long. */
void pep_peek_stop(uint64_t ns);
void pep_peek_after_fork_child(void);

/* On the thread tid, in the handler of sig. */
PEP_SIGNAL_SAFE enum pep_peek_answer pep_peek_ask(int sig, int tid);

/* peek_report.c: the whole report, which ends early when the client goes. */
struct pep_peek_job {
    int sig, tid; /* tid: the thread that got it, and may be in our handler yet */
    struct pep_peek_options options;
    struct pep_client *client;
    struct pep_stderr *to;
};
/* 0, or the first error of what it was written to. */
int pep_peek_report(const struct pep_peek_job *job);

#endif
