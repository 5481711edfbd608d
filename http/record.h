/*
 * The whole run's CPU profile, written to a file: what `profep-run -o FILE` asks for.
 *
 * Model:   a window opened at the start and written when the process ends, and every few
 *          seconds before that, so that an end nobody can catch loses little. Written to a
 *          temporary file beside it and renamed.
 * Writers: pep_record_* from the constructor and every way out.  [normal]
 * Readers: the person's tools.
 * Memory:  an arena a write.
 * When full: one log line; the host's exit is what it was.
 */
#ifndef PEP_HTTP_RECORD_H
#define PEP_HTTP_RECORD_H

#include <stdint.h>

/* path may hold %p (pid), %% and %e (program name). The suffix chooses the format: .svg, .html,
 * .txt, .collapsed; anything else is gzip profile.proto. 0 or -errno. */
int pep_record_start(const char *path, uint32_t hz);
/* Writes the final file once, however often it is called; at most a few seconds. */
void pep_record_finish(void);
/* A forked child records into its own file when the name holds %p, else not at all. */
void pep_record_after_fork_child(void);

#endif
