/*
 * One ELF object's names, gathered from every place that may hold them.
 *
 * Model:   the file that the mapping came from is found and proven by its build-id; a file that
 *          was replaced since gives no names at all rather than wrong ones.
 * Writers: pep_symbol_file_load, behind the cache's lock.  [normal]
 * Readers: symbol_file.c.
 * Memory:  the file's arena; headers in a scratch arena.
 * When full: -ENOMEM.
 */
#ifndef PEP_ENCODER_SYMBOL_LOAD_H
#define PEP_ENCODER_SYMBOL_LOAD_H

#include "encoder/symbol_file.h"

#define PEP_DEBUG_ROOT "/usr/lib/debug"

/* Opens what is mapped as if it were its file: dynamic symbols and unwind table. -ENOENT when the
 * object is not there any more or has no build-id to know it by; else 0 or -ENOMEM. */
int pep_elf_open_process(struct pep_elf *elf, struct pep_arena *arena,
                         const struct pep_mapping *mapping);
/* Opens the object that a mapping came from, or what the kernel still knows of it when the file was
 * deleted or replaced. False when there is nothing that provably belongs to the mapping. */
bool pep_symbol_open_object(struct pep_elf *elf, struct pep_arena *arena,
                            const struct pep_mapping *mapping, bool is_main);
/* True when there is debug information in this very file. */
bool pep_symbol_has_lines(const struct pep_elf *elf);
/* Fills symbols, fdes, texts and the flags of a new file. 0, -ENOENT when no file belongs to the
 * mapping, or -ENOMEM. */
int pep_symbol_file_load(struct pep_symbol_file *file, const struct pep_mapping *mapping,
                         bool is_main);

#endif
