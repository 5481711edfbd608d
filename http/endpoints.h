/*
 * What the routes of ProfileEndpoints and of Julia's Profile share: the parameters n, delay and
 * duration, their defaults, and a window whose profile is kept.
 *
 * Model:   two clocks, told apart by a number; the defaults of n and delay are the process's and
 *          may be changed while it runs.
 * Writers: the connection's thread.  [normal]
 * Readers: on_endpoints.c, on_recorded.c.
 * Memory:  a recording's (recording.h).
 * When full: 503.
 */
#ifndef PEP_HTTP_ENDPOINTS_H
#define PEP_HTTP_ENDPOINTS_H

#include "http/recording.h"
#include "http/routes.h"

#define PEP_ENDPOINT_ROOM_MAX 1e15
#define PEP_ENDPOINT_DELAY_LOW 0.0001
#define PEP_ENDPOINT_DELAY_WALL_LOW 0.001
#define PEP_ENDPOINT_DELAY_HIGH 1.0

struct pep_endpoint_wanted {
    enum pep_window_clock clock;
    uint32_t hz;
    uint64_t room; /* for samples */
    uint64_t duration_ns;
    const char *thread; /* NULL: all */
    enum pep_format format;
};

/* The defaults, for each clock within its limits. */
struct pep_endpoint_defaults {
    uint64_t room;
    uint64_t delay_ns;
};
struct pep_endpoint_defaults pep_endpoint_defaults(void);
void pep_endpoint_set_defaults(const struct pep_endpoint_defaults *defaults);

/* delay and n; and with them duration, format and thread. NULL, or the sentence of a 400. */
const char *pep_endpoint_read_rate(const struct pep_request *request,
                                   struct pep_endpoint_wanted *wanted);
const char *pep_endpoint_read(const struct pep_request *request,
                              struct pep_endpoint_wanted *wanted);
/* Runs the window; the recording is kept as the last one and held until drop. NULL: an answer was
 * made. */
struct pep_recording *pep_endpoint_record(struct pep_exchange *exchange,
                                          const struct pep_endpoint_wanted *wanted);
/* Ends recordings that run and forgets them and the last one. */
void pep_endpoint_clear(void);

#endif
