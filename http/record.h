/*
 * The whole run's CPU profile, or its heap's, written to a file: what `profep-run -o FILE` asks
 * for.
 *
 * Model:   a window opened at the start and written when the process ends, and every few
 *          seconds before that, so that an end nobody can catch loses little. A thread of its
 *          own writes, to a temporary file beside it which it renames; whoever ends the process
 *          wakes it and waits.
 * Writers: pep_record_* from the constructor and every way out.  [signal]
 * Readers: the person's tools.
 * Memory:  an arena a write.
 * When full: one log line; the host's exit is what it was.
 */
#ifndef PEP_HTTP_RECORD_H
#define PEP_HTTP_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/rt/attrs.h"

/* path may hold %p (pid), %% and %e (program name), and must outlive the recording. The suffix
 * chooses the format: .svg, .html, .txt, .collapsed; anything else is gzip profile.proto. hz 0:
 * the heap's instead of the CPU's, in two files (record_file.h). Starts the thread. 0 or
 * -errno. */
int pep_record_start(const char *path, uint32_t hz);
/* True from a start to the final file. */
PEP_SIGNAL_SAFE bool pep_record_is_active(void);
/* Writes what there is now and goes on; waits for it, at most a few seconds. For exec and abort,
 * which may come back. */
PEP_SIGNAL_SAFE void pep_record_checkpoint(void);
/* Writes the final file once, however often it is called; waits at most a few seconds. */
PEP_SIGNAL_SAFE void pep_record_finish(void);
/* Ends the thread, when a system call wants the process to have one thread, and starts it again;
 * the recording goes on. Pausing waits for a file that is being written,
 * and for the thread of a recording that is over. 0 or -errno. */
void pep_record_pause(void);
int pep_record_resume(void);
/* After the final file: there will be another one. 0 or -errno. */
int pep_record_revive(void);
/* True when the name holds %p, so that each process has a file of its own. */
bool pep_record_is_per_process(const char *path);
/* In a forked child: the recording is the parent's. The child may start its own. */
void pep_record_after_fork_child(void);

#endif
