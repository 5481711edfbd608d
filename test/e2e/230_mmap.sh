#!/bin/sh
# /debug/pprof/mmap: every mapping of the program with its stack, to the byte; and the calls
# themselves are what they are without us.
# timeout 300
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs go curl jq /usr/bin/python3

steps="plain part over reserved file=/etc/passwd grow shrink break unbreak refused"

# bytes_of FILE TYPE FUNCTION: its flat bytes or objects.
bytes_of() {
    go tool pprof -sample_index="$2" -unit=b -top -nodecount=500 -nodefraction=0 "$1" 2>/dev/null |
        awk -v name="$3" '$6 ~ "^" name "([.]|$)" { sub(/[a-zA-Z]+$/, "", $1); print $1; found = 1; exit }
            END { if (!found) print 0 }'
}

# tagged TEXT: bytes in use of samples whose mapping label has that text.
tagged() {
    curl -sfG --data-urlencode "mapping=$1" "$URL/debug/pprof/mmap?debug=1" |
        sed -n '1s/heap profile: [0-9]*: \([0-9]*\) .*/\1/p'
}

has_lines() {
    [ "$(wc -l <"$TMP/host.out")" -ge "$1" ]
}

mkfifo "$TMP/steps"
# shellcheck disable=SC2086 # words
(preloaded_exec "$PROGS/mapper" $steps <"$TMP/steps") >"$TMP/host.out" 2>&1 &
HOST_PID=$!
started="$started $HOST_PID"
exec 3>"$TMP/steps"
URL=$(url_of "$HOST_PID") || not_ok "the host serves"
check "the steps are done: results and errno are the kernel's" within 20 grep -q mapped "$TMP/host.out"

p=$TMP/mmap.pb.gz
check "the profile arrives" curl -sf -o "$p" "$URL/debug/pprof/mmap"
check "and is strict profile.proto" python3 "$ROOT/test/judge/pprof_strict.py" "$p"
is "a reservation counts" "$(bytes_of "$p" inuse_space map_reserved)" 67108864
is "what MAP_FIXED replaced and munmap took from the middle is gone; what mremap cut off too" \
    "$(bytes_of "$p" inuse_space map_plain)" $((2 * 1048576 + 1048576 + 1048576))
is "but was mapped once" "$(bytes_of "$p" alloc_space map_plain)" \
    $((4194304 + 1048576 + 3145728 + 4096))
is "by so many calls" "$(bytes_of "$p" alloc_objects map_plain)" 4
is "of which so many mappings are left" "$(bytes_of "$p" inuse_objects map_plain)" 3
is "MAP_FIXED has its own stack" "$(bytes_of "$p" inuse_space map_over)" 1048576
is "growth by mremap belongs to its caller" "$(bytes_of "$p" inuse_space grow)" 2097152
is "the break grew" "$(bytes_of "$p" alloc_space grow_break)" 5242880
is "and shrank" "$(bytes_of "$p" inuse_space grow_break)" 3145728
is "labels reach the tools" "$(go tool pprof -tags "$p" 2>/dev/null | grep -c '/etc/passwd$')" 1
is "a file is named" "$(tagged /etc/passwd)" 8192
is "reservations are told apart" "$(tagged '[reserved]')" 67108864
is "the heap of brk too" "$(tagged '[heap]')" 3145728
matches "how much of the process that is" "$(go tool pprof -comments "$p" 2>&1)" \
    'The process has [0-9]+ KiB mapped .*[0-9]+ KiB of that'
matches "what cannot be seen is told" "$(go tool pprof -comments "$p" 2>&1)" 'Not seen: what libc maps'

# The text, and that Go reads it back.
curl -sf -o "$TMP/mmap.txt" "$URL/debug/pprof/mmap?debug=1"
is "text: the totals" "$(head -n 1 "$TMP/mmap.txt")" \
    "heap profile: 8: 77602816 [9: 83898368] @ heapprofile"
matches "text: go tool pprof reads the same" \
    "$(go tool pprof -raw "$TMP/mmap.txt" 2>/dev/null)" ' 1 +67108864 +1 +67108864: '
matches "collapsed" "$(curl -s "$URL/debug/pprof/mmap?format=collapsed")" \
    ';main;map_reserved[^;]* 67108864$'
