/*
 * PROFEP_* settings: one table for the environment, profep-run's flags, its help and the docs.
 *
 * Model:   read once in the constructor; a wrong value is one log line naming variable, value
 *          and accepted range, then the default. Never a failed start. Some may be changed later.
 * Writers: pep_config_load; pep_config_change.  [normal]
 * Readers: everybody.
 * Memory:  static; the texts are copies, because programs overwrite their environment.
 * When full: a text that does not fit is a wrong value.
 */
#ifndef PEP_PRELOAD_CONFIG_H
#define PEP_PRELOAD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http/server.h"

/* Texts are NULL when not set and without default. The table stands in config.def. */
struct pep_config {
    const char *listen;
    const char *rundir;
    const char *service;
    const char *token;
    const char *allow_host;
    const char *allow_origin;
    const char *log;
    const char *stage_path;
    const char *output; /* file for the whole run's profile; NULL: none */
    uint32_t hz;
    uint32_t signal;     /* 0: chosen at the start */
    uint32_t cpu_engine; /* enum pep_cpu_choice */
    uint32_t children;   /* 0: descendants are left alone */
    uint32_t heap;       /* enum pep_config_heap */
    uint32_t heap_rate;  /* bytes; 0: off */
    uint32_t live_map;
    uint32_t live_map_mib;
    uint64_t lock_rate; /* nanoseconds of waiting; 0: off */
    uint64_t peek_ns;
    uint32_t peek_signal; /* 0: none */
    uint32_t peek_snapshot;
    uint32_t lines; /* 0: no child is made to read them */
};

/* Set by the constructor that wants to be found again below: see init.c. Not a setting. */
#define PEP_CONFIG_MARK "PROFEP_MARK"

enum pep_config_heap { PEP_CONFIG_HEAP_OFF = 0, PEP_CONFIG_HEAP_SAMPLED, PEP_CONFIG_HEAP_ALL };

extern struct pep_config pep_config;

/* Reads an environment; safe before main. Starts the log, so that it can complain. */
void pep_config_load(char *const *environment);
/* All settings as a JSON object, the token hidden. Static storage, rebuilt on each call: for one
 * thread at a time. */
const char *pep_config_describe(void);
/* Setting number i; false: there is none. */
bool pep_config_get(size_t i, struct pep_setting_view *view);
/* All of the changes, or none and the sentence that says why; one thread at a time. What follows
 * from them is init.c's. */
const char *pep_config_change(const struct pep_setting_change *changes, size_t count,
                              char sentence[PEP_SETTING_SENTENCE_BYTES]);

#endif
