#!/bin/sh
# Programs that allocate at odd moments and in odd ways do it the same with us, whether few
# allocations are recorded or all of them.
# timeout 1200
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs gcc g++ go curl prlimit

library() {
    gcc -O2 -g -fno-builtin -D_GNU_SOURCE -shared -fPIC -o "$TMP/$1.so" -x c - -lpthread
}

# same_as_bare "what" program arguments...: in five ways of recording.
same_as_bare() {
    what=$1
    shift
    "$@" >"$TMP/bare.txt" 2>&1
    echo "status $?" >>"$TMP/bare.txt"
    for setting in PROFEP_HEAP=sampled PROFEP_HEAP_RATE=1 PROFEP_HEAP=all \
        "PROFEP_HEAP_RATE=1 PROFEP_LIVE_MAP=0" \
        "PROFEP_HEAP_RATE=64 PROFEP_HZ=2000 PROFEP_OUTPUT=$TMP/out.pb.gz"; do
        # shellcheck disable=SC2086 # several settings
        preloaded $setting "$@" >"$TMP/ours.txt" 2>&1
        echo "status $?" >>"$TMP/ours.txt"
        check "$what, ${setting%%" PROFEP_OUTPUT"*}" diff "$TMP/bare.txt" "$TMP/ours.txt"
    done
}

H=$PROGS/heap_hosts
same_as_bare "before constructors, at exit, in destructors" "$H" exit
same_as_bare "destructors of thread keys, five rounds" "$H" keys
same_as_bare "signal handlers" "$H" signals
same_as_bare "children of vfork" "$H" vfork
same_as_bare "children of many threads, and theirs" "$H" forks
same_as_bare "stacks of 16 KiB" "$H" stacks
same_as_bare "threads of 16 KiB" "$H" pthreads

# -- little memory ----------------------------------------------------------------------------
for limit in 60000 120000 200000; do
    is "$limit KB of address space" \
        "$(preloaded prlimit --as=$((limit * 1024)) "$H" tight 2>&1 | xargs)" \
        "$(prlimit --as=$((limit * 1024)) "$H" tight 2>&1 | xargs)"
done

address_space() {
    # shellcheck disable=SC2016 # for awk
    "$@" awk '/^VmSize/ { print int($2 / 1024) }' /proc/self/status
}
within_range "of 400 MB of address space we take, MB" "$(($(address_space preloaded prlimit \
    --as=400000000) - $(address_space prlimit --as=400000000)))" 0 64

# -- other libraries --------------------------------------------------------------------------
library early <<'C'
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void *kept[9];
static void *in_thread(void *unused) { return strdup("from a thread"); }
__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, in_thread, NULL);
    for (int i = 0; i < 8; i++)
        kept[i] = i & 1 ? calloc(3, 50) : malloc(10 + 1000 * i);
    kept[2] = realloc(kept[2], 9000);
    free(kept[3]);
    kept[3] = memalign(256, 100);
    pthread_join(thread, &kept[8]);
}
__attribute__((destructor)) static void end(void) {
    printf("%s\n", (char *)kept[8]);
    for (int i = 0; i < 9; i++)
        free(realloc(kept[i], 100));
}
C
for order in "$TMP/early.so:$SO" "$SO:$TMP/early.so"; do
    for setting in PROFEP_HEAP=sampled PROFEP_HEAP_RATE=1; do
        is "a constructor that allocates, ${order##*/} last, $setting" "$(env "$setting" \
            LD_PRELOAD="$order" PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" "$H" exit 2>&1)" \
            "$(LD_PRELOAD=$TMP/early.so "$H" exit 2>&1)"
    done
done

