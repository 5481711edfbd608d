#include "http/access.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "sampler/rt/attrs.h"

static bool is_same(const char *text, size_t count, const char *name) {
    return strlen(name) == count && strncasecmp(text, name, count) == 0;
}

static bool is_listed(const char *list, const char *text, size_t count) {
    while (list && *list) {
        size_t length = strcspn(list, ",");
        size_t blanks = strspn(list, " ");
        if (blanks < length && length - blanks == count &&
            strncasecmp(list + blanks, text, count) == 0)
            return true;
        list += length + (list[length] == ',');
    }
    return false;
}

static bool is_digits(const char *text) {
    return text[strspn(text, "0123456789")] == '\0';
}

/* The length of the name in "name", "name:port" or "[v6]:port"; 0 when it is none of these. */
static size_t host_length(const char *host) {
    size_t count = host[0] == '[' ? strcspn(host, "]") : strcspn(host, ":");
    if (host[0] == '[') {
        if (host[count] != ']')
            return 0;
        count++;
    }
    if (host[count] == '\0')
        return count;
    return host[count] == ':' && is_digits(host + count + 1) ? count : 0;
}

static bool is_address(const char *text, size_t count) {
    char copy[INET6_ADDRSTRLEN];
    unsigned char address[16];
    bool is_v6 = count > 2 && text[0] == '[';
    size_t length = is_v6 ? count - 2 : count;
    if (length >= sizeof(copy))
        return false;
    memcpy(copy, text + is_v6, length);
    copy[length] = '\0';
    return inet_pton(is_v6 ? AF_INET6 : AF_INET, copy, address) == 1;
}

static bool is_good_host(const struct pep_access *access, const char *host) {
    size_t count = host_length(host);
    if (count == 0)
        return false;
    return is_same(host, count, "127.0.0.1") || is_same(host, count, "localhost") ||
           is_same(host, count, "[::1]") || is_same(host, count, access->own_host) ||
           is_listed(access->allow_host, host, count) ||
           (access->is_any && is_address(host, count));
}

static struct pep_verdict check_host(const struct pep_access *access,
                                     const struct pep_request *request, const char **host) {
    int count;
    *host = pep_request_header(request, "Host", &count);
    if (count > 1)
        return (struct pep_verdict){400, "The request has more than one Host header.", NULL};
    if (count == 0 && !request->is_old)
        return (struct pep_verdict){400, "The request has no Host header.", NULL};
    if (request->authority)
        *host = request->authority;
    if (access->own_host && *host && !is_good_host(access, *host))
        return (struct pep_verdict){
            403, "This host name is not served here; PROFEP_ALLOW_HOST can allow it.", NULL};
    return (struct pep_verdict){0};
}

static bool is_own_origin(const char *origin, const char *host) {
    return host && strncasecmp(origin, "http://", 7) == 0 && strcasecmp(origin + 7, host) == 0;
}

static struct pep_verdict check_origin(const struct pep_access *access,
                                       const struct pep_request *request, const char *host) {
    static const struct pep_verdict refused = {
        403, "Requests from other web sites are refused; PROFEP_ALLOW_ORIGIN can allow one.", NULL};
    int count;
    const char *origin = pep_request_header(request, "Origin", &count);
    const char *site = pep_request_header(request, "Sec-Fetch-Site", NULL);
    if (count > 1)
        return refused;
    if (origin && is_listed(access->allow_origin, origin, strlen(origin)))
        return (struct pep_verdict){.origin = origin};
    if (origin && !is_own_origin(origin, host))
        return refused;
    if (site && strcasecmp(site, "cross-site") == 0)
        return refused;
    return (struct pep_verdict){0};
}

/* Takes the same time wherever the texts differ. */
static bool is_token(const char *given, const char *token) {
    size_t count = strlen(token), given_count = strlen(given);
    unsigned char difference = given_count != count;
    for (size_t i = 0; i < given_count; i++)
        difference |= (unsigned char)(given[i] ^ token[count ? i % count : 0]);
    return difference == 0;
}

static struct pep_verdict check_token(const struct pep_access *access,
                                      const struct pep_request *request) {
    const char *given = pep_request_header(request, "Authorization", NULL);
    if (!access->token)
        return (struct pep_verdict){0};
    if (given && strncasecmp(given, "Bearer ", 7) == 0) {
        given += 7;
        given += strspn(given, " ");
        if (is_token(given, access->token))
            return (struct pep_verdict){0};
    }
    return (struct pep_verdict){
        401, "A token is needed: send the header \"Authorization: Bearer TOKEN\".", NULL};
}

struct pep_verdict pep_access_check(const struct pep_access *access,
                                    const struct pep_request *request) {
    const char *host;
    struct pep_verdict verdict = check_host(access, request, &host);
    if (verdict.status)
        return verdict;
    verdict = check_origin(access, request, host);
    /* A preflight carries no token; it is answered for allowed origins alone. */
    if (verdict.status || (verdict.origin && request->method == PEP_OPTIONS))
        return verdict;
    struct pep_verdict token = check_token(access, request);
    token.origin = verdict.origin;
    return token;
}
