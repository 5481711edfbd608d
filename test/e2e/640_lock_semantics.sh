#!/bin/sh
# Locks do with us what they do without: every kind, every result, every errno, every way out.
# timeout 900
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs gcc g++ readelf nm

# same_as_bare "what" program arguments...: whatever part of the waits is recorded.
same_as_bare() {
    what=$1
    shift
    timeout 300 "$@" >"$TMP/bare.txt" 2>&1
    echo "status $?" >>"$TMP/bare.txt"
    for setting in PROFEP_LOCK_RATE=1 PROFEP_LOCK_RATE=10000 PROFEP_LOCK_RATE=0 \
        "PROFEP_LOCK_RATE=1 PROFEP_HZ=1000 PROFEP_OUTPUT=$TMP/out.pb.gz"; do
        # shellcheck disable=SC2086 # several settings
        preloaded $setting timeout 300 "$@" >"$TMP/ours.txt" 2>&1
        echo "status $?" >>"$TMP/ours.txt"
        check "$what, ${setting%%" PROFEP_OUTPUT"*}" diff "$TMP/bare.txt" "$TMP/ours.txt"
    done
}

same_as_bare "mutexes: all kinds, protocols, robust or not, shared or not" "$PROGS/lock_mutexes"
same_as_bare "other locks, joins and futexes" "$PROGS/lock_others"
same_as_bare "cancellation, siglongjmp, fork, mutexes freed at once" "$PROGS/lock_ways_out"
preloaded PROFEP_LOCK_RATE=1 timeout 300 "$PROGS/lock_ways_out" 1000 >"$TMP/ours.txt" 2>&1
is "a thousand jumps out of each wait: the status" "$?" 0
is "a thousand jumps out of each wait" "$(grep 'jumps = ' "$TMP/ours.txt" | grep -c ' = 1000$')" 10
[ "$(grep -c 'jumps = 1000' "$TMP/ours.txt")" = 10 ] || note "$(cat "$TMP/ours.txt")"

# -- versions ---------------------------------------------------------------------------------
cat >"$TMP/cond.c" <<'C'
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#ifdef OLD
#define VERSION(f) __asm__(".symver " #f ", " #f "@GLIBC_2.2.5")
VERSION(pthread_cond_init);
VERSION(pthread_cond_destroy);
VERSION(pthread_cond_wait);
VERSION(pthread_cond_timedwait);
VERSION(pthread_cond_signal);
VERSION(pthread_cond_broadcast);
#endif
static pthread_cond_t cond;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int turn;
static void *answer(void *unused) {
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < 1000; i++) {
        while (turn != 1)
            pthread_cond_wait(&cond, &mutex);
        turn = 0;
        pthread_cond_broadcast(&cond);
    }
    pthread_mutex_unlock(&mutex);
    return unused;
}
int main(void) {
    static const struct timespec past = {1, 0};
    void *first;
    pthread_t thread;
    memset(&cond, 0, sizeof cond);
    printf("init %d\n", pthread_cond_init(&cond, NULL));
    pthread_create(&thread, NULL, answer, NULL);
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < 1000; i++) {
        turn = 1;
        pthread_cond_signal(&cond);
        while (turn != 0)
            pthread_cond_wait(&cond, &mutex);
    }
    printf("timedwait %d\n", pthread_cond_timedwait(&cond, &mutex, &past));
    pthread_mutex_unlock(&mutex);
    pthread_join(thread, NULL);
    memcpy(&first, &cond, sizeof first); /* the old ones keep a pointer there */
    printf("pointer %d\n", (unsigned long)first > 1ul << 32);
    printf("destroy %d\n", pthread_cond_destroy(&cond));
    return 0;
}
C
gcc -O1 -o "$TMP/cond_new" "$TMP/cond.c" -lpthread
gcc -O1 -DOLD -o "$TMP/cond_old" "$TMP/cond.c" -lpthread
same_as_bare "condition variables" "$TMP/cond_new"
same_as_bare "condition variables of GLIBC_2.2.5" "$TMP/cond_old"
# At once, before there are threads: lines of two would come mixed.
bindings() {
    preloaded LD_BIND_NOW=1 LD_DEBUG=bindings "$1" 2>&1 | sed -n \
        "s|.*binding file $1 .* to \([^ ]*\) .*symbol .pthread_cond_wait' \(.*\)|\1 \2|p"
}
is "the new ones are bound to us" "$(bindings "$TMP/cond_new")" "$SO [GLIBC_2.3.2]"
matches "the old ones to libc" "$(bindings "$TMP/cond_old")" 'libc\.so\.6 \[GLIBC_2\.2\.5\]$'

# -- frames -----------------------------------------------------------------------------------
readelf --debug-dump=frames "$SO" 2>/dev/null |
    sed -n 's/.* FDE .*pc=\([0-9a-f]*\)\.\..*/\1/p' | sort -u >"$TMP/frames"
