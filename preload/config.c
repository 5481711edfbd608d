#include "preload/config.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "http/server.h"
#include "sampler/rt/attrs.h"
#include "sampler/rt/log.h"

enum kind { TEXT, NUMBER, CHOICE, SIGNAL, SECONDS };

struct setting {
    const char *name;
    enum kind kind;
    const char *fallback;
    const char *accepted;
    const char *help;
    size_t offset, bytes; /* of the field */
};

#define PEP_SETTING(field, name, kind, fallback, accepted, flag, argument, help) \
    {name, \
     kind, \
     fallback, \
     accepted, \
     help, \
     offsetof(struct pep_config, field), \
     sizeof(((struct pep_config *)0)->field)},
static const struct setting settings[] = {
#include "preload/config.def"
};
#undef PEP_SETTING

struct pep_config pep_config;

static enum { DEFAULT, ENVIRONMENT, CHANGED } origins[PEP_COUNT_OF(settings)];

/* Copies of the texts. PATH_MAX for the longest, and as much again for all others. */
static char texts[12288] PEP_LARGE;
static size_t texts_used;

static void *field_of(const struct setting *setting) {
    return (char *)&pep_config + setting->offset;
}

/* Where values are put: the settings, or a trial of them. */
static struct pep_config *into = &pep_config;

static void *slot_of(const struct setting *setting) {
    return (char *)into + setting->offset;
}

static bool set_text(const struct setting *setting, const char *value) {
    const char **field = slot_of(setting);
    if (*value == '\0') {
        *field = NULL;
        return true;
    }
    if (setting->offset == offsetof(struct pep_config, listen) &&
        !pep_server_listen_is_valid(value))
        return false;
    size_t size = strlen(value) + 1;
    if (size > sizeof(texts) - texts_used)
        return false;
    memcpy(texts + texts_used, value, size);
    *field = texts + texts_used;
    texts_used += size;
    return true;
}

/* Decimal digits up to limit; the character after them goes to end. -1 when there are none. */
static long parse_number(const char *text, const char **end) {
    long number = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (number < 10000000000000)
            number = number * 10 + (*at - '0');
    }
    *end = at;
    return at == text ? -1 : number;
}

static bool set_number(const struct setting *setting, const char *value) {
    static const char or_none[] = "0 or ";
    const char *end, *range = setting->accepted;
    bool is_none_accepted = strncmp(range, or_none, sizeof(or_none) - 1) == 0;
    range += is_none_accepted ? sizeof(or_none) - 1 : 0;
    long low = parse_number(range, &end);
    long high = parse_number(end + 2, &end);
    long number = parse_number(value, &end);
    bool is_accepted = (number >= low && number <= high) || (number == 0 && is_none_accepted);
    if (!is_accepted || *end != '\0')
        return false;
    if (setting->bytes == sizeof(uint64_t))
        *(uint64_t *)slot_of(setting) = (uint64_t)number;
    else
        *(uint32_t *)slot_of(setting) = (uint32_t)number;
    return true;
}

static bool set_choice(const struct setting *setting, const char *value) {
    const size_t size = strlen(value);
    uint32_t index = 0;
    for (const char *at = setting->accepted; *at != '\0'; index++) {
        size_t width = strcspn(at, "|");
        if (width == size && memcmp(at, value, size) == 0) {
            *(uint32_t *)slot_of(setting) = index;
            return true;
        }
        at += width + (at[width] == '|');
    }
    return false;
}

/* What a person may send; the others are faults, job control, or cannot be handled. */
static const struct {
    const char *name;
    uint32_t number;
} signals[] = {{"USR1", SIGUSR1}, {"USR2", SIGUSR2},     {"HUP", SIGHUP},   {"QUIT", SIGQUIT},
               {"ALRM", SIGALRM}, {"URG", SIGURG},       {"XCPU", SIGXCPU}, {"VTALRM", SIGVTALRM},
               {"PROF", SIGPROF}, {"WINCH", SIGWINCH},   {"IO", SIGIO},     {"POLL", SIGPOLL},
               {"PWR", SIGPWR},   {"STKFLT", SIGSTKFLT}, {"TERM", SIGTERM}, {"INT", SIGINT}};

#define SIGNAL_REAL_TIME 34 /* libc keeps those below for itself */
#define SIGNAL_MAX 64

