#!/bin/sh
# A CPU sample that hits our own walk of an allocation's stack is charged to who allocated.
# timeout 600
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs gcc curl

cat >"$TMP/allocate.c" <<'C'
#include <pthread.h>
#include <stdlib.h>
__attribute__((noinline)) static void *allocate(void *argument) {
    for (;;) {
        void *volatile block = malloc(100);
        free(block);
    }
    return argument;
}
/* One with a stack below the memory that the walks use, which is mapped by the first, one above. */
int main(void) {
    pthread_t thread;
    void *volatile block = malloc(100);
    free(block);
    pthread_create(&thread, NULL, allocate, NULL);
    allocate(NULL);
}
C
gcc -O1 -pthread -o "$TMP/allocate" "$TMP/allocate.c"
host PROFEP_HEAP_RATE=1 "$TMP/allocate"
curl -s "$URL/debug/pprof/profile?seconds=2&hz=200&format=collapsed" >"$TMP/stacks"
matches "it was sampled" "$(cat "$TMP/stacks")" 'start_thread;allocate'
# What is cut short at a thread's first instructions is not asked about.
is "hardly anything has no stack" "$(awk '{ all += $NF } /\[unknown\]/ { lost += $NF }
    END { print (lost < all / 100) ? "hardly" : lost " of " all }' "$TMP/stacks")" hardly
host_stop -TERM
done_testing
