/*
 * Settings that change while the program runs, and what follows from them.
 *
 * Model:   the settings change all together or not at all (config.h), then whoever works by one
 *          of them is told.
 * Writers: the connection that asked, one at a time.  [normal]
 * Readers: http, through what server.h calls settings.
 * Memory:  none.
 * When full: -
 */
#ifndef PEP_PRELOAD_CONFIG_APPLY_H
#define PEP_PRELOAD_CONFIG_APPLY_H

#include "http/server.h"

extern const struct pep_server_settings pep_config_settings;

#endif
