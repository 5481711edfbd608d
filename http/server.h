/*
 * The listener: civetweb's parser behind our own accept loop.
 *
 * Model:   one thread sleeps in poll on the listening socket and wakes for nothing else; a
 *          connection is served on a thread of its own (at most PEP_SERVER_CONNECTIONS_MAX).
 * Writers: pep_server_* from the constructor, the destructor and fork.  [normal]
 * Readers: the clients.
 * Memory:  pep_malloc; a stack of 256 KiB for each connection while it is served.
 * When full: further connections wait in the kernel's queue.
 */
#ifndef PEP_HTTP_SERVER_H
#define PEP_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sampler/rt/attrs.h"

#define PEP_SERVER_CONNECTIONS_MAX 64

/* One setting, for people and programs. */
struct pep_setting_view {
    const char *name, *value;        /* value NULL: none */
    const char *fallback, *accepted; /* fallback NULL: none */
    const char *help, *origin;       /* origin: "default", "environment", "changed" */
    const char *fixed;               /* why it cannot be changed, behind the name; NULL: it can */
    bool is_number;
    char text[32]; /* what value may point to */
};
struct pep_setting_change {
    const char *name, *value;
};
#define PEP_SETTING_SENTENCE_BYTES 256

/* What /debug/profep/config asks of who owns the settings. */
struct pep_server_settings {
    bool (*get)(size_t i, struct pep_setting_view *view);
    /* All or nothing: NULL, or the sentence of a 400. One thread at a time. */
    const char *(*change)(const struct pep_setting_change *changes, size_t count,
                          char sentence[PEP_SETTING_SENTENCE_BYTES]);
};

/* Strings must outlive the server. */
struct pep_server_options {
    const char *listen;       /* "127.0.0.1:16825+", "127.0.0.1:0", ":0", "unix:/path"; checked */
    const char *rundir;       /* NULL: the default of design section 5 */
    const char *service;      /* service_name label; NULL: the program's name */
    const char *token;        /* bearer token, NULL: none */
    const char *allow_host;   /* extra Host names, comma separated, NULL: none */
    const char *stage_path;   /* for files of debug_engine; NULL: TMPDIR or else /tmp */
    const char *allow_origin; /* extra Origins, comma separated, NULL: none */
    uint32_t hz;              /* default rate of CPU profiles */
    uint64_t delay_ns;        /* open the listener only when the process is this old */
    bool is_apart;            /* with a table of descriptors that the host cannot reach */
    const struct pep_server_settings *settings; /* NULL: none are shown */
    const char *(*describe)(void); /* JSON object text for /debug/profep "config", or NULL */
    int (*peek_signal)(void);      /* what asks for a peek now, 0: nothing does; or NULL */
    uint64_t peek_ns;              /* of the profile in a peek; 0: a second */
    bool has_peek_snapshot;
};

/* True when the text is a listen address we accept (used to check configuration). */
bool pep_server_listen_is_valid(const char *text);

/* Starts the thread that listens. Does not wait: pep_server_url tells when it is up. 0 or -errno;
 * -EALREADY also while a thread that was told to stop has not ended. */
int pep_server_start(const struct pep_server_options *options);
/* What may change while it runs: hz, service and token. Texts must outlive the server. */
void pep_server_change(const struct pep_server_options *options);
/* The heap is sampled at another rate than before. */
void pep_server_heap_varies(void);
/* "http://127.0.0.1:16825/" or "unix:/path", NULL while not listening. */
const char *pep_server_url(void);
/* At exit, or to be away for a moment: removes the run file, ends the thread that listens, waits
 * for running answers; at most 50 ms in all. May be started again afterwards. Does nothing in a
 * process that did not start it. May be called again to wait longer. */
void pep_server_stop(void);
/* The same where the process ends: a thread that has not begun to listen has nothing to put away
 * and is not waited for. */
void pep_server_leave(void);
/* True when no thread of the server's is left that may be told to stop. */
bool pep_server_is_stopped(void);
/* At an exit that runs no destructor, perhaps in a signal handler: the run file and the socket's
 * file are removed, and no thread is waited for, but at most 10 ms for one that is just making
 * them. It listens no more. */
void pep_server_unpublish(void);
/* From the constructor: whether source lines are read, which is done in children, and which filters
 * of system calls are there before the host's own. */
void pep_server_lines_init(bool is_wanted);
/* Before an exec: when recall returns there are no such children; none is made until its end. */
void pep_server_lines_recall(void);
void pep_server_lines_recall_end(void);
/* In the handler of sig, on one of the host's threads: a report goes to the host's standard error,
 * unless one runs or we are about to end. False: there is nobody to write it, and never was in this
 * process. */
PEP_SIGNAL_SAFE bool pep_server_peek(int sig);
/* In a forked child: the listener is the parent's; closes our copies (verified to be ours) and
 * forgets all state, so that pep_server_start can be called. */
void pep_server_after_fork_child(void);

#endif
