#!/bin/sh
# Clients that misbehave, programs that close descriptors, sockets with a mode, tokens, ends.
# timeout 120
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs curl jq /usr/bin/python3

host /usr/bin/python3 -c 'while True: pass'
check "every misbehaving client is met" \
    python3 "$ROOT/test/judge/http_hostile.py" "${URL##*:}"
grep -h '^not ok\|^#' "$TMP/.out" | sed 's/^/# /'
ignored() {
    awk '/^SigIgn/ { print $2 }' "/proc/$1/status"
}
/usr/bin/python3 -c 'import time; time.sleep(60)' &
BARE=$!
started="$started $BARE"
same() {
    [ "$(ignored "$HOST_PID")" = "$(ignored "$BARE")" ]
}
within 5 same
is "no signal is ignored that was not" "$(ignored "$HOST_PID")" "$(ignored "$BARE")"
host_stop -TERM

host "$PROGS/stuck_malloc"
check "an allocator that is stuck" within 10 grep -q stuck "$TMP/host.out"
is "stuck in malloc: still there" "$(status_of "$URL/healthz")" 200
for format in pprof html svg collapsed top; do
    is "stuck in malloc: $format" \
        "$(status_of --max-time 10 "$URL/debug/pprof/profile?seconds=1&format=$format")" 200
done
host_stop -KILL

host "$PROGS/fdchaos" 6
SERVED=0
TRIED=0
FAILED_IN_A_ROW=0
WORST=0
while target=$(target_of "$HOST_PID"); do
    TRIED=$((TRIED + 1))
    if [ "$(curl -s --max-time 2 "$target/healthz")" = ok ]; then
        SERVED=$((SERVED + 1))
        FAILED_IN_A_ROW=0
    elif ! is_gone "$HOST_PID"; then
        FAILED_IN_A_ROW=$((FAILED_IN_A_ROW + 1))
        [ "$FAILED_IN_A_ROW" -le "$WORST" ] || WORST=$FAILED_IN_A_ROW
    fi
    sleep 0.03
done
wait "$HOST_PID"
is "no byte of ours in descriptors of the host" "$?" 0
note "$(cat "$TMP/host.out"), $SERVED requests served"
within_range "requests in a row that failed" "$WORST" 0 10
within_range "requests that were served, of $TRIED" "$SERVED" $(((TRIED + 1) / 2)) 10000

# serve NAME ARGUMENT...: the server alone, its input a pipe that stays open as descriptor 8.
serve() {
    mkfifo "$TMP/$1.in"
    "$PROGS/serve" "$2" rundir="$RUNDIR" ${3+"$3"} <"$TMP/$1.in" >"$TMP/$1.out" 2>&1 &
    SERVE_PID=$!
    started="$started $SERVE_PID"
    exec 8>"$TMP/$1.in"
    within 10 test -s "$TMP/$1.out"
    WHERE=$(head -n 1 "$TMP/$1.out")
}

# ends NAME: closes its input; the last line says how long the stop took.
ends() {
    exec 8>&-
    wait "$SERVE_PID"
    STATUS=$?
    TOOK=$(sed -n 's/stopped in \(.*\) ms/\1/p' "$TMP/$1.out")
}

serve token 127.0.0.1:0 token=secret
is "without the token" "$(status_of "$WHERE"healthz)" 401
is "with a wrong one" "$(status_of -H 'Authorization: Bearer wrong' "$WHERE"healthz)" 401
is "with it" "$(status_of -H 'Authorization: Bearer secret' "$WHERE"healthz)" 200
ends token

serve socket "unix:$TMP/socket"
is "a unix socket: its name" "$WHERE" "unix:$TMP/socket"
is "a unix socket: its mode" "$(stat -c %a "$TMP/socket")" 600
is "a unix socket: any host name" \
    "$(status_of --unix-socket "$TMP/socket" http://whatever.example/healthz)" 200
is "a unix socket: the run file names it" \
    "$(jq -r '.[0].targets[0]' "$RUNDIR/$SERVE_PID.json")" "unix:$TMP/socket"
ends socket
is "a unix socket: gone afterwards" "$(ls "$TMP/socket" 2>/dev/null)" ''

serve origin 127.0.0.1:0 allow_origin=https://ui.example
is "an origin allowed by name is named" \
    "$(curl -s -o /dev/null -D - -H 'Origin: https://ui.example' "$WHERE"healthz |
        tr -d '\r' | grep -i '^Access-Control-Allow-Origin')" \
    'Access-Control-Allow-Origin: https://ui.example'
ends origin

serve next "127.0.0.1:$(free_port)"
FIRST=$WHERE
exec 9>&8
serve taken "127.0.0.1:$(printf %s "${FIRST##*:}" | tr -d /)+"
matches "a taken port: the next one" "$WHERE" '^http://127.0.0.1:[0-9]+/$'
is "a taken port: not the same" "$([ "$WHERE" != "$FIRST" ] && echo other)" other
ends taken
exec 9>&-

serve closing 127.0.0.1:0
echo close >&8
check "a program that closes everything: the listener is gone" \
    within 5 sh -c "[ -z \"\$(find /proc/$SERVE_PID/fd -lname 'socket:*')\" ]"
check "a program that closes everything: served again" \
    within 2 curl -sf "${WHERE}healthz"
is "a program that closes everything: said" \
    "$(curl -s "${WHERE}debug/profep" | jq '.counters.fd_lost.value > 0')" true
ends closing

serve ending 127.0.0.1:0 spin=1
curl -s --max-time 20 -o "$TMP/cut" "${WHERE}debug/pprof/profile?seconds=15" 8>&- &
CLIENT=$!
within 5 sh -c "[ \$(curl -s '${WHERE}debug/profep' | jq .sampler.windows) = 1 ]"
FILES=$(find "$RUNDIR" -name "$SERVE_PID*" -printf %f)
ends ending
wait "$CLIENT"
matches "the end cuts a profile, it does not fake one" "curl says $?" 'says (52|56)$'
is "the program's status is its own" "$STATUS" 0
is "there was a run file" "$FILES" "$SERVE_PID.json"
is "there is none afterwards" "$(find "$RUNDIR" -name "$SERVE_PID*")" ''
within_range "the end took milliseconds" "$TOOK" 0 50

if [ "$(id -u)" = 0 ]; then
    chmod 755 "$TMP"
    serve user 127.0.0.1:0 uid=65534
    check "a program that changed its user is served as the new one" \
        within 20 curl -sf --max-time 5 "${WHERE}healthz"
    ends user
else
    skip "a program that changed its user is served as the new one" "needs root"
fi
done_testing
