#!/bin/sh
# The wall clock profile: every thread's whole time, under the right state and function, and nobody
# who waits is woken for it.
# timeout 900
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

has_readers() {
    [ "$(own_threads)" = "$1" ]
}

# in_call NAME NUMBER: that thread of the host's sleeps in that system call.
in_call() {
    for comm in "/proc/$HOST_PID/task"/*/comm; do
        if [ "$(cat "$comm")" = "$1" ]; then
            all=$(cat "${comm%comm}syscall" 2>/dev/null)
            [ "${all%% *}" = "$2" ]
            return
        fi
    done
    return 1
}

# stand: every thread that waits is where it waits.
stand() {
    grep -q '^worked' "$TMP/host.out" || return 1
    cat "/proc/$HOST_PID/syscall" >/dev/null 2>&1 || return 0 # not to be seen
    in_call sleeper 230 && in_call reader 0 && in_call poller 7 && in_call queued 202 &&
        in_call waiter 202 && in_call waits 34
}

host "$PROGS/waits"
check "the threads are there" within 60 stand
is "idle: no thread reads" "$(own_threads)" 0

# -- shares -------------------------------------------------------------------------------------
before=$(switches sleeper reader queued waiter)
asked_ms=$(now_ms)
curl -s -D "$HEAD" -o "$TMP/wall.pb" --max-time 120 "$URL/debug/pprof/wall?seconds=10" &
asker=$!
check "while a window is open, one does" within 9 has_readers 1
wait "$asker"
took_ms=$(($(now_ms) - asked_ms + 10))
is "who waits was not woken" "$(switches sleeper reader queued waiter)" "$before"
check "after the last window, none" within 30 has_readers 0
matches "a file named wall" "$(cat "$HEAD")" 'attachment; filename="wall"'
check "it keeps every rule" python3 "$ROOT/test/judge/pprof_strict.py" "$TMP/wall.pb"
go tool pprof -raw "$TMP/wall.pb" >"$TMP/raw" 2>/dev/null
matches "period: wall clock" "$(cat "$TMP/raw")" '^PeriodType: wallclock nanoseconds$'
matches "period: 10 ms" "$(cat "$TMP/raw")" '^Period: 10000000$'
matches "types" "$(cat "$TMP/raw")" '^samples/count time/nanoseconds(\[dflt\])?$'
python3 "$ROOT/test/judge/pprof_strict.py" --json "$TMP/wall.pb" >"$TMP/wall.json"
within_range "the window, ms" "$(jq '.duration_nanos / 1e6' "$TMP/wall.json")" 9999 "$took_ms"
for name in sleeper spinner reader poller queued waiter sharer waits; do
    total=$(ms "$TMP/wall.pb" "-tagfocus=thread=^$name\$")
    within_range "$name has the window's length, in ms" "$total" 9950 "$took_ms"
done

# in_state NAME FUNCTION STATE: that thread's milliseconds in that function and state
in_state() {
    total=$(ms "$TMP/wall.pb" "-tagfocus=thread=^$1\$" "-focus=^$2\$")
    found=$(go tool pprof -tags -unit=ms "-tagfocus=thread=^$1\$" "-focus=^$2\$" "$TMP/wall.pb" \
        2>/dev/null | awk -v state="$3" '/^ *state:/ { on = 1; next } /^ *[a-z_]+: Total/ { on = 0 }
            on { value = $1; sub(/^[^:]*: /, ""); if ($0 ~ "^(" state ")$") sum += value } END { print sum + 0 }')
    echo "${found:-0} $total"
}
# part NAME FUNCTION STATE: as in_state, in % of that thread's time
part() {
    echo "$(in_state "$@") $(ms "$TMP/wall.pb" "-tagfocus=thread=^$1\$")" |
        awk '{ print $1 / ($3 ? $3 : 1) * 100 }'
}
within_range "sleeper sleeps" "$(part sleeper nap_for_ever sleep)" 99 101
within_range "spinner runs" "$(part spinner burn_for_ever running)" 97 101
within_range "reader waits for a pipe" "$(part reader sip_from_pipe 'IO wait')" 99 101
within_range "poller polls" "$(part poller poll_with_limit select)" 99 101
within_range "queued waits for a lock" "$(part queued queue_for_lock 'futex wait')" 99 101
within_range "waiter waits for a condition" "$(part waiter wait_for_news 'futex wait')" 99 101
within_range "waits' main thread pauses" "$(part waits main 'signal wait')" 99 101

# About 300 ms of every second; when it was, it says itself. Between two looks nobody knows: where it
# begins or ends to work, an interval of up to 15 ms may be the other's, and what looks were late.
cat >"$TMP/truth.jq" <<'J'
(.time_nanos / 1e6) as $from | ($from + .duration_nanos / 1e6) as $to
| ([.comments[] | capture("reached: (?<hz>[0-9.]+) beats").hz | tonumber] | first) as $hz
| ($worked | split("\n") | map(select(. != "") | split(" ") | map(tonumber / 1e6))) as $all
| ([$all[] | [([.[0], $from] | max), ([.[1], $to] | min)] | select(.[0] < .[1])]) as $seen
| "\([$seen[] | .[1] - .[0]] | add) \(15 * (2 * ($seen | length) + 2) +
    ([$took - .duration_nanos / 1e6, 0] | max) + ([(1 - $hz / 100) * .duration_nanos / 1e6, 0] | max))"
J
last_works() { # what it does when the window ends, it says later
    [ "$(grep -c '^worked' "$TMP/host.out")" -gt "$lines" ]
}
lines=$(grep -c '^worked' "$TMP/host.out")
within 60 last_works
jq -r --arg worked "$(sed -n 's/^worked //p' "$TMP/host.out")" --argjson took "$took_ms" \
    -f "$TMP/truth.jq" "$TMP/wall.json" >"$TMP/truth"
read -r worked slack <"$TMP/truth"
between() {
    within_range "$1" "$2" "$(awk "BEGIN { print $3 - $slack }")" "$(awk "BEGIN { print $3 + $slack }")"
}
whole=$(ms "$TMP/wall.pb" "-tagfocus=thread=^sharer\$")
between "sharer works as much as it says, ms" \
    "$(in_state sharer work_a_while running | cut -d ' ' -f 1)" "$worked"
between "sharer rests the rest, ms" "$(in_state sharer rest_a_while '.*' | cut -d ' ' -f 1)" \
    "$(awk "BEGIN { print $whole - $worked }")"

# -- windows and filters ---------------------------------------------------------------------------
asked_ms=$(now_ms)
curl -s -o "$TMP/slow.pb" --max-time 120 "$URL/debug/fgprof?seconds=3&hz=10" &
slow=$!
curl -s -o "$TMP/fast.pb" --max-time 120 "$URL/debug/pprof/wall?seconds=2&hz=500&thread=sharer" &
fast=$!
wait "$slow" "$fast"
took_ms=$(($(now_ms) - asked_ms + 10))
within_range "two windows: the slow one is whole, ms" \
    "$(ms "$TMP/slow.pb" -tagfocus=thread=sleeper)" 2970 "$took_ms"
within_range "two windows: the fast one, filtered, ms" "$(ms "$TMP/fast.pb")" 1980 "$took_ms"
is "filtered: one thread" \
    "$(go tool pprof -raw "$TMP/fast.pb" 2>/dev/null | grep -o 'thread_name:[^ ]*' | sort -u)" \
    'thread_name:[sharer]'
is "a bad rate" "$(status_of "$URL/debug/pprof/wall?hz=2000")" 400
matches "collapsed: a thread, its frames, its time" \
    "$(curl -s "$URL/debug/pprof/wall?seconds=1&format=collapsed")" \
    '^sleeper \([0-9]+\);.*nap_for_ever;.* [0-9]+$'
curl -s -o "$TMP/wall.svg" "$URL/debug/pprof/wall?seconds=1&format=svg"
check "a flame graph" xmllint --noout "$TMP/wall.svg"
matches "its title" "$(cat "$TMP/wall.svg")" 'waits [0-9]+: wall clock, [1-9][0-9]*\.[0-9] s at 100 Hz'

# -- ProfileEndpoints' words ------------------------------------------------------------------------
is "wall: start" "$(curl -s "$URL/profile_wall_start?delay=0.01")" "WALL_PROFILE profiling started."
is "CPU: start" "$(curl -s "$URL/profile_start?delay=0.01")" "CPU_PROFILE profiling started."
asked_ms=$(now_ms)
curl -s -o "$TMP/some.pb" "$URL/profile_wall?duration=0.5&delay=0.01"
took_ms=$(($(now_ms) - asked_ms + 10))
# ticks: what the spinner has run, in 10 ms (proc(5)).
ticks() {
    sed -n 's/.*(spinner) //p' "/proc/$HOST_PID/task"/*/stat | awk '{ print $12 + $13 }'
}
begun=$(ticks)
has_run() {
    [ "$(ticks)" -ge $((begun + 200)) ]
}
check "the spinner gets a processor" within 200 has_run
curl -s -o "$TMP/one.pb" "$URL/profile_wall_stop"
curl -s -o "$TMP/two.pb" "$URL/profile_wall_stop"
curl -s -o "$TMP/cpu.pb" "$URL/profile_stop"
check "no thread reads after the stop" within 30 has_readers 0
within_range "one question, ms" "$(ms "$TMP/some.pb" -tagfocus=thread=sleeper)" 495 "$took_ms"
within_range "from start to stop, ms" "$(ms "$TMP/one.pb" -tagfocus=thread=sleeper)" 2000 600000
check "a second stop repeats the data" cmp "$TMP/one.pb" "$TMP/two.pb"
within_range "the CPU's share of burn_for_ever" "$(share_of "$TMP/cpu.pb" burn_for_ever)" 25 100
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
within 60 grep -q ready "$TMP/host.out"
check "python3: all rest" within 60 all_sleep
asked_ms=$(now_ms)
curl -s -o "$TMP/python.pb" --max-time 120 "$URL/debug/pprof/wall?seconds=2"
took_ms=$(($(now_ms) - asked_ms + 10))
whole=$(ms "$TMP/python.pb")
within_range "python3: 21 threads of 2 s, ms" "$whole" 41580 $((took_ms * 21))
within_range "python3: all but the main thread in time.sleep" \
    "$(ms "$TMP/python.pb" -focus='clock_nanosleep|pysleep|time_sleep')" \
    "$(awk "BEGIN { print $whole / 21 * 19.8 }")" "$(awk "BEGIN { print $whole / 21 * 20.2 }")"
done_testing
