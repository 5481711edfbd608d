#!/bin/sh
# Descriptors of the host are its own: whatever it closes and opens again while it is watched.
# timeout 600
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs curl

for engine in perf timer; do
    for threads in 1 3; do
        is "$engine, $threads threads, recorded: every byte is the program's" "$(preloaded \
            PROFEP_HZ=1000 PROFEP_CPU_ENGINE=$engine PROFEP_OUTPUT="$TMP/out.txt" \
            "$PROGS/fdtorture" 2 $threads 2>"$TMP/moved")" "0 foreign, 0 lost"
        [ $engine != timer ] || is "$threads threads: and every number" \
            "$(cat "$TMP/moved")" "0 moved"
    done
done

host PROFEP_HZ=1000 "$PROGS/fdtorture" 300 1
for name in first second; do
    check "the $name profile arrives while everything is closed" \
        curl -sf --max-time 120 -o "$TMP/$name.pb.gz" "$URL/debug/pprof/profile?seconds=1"
done
host_stop -TERM
matches "served: every byte is the program's" "$(cat "$TMP/host.out")" '^0 foreign, 0 lost$'

# When ours run, none of them open what the program closed: the
# reader sees the end before it is gone.
is "closed is closed" "$( (preloaded_exec sh -c \
    'echo $$; until [ -e "$PROFEP_RUNDIR/$$.json" ]; do sleep 0.02; done; exec >/dev/null; sleep 20 & child=$!; trap "kill $child" TERM; wait') |
    {
        read -r pid
        cat
        kill "$pid" && echo ended first
    })" "ended first"

host sleep 200
is "no socket of ours among the program's descriptors" \
    "$(find "/proc/$HOST_PID/fd" -lname 'socket:*' | wc -l)" 0
host_stop -TERM
done_testing