static bool set_signal(const struct setting *setting, const char *value) {
    uint32_t *field = slot_of(setting);
    const char *end, *name = strncmp(value, "SIG", 3) == 0 ? value + 3 : value;
    long number = parse_number(value, &end);
    bool is_number = number >= 0 && *end == '\0';
    if (strcmp(value, "none") == 0) {
        *field = 0;
        return true;
    }
    for (size_t i = 0; i < PEP_COUNT_OF(signals); i++) {
        if (is_number ? number != (long)signals[i].number : strcmp(name, signals[i].name) != 0)
            continue;
        *field = signals[i].number;
        return true;
    }
    if (!is_number || number < SIGNAL_REAL_TIME || number > SIGNAL_MAX)
        return false;
    *field = (uint32_t)number;
    return true;
}

#define SECONDS_MAX 1000000

/* Seconds with decimals, in nanoseconds; -1: it is none. */
static long parse_seconds(const char *text, const char **end) {
    long seconds = parse_number(text, end), fraction = 0, unit = 100000000;
    if (seconds < 0 || seconds > SECONDS_MAX)
        return -1;
    if (**end == '.' && (*end)[1] >= '0' && (*end)[1] <= '9') {
        const char *at = *end + 1;
        for (; *at >= '0' && *at <= '9'; at++, unit /= 10)
            fraction += (*at - '0') * unit;
        *end = at;
    }
    return seconds * 1000000000 + fraction;
}

static bool set_seconds(const struct setting *setting, const char *value) {
    const char *end;
    long low = parse_seconds(setting->accepted, &end);
    long high = parse_seconds(end + 2, &end);
    long number = parse_seconds(value, &end);
    if (number < low || number > high || *end != '\0')
        return false;
    *(uint64_t *)slot_of(setting) = (uint64_t)number;
    return true;
}

static bool set(const struct setting *setting, const char *value) {
    switch (setting->kind) {
    case SIGNAL:
        return set_signal(setting, value);
    case SECONDS:
        return set_seconds(setting, value);
    case NUMBER:
        return set_number(setting, value);
    case CHOICE:
        return set_choice(setting, value);
    default:
        return set_text(setting, value);
    }
}

/* The value when entry is "name=value", else NULL. */
static const char *value_of(const char *entry, const char *name, size_t name_size) {
    if (strncmp(entry, name, name_size) != 0 || entry[name_size] != '=')
        return NULL;
    return entry + name_size + 1;
}

static void load_entry(const char *entry) {
    for (size_t i = 0; i < PEP_COUNT_OF(settings); i++) {
        const struct setting *setting = &settings[i];
        const char *value = value_of(entry, setting->name, strlen(setting->name));
        if (!value)
            continue;
        if (*value != '\0' && set(setting, value))
            origins[i] = ENVIRONMENT;
        else if (*value != '\0')
            pep_log("%s=%.200s is not accepted (%s); using %s", setting->name, value,
                    setting->accepted, *setting->fallback ? setting->fallback : "none");
        return;
    }
    if (!value_of(entry, PEP_CONFIG_MARK, strlen(PEP_CONFIG_MARK)))
        pep_log("%.*s is not a setting of profep; ignored", (int)strcspn(entry, "="), entry);
}

/* The same wish under the name that Julia's users know. */
static void load_julia(char *const *environment) {
    static const char name[] = "JULIA_PROFILE_PEEK_HEAP_SNAPSHOT";
    static const char *const words[] = {"1", "true", "yes", "on"};
    for (char *const *entry = environment; *entry; entry++) {
        const char *value = value_of(*entry, name, sizeof(name) - 1);
        for (size_t i = 0; value && i < PEP_COUNT_OF(words); i++)
            if (strcasecmp(value, words[i]) == 0)
                pep_config.peek_snapshot = 1;
    }
}