# Allocates while the hooks look for the real functions: bootstrap blocks, and what becomes of them.
library seeker <<'C'
#include <dlfcn.h>
#include <stdlib.h>
static void *volatile junk[4096];
static int count;
void *dlsym(void *handle, const char *name) {
    static void *(*real)(void *, const char *);
    if (!real)
        real = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
    if (count < 4090) {
        junk[count] = realloc(malloc(50), 90);
        if (count % 4 == 2) {
            free(junk[count]);
            junk[count] = NULL;
        }
        junk[count + 1] = calloc(3, 9);
        count += 2;
    }
    return real(handle, name);
}
__attribute__((destructor)) static void end(void) {
    for (int i = 0; i < count; i++)
        free(i % 3 ? junk[i] : realloc(junk[i], 5000));
}
C
for setting in PROFEP_HEAP=sampled PROFEP_HEAP_RATE=1; do
    is "a dlsym that allocates, $setting" "$(env "$setting" LD_PRELOAD="$TMP/seeker.so:$SO" \
        PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" "$H" exit 2>&1)" "$("$H" exit 2>&1)"
done

library plugin <<'C'
#include <stdlib.h>
#include <string.h>
void *plugin_make(size_t size) { return memset(malloc(size), 1, size); }
void plugin_drop(void *block) { free(block); }
void *plugin_grow(void *block, size_t size) { return realloc(block, size); }
C
cat >"$TMP/plugins.c" <<'C'
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void *(*make)(size_t), *(*grow)(void *, size_t);
static void (*drop)(void *);
static int load(void *library) {
    if (!library)
        return puts(dlerror()), 0;
    make = (void *(*)(size_t))dlsym(library, "plugin_make");
    grow = (void *(*)(void *, size_t))dlsym(library, "plugin_grow");
    drop = (void (*)(void *))dlsym(library, "plugin_drop");
    return 1;
}
__attribute__((noinline)) static void *mine(size_t size) { return memset(malloc(size), 2, size); }
int main(int count, char **arguments) {
    if (!load(dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND)))
        return 1;
    for (unsigned i = 0; i < 100000; i++) {
        size_t size = i * 2654435761u % 3000 + 1;
        void *one = mine(size), *two = make(size), *three = mine(size);
        drop(one);
        free(two);
        free(grow(three, size + 5000));
        drop(realloc(mine(size), size + 100));
    }
    puts("bound to itself: fine");
    if (!load(dlmopen(LM_ID_NEWLM, arguments[1], RTLD_NOW)))
        return 1;
    for (int i = 0; i < 20000; i++) {
        void *one = make(100), *two = mine(100);
        drop(grow(one, 5000));
        free(two);
    }
    puts("a world of its own: fine");
    fflush(stdout);
    if (count > 2)
        sleep(600);
    return 0;
}
C
gcc -O1 -g -fno-builtin -D_GNU_SOURCE -o "$TMP/plugins" "$TMP/plugins.c"
same_as_bare "plugins that bypass the hooks" "$TMP/plugins" "$TMP/plugin.so"
host PROFEP_HEAP_RATE=1 "$TMP/plugins" "$TMP/plugin.so" stay
within 60 grep -q world "$TMP/host.out"
curl -sf -o "$TMP/heap.pb.gz" "$URL/debug/pprof/heap"
within_range "what a plugin freed unseen is not alive for ever, live KiB" \
    "$(go tool pprof -sample_index=inuse_space -unit=KB -top "$TMP/heap.pb.gz" 2>/dev/null |
        sed -n 's/.*of \([0-9.]*\)kB total.*/\1/p')" 0 2000
host_stop -KILL

# -- C++ --------------------------------------------------------------------------------------
cat >"$TMP/new.cpp" <<'C'
#include <cstdio>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <vector>
struct alignas(128) wide { char bytes[256]; };
struct holder {
    std::vector<std::string> texts;
    ~holder() { texts.push_back(std::string(300, 'x')); sum += texts.size(); }
    static std::size_t sum;
};
std::size_t holder::sum;
thread_local holder mine;
static holder whole;
static void work() {
    std::map<int, std::string> map;
    for (int i = 0; i < 3000; i++)
        map[i * 7919 % 1000] += std::string(i % 50, 'y');
    mine.texts.assign(20, "a text that is longer than the short ones");
    wide *one = new wide[3];
    delete[] one;
    delete new (std::nothrow) wide;
}
int main() {
    volatile std::size_t impossible = ~std::size_t(0) / 2;
    for (int i = 0; i < 20; i++) {
        std::thread a(work), b(work);
        a.join();
        b.join();
    }
    try {
        char *block = new char[impossible];
        std::printf("%p\n", static_cast<void *>(block));
    } catch (const std::bad_alloc &) {
        std::puts("bad_alloc");
    }
    std::printf("%d %zu\n", new (std::nothrow) char[impossible] == nullptr, holder::sum);
    whole.texts.push_back("last");
}
C
g++ -std=c++17 -O1 -g -fno-builtin -o "$TMP/new" "$TMP/new.cpp" -lpthread
same_as_bare "C++: operators, exceptions, destructors of threads" "$TMP/new"

