#!/bin/sh
# profep-run --heap=all -o FILE: peak, leak and counts of a whole run, to the byte.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs go python3

run() {
    env PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" timeout --foreground 60 \
        "$ROOT/scripts/profep-run" -q --heap=all "$@"
}

# value_of FILE TYPE FUNCTION: its flat number.
value_of() {
    go tool pprof -sample_index="$2" -unit=b -top -nodecount=500 -nodefraction=0 "$1" 2>/dev/null |
        awk -v name="$3" '$6 == name { sub(/[a-zA-Z]+$/, "", $1); print $1; found = 1; exit }
            END { if (!found) print 0 }'
}

# values_of FILE FUNCTION: allocated blocks and bytes, blocks and bytes in use.
values_of() {
    echo "$(value_of "$1" alloc_objects "$2") $(value_of "$1" alloc_space "$2")" \
        "$(value_of "$1" inuse_objects "$2") $(value_of "$1" inuse_space "$2")"
}

for way in return _exit; do
    rm -f "$TMP"/heap.*
    run -o "$TMP/heap.pb.gz" "$PROGS/leaker" "$way" >/dev/null 2>&1
    is "$way: status is the program's own" $? 3
    is "$way: two files and nothing else" "$(cd "$TMP" && echo heap.*)" "heap.pb.gz heap.peak.pb.gz"
    for file in heap.pb.gz heap.peak.pb.gz; do
        check "$way: $file is strict profile.proto" \
            python3 "$ROOT/test/judge/pprof_strict.py" "$TMP/$file"
    done
    is "$way: what leaked" "$(values_of "$TMP/heap.pb.gz" leak)" "100 100000 100 100000"
    is "$way: what lived shortly" "$(values_of "$TMP/heap.pb.gz" churn)" "10000 640000 0 0"
    is "$way: what made the peak" "$(values_of "$TMP/heap.pb.gz" rise)" "50 1000000 0 0"
    is "$way: realloc is a block freed and one allocated" \
        "$(values_of "$TMP/heap.pb.gz" resize)" "2 5010 1 5000"
    is "$way: the peak" "$(values_of "$TMP/heap.peak.pb.gz" rise)" "50 1000000 50 1000000"
    is "$way: with what of the leak was there" "$(values_of "$TMP/heap.peak.pb.gz" leak)" \
        "100 100000 40 40000"
    is "$way: and nothing of what came later" "$(values_of "$TMP/heap.peak.pb.gz" resize)" "2 5010 0 0"
    matches "$way: in a sentence" "$(go tool pprof -comments "$TMP/heap.pb.gz" 2>&1)" \
        'Allocated: 10152 blocks, 1745010 bytes; at the peak in use: 90 blocks, 1040000 bytes; not freed at the end: 101 blocks, 105000 bytes'
done

rm -f "$TMP"/heap.*
is "abort: status" "$({ run -o "$TMP/heap.txt" "$PROGS/leaker" abort; } >/dev/null 2>&1; echo $?)" 134
is "text: two files" "$(cd "$TMP" && echo heap.*)" "heap.peak.txt heap.txt"
matches "text: what is left" "$(cat "$TMP/heap.txt")" '^ +97.66KiB .* leak$'
matches "text: the peak" "$(cat "$TMP/heap.peak.txt")" '^ +976.56KiB .* rise$'
run -o /dev/stdout "$PROGS/leaker" 2>/dev/null | cat >"$TMP/piped.pb.gz"
is "a pipe gets the one profile, whole" "$(values_of "$TMP/piped.pb.gz" leak)" "100 100000 100 100000"
is "a name without a suffix" "$(cd "$TMP" && run -o ./plain "$PROGS/leaker" 2>/dev/null || echo plain*)" \
    "plain plain.peak"

# Without --heap the recording is the CPU's.
env PROFEP_LISTEN=127.0.0.1:0 PROFEP_RUNDIR="$RUNDIR" "$ROOT/scripts/profep-run" -q \
    -o "$TMP/cpu.txt" "$PROGS/leaker" >/dev/null 2>&1
matches "without --heap: the CPU's" "$(cat "$TMP/cpu.txt")" '^Type: cpu'

done_testing