matches "only one mapping's" "$(curl -s "$URL/debug/pprof/mmap?debug=1&mapping=passwd" | head -n 1)" \
    '^heap profile: 1: 8192 \['
matches "only a thread's" "$(curl -s "$URL/debug/pprof/mmap?debug=1&thread=nobody" | head -n 1)" \
    '^heap profile: 0: 0 \['
matches "a browser gets the flame graph" "$(curl -s -H 'Accept: text/html' "$URL/debug/pprof/mmap")" \
    'mapped memory since the start'

# A window.
curl -sf -o "$TMP/delta.pb.gz" "$URL/debug/pprof/mmap?seconds=8" &
asked=$!
started="$started $asked"
check "a window opens" within 20 has_window
printf 'rest\ngrow\n' >&3
check "the program does its work in it" within 5 has_lines 3
for bad in seconds=0 seconds=x seconds=-1 inuse=maybe mapping= format=x thread=; do
    is "$bad is refused" "$(status_of "$URL/debug/pprof/mmap?$bad")" 400
done
is "seconds and debug" "$(curl -s "$URL/debug/pprof/mmap?seconds=1&debug=1")" \
    "seconds and debug params are incompatible"
is "POST is refused" "$(status_of -X POST "$URL/debug/pprof/mmap")" 405
wait "$asked"
is "a window shows what came" "$(bytes_of "$TMP/delta.pb.gz" inuse_space grow)" 2097152
# 1 MiB by map_plain for grow; 2 MiB that were left of "plain" are gone.
is "and what went" "$(bytes_of "$TMP/delta.pb.gz" inuse_space map_plain)" -1048576

exec 3>&-
host_stop -TERM

# Without us: the same answers.
# shellcheck disable=SC2086
"$PROGS/mapper" $steps >"$TMP/bare.out" 2>&1 </dev/null &
started="$started $!"
within 20 grep -q . "$TMP/bare.out"
is "bare, the steps say the same" "$(cat "$TMP/bare.out")" mapped

# Off is off, and says so.
host PROFEP_HEAP=off "$PROGS/mapper" plain
matches "PROFEP_HEAP=off: nothing is recorded, and that is told" \
    "$(curl -s "$URL/debug/pprof/mmap?debug=1" | tr '\n' ' ')" \
    '^heap profile: 0: 0 \[.*Mappings are not seen: PROFEP_HEAP is off'
host_stop -TERM

# Eight threads at once: the sum is the program's own, or what was missed is told.
for how in quiet signals; do
    host "$PROGS/map_storm" "$how"
    check "storm, $how: ends" within 120 grep -q '^left' "$TMP/host.out"
    left=$(sed -n 's/^left //p' "$TMP/host.out")
    missed=$(curl -s "$URL/debug/profep" | jq '.counters.mmap_missed.value')
    note "$how: $left bytes left, $missed calls missed"
    if [ "$missed" = 0 ]; then
        is "storm, $how: every byte is known" "$(tagged '[anon]')" "$left"
    else
        matches "storm, $how: what was missed is told" "$(curl -s "$URL/debug/pprof/mmap?debug=1")" \
            "^# $missed calls that map"
    fi
    host_stop -TERM
done

# Allocators that map from inside malloc, holding their locks.
many='import time; x = [bytearray(1000000) for i in range(64)]; time.sleep(60)'
reaches() {
    [ "$(tagged "$1")" -ge "$2" ]
}
for other in libtcmalloc.so.4 libjemalloc.so.2; do
    library=$(find /usr/lib/x86_64-linux-gnu -name "$other" | head -n 1)
    if [ -z "$library" ]; then
        skip "$other" "not installed"
        continue
    fi
    host LD_PRELOAD="$SO:$library" /usr/bin/python3 -c "$many"
    check "$other behind us: what it maps is known" within 20 reaches '[' 64000000
    host_stop -TERM
    # tcmalloc brings an mmap of its own, which passes nobody.
    host LD_PRELOAD="$library:$SO" /usr/bin/python3 -c "$many"
    if [ "$other" = libtcmalloc.so.4 ]; then
        matches "$other before us: that is told" "$(curl -s "$URL/debug/pprof/mmap?debug=1")" \
            '^# Mappings are not seen: '
    else
        check "$other before us: what it maps is known" within 20 reaches '[' 64000000
    fi
    host_stop -TERM
done

done_testing