is "every hook can be unwound through" "$(nm -D --defined-only "$SO" | awk '$2 == "T" { print $1 }' |
    sort -u | comm -23 - "$TMP/frames" | wc -l)" 0

# -- C++ --------------------------------------------------------------------------------------
cat >"$TMP/locks.cpp" <<'C'
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <pthread.h>
#include <shared_mutex>
#include <thread>
#include <vector>
static std::mutex mutex;
static std::timed_mutex timed;
static std::recursive_mutex recursive;
static std::shared_mutex shared;
static std::condition_variable cond;
static long sum;
static bool is_over, never;
static int unwound;
struct witness {
    ~witness() { unwound++; }
};
static void add(int which) {
    for (int i = 0; i < 20000; i++) {
        std::lock_guard<std::recursive_mutex> outer(recursive);
        std::lock_guard<std::recursive_mutex> inner(recursive);
        std::lock_guard<std::mutex> one(mutex);
        std::unique_lock<std::timed_mutex> two(timed, std::chrono::seconds(60));
        if (which % 2) {
            std::unique_lock<std::shared_mutex> writer(shared);
            sum++;
        } else {
            std::shared_lock<std::shared_mutex> reader(shared);
            sum++;
        }
    }
}
static void *be_cancelled(void *) {
    witness outer;
    std::unique_lock<std::mutex> lock(mutex);
    witness inner;
    try {
        cond.wait(lock, [] { return never; });
    } catch (...) {
        unwound += 10;
        throw;
    }
    return nullptr;
}
int main() {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back(add, i);
    for (auto &thread : threads)
        thread.join();
    std::printf("sum %ld\n", sum);
    std::thread later([] {
        std::lock_guard<std::mutex> lock(mutex);
        is_over = true;
        cond.notify_all();
    });
    {
        std::unique_lock<std::mutex> lock(mutex);
        std::printf("over %d\n", cond.wait_for(lock, std::chrono::seconds(60), [] { return is_over; }));
        std::printf("none %d\n", cond.wait_for(lock, std::chrono::milliseconds(1), [] { return never; }));
    }
    later.join();
    std::printf("try %d\n", timed.try_lock_for(std::chrono::milliseconds(1)));
    pthread_t thread;
    void *result;
    pthread_create(&thread, nullptr, be_cancelled, nullptr);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    std::printf("cancelled %d unwound %d\n", result == PTHREAD_CANCELED, unwound);
    std::printf("free %d\n", mutex.try_lock());
}
C
g++ -std=c++17 -O1 -g -o "$TMP/locks" "$TMP/locks.cpp" -lpthread
same_as_bare "C++: mutexes, condition variables, cancellation through destructors" "$TMP/locks"

# -- before our start -------------------------------------------------------------------------
# A library whose constructor locks, with threads; and one whose dlsym takes a lock and then leaves
# by a jump, so that the real one sees who asked.
cat >"$TMP/early.c" <<'C'
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static sem_t sem;
static int state;
static void *work(void *unused) {
    pthread_mutex_lock(&mutex);
    state = 1;
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&mutex);
    sem_wait(&sem);
    return &state;
}
__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    void *result;
    sem_init(&sem, 0, 0);
    pthread_create(&thread, NULL, work, NULL);
    pthread_mutex_lock(&mutex);
    while (state == 0)
        pthread_cond_wait(&cond, &mutex);
    pthread_mutex_unlock(&mutex);
    sem_post(&sem);
    pthread_join(thread, &result);
    printf("early %d\n", result == &state);
}
C
cat >"$TMP/seeker.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
void *dlsym(void *handle, const char *name) {
    static void *(*real)(void *, const char *);
    pthread_mutex_lock(&mutex);
    if (!real)
        real = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
    pthread_mutex_unlock(&mutex);
    return real(handle, name);
}
C
gcc -shared -fPIC -O1 -o "$TMP/early.so" "$TMP/early.c" -lpthread
gcc -shared -fPIC -O2 -o "$TMP/seeker.so" "$TMP/seeker.c" -lpthread
for order in "$TMP/early.so:$SO" "$SO:$TMP/early.so" "$TMP/seeker.so:$SO:$TMP/early.so" \
    "$SO:$TMP/seeker.so:$TMP/early.so"; do
    for now in '' 1; do
        is "locks in constructors, LD_BIND_NOW=$now, $(echo "$order" | sed 's|[^:]*/||g')" \
            "$(timeout 120 env LD_BIND_NOW=$now LD_PRELOAD="$order" PROFEP_LISTEN=127.0.0.1:0 \
                PROFEP_RUNDIR="$RUNDIR" "$TMP/cond_new" 2>&1)" \
            "$(LD_PRELOAD="$TMP/early.so" "$TMP/cond_new" 2>&1)"
    done
done
done_testing
