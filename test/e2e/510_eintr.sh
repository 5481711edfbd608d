#!/bin/sh
# A sampled thread's calls are never cut short by the sampling, and always by its own signals.
# timeout 900
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"

for engine in perf timer; do
    is "$engine, 4 kHz: no call of limited time is cut short" "$(preloaded PROFEP_HZ=4000 \
        PROFEP_CPU_ENGINE=$engine PROFEP_OUTPUT="$TMP/out.txt" "$PROGS/eintr" 4 \
        2>"$TMP/kinds.txt")" "waited, 0 interrupted"
    matches "$engine: it was profiled" "$(cat "$TMP/out.txt")" ' wait_much'
    is "$engine, 4 kHz: a wait ends with the program's own signal" "$(preloaded PROFEP_HZ=4000 \
        PROFEP_CPU_ENGINE=$engine PROFEP_OUTPUT="$TMP/out.txt" "$PROGS/eintr" own)" \
        "0 lost, mask full"
done

# Every call of the table, 64 threads, everything that looks at threads at once. As long as wanted, EINTR_SECONDS, or as it takes those who
# look on a machine with much to do.
seconds=${EINTR_SECONDS:-30}
cat >"$TMP/dump.py" <<'P'
import sys, time, urllib.request
begin, good, bad = time.monotonic(), 0, 0
while good < 10 or time.monotonic() < begin + float(sys.argv[2]):
    due = time.monotonic() + 0.05
    with urllib.request.urlopen(sys.argv[1], timeout=300) as answer:
        is_good = b"wait_much" in answer.read()
    good += is_good
    bad += not is_good and good > 0  # there are none before the threads begin
    time.sleep(max(0, due - time.monotonic()))
print(good, "dumps,", bad, "without its threads")
P
for mode in quiet own; do
    host PROFEP_HZ=250 "$PROGS/eintr_all" $mode $((seconds + 770))
    curl -s -o "$TMP/profile.txt" "$URL/debug/pprof/profile?seconds=$((seconds / 2))&hz=250&format=text" &
    profile=$!
    curl -s -o "$TMP/wall.txt" "$URL/debug/pprof/wall?seconds=$((seconds / 2))&hz=100&format=text" &
    wall=$!
    started="$started $profile $wall"
    python3 "$TMP/dump.py" "$URL/debug/pprof/threads?debug=2" "$seconds" >"$TMP/dumps.txt" 2>&1
    wait "$profile" "$wall"
    kill -TERM "$HOST_PID"
    check "$mode: it ends" within 120 is_gone "$HOST_PID"
    note "$mode: $(grep '^all' "$TMP/host.out"); $(cat "$TMP/dumps.txt")"
    is "$mode: no call went wrong" "$(grep '^waited\|^did not' "$TMP/host.out")" "waited, 0 wrong"
    [ "$(grep -c ' 0 cut short, 0 early, 0 wrong, 0 lost' "$TMP/host.out")" = 32 ] ||
        note "$(cat "$TMP/host.out")"
    matches "$mode: dumps were taken all the time" "$(cat "$TMP/dumps.txt")" \
        '^[0-9]{2,} dumps, 0 without'
    matches "$mode: the CPU profile was taken" "$(cat "$TMP/profile.txt")" ' wait_much'
    matches "$mode: the wall clock profile was taken" "$(cat "$TMP/wall.txt")" ' wait_much'
done
done_testing
