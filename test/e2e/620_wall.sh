#!/bin/sh
# The wall clock profile: every thread's whole time, under the right state and function, and nobody
# who waits is woken for it.
# timeout 180
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs curl go python3 jq xmllint

HEAD=$TMP/head

# ms FILE [-tagfocus=...] [-focus=...]: milliseconds that a profile has there.
ms() {
    file=$1
    shift
    go tool pprof -top -unit=ms "$@" "$file" 2>/dev/null |
        sed -n 's/^Showing nodes accounting for \([0-9.]*\)\(ms\)\{0,1\},.*/\1/p' | head -1
}

# switches NAME...: voluntary context switches of the host's threads of that name.
switches() {
    for name in "$@"; do
        for comm in "/proc/$HOST_PID/task"/*/comm; do
            [ "$(cat "$comm")" = "$name" ] &&
                sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' "${comm%comm}status"
        done
    done | awk '{ sum += $1 } END { print sum }'
}

own_threads() {
    cat "/proc/$HOST_PID/task"/*/comm | grep -c '^profep-wall'
}

is_read() {
    [ "$(own_threads)" = 1 ]
}

host "$PROGS/waits"
within 5 grep -q "^worked" "$TMP/host.out"
is "idle: no thread reads" "$(own_threads)" 0

# -- shares -------------------------------------------------------------------------------------
worked() {
    sed -n 's/^worked \([0-9]*\) of \([0-9]*\)$/\1 \2/p' "$TMP/host.out" | tail -1
}
before=$(switches sleeper reader queued waiter)
shared=$(worked)
curl -s -D "$HEAD" -o "$TMP/wall.pb" --max-time 60 "$URL/debug/pprof/wall?seconds=10" &
asker=$!
check "while a window is open, one does" within 5 is_read
wait "$asker"
shared="$shared $(worked)"
is "who waits was not woken" "$(switches sleeper reader queued waiter)" "$before"
is "after the last window, none" "$(own_threads)" 0
matches "a file named wall" "$(cat "$HEAD")" 'attachment; filename="wall"'
check "it keeps every rule" python3 "$ROOT/test/judge/pprof_strict.py" "$TMP/wall.pb"
go tool pprof -raw "$TMP/wall.pb" >"$TMP/raw" 2>/dev/null
matches "period: wall clock" "$(cat "$TMP/raw")" '^PeriodType: wallclock nanoseconds$'
matches "period: 10 ms" "$(cat "$TMP/raw")" '^Period: 10000000$'
matches "types" "$(cat "$TMP/raw")" '^samples/count time/nanoseconds(\[dflt\])?$'
duration=$(sed -n 's/^Duration: \([0-9.]*\).*/\1/p' "$TMP/raw")
within_range "the window, s" "$duration" 9.9 11
for name in sleeper spinner reader poller queued waiter sharer waits; do
    total=$(ms "$TMP/wall.pb" "-tagfocus=thread=^$name\$")
    within_range "$name has the window's length, in %" \
        "$(awk "BEGIN { print $total / $duration / 10 }")" 99 101
done