void pep_config_load(char *const *environment) {
    static const char prefix[] = "PROFEP_";
    texts_used = 0;
    for (size_t i = 0; i < PEP_COUNT_OF(settings); i++) {
        (void)set(&settings[i], settings[i].fallback);
        origins[i] = DEFAULT;
    }
    if (!environment)
        return;
    /* The log first: the others may have something to say. */
    for (char *const *entry = environment; *entry; entry++) {
        if (value_of(*entry, "PROFEP_LOG", sizeof("PROFEP_LOG") - 1))
            load_entry(*entry);
    }
    pep_log_init(pep_config.log);
    load_julia(environment);
    for (char *const *entry = environment; *entry; entry++) {
        if (strncmp(*entry, prefix, sizeof(prefix) - 1) == 0 &&
            !value_of(*entry, "PROFEP_LOG", sizeof("PROFEP_LOG") - 1))
            load_entry(*entry);
    }
}

/* -- as JSON -------------------------------------------------------------------------------- */

struct text {
    char *data;
    size_t size, used;
};

static void put(struct text *text, char c) {
    if (text->used + 1 < text->size)
        text->data[text->used++] = c;
}

static void put_plain(struct text *text, const char *from) {
    for (; *from; from++)
        put(text, *from);
}

/* Settings are paths and names: what is not plain ASCII becomes \u00XX, byte by byte. */
static void put_string(struct text *text, const char *from) {
    static const char digits[] = "0123456789abcdef";
    put(text, '"');
    for (; *from; from++) {
        unsigned char c = (unsigned char)*from;
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\' && c != '<') {
            put(text, (char)c);
            continue;
        }
        put_plain(text, "\\u00");
        put(text, digits[c >> 4]);
        put(text, digits[c & 15]);
    }
    put(text, '"');
}

static void put_number(struct text *text, uint64_t number) {
    char digits[20];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0)
        put(text, digits[--count]);
}

static void put_seconds(struct text *text, uint64_t ns) {
    uint64_t unit = 1000000000;
    put_number(text, ns / unit);
    put(text, '.');
    do {
        unit /= 10;
        put(text, (char)('0' + ns / unit % 10));
    } while (ns % unit != 0);
}

static void put_choice(struct text *text, const struct setting *setting, uint32_t index) {
    const char *at = setting->accepted;
    for (; index > 0; index--)
        at += strcspn(at, "|") + 1;
    for (size_t i = 0, width = strcspn(at, "|"); i < width; i++)
        put(text, at[i]);
}

static void put_signal(struct text *text, uint32_t number) {
    if (number == 0) {
        put_plain(text, "none");
        return;
    }
    for (size_t i = 0; i < PEP_COUNT_OF(signals); i++) {
        if (number == signals[i].number) {
            put_plain(text, signals[i].name);
            return;
        }
    }
    put_number(text, number); /* a real-time signal has no name of its own */
}

/* Of all kinds but TEXT. */
static void put_bare(struct text *text, const struct setting *setting) {
    if (setting->kind == CHOICE)
        put_choice(text, setting, *(uint32_t *)field_of(setting));
    else if (setting->kind == SIGNAL)
        put_signal(text, *(uint32_t *)field_of(setting));
    else if (setting->kind == SECONDS)
        put_seconds(text, *(uint64_t *)field_of(setting));
    else
        put_number(text, setting->bytes == sizeof(uint64_t) ? *(uint64_t *)field_of(setting)
                                                            : *(uint32_t *)field_of(setting));
}

/* NULL: none. */
static const char *text_of(const struct setting *setting) {
    const char *value = *(const char **)field_of(setting);
    return value && field_of(setting) == (void *)&pep_config.token ? "(hidden)" : value;
}

static void put_value(struct text *text, const struct setting *setting) {
    bool is_word = setting->kind == CHOICE || setting->kind == SIGNAL;
    if (is_word)
        put(text, '"');
    if (setting->kind != TEXT)
        put_bare(text, setting);
    else if (!text_of(setting))
        put_plain(text, "null");
    else
        put_string(text, text_of(setting));
    if (is_word)
        put(text, '"');
}

const char *pep_config_describe(void) {
    /* Six bytes a character at worst, and the names. */
    static char json[sizeof(texts) * 6 + 1024] PEP_LARGE;
    struct text text = {.data = json, .size = sizeof(json)};
    for (size_t i = 0; i < PEP_COUNT_OF(settings); i++) {
        put(&text, i == 0 ? '{' : ',');
        put_string(&text, settings[i].name);
        put(&text, ':');
        put_value(&text, &settings[i]);
    }
    put(&text, '}');
    json[text.used] = '\0';
    return json;
}

/* -- while the program runs ----------------------------------------------------------------- */

