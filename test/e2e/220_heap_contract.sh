#!/bin/sh
# One check for each promise about the heap's routes, with the readers people have.
# timeout 600
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs curl jq python3 go xmllint

host "$PROGS/heap_rows"
check "the program has what it keeps" within 20 grep -q kept "$TMP/host.out"
BODY=$TMP/body
HEAD=$TMP/head

ask() {
    STATUS=$(curl -s -D "$HEAD" -o "$BODY" -w '%{http_code}' --max-time 60 "$@")
}

has() {
    matches "$1" "$(tr -d '\r' <"$HEAD")" "^$2\$"
}

# refuses "promise" PATH STATUS 'sentence'
refuses() {
    ask "$URL$2"
    is "$1" "$STATUS $(cat "$BODY")" "$3 $4"
    has "$1: Go's mark" 'X-Go-Pprof: 1'
}

top() {
    go tool pprof -top -nodecount=500 "$@" 2>&1
}

# bytes_of FILE FUNCTION INDEX: what lies below that function, in bytes
bytes_of() {
    go tool pprof -top -cum -unit=B -nodecount=500 -sample_index="$3" "$1" 2>/dev/null |
        awk -v name="$2" '$6 == name { sub("B", "", $4); print $4 + 0; exit }'
}

# -- since the start ----------------------------------------------------------------------------
for name in heap allocs temporary; do
    ask "$URL/debug/pprof/$name"
    is "$name: status" "$STATUS" 200
    has "$name: a file" "Content-Disposition: attachment; filename=\"$name\""
    has "$name: bytes" 'Content-Type: application/octet-stream'
    check "$name: keeps every rule" python3 "$ROOT/test/judge/pprof_strict.py" "$BODY"
    cp "$BODY" "$TMP/$name.pb"
done
types() {
    go tool pprof -raw -symbolize=none "$1" 2>/dev/null | grep '^alloc_objects/' |
        sed 's/\[dflt\]/*/; s/ *$//'
}
is "heap: Go's types" "$(types "$TMP/heap.pb")" \
    "alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes*"
is "allocs: Go's types" "$(types "$TMP/allocs.pb")" \
    "alloc_objects/count alloc_space/bytes* inuse_objects/count inuse_space/bytes"
is "temporary: what was allocated" "$(types "$TMP/temporary.pb")" \
    "alloc_objects/count alloc_space/bytes*"
matches "heap: period" "$(go tool pprof -raw "$TMP/heap.pb" 2>/dev/null)" \
    '^PeriodType: space bytes$'
matches "heap: blocks have their size as a label" "$(go tool pprof -tags "$TMP/heap.pb" 2>&1)" 'bytes:'
# 64 MiB in blocks of 64 KiB: 1,024 blocks of which 1 in 8.5 is sampled: 120 and, but for 1 run in
# 16 million, 68 to 180.
within_range "heap: what is kept, in MiB" \
    "$(($(bytes_of "$TMP/heap.pb" keep inuse_space) / 1048576))" 36 96

# -- the text ------------------------------------------------------------------------------------
ask "$URL/debug/pprof/heap?debug=1"
has "text: plain" 'Content-Type: text/plain; charset=utf-8'
is "text: not a file" "$(grep -ci '^Content-Disposition' "$HEAD")" 0
cp "$BODY" "$TMP/heap.txt"
matches "text: header" "$(head -1 "$BODY")" \
    '^heap profile: [0-9]+: [0-9]+ \[[0-9]+: [0-9]+\] @ heap_v2/524288$'
matches "text: frames for people" "$(cat "$BODY")" '^#	0x[0-9a-f]+	keep\+0x[0-9a-f]+'
matches "text: the kernel's word" "$(cat "$BODY")" '^# MaxRSS = [0-9]+$'
is "text: mappings at the end" "$(grep -c '^MAPPED_LIBRARIES:$' "$BODY")" 1
for index in inuse_space inuse_objects alloc_space alloc_objects; do
    matches "text: go tool pprof, $index" "$(top -sample_index=$index "$TMP/heap.txt")" "Type: $index"
done
within_range "text: go tool pprof scales it, MiB" \
    "$(($(bytes_of "$TMP/heap.txt" keep inuse_space) / 1048576))" 36 96
if command -v google-pprof >/dev/null; then
    google-pprof --text --cum --inuse_space "$PROGS/heap_rows" "$TMP/heap.txt" >"$TMP/perl" 2>&1
    within_range "text: google-pprof scales it, MB" \
        "$(awk '$6 == "keep" { print int($4) }' "$TMP/perl")" 36 96
else
    skip "text: google-pprof scales it" "not installed"
fi
ask "$URL/debug/pprof/heap?gc=1&debug=1"
matches "gc=1 tells what it did" "$(cat "$BODY")" '^# malloc_trim\(0\) was called'

# -- windows ------------------------------------------------------------------------------------------
ask "$URL/debug/pprof/heap?seconds=1&rate=4096"
is "window: status" "$STATUS" 200
has "window: a file" 'Content-Disposition: attachment; filename="heap-delta"'
is "window: nothing of before" "$(bytes_of "$BODY" keep alloc_space)" ""
within_range "window: what is churned" "$(bytes_of "$BODY" churn alloc_space)" 1 1e15
ask "$URL/debug/pprof/heap?seconds=1&inuse=absolute"
within_range "window: inuse=absolute has what was kept before, MiB" \
    "$(($(bytes_of "$BODY" keep inuse_space) / 1048576))" 36 96
