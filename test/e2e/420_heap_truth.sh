#!/bin/sh
# Estimates against the truth: a leak on its own stack, and mixes of sizes from 64 bytes to 64 MB
# on 1 to 64 threads, allocated and alive. No estimate and no sum is one that came about once in
# 10^7 runs if sampling were what it says it is, and the sums lie within 3 % where enough samples are
# asked for.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs python3 curl

JUDGE=$ROOT/test/judge/heap_truth.py

profile_of() {
    host "$@"
    within 200 grep -q ready "$TMP/host.out"
    check "a heap profile arrives" curl -sf -o "$TMP/heap.pb.gz" "$URL/debug/pprof/heap"
    host_stop -KILL
}

# judged COLUMN NAMES BOUND "what": every line of the judge whose name matches.
judged() {
    is "$4" "$(awk -v column="$1" -v names="$2" -v bound="$3" \
        '$1 ~ names { seen++; if ($column > bound || $column < -bound) print }
         END { if (!seen) print "nothing" }' "$TMP/judged")" ""
}

profile_of PROFEP_HEAP_RATE=4096 "$PROGS/heap_truth" leak 100
python3 "$JUDGE" --leak 100 "$TMP/heap.pb.gz" >"$TMP/judged"
note "$(cat "$TMP/judged")"
judged 2 '^all$' 3 "400 MB leaked in blocks of 1 KB: within 3 %"
judged 2 '^leak_' 3.6 "and each 100 MB of them on its own stack, within 3.6, six sigmas"

for threads in 1 4 64; do
    profile_of PROFEP_HEAP_RATE=20000 "$PROGS/heap_truth" "$threads" 1700
    python3 "$JUDGE" 20000 "$TMP/host.out" "$TMP/heap.pb.gz" >"$TMP/judged"
    note "$(cat "$TMP/judged")"
    judged 2 '^all/.*_space$' 3 "$threads threads, 20,000 live samples: bytes within 3 %"
    judged 3 '^all/' 7 "$threads threads: sums are as likely as they may be"
    judged 3 '^(small|medium|large)/' 7 "$threads threads: so is each function"
done

for setting in PROFEP_LIVE_MAP=1 PROFEP_LIVE_MAP=0 PROFEP_LIVE_MAP_MAX=1; do
    profile_of "$setting" "$PROGS/heap_truth" 8 6000
    python3 "$JUDGE" 524288 "$TMP/host.out" "$TMP/heap.pb.gz" >"$TMP/judged"
    note "$(cat "$TMP/judged")"
    judged 3 '^all/' 7 "default rate, $setting: sums are as likely as they may be"
    judged 3 '^(small|medium|large)/' 7 "default rate, $setting: so is each function"
done

# With certainty there is nothing to estimate.
profile_of PROFEP_HEAP_RATE=1 "$PROGS/heap_truth" 8 100
python3 "$JUDGE" 0.001 "$TMP/host.out" "$TMP/heap.pb.gz" >"$TMP/judged"
note "$(cat "$TMP/judged")"
judged 2 '/' 0.0005 "every allocation recorded: the sums are exact"
done_testing