static const char *refuse_heap_rate(void) {
    return pep_config.heap == PEP_CONFIG_HEAP_SAMPLED ? NULL : "is for PROFEP_HEAP=sampled";
}

/* Whoever gave the one there is may choose another. */
static const char *refuse_token(void) {
    return pep_config.token ? NULL : "is set when the program starts";
}

/* A setting is changed by these, or not at all. */
static const struct {
    size_t offset;
    const char *(*refuse)(void); /* why it cannot be changed now, or NULL */
} changeable[] = {
    {offsetof(struct pep_config, hz), NULL},
    {offsetof(struct pep_config, heap_rate), refuse_heap_rate},
    {offsetof(struct pep_config, lock_rate), NULL},
    {offsetof(struct pep_config, service), NULL},
    {offsetof(struct pep_config, token), refuse_token},
    {offsetof(struct pep_config, log), NULL},
};

/* Why it cannot be changed, or NULL. */
static const char *fixed_of(const struct setting *setting) {
    for (size_t i = 0; i < PEP_COUNT_OF(changeable); i++)
        if (changeable[i].offset == setting->offset)
            return changeable[i].refuse ? changeable[i].refuse() : NULL;
    return "is set when the program starts";
}

bool pep_config_get(size_t i, struct pep_setting_view *view) {
    static const char *const words[] = {"default", "environment", "changed"};
    if (i >= PEP_COUNT_OF(settings))
        return false;
    const struct setting *setting = &settings[i];
    struct text text = {.data = view->text, .size = sizeof(view->text)};
    memset(view->text, 0, sizeof(view->text));
    if (setting->kind != TEXT)
        put_bare(&text, setting);
    view->name = setting->name;
    view->value = setting->kind == TEXT ? text_of(setting) : view->text;
    view->is_number = setting->kind == NUMBER || setting->kind == SECONDS;
    view->fallback = *setting->fallback ? setting->fallback : NULL;
    view->accepted = setting->accepted;
    view->help = setting->help;
    view->origin = words[origins[i]];
    view->fixed = fixed_of(setting);
    return true;
}

/* By the variable's name, or by what follows PROFEP_ in it. -1: there is none. */
static int find_setting(const char *name) {
    for (size_t i = 0; i < PEP_COUNT_OF(settings); i++)
        if (strcasecmp(settings[i].name, name) == 0 || strcasecmp(settings[i].name + 7, name) == 0)
            return (int)i;
    return -1;
}

/* What may not be set over the wire: a file of anybody's choice that is then written to, and an end
 * of the need for a token. */
static const char *refuse_value(const struct setting *setting, const char *value) {
    if (setting->offset == offsetof(struct pep_config, token) && *value == '\0')
        return "can be replaced, not taken away";
    if (setting->offset == offsetof(struct pep_config, log) && *value != '\0' &&
        strcmp(value, "stderr") != 0)
        return "can be stderr or nothing: a path is set when the program starts";
    return NULL;
}

static const char *try_one(const struct pep_setting_change *change, int found) {
    if (found < 0)
        return "is not a setting";
    const struct setting *setting = &settings[found];
    const char *why = fixed_of(setting);
    if (!why)
        why = refuse_value(setting, change->value);
    if (why)
        return why;
    const char *value = *change->value || setting->kind == TEXT ? change->value : setting->fallback;
    return set(setting, value) ? NULL : "";
}

const char *pep_config_change(const struct pep_setting_change *changes, size_t count,
                              char sentence[PEP_SETTING_SENTENCE_BYTES]) {
    static struct pep_config trial; /* all or nothing */
    const size_t texts_before = texts_used;
    trial = pep_config;
    into = &trial;
    const char *why = NULL;
    size_t i = 0;
    for (; i < count && !why; i++) {
        int found = find_setting(changes[i].name);
        why = try_one(&changes[i], found);
        if (why)
            snprintf(sentence, PEP_SETTING_SENTENCE_BYTES, "%.60s %s%s.", changes[i].name,
                     *why ? why : "must be ", *why ? "" : settings[found].accepted);
    }
    into = &pep_config;
    if (why) {
        texts_used = texts_before;
        return sentence;
    }
    pep_config = trial;
    for (i = 0; i < count; i++)
        origins[find_setting(changes[i].name)] = CHANGED;
    return NULL;
}
