#!/bin/sh
# SIGUSR1 to a program that leaves it alone: all stacks and a profile on its standard error, in the
# layout that Julia's users know, whatever the program is doing; and nobody who deals with the signal
# notices.
# timeout 900
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs jq curl /usr/bin/python3

# run [VAR=value...] command...: like host, with standard error in a file of its own.
run() {
    : >"$TMP/out"
    : >"$TMP/err"
    (preloaded_exec "$@") >"$TMP/out" 2>"$TMP/err" </dev/null &
    HOST_PID=$!
    started="$started $HOST_PID"
    URL=$(url_of "$HOST_PID") || not_ok "$* serves"
}

# printed N: that many reports are there, and none is being written.
printed() {
    [ "$(grep -c '^Overhead ' "$TMP/err")" -ge "$1" ] && is_over
}

is_over() {
    ! grep -qx profep-peek "/proc/$HOST_PID"/task/*/comm
}

counter() {
    curl -s "$URL/debug/profep" | jq ".counters.$1.value"
}

layout() {
    /usr/bin/python3 "$ROOT/test/judge/peek_layout.py" "$TMP/err" "${1:-1.0}" >"$TMP/said.json"
}

said() {
    jq -rc "$1" "$TMP/said.json"
}

# peeks NAME: one signal, one report in the layout, and the program is still there.
peeks() {
    kill -USR1 "$HOST_PID"
    check "$1: a report is printed" within 120 printed 1
    check "$1: in the layout" layout
    is "$1: of this process" "$(said .pid)" "$HOST_PID"
    is "$1: the signal" "$(said .signal)" 10
    is "$1: the main thread is last" "$(said '.threads[-1].tid')" "$HOST_PID"
    is "$1: all threads" "$(said '.of == (.threads | length)')" true
    check "$1: it goes on" test -d "/proc/$HOST_PID"
}

says() {
    grep -qx "$1" "$TMP/out"
}

# -- threads that compute -----------------------------------------------------------------------

# Long enough for further signals to come meanwhile.
run PROFEP_PEEK_DURATION=4 "$PROGS/peek" spin 600
check "the threads spin" within 60 says ready
kill -USR1 "$HOST_PID"
within 60 grep -q "compute at" "$TMP/err" # the threads have been looked at
kill -USR1 "$HOST_PID"
kill -USR1 "$HOST_PID"
check "spin: a report is printed" within 120 printed 1
check "spin: in the layout, once: further signals meanwhile are not heard" layout 4.0
is "spin: nothing behind it" "$(said .rest)" '[]'
is "spin: path" "$(said .path)" "$(readlink -f "$PROGS/peek")"
is "spin: both run" "$(said '[.running, .of]')" '[2,2]'
is "spin: stacks, the main thread's last" \
    "$(said '[.threads[] | [.frames[] | select(. == "main" or . == "compute")] | join(" ")]')" \
    '["compute","compute main"]'
is "spin: the tree by thread" "$(said '[.groups[].tid] | sort | length')" 2
is "spin: each with its functions" "$(said '[.groups[] | .rows > 0] | all')" true
kill -USR1 "$HOST_PID"
check "spin: the next one is heard" within 120 printed 2
is "spin: the counter" "$(counter peeks)" 2
host_stop -TERM
is "spin: other signals end it" "$HOST_STATUS" 143

# -- threads that wait --------------------------------------------------------------------------

run "$PROGS/peek" block 600
check "the threads wait" within 60 says ready
check "each of them sleeps" within 60 all_sleep
peeks block
is "block: nobody runs" "$(said '[.running, .of]')" '[0,3]'
matches "block: for whom" "$(said '.threads[].doing' | tr '\n' ' ')" \
    "mutex of thread $HOST_PID \\(peek\\)"
is "block: nothing was sampled" "$(said .groups)" '[]'
check "block: poll was not cut short" within 60 says 'poll gave 0 '
host_stop -TERM

run "$PROGS/stuck_malloc"
check "an allocator is stuck" within 60 says stuck
peeks stuck
is "stuck: where" "$(said '.threads[-1].frames | index("main") != null')" true
host_stop -KILL

# -- settings -----------------------------------------------------------------------------------

run PROFEP_PEEK_SIGNAL=SIGUSR2 PROFEP_PEEK_DURATION=0.3 JULIA_PROFILE_PEEK_HEAP_SNAPSHOT=true \
    "$PROGS/peek" spin 600
within 60 says ready
kill -USR2 "$HOST_PID"
check "settings: a report is printed" within 120 printed 1
check "settings: another duration" layout 0.3
is "settings: another signal" "$(said .signal)" 12
is "settings: a snapshot is not available" "$(said .rest)" \
    '["Heap snapshots are not available yet: none was saved."]'
host_stop -USR1
is "settings: SIGUSR1 is what it was" "$HOST_STATUS" 138
is "settings: and printed nothing" "$(grep -c '^cmd: ' "$TMP/err")" 1

run PROFEP_PEEK_SIGNAL=none "$PROGS/peek" spin 600
within 60 says ready
host_stop -USR1
is "none: the signal ends the program" "$HOST_STATUS" 138
is "none: nothing is printed" "$(cat "$TMP/err")" ""

# -- who deals with the signal, or is young -----------------------------------------------------

run "$PROGS/peek" own 600
within 60 says ready
kill -USR1 "$HOST_PID"
check "own handler: it runs" within 60 says 'own handler'
run_out=$(cat "$TMP/err")
host_stop -TERM
is "own handler: nothing is printed" "$run_out" ""

run "$PROGS/peek" ignore 600
within 60 says ready
kill -USR1 "$HOST_PID"
matches "ignored: still ignored" "$(sed -n 's/^SigIgn:\t//p' "/proc/$HOST_PID/status")" '[2367abef]..$'
host_stop -TERM
is "ignored: nothing is printed" "$(cat "$TMP/err")" ""

run "$PROGS/peek" wait 600
within 60 says ready
kill -USR1 "$HOST_PID"
check "sigwait: it gets the signal" within 60 says 'waited for 10'
host_stop -TERM
is "sigwait: nothing is printed" "$(cat "$TMP/err")" ""

run "$PROGS/peek" masked 600
within 60 says ready
kill -USR1 "$HOST_PID"
matches "masked: it stays pending" "$(sed -n 's/^ShdPnd:\t//p' "/proc/$HOST_PID/status")" '[2367abef]..$'
host_stop -TERM
is "masked: nothing is printed" "$(cat "$TMP/err")" ""

("$PROGS/peek" ask 2) >"$TMP/bare"
run "$PROGS/peek" ask 600
within 60 says ready
is "a program that asks sees the default" "$(cat "$TMP/out")" "$(cat "$TMP/bare")"
peeks "the default again"
host_stop -TERM

(preloaded_exec "$PROGS/peek" raise 600) 2>"$TMP/err"
is "from itself: it ends the program" $? 138
is "from itself: nothing is printed" "$(cat "$TMP/err")" ""
(preloaded_exec "$PROGS/peek" child 600) >"$TMP/out" 2>"$TMP/err"
is "from its parent: it ends the child" "$(head -n 1 "$TMP/out")" "the child ended by 10"
is "from its parent: nothing is printed" "$(cat "$TMP/err")" ""

(preloaded_exec PROFEP_MARK=1 "$PROGS/peek" spin) >"$TMP/out" 2>"$TMP/err" &
HOST_PID=$!
started="$started $HOST_PID"
within 60 says ready
host_stop -USR1
is "a descendant younger than a second: ends" "$HOST_STATUS" 138
is "a descendant younger than a second: nothing is printed" "$(cat "$TMP/err")" ""

# -- a child of a script ------------------------------------------------------------------------

run /usr/bin/python3 -c '
import subprocess, sys
child = subprocess.Popen(["/usr/bin/python3", "-c", """
import signal, time
assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
print("ready", flush=True)
while True: time.sleep(0.01)
"""])
print("child", child.pid, flush=True)
child.wait()'
within 60 says ready
within 60 says 'child [0-9]*'
PARENT_PID=$HOST_PID
HOST_PID=$(sed -n 's/^child //p' "$TMP/out")
URL=$(url_of "$HOST_PID") || not_ok "the child serves"
peeks "python3's child"
kill -TERM "$HOST_PID"
HOST_PID=$PARENT_PID
host_stop -TERM

# -- standard error that takes nothing ----------------------------------------------------------

mkfifo "$TMP/pipe"
exec 4<>"$TMP/pipe"
head -c 65536 /dev/zero | tr '\0' 'x' >&4
: >"$TMP/out"
(preloaded_exec "$PROGS/peek" spin 600) >"$TMP/out" 2>"$TMP/pipe" </dev/null &
HOST_PID=$!
started="$started $HOST_PID"
URL=$(url_of "$HOST_PID") || not_ok "the host serves"
within 60 says ready
kill -USR1 "$HOST_PID"
gave_up() {
    [ "$(counter peek_cut)" = 1 ]
}
check "a full pipe: it is given up" within 120 gave_up
cat <&4 >"$TMP/err" &
cat_pid=$!
started="$started $cat_pid"
within 60 is_over
kill -USR1 "$HOST_PID"
check "a full pipe: when it is emptied the next report is whole" within 120 printed 1
host_stop -TERM
kill "$cat_pid"
done_testing
