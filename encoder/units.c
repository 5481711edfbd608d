#include "encoder/units.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct scale {
    int64_t size; /* in the profile's unit */
    const char *name;
};

static const struct scale times[] = {
    {3600000000000, "hrs"}, {60000000000, "mins"}, {1000000000, "s"},
    {1000000, "ms"},        {1000, "us"},          {1, "ns"},
};
static const struct scale sizes[] = {
    {(int64_t)1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}, {1, "B"},
};
static const struct scale counts[] = {{1, ""}};

/* part * factor / whole, rounded; the product cannot overflow. */
static int64_t scaled_ratio(int64_t part, int factor, int64_t whole) {
    return (int64_t)(((__int128)part * factor + whole / 2) / whole);
}

void pep_units_format(char text[PEP_UNITS_TEXT_MAX], int64_t value, const char *unit) {
    const struct scale *scale = counts;
    if (unit != NULL && strcmp(unit, "nanoseconds") == 0)
        scale = times;
    else if (unit != NULL && strcmp(unit, "bytes") == 0)
        scale = sizes;
    if (value == 0) {
        snprintf(text, PEP_UNITS_TEXT_MAX, "0");
        return;
    }
    while (scale->size > 1 && value < scale->size)
        scale++;
    int64_t scaled = scaled_ratio(value, 100, scale->size);
    if (scaled % 100 == 0)
        snprintf(text, PEP_UNITS_TEXT_MAX, "%lld%s", (long long)(scaled / 100), scale->name);
    else
        snprintf(text, PEP_UNITS_TEXT_MAX, "%lld.%02d%s", (long long)(scaled / 100),
                 (int)(scaled % 100), scale->name);
}

void pep_units_percent(char text[PEP_UNITS_TEXT_MAX], int64_t part, int64_t whole) {
    int64_t scaled = whole > 0 ? scaled_ratio(part, 10000, whole) : 0;
    if (scaled == 0)
        snprintf(text, PEP_UNITS_TEXT_MAX, "0%%");
    else
        snprintf(text, PEP_UNITS_TEXT_MAX, "%lld.%02d%%", (long long)(scaled / 100),
                 (int)(scaled % 100));
}

void pep_units_time(char text[PEP_UNITS_TEXT_MAX], int64_t time_ns) {
    int64_t seconds = time_ns / 1000000000;
    int64_t days = seconds / 86400, rest = seconds % 86400;
    /* Years that begin in March put the leap day last; 146097 days are 400 of them. */
    int64_t shifted = days + 719468;
    int64_t era = shifted / 146097, day = shifted % 146097;
    int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    int64_t day_of_year = day - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * day_of_year + 2) / 153;
    int64_t day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    int calendar_month = (int)(month < 10 ? month + 3 : month - 9);
    int calendar_year = (int)(year + era * 400 + (calendar_month <= 2));
    snprintf(text, PEP_UNITS_TEXT_MAX, "%04d-%02d-%02d %02d:%02d:%02d UTC", calendar_year,
             calendar_month, (int)day_of_month, (int)(rest / 3600), (int)(rest / 60 % 60),
             (int)(rest % 60));
}
