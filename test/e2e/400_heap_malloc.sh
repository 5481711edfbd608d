#!/bin/sh
# The malloc family is the real one: what a long run of random operations gives, and what it says
# of impossible ones, is the same bare and watched, whichever allocator stands behind or before.
# MALLOC_DIFF_OPERATIONS: how many in all (10^7).
# timeout 1200
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"

ALL=${MALLOC_DIFF_OPERATIONS:-10000000}
LIBS=/usr/lib/x86_64-linux-gnu

# diff_of ORDER VAR=value OPERATIONS THREADS [tame] >output
watched() {
    order=$1 setting=$2
    shift 2
    env LD_PRELOAD="$order" "$setting" PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" \
        "$PROGS/malloc_diff" "$@" 2>&1
    echo "status $?"
}

bare() {
    library=$1
    shift
    env LD_PRELOAD="$library" "$PROGS/malloc_diff" "$@" 2>&1
    echo "status $?"
}

bare '' $((ALL / 5)) 1 1 >"$TMP/bare.txt"
matches "bare libc: nothing wrong" "$(tail -n 1 "$TMP/bare.txt")" '^status 0$'
is "the table of errors was printed" "$(grep -c 'errno 12' "$TMP/bare.txt" | sed 's/^[1-9][0-9]*$/yes/')" \
    yes
for setting in PROFEP_HEAP=sampled PROFEP_HEAP_RATE=256 PROFEP_HEAP_RATE=1 PROFEP_LIVE_MAP=0; do
    watched "$SO" "$setting" $((ALL / 5)) 1 1 >"$TMP/ours.txt"
    check "libc, $setting: the same results, errno, alignment" diff "$TMP/bare.txt" "$TMP/ours.txt"
done
bare '' $((ALL / 50)) 2 1 >"$TMP/bare.txt"
for setting in PROFEP_HEAP=off PROFEP_HEAP=all PROFEP_LIVE_MAP_MAX=1 PROFEP_HEAP_RATE=0; do
    watched "$SO" "$setting" $((ALL / 50)) 2 1 >"$TMP/ours.txt"
    check "libc, $setting: the same" diff "$TMP/bare.txt" "$TMP/ours.txt"
done
for setting in PROFEP_HEAP=sampled PROFEP_HEAP_RATE=256 PROFEP_HEAP_RATE=1; do
    is "blocks that change hands among 8 threads, $setting" \
        "$(watched "$SO" "$setting" $((ALL / 20)) 3 8 | tail -n 2 | xargs)" "0 wrong status 0"
done

for name in libjemalloc.so.2 libtcmalloc_minimal.so.4 libmimalloc.so.2.0; do
    library=$LIBS/$name
    if ! [ -r "$library" ]; then
        skip "$name" "is not installed"
        continue
    fi
    bare "$library" $((ALL / 100)) 4 1 tame >"$TMP/bare.txt"
    matches "$name, bare: has a hash" "$(cat "$TMP/bare.txt")" '^hash '
    for setting in PROFEP_HEAP=sampled PROFEP_HEAP_RATE=1 PROFEP_LIVE_MAP=0; do
        watched "$SO:$library" "$setting" $((ALL / 100)) 4 1 tame >"$TMP/ours.txt"
        check "$name behind, $setting: the same" diff "$TMP/bare.txt" "$TMP/ours.txt"
        watched "$library:$SO" "$setting" $((ALL / 100)) 4 1 tame >"$TMP/ours.txt"
        check "$name before, $setting: the same" diff "$TMP/bare.txt" "$TMP/ours.txt"
    done
    for setting in PROFEP_HEAP_RATE=256 PROFEP_LIVE_MAP=0; do
        matches "$name behind, 8 threads, $setting: ends" \
            "$(watched "$SO:$library" "$setting" $((ALL / 100)) 5 8 tame | tail -n 1)" \
            '^status [01]$'
    done
done
done_testing
