/*
 * PROFEP_* settings: one table for the environment, profep-run's flags, its help and the docs.
 *
 * Model:   read once in the constructor; a wrong value is one log line naming variable, value
 *          and accepted range, then the default. Never a failed start.
 * Writers: pep_config_load.  [normal]
 * Readers: everybody, afterwards constant.
 * Memory:  static; strings point into the environment as it was at the start, copied.
 * When full: -
 */
#ifndef PEP_PRELOAD_CONFIG_H
#define PEP_PRELOAD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

/* X(field, ENVIRONMENT, kind, default, minimum, maximum, flag, argument, help)
 * kind: TEXT, NUMBER, CHOICE (minimum is the list "a|b"). The flag is profep-run's.
 * The complete table stands in config.c's twin config.def, which scripts read too. */
struct pep_config {
    const char *listen;
    const char *rundir;
    const char *service;
    const char *token;
    const char *allow_host;
    const char *allow_origin;
    const char *log;
    const char *output; /* PROFEP_OUTPUT: file for the whole run's profile; NULL: none */
    uint32_t hz;
    int signal;
    int cpu_engine; /* enum pep_cpu_choice */
    bool children;  /* PROFEP_CHILDREN=all */
};

extern struct pep_config pep_config;
/* Reads environ; safe before main. */
void pep_config_load(char **environment);

#endif
