#!/bin/sh
# Threads: they begin, end, are cancelled and joined as if nobody watched, also under a profile.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"

"$PROGS/threads" 100 >"$TMP/bare.txt" 2>&1
is "the program ends well" $? 0
matches "and runs through" "$(tail -n 1 "$TMP/bare.txt")" '^done$'

compare() {
    what=$1
    shift
    timeout 120 env LD_PRELOAD="$SO" PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" "$@" \
        "$PROGS/threads" 100 >"$TMP/preloaded.txt" 2>&1
    is "$what: status" $? 0
    check "$what: output is the same" diff "$TMP/bare.txt" "$TMP/preloaded.txt"
}

compare "not profiled" PROFEP_HZ=100
compare "profiled by timers" PROFEP_HZ=1000 PROFEP_CPU_ENGINE=timer PROFEP_OUTPUT="$TMP/out.pb.gz"
compare "profiled by perf" PROFEP_HZ=1000 PROFEP_CPU_ENGINE=perf PROFEP_OUTPUT="$TMP/out.pb.gz"

check "exceptions pass our frames" preloaded "$PROGS/throw"

# All 1,024 keys are the program's: ours too, and then ends are noticed otherwise.
for way in count leave late; do
    set -- "$PROGS/keys"
    [ $way = count ] || set -- "$@" $way
    "$@" >"$TMP/bare.txt"
    matches "$way: a process has so many keys" "$(cat "$TMP/bare.txt")" '^1024 keys, then '
    is "$way: it has them all, and ends" \
        "$(timeout 60 env LD_PRELOAD="$SO" PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" \
            PROFEP_HZ=1000 PROFEP_OUTPUT="$TMP/out.pb.gz" "$@"; echo $?)" "$(cat "$TMP/bare.txt"; echo 0)"
done
done_testing
