/*
 * The one place where profep says something: silent unless PROFEP_LOG asks.
 *
 * Model:   one line, one write(2), "profep[pid]: text\n". Opened for each line, so no
 *          descriptor is kept in the host.
 * Writers: profep's threads and the constructor.  [normal]
 * Readers: the person at the terminal.
 * Memory:  the line is formatted on the stack, 512 bytes.
 * When full: lines beyond 100 a second are not written.
 */
#ifndef PEP_SAMPLER_RT_LOG_H
#define PEP_SAMPLER_RT_LOG_H

#include "sampler/rt/attrs.h"

/* "stderr", a path, or NULL for silence. The text must live for ever. */
void pep_log_init(const char *target);
/* True: descriptor 2 is what is written to. */
int pep_log_is_stderr(void);
void pep_log(const char *format, ...) PEP_PRINTF(1, 2);

#endif
