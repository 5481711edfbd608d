/*
 * Where distributions put the symbols that they strip from programs.
 *
 * Model:   candidates in a fixed order; the first that provably belongs to the object is taken.
 * Writers: pep_debug_file_open.  [normal]
 * Readers: -
 * Memory:  paths and headers: the arena of the object's headers.
 * When full: false.
 *
 * Source: gdb manual, "Debugging Information in Separate Files".
 */
#include <string.h>

#include "encoder/symbol_file.h"
#include "sampler/rt/os.h"

#define DEBUGLINK_LIMIT_BYTES 4096

/* NULL when there is no build-id or no memory. */
static const char *build_id_path(struct pep_arena *arena, const char *build_id, const char *root) {
    if (strlen(build_id) < 4)
        return NULL;
    return pep_arena_printf(arena, "%s/.build-id/%.2s/%s.debug", root, build_id, build_id + 2);
}

bool pep_debug_file_exists(const char *build_id, const char *root) {
    struct pep_arena scratch;
    pep_arena_init(&scratch, 0);
    const char *path = build_id_path(&scratch, build_id, root);
    int fd = path != NULL ? pep_elf_open_file(path, 0) : -1;
    if (fd >= 0)
        pep_os_close(fd);
    pep_arena_drop(&scratch);
    return fd >= 0;
}

/* Opens a candidate and keeps it when it belongs to the object. A build-id on both sides decides
 * alone: it is a stronger hash than the CRC and needs no reading of the whole file. */
static bool open_candidate(struct pep_elf *debug, const struct pep_elf *object, const char *path,
                           const uint32_t *wanted_crc) {
    if (pep_elf_open(debug, object->arena, path) != 0)
        return false;
    uint32_t crc;
    bool is_itself = debug->device == object->device && debug->inode == object->inode;
    bool is_right = false;
    if (!is_itself && debug->build_id[0] != '\0' && object->build_id[0] != '\0')
        is_right = strcmp(debug->build_id, object->build_id) == 0;
    else if (!is_itself && wanted_crc != NULL)
        is_right = pep_elf_crc32(debug, &crc) && crc == *wanted_crc;
    if (!is_right)
        pep_elf_close(debug);
    return is_right;
}

/* The file name and the CRC in .gnu_debuglink: text, NUL, padding to 4, four bytes. */
static const char *read_debuglink(const struct pep_elf *object, uint32_t *crc) {
    const Elf64_Shdr *section = pep_elf_section_named(object, ".gnu_debuglink");
    const char *link = pep_elf_load_section(object, object->arena, section, DEBUGLINK_LIMIT_BYTES);
    if (link == NULL)
        return NULL;
    size_t crc_at = (strlen(link) + 1 + 3) & ~(size_t)3;
    if (crc_at + sizeof(*crc) > section->sh_size || link[0] == '\0' || strchr(link, '/') != NULL)
        return NULL;
    memcpy(crc, link + crc_at, sizeof(*crc));
    return link;
}

bool pep_debug_file_open(struct pep_elf *debug, const struct pep_elf *object, const char *path,
                         const char *root) {
    const char *text = build_id_path(object->arena, object->build_id, root);
    if (text != NULL && open_candidate(debug, object, text, NULL))
        return true;
    uint32_t crc;
    const char *link = read_debuglink(object, &crc);
    const char *slash = strrchr(path, '/');
    if (link == NULL || path[0] != '/' || slash == NULL)
        return false;
    const struct { const char *root, *folder; } places[] = {{"", ""}, {"", "/.debug"}, {root, ""}};
    for (size_t i = 0; i < PEP_COUNT_OF(places); i++) {
        text = pep_arena_printf(object->arena, "%s%.*s%s/%s", places[i].root, (int)(slash - path),
                                path, places[i].folder, link);
        if (text != NULL && open_candidate(debug, object, text, &crc))
            return true;
    }
    return false;
}