# -- a malloc that is stuck -------------------------------------------------------------------
library stuck <<'C'
#include <signal.h>
#include <stddef.h>
#include <unistd.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);
static volatile int is_stuck;
static void stick(int sig) { is_stuck = 1; }
__attribute__((constructor)) static void begin(void) { signal(SIGUSR1, stick); }
static void wait_here(void) { while (is_stuck) pause(); }
void *malloc(size_t a) { return wait_here(), __libc_malloc(a); }
void *calloc(size_t a, size_t b) { return wait_here(), __libc_calloc(a, b); }
void *realloc(void *p, size_t a) { return wait_here(), __libc_realloc(p, a); }
void *memalign(size_t a, size_t b) { return wait_here(), __libc_memalign(a, b); }
void *aligned_alloc(size_t a, size_t b) { return wait_here(), __libc_memalign(a, b); }
int posix_memalign(void **p, size_t a, size_t b) {
    return wait_here(), (*p = __libc_memalign(a, b)) == NULL;
}
int malloc_trim(size_t pad) { return wait_here(), pad == 0; }
void free(void *p) {
    if (p) {
        wait_here();
        __libc_free(p);
    }
}
C
cat >"$TMP/grower.c" <<'C'
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
__attribute__((noinline)) static char *grow(void) { return memset(malloc(1000000), 1, 1000000); }
static void *work(void *unused) {
    for (;;)
        free(grow());
    return unused;
}
int main(void) {
    char *kept[30];
    pthread_t thread;
    for (int i = 0; i < 30; i++)
        kept[i] = grow();
    pthread_create(&thread, NULL, work, NULL);
    if (write(1, "grown\n", 6) != 6)
        return 1;
    return work(kept) != NULL;
}
C
gcc -O1 -g -fno-builtin -o "$TMP/grower" "$TMP/grower.c" -lpthread
host LD_PRELOAD="$SO:$TMP/stuck.so" "$TMP/grower"
check "thirty blocks are kept" within 60 grep -q grown "$TMP/host.out"
kill -USR1 "$HOST_PID"
check "every thread stands inside malloc" within 60 all_sleep 34
for path in heap 'heap?debug=1' allocs 'heap?seconds=1' 'heap?seconds=1&rate=1' temporary mmap \
    'heap?format=svg' 'heap?format=text' ''; do
    is "stuck in malloc: /debug/pprof/$path answers" "$(status_of "$URL/debug/pprof/$path")" 200
done
background curl -s --max-time 300 -o "$TMP/stuck.gz" "$URL/debug/pprof/heap?gc=1"
trim_is_refused() {
    curl -s --max-time 1 "$URL/debug/pprof/heap?gc=1&debug=1" | grep -q 'malloc_trim(0) was not called'
}
check "gc=1 waits for malloc, one request alone" within 120 trim_is_refused
curl -sf -o "$TMP/heap.pb.gz" "$URL/debug/pprof/heap"
matches "and tells who allocates" \
    "$(go tool pprof -top "$TMP/heap.pb.gz" 2>/dev/null)" 'MB .* grow$'
host_stop -KILL

# -- out of reach -----------------------------------------------------------------------------
host "$PROGS/stuck_malloc"
matches "a program with a malloc of its own: the profile says so" \
    "$(curl -s "$URL/debug/pprof/heap?format=text"; curl -s -o "$TMP/own.gz" \
        "$URL/debug/pprof/heap"; go tool pprof -comments "$TMP/own.gz" 2>/dev/null)" \
    'malloc of its own'
host_stop -KILL
done_testing