curl -s -o "$TMP/several.pb" "$URL/debug/pprof/heap"
curl -s -o "$TMP/several.txt" "$URL/debug/pprof/heap?debug=1"
matches "text of several rates: not to be scaled" "$(head -1 "$TMP/several.txt")" '@ heapprofile$'
is "text of several rates: the same bytes" \
    "$(bytes_of "$TMP/several.txt" keep inuse_space)" "$(bytes_of "$TMP/several.pb" keep inuse_space)"
check "go tool pprof -seconds" env PPROF_TMPDIR="$TMP" go tool pprof -top -seconds 1 \
    "$URL/debug/pprof/allocs"
rate() {
    curl -s "$URL/debug/profep" | jq .heap.rate_bytes
}
is "the standing rate" "$(rate)" 524288
background curl -s -o /dev/null "$URL/debug/pprof/heap?seconds=60&rate=7777"
is_rate() {
    [ "$(rate)" = "$1" ]
}
check "a window's rate is in force" within 20 is_rate 7777
kill "$BACKGROUND_PID"
check "a client that leaves frees the rate" within 20 is_rate 524288

# -- refusals, in Go's order and words --------------------------------------------------------------
invalid='invalid value for "seconds" - must be a positive integer'
for seconds in abc 0 -1 0.5 1e3 9999999999999999999 NaN; do
    refuses "seconds=$seconds" "/debug/pprof/heap?seconds=$seconds&debug=1&rate=0" 400 "$invalid"
done
refuses "seconds and debug" '/debug/pprof/allocs?seconds=1&debug=1' 400 \
    'seconds and debug params are incompatible'
for rate in 0 -1 NaN 1.5 1073741825; do
    refuses "rate=$rate" "/debug/pprof/heap?seconds=1&rate=$rate" 400 \
        'rate must be a whole number of bytes from 1 to 1073741824.'
done
refuses "inuse=both" '/debug/pprof/heap?seconds=1&inuse=both' 400 \
    'inuse must be absolute or difference.'
ask "$URL/debug/pprof/heap?debug=abc&gc=abc&seconds="
is "debug=abc is no, as in Go" "$STATUS" 200
has "debug=abc: a file" 'Content-Disposition: attachment; filename="heap"'

# -- browsers ------------------------------------------------------------------------------------------
ask -H 'Accept: text/html,application/xhtml+xml' "$URL/debug/pprof/allocs?seconds=1"
has "a browser gets a page" 'Content-Type: text/html; charset=utf-8'
matches "the page knows all four values" "$(tr -d '\n' <"$BODY")" \
    '"types":\[\["alloc_objects","count"\],\["alloc_space","bytes"\],\["inuse_objects","count"\],\["inuse_space","bytes"\]\],"value":1'
ask -H 'Accept: image/svg+xml' "$URL/debug/pprof/heap"
check "the picture is well-formed" xmllint --noout "$BODY"
matches "sizes are in binary units" "$(cat "$BODY")" 'inuse_space [0-9.]+ MiB'
ask "$URL/debug/pprof/heap?format=top"
matches "the table too" "$(cat "$BODY")" '[0-9]MiB +[0-9.]+%.* keep'
ask "$URL/debug/pprof/heap?format=collapsed&thread=nobody"
is "thread= that nobody has" "$STATUS $(cat "$BODY")" "200 "

# -- ProfileEndpoints -----------------------------------------------------------------------------------
ask "$URL/allocs_profile"
is "asked nothing" "$STATUS" 400
matches "asked nothing: help" "$(tr '\n' ' ' <"$BODY")" \
    '^Need to provide query params:     - duration=10.0     - sample_rate=0.0001  Hint: '
ask "$URL/allocs_profile?duration=0.5&sample_rate=0.1"
check "recorded by probability" python3 "$ROOT/test/judge/pprof_strict.py" "$BODY"
within_range "recorded by probability: what is churned" "$(bytes_of "$BODY" churn alloc_space)" 1 1e15
for duration in 0 -1 NaN inf 1e9 ''; do
    refuses "duration=$duration" "/allocs_profile?duration=$duration" 400 \
        'duration must be a number of seconds from 0.001 to 86400.'
done
for part in 0 -1 NaN 1.01 1e-10 ''; do
    refuses "sample_rate=$part" "/allocs_profile?sample_rate=$part" 400 \
        'sample_rate must be a probability from 1e-9 to 1.'
done
ask "$URL/allocs_profile_stop"
is "stop before start: nothing was recorded" \
    "$STATUS $(go tool pprof -raw "$BODY" | sed -n '/^Samples/,/^Locations/p' | grep -c '^ *[0-9]')" '200 0'
ask "$URL/allocs_profile_start?sample_rate=1"
is "start: its body, exactly" "$(cat "$BODY")" 'Allocation profiling started.'
ask "$URL/allocs_profile_stop"
check "stop: keeps every rule" python3 "$ROOT/test/judge/pprof_strict.py" "$BODY"
cp "$BODY" "$TMP/first"
ask "$URL/allocs_profile_stop"
check "stop again: the same again" cmp "$TMP/first" "$BODY"
if command -v chromium >/dev/null; then
    timeout 240 python3 "$ROOT/test/e2e/form_drive.py" "$URL/allocs_profile" "$TMP/chromium" \
        >"$TMP/form" 2>&1
    is "the form, in a browser" "$(tr '\n' ';' <"$TMP/form")" \
        "title: Allocation profile;command: go tool pprof '$URL/allocs_profile?duration=10&sample_rate=0.0001';out of range is refused: True;cancelled: True False;graph: allocations, N s;progress rises: True;family: green;types: In use, Live blocks, Allocated, Allocations;chosen: Allocated;functions: True;back: True;"
else
    skip "the form, in a browser" "chromium is not installed"
fi
host_stop -TERM
done_testing
