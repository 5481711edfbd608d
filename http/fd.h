/*
 * Descriptors that may live in somebody else's table.
 *
 * Model:   a descriptor and what it was (device, inode). The host may close it or put another
 *          file in its place at any time, so it is looked at before every use; one that is not
 *          ours any more is forgotten, never closed. In a table of our own (sampler/rt/table.h)
 *          they are safe, and to threads that share the host's they are only numbers.
 * Writers: profep's own threads; fork.  [normal]
 * Readers: the same.
 * Memory:  none.
 * When full: a descriptor stays low when no high number is free.
 */
#ifndef PEP_HTTP_FD_H
#define PEP_HTTP_FD_H

#include <stdbool.h>
#include <stdint.h>

#define PEP_FD_FLOOR 100

struct pep_fd {
    int number; /* -1: none */
    uint64_t device, inode;
};

#define PEP_FD_NONE ((struct pep_fd){.number = -1})

/* From here on descriptors lie in a table that our threads have to themselves, or no more: a fork
 * left it behind. */
void pep_fd_set_apart(bool is_apart);
/* Takes a descriptor over: moves it to PEP_FD_FLOOR or above, close-on-exec. */
struct pep_fd pep_fd_take(int number);
/* The same file under a second number; PEP_FD_NONE when there is no number left. */
struct pep_fd pep_fd_copy(const struct pep_fd *fd);
/* True while the number is still that very file to the calling thread. Does not count. */
bool pep_fd_is_ours(const struct pep_fd *fd);
/* True while it is that file to whoever may use it. */
bool pep_fd_is_held(const struct pep_fd *fd);
/* Closes it if it is ours and forgets it. */
void pep_fd_drop(struct pep_fd *fd);

#endif
