/*
 * Numbers as people read them: "1.23s", "4.50MiB", "12.3%", a date.
 *
 * Model:   integers only. libc's own conversions of fractions and times follow the host's
 *          locale, and its time functions take a lock the host may hold.
 * Writers: -
 * Readers: the encoders for people.  [normal]
 * Memory:  the caller's text.
 * When full: -
 */
#ifndef PEP_ENCODER_UNITS_H
#define PEP_ENCODER_UNITS_H

#include <stdint.h>

#define PEP_UNITS_TEXT_MAX 48

/* A value >= 0 in the unit of a profile ("nanoseconds", "bytes", anything else is a count), two
 * decimals at most. */
void pep_units_format(char text[PEP_UNITS_TEXT_MAX], int64_t value, const char *unit);
/* part of whole, "12.34%"; "0%" when whole is 0. */
void pep_units_percent(char text[PEP_UNITS_TEXT_MAX], int64_t part, int64_t whole);
/* Nanoseconds since 1970 as "2026-01-31 23:59:59 UTC". */
void pep_units_time(char text[PEP_UNITS_TEXT_MAX], int64_t time_ns);

#endif
