#!/bin/sh
# The loader: dlopen finds what it finds without us, dlclose closes, and a library that was opened
# by dlopen instead of preloaded keeps out.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs gcc

mkdir -p "$TMP/app/plugins" "$TMP/lib"
cat >"$TMP/plugin.c" <<'C'
#include <stdio.h>
int answer(void) { return 42; }
__attribute__((destructor)) static void gone(void) { puts("plugin gone"); }
C
cat >"$TMP/opener.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
/* Lies in a library with a DT_RUNPATH of its own: only a call from here finds plugin.so. */
int open_plugin(void) {
    void *plugin = dlopen("plugin.so", RTLD_NOW);
    if (!plugin)
        return puts(dlerror());
    int (*answer)(void) = (int (*)(void))dlsym(plugin, "answer");
    printf("answer %d\n", answer());
    printf("closed %d\n", dlclose(plugin));
    void *other = dlmopen(LM_ID_NEWLM, "plugin.so", RTLD_NOW);
    if (!other)
        return puts(dlerror());
    printf("closed %d\n", dlclose(other));
    return 0;
}
C
cat >"$TMP/main.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <pthread.h>
int open_plugin(void);
static void *open_many(void *unused) {
    for (int i = 0; i < 2000; i++) {
        void *library = dlopen("libm.so.6", RTLD_NOW);
        if (!library || dlclose(library) != 0)
            puts("wrong");
    }
    return unused;
}
int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("main finds it: %d\n", dlopen("plugin.so", RTLD_NOW) != NULL);
    open_plugin();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, open_many, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    puts("fine");
    return 0;
}
C
gcc -shared -fPIC -o "$TMP/app/plugins/plugin.so" "$TMP/plugin.c"
# shellcheck disable=SC2016 # for the loader
gcc -shared -fPIC -Wl,--enable-new-dtags,-rpath,'$ORIGIN/../app/plugins' -o "$TMP/lib/libopener.so" \
    "$TMP/opener.c"
gcc -o "$TMP/app/main" "$TMP/main.c" -L"$TMP/lib" -lopener -Wl,-rpath,"$TMP/lib"
"$TMP/app/main" >"$TMP/bare.txt" 2>&1
matches "the program runs through" "$(tail -n 1 "$TMP/bare.txt")" '^fine$'
matches "and finds by its library's RUNPATH" "$(cat "$TMP/bare.txt")" '^answer 42$'
preloaded "$TMP/app/main" >"$TMP/preloaded.txt" 2>&1
check "the same preloaded" diff "$TMP/bare.txt" "$TMP/preloaded.txt"
preloaded PROFEP_HZ=4000 PROFEP_OUTPUT="$TMP/out.pb.gz" "$TMP/app/main" >"$TMP/preloaded.txt" 2>&1
check "the same while profiled" diff "$TMP/bare.txt" "$TMP/preloaded.txt"

cat >"$TMP/late.c" <<'C'
#include <dlfcn.h>
#include <stdio.h>
#include <dirent.h>
int main(int count, char **arguments) {
    void *library = count > 1 ? dlopen(arguments[1], RTLD_NOW) : NULL;
    if (!library)
        return puts(dlerror());
    int threads = -2;
    DIR *tasks = opendir("/proc/self/task");
    while (readdir(tasks))
        threads++;
    printf("%d thread, closed %d\n", threads, dlclose(library));
    return 0;
}
C
gcc -o "$TMP/late" "$TMP/late.c"
is "opened by dlopen it does nothing" "$(PROFEP_RUNDIR=$RUNDIR "$TMP/late" "$SO")" \
    "1 thread, closed 0"
matches "and says so in the log" "$(PROFEP_LOG=stderr PROFEP_RUNDIR=$RUNDIR "$TMP/late" "$SO" 2>&1)" \
    'only LD_PRELOAD works'

for order in "$SO:/usr/lib/x86_64-linux-gnu/libjemalloc.so.2" \
    "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2:$SO" "$SO:/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4"; do
    first=${order%%:*} second=${order##*:}
    if [ -r "$first" ] && [ -r "$second" ]; then
        is "beside $(basename "$first"), $(basename "$second")" "$(env LD_PRELOAD="$order" \
            PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" "$TMP/app/main" 2>&1 | tail -n 1)" fine
    fi
done

# A library that ends before us and takes its memory along: no thread of ours may be in its calls.
faketime=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1
if [ -r $faketime ]; then
    ended=
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        ended="$ended $(preloaded LD_PRELOAD="$faketime:$SO" sh -c "echo \$(echo a)" 2>&1)=$?"
        ended="$ended $(preloaded LD_PRELOAD="$faketime:$SO" PROFEP_OUTPUT="$TMP/fake.%p.txt" \
            sh -c "echo \$(echo a)" 2>&1)=$?"
    done
    is "before us, libfaketime" "$(printf %s "$ended" | tr ' ' '\n' | sort -u | tr -d '\n')" "a=0"
fi

check "LD_BIND_NOW" preloaded LD_BIND_NOW=1 "$TMP/app/main"
gcc -fsanitize=address -static-libasan -o "$TMP/asan" "$TMP/late.c" 2>/dev/null &&
    matches "a sanitizer's program is left alone" \
        "$(preloaded PROFEP_LOG=stderr "$TMP/asan" libm.so.6 2>&1)" 'sanitizer'
done_testing
