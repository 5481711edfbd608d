/*
 * What we leave in the environment for programs started from here.
 *
 * Model:   PROFEP_MARK=<pid> says that a preloaded process, and which, is above. Or, when
 *          descendants are to be left alone, our entry is taken out of LD_PRELOAD. environ is
 *          pointed at a copy of the list, with our one entry at its end: programs that write
 *          their title over the old strings (redis, nginx) still find those in place.
 * Writers: the constructor alone, while nobody runs getenv.  [normal]
 * Readers: libc.
 * Memory:  static; a mapping for a list that is longer than usual. Only in the first process of a
 *          family.
 * When full: the environment stays as it was.
 */
#ifndef PEP_PRELOAD_ENVIRONMENT_H
#define PEP_PRELOAD_ENVIRONMENT_H

/* The process that PROFEP_MARK names; 0: none. After an exec it may be the caller's own. */
int pep_environment_marked_pid(char *const *environment);
/* Adds the mark for this process to environ. */
void pep_environment_mark(int pid);
/* Takes the entry for the library at path out of environ's LD_PRELOAD, keeping others. */
void pep_environment_leave(const char *path);

#endif
