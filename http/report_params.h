/*
 * The parameters of format=tree and format=flat, as Julia's Profile.print names them.
 *
 * Model:   combine, C, maxdepth, mincount, noisefloor, sortedby, groupby, recur, threads; and
 *          columns, the width of the terminal. Read once for each request.
 * Writers: the connection's thread.  [normal]
 * Readers: render.c.
 * Memory:  the request's arena.
 * When full: the sentence of a 400.
 */
#ifndef PEP_HTTP_REPORT_PARAMS_H
#define PEP_HTTP_REPORT_PARAMS_H

#include "encoder/encoders.h"
#include "http/request.h"

/* NULL, or the sentence of a 400. */
const char *pep_report_params(const struct pep_request *request,
                              struct pep_report_options *options);

#endif
