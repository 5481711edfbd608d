#!/bin/sh
# A sampled thread's calls are never cut short by the sampling, and always by its own signals.
# timeout 120
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"

for engine in perf timer; do
    is "$engine, 4 kHz: no call of limited time is cut short" "$(preloaded PROFEP_HZ=4000 \
        PROFEP_CPU_ENGINE=$engine PROFEP_OUTPUT="$TMP/out.txt" "$PROGS/eintr" 4 \
        2>"$TMP/kinds.txt")" "waited, 0 interrupted"
    matches "$engine: it was profiled" "$(cat "$TMP/out.txt")" ' wait_much'
    # Where a sample falls into the very return from the handler, the wait does go on: 1 in 50,000.
    is "$engine, 100 Hz: a wait ends with the program's own signal" "$(preloaded PROFEP_HZ=100 \
        PROFEP_CPU_ENGINE=$engine PROFEP_OUTPUT="$TMP/out.txt" "$PROGS/eintr" own)" \
        "0 lost, mask full"
done
done_testing
