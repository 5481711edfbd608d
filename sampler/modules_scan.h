/*
 * What /proc says about the objects of this process, one reading.
 *
 * Model:   the maps give addresses, the ELF headers in memory give the rest; nothing is asked of
 *          the loader, no file of a library is opened. Objects and code without an object are
 *          told in the order of their addresses.
 * Writers: -
 * Readers: modules.c.  [normal]
 * Memory:  a buffer of the caller's, PEP_SCAN_BUFFER_BYTES.
 * When full: lines longer than the buffer are passed over.
 *
 * Source: man 5 proc (maps), man 5 elf, System V gABI chapters 4 and 5.
 */
#ifndef PEP_SAMPLER_MODULES_SCAN_H
#define PEP_SAMPLER_MODULES_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/modules.h"

#define PEP_SCAN_BUFFER_BYTES (64 * 1024)

struct pep_scan_object {
    struct pep_module module; /* id, is_unloaded and path's lifetime are the sink's business */
    uint64_t inode;
    uint64_t head;        /* as pep_scan_head has it; 0: not read */
    uint64_t fingerprint; /* of program headers, build-id and the head of .eh_frame_hdr */
    uintptr_t span_limit; /* end of all segments */
    bool has_code;        /* an executable mapping was seen where the headers say */
};

struct pep_scan_sink {
    void (*object)(struct pep_scan_sink *sink, const struct pep_scan_object *object);
    /* Executable memory outside of every object: JIT code, vsyscall. */
    void (*code)(struct pep_scan_sink *sink, uintptr_t start, uintptr_t limit);
    char *buffer;
};

/* Reads the maps to their end. 0; -EIO when the sink did not hear all; another -errno when there
 * are no maps to read. */
int pep_scan_maps(struct pep_scan_sink *sink);
/* The same from dl_iterate_phdr(3), for a process without /proc; takes the loader's lock. */
int pep_scan_loader(struct pep_scan_sink *sink);
/* Fills what the headers at `start` tell; false when no loadable x86-64 object is there. */
bool pep_scan_headers(uintptr_t start, struct pep_scan_object *object);
/* A hash of the ELF header at start; 0 when nothing can be read there. */
uint64_t pep_scan_head(uintptr_t start);

#endif
