/*
 * A profile in the wanted format, written to an answer.
 *
 * Model:   content type and encoder follow from the format; this is the one table of both.
 * Writers: the connection's thread.  [normal]
 * Readers: -
 * Memory:  the request's arena.
 * When full: the answer is an error, or is cut when it had begun.
 */
#ifndef PEP_HTTP_RENDER_H
#define PEP_HTTP_RENDER_H

#include "http/request.h"
#include "http/response.h"
#include "sampler/profile.h"

/* format= (or else the Accept header) and thread=, as every profile takes them. NULL, or the
 * sentence of a 400. */
const char *pep_render_params(const struct pep_request *request, enum pep_format *format,
                              const char **thread);
/* The program's name and number, as titles have it: "redis-server 4711". */
const char *pep_render_program(struct pep_arena *arena);
/* The headers of a 200 in that format; name is the file's ("profile"). */
void pep_render_head(struct pep_response *response, enum pep_format format, const char *name);
/* True for a HEAD: answered with these headers. */
bool pep_render_is_head(struct pep_response *response, enum pep_format format, const char *name);
/* What is answered where a profile could not be made: error is -errno; unrecorded the sentence for
 * -ENOTSUP, that this program's cannot be recorded; NULL: it does not occur. */
void pep_render_error(struct pep_response *response, int error, const char *unrecorded);
/* A browser that did not ask for a format gets 204 where nothing was sampled: true, answered. */
bool pep_render_nothing(struct pep_response *response, enum pep_format format,
                        const struct pep_profile *profile);
/* Encodes profile as the body. The writer's error tells how it went. */
void pep_render_body(struct pep_response *response, enum pep_format format,
                     const struct pep_profile *profile, struct pep_arena *arena);
/* The same into any writer, for a file. 0 or -errno. */
int pep_render_to(struct pep_writer *writer, enum pep_format format,
                  const struct pep_profile *profile, struct pep_arena *arena);

#endif
