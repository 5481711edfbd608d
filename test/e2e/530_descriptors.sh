#!/bin/sh
# Descriptors of the host are its own: whatever it closes and opens again while it is watched.
# timeout 90
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

host PROFEP_HZ=1000 "$PROGS/fdtorture" 5 1
for name in first second; do
    check "the $name profile arrives while everything is closed" \
        curl -sf --max-time 20 -o "$TMP/$name.pb.gz" "$URL/debug/pprof/profile?seconds=1"
done
within 10 is_gone "$HOST_PID"
matches "served: every byte is the program's" "$(cat "$TMP/host.out")" '^0 foreign, 0 lost$'

# No thread of ours keeps open what the program closed: the reader sees the end before it is gone.
is "closed is closed" "$( (preloaded_exec sh -c \
    'echo $$; sleep 0.3; exec >/dev/null; sleep 20 & child=$!; trap "kill $child" TERM; wait') |
    {
        read -r pid
        cat
        kill "$pid" && echo ended first
    })" "ended first"

host sleep 20
is "no socket of ours among the program's descriptors" \
    "$(find "/proc/$HOST_PID/fd" -lname 'socket:*' | wc -l)" 0
host_stop -TERM
done_testing