# part NAME FUNCTION STATE: that thread's time in that function and state, in % of the window
part() {
    total=$(ms "$TMP/wall.pb" "-tagfocus=thread=^$1\$" "-focus=^$2\$")
    found=$(go tool pprof -tags -unit=ms "-tagfocus=thread=^$1\$" "-focus=^$2\$" "$TMP/wall.pb" \
        2>/dev/null | awk -v state="$3" '/^ *state:/ { on = 1; next } /^ *[a-z_]+: Total/ { on = 0 }
            on { value = $1; sub(/^[^:]*: /, ""); if ($0 ~ "^(" state ")$") sum += value } END { print sum + 0 }')
    awk "BEGIN { print ${found:-0} / $duration / 10 }"
}
within_range "sleeper sleeps" "$(part sleeper nap_for_ever sleep)" 99 101
within_range "spinner runs" "$(part spinner burn_for_ever running)" 97 101
within_range "reader waits for a pipe" "$(part reader sip_from_pipe 'IO wait')" 99 101
within_range "poller polls" "$(part poller poll_with_limit select)" 97 101
within_range "queued waits for a lock" "$(part queued queue_for_lock 'futex wait')" 99 101
within_range "waiter waits for a condition" "$(part waiter wait_for_news 'futex wait')" 99 101
within_range "waits' main thread pauses" "$(part waits main 'signal wait')" 99 101
# About 30 ms of every 100; how much it was, it says itself. 1,000 looks: 4 sigma are 5.8 %.
share=$(echo "$shared" | awk '{ print ($3 - $1) / ($4 - $2) * 100 }')
between() {
    within_range "$1" "$2" "$(awk "BEGIN { print $3 - 5.8 }")" "$(awk "BEGIN { print $3 + 5.8 }")"
}
between "sharer works as much as it says" "$(part sharer work_a_while running)" "$share"
between "sharer rests the rest" "$(part sharer rest_a_while '.*')" "$(awk "BEGIN { print 100 - $share }")"

# -- windows and filters ---------------------------------------------------------------------------
curl -s -o "$TMP/slow.pb" --max-time 60 "$URL/debug/fgprof?seconds=3&hz=10" &
slow=$!
curl -s -o "$TMP/fast.pb" --max-time 60 "$URL/debug/pprof/wall?seconds=2&hz=500&thread=sharer" &
fast=$!
wait "$slow" "$fast"
within_range "two windows: the slow one is whole, s" \
    "$(ms "$TMP/slow.pb" -tagfocus=thread=sleeper)" 2970 3300
within_range "two windows: the fast one, filtered" "$(ms "$TMP/fast.pb")" 1980 2300
is "filtered: one thread" \
    "$(go tool pprof -raw "$TMP/fast.pb" 2>/dev/null | grep -o 'thread_name:[^ ]*' | sort -u)" \
    'thread_name:[sharer]'
is "a bad rate" "$(status_of "$URL/debug/pprof/wall?hz=2000")" 400
matches "collapsed: a thread, its frames, its time" \
    "$(curl -s "$URL/debug/pprof/wall?seconds=1&format=collapsed")" \
    '^sleeper \([0-9]+\);.*nap_for_ever;.* [0-9]+$'
curl -s -o "$TMP/wall.svg" "$URL/debug/pprof/wall?seconds=1&format=svg"
check "a flame graph" xmllint --noout "$TMP/wall.svg"
matches "its title" "$(cat "$TMP/wall.svg")" 'waits [0-9]+: wall clock, 1\.0 s at 100 Hz'

# -- ProfileEndpoints' words ------------------------------------------------------------------------
is "wall: start" "$(curl -s "$URL/profile_wall_start?delay=0.01")" "WALL_PROFILE profiling started."
is "CPU: start" "$(curl -s "$URL/profile_start?delay=0.01")" "CPU_PROFILE profiling started."
curl -s -o "$TMP/some.pb" "$URL/profile_wall?duration=0.5&delay=0.01"
curl -s -o "$TMP/one.pb" "$URL/profile_wall_stop"
curl -s -o "$TMP/two.pb" "$URL/profile_wall_stop"
curl -s -o "$TMP/cpu.pb" "$URL/profile_stop"
is "no thread reads after the stop" "$(own_threads)" 0
within_range "one question, ms" "$(ms "$TMP/some.pb" -tagfocus=thread=sleeper)" 495 900
within_range "from start to stop, ms" "$(ms "$TMP/one.pb" -tagfocus=thread=sleeper)" 500 60000
check "a second stop repeats the data" cmp "$TMP/one.pb" "$TMP/two.pb"
within_range "the CPU's share of burn_for_ever" "$(share_of "$TMP/cpu.pb" burn_for_ever)" 50 90
matches "nothing asked" "$(curl -s "$URL/profile_wall")" 'delay=0.01'
host_stop -TERM

# -- an interpreter ------------------------------------------------------------------------------
cat >"$TMP/host.py" <<'PY'
import threading, time, signal
def rest():
    time.sleep(1000)
threads = [threading.Thread(target=rest, daemon=True) for _ in range(20)]
for thread in threads:
    thread.start()
print("ready", flush=True)
signal.pause()
PY
host /usr/bin/python3 "$TMP/host.py"
within 20 grep -q ready "$TMP/host.out"
curl -s -o "$TMP/python.pb" --max-time 60 "$URL/debug/pprof/wall?seconds=2"
within_range "python3: 21 threads of 2 s, ms" "$(ms "$TMP/python.pb")" 41580 47000
within_range "python3: all but the main thread in time.sleep" \
    "$(ms "$TMP/python.pb" -focus='clock_nanosleep|pysleep|time_sleep')" 39600 45000
done_testing
