#!/bin/sh
# Our own objects never call the host's malloc, nor what calls it behind the scenes or has locks
# and state of the host's: stdio, getenv, time zones, directory streams, the resolver, exit paths.
# scripts/allow-malloc.txt holds the exceptions: object symbol reason. "*" as object is any; "*" as
# symbol covers a third party's source inside the object, except for the malloc family.
set -eu
cd "$(dirname "$0")/.."
O=${O:-build}
allow=scripts/allow-malloc.txt
banned='malloc calloc realloc reallocarray free cfree strdup strndup asprintf vasprintf memalign
aligned_alloc posix_memalign valloc pvalloc getline getdelim open_memstream
printf fprintf vprintf vfprintf sprintf vsprintf snprintf vsnprintf dprintf vdprintf puts fputs
fputc putchar perror psignal __printf_chk __fprintf_chk __sprintf_chk __snprintf_chk
__vsnprintf_chk __vfprintf_chk sscanf __isoc99_sscanf fscanf
fopen fopen64 fdopen fclose fread fwrite fgets fflush popen tmpfile stdout stderr stdin
opendir fdopendir readdir readdir64 closedir scandir ftw nftw glob realpath getcwd
get_current_dir_name
getenv secure_getenv setenv putenv unsetenv clearenv localtime localtime_r mktime tzset strftime
getaddrinfo gethostbyname getpwuid getpwnam getgrgid getlogin setlocale strerror
qsort qsort_r bsearch_r dl_iterate_phdr dladdr backtrace backtrace_symbols
exit _exit_group abort __assert_fail atexit on_exit __cxa_atexit system sleep usleep
rand random srand drand48 strtok syslog openlog'
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
printf '%s\n' "$banned" | tr -s '[:space:]' '\n' >"$tmp/banned"
count=0
for source in preload/*.c sampler/*.c sampler/rt/*.c encoder/*.c http/*.c; do
    object=$O/obj/${source%.c}.o
    if ! [ -e "$source" ] || ! [ -e "$object" ]; then continue; fi
    count=$((count + 1))
    nm -u "$object" | awk -v object="${source%.c}.o" '{ print object, $NF }'
done >"$tmp/used"
objects=$(cut -d' ' -f1 "$tmp/used" | sort -u | grep -c . || :)
printf 'check-malloc: %d objects, %d allowed exceptions\n' "$objects" "$(grep -c '^[^#]' "$allow" || :)"
status=0
awk -v banned_file="$tmp/banned" -v allow_file="$allow" '
    BEGIN {
        while ((getline line < banned_file) > 0) banned[line] = 1
        while ((getline line < allow_file) > 0)
            if (line !~ /^#/ && split(line, part, " ") >= 3) allowed[part[1] " " part[2]] = 1
    }
    { used[$1 " " $2] = used[$1 " *"] = used["* " $2] = 1 }
    !($2 in banned) || (($1 " " $2) in allowed) || (("* " $2) in allowed) { next }
    (($1 " *") in allowed) && $2 !~ /alloc|^free$|^v?asprintf$|^strn?dup$|memalign/ { next }
    { print "  " $1 " calls " $2; bad = 1 }
    END {
        for (entry in allowed)
            if (!(entry in used)) { print "  " allow_file ": no longer needed: " entry; bad = 1 }
        exit bad
    }' "$tmp/used" || status=1
# The product as a whole, third parties included, imports nothing of the malloc
# family either, nor what would end the host.
for name in $(nm -D --undefined-only "$O/libprofep.so" | awk '{ sub(/@.*/, "", $2); print $2 }' |
    grep -xE 'malloc|calloc|realloc|reallocarray|free|strdup|strndup|v?asprintf|posix_memalign|memalign|aligned_alloc|abort|__assert_fail|getenv|fopen|fopen64|opendir|system'); do
    printf '  libprofep.so imports %s\n' "$name"
    nm -u -A "$O"/gen/*.o "${DEPS:-$O/deps}"/lib/*.a 2>/dev/null | grep " U $name\$" | head -n 3
    status=1
done
exit "$status"
